"""Checkpoints in the hands of tools that know nothing of Winnow: plain transformers and peft, in their own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import tiny_models
import torch
from tiny_checkpoint import LABELS, TEXTS, probabilities, publish
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch.testing import assert_close
from transformers import Qwen2Tokenizer

from winnow_classifier import checkpoint

# What any user of the ecosystem runs: no import of ours.
OUTSIDER = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
answers = {}
for folder, base in json.load(sys.stdin)["checkpoints"]:
    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(base or folder, config=config)
    model = PeftModel.from_pretrained(model, folder) if base else model
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = json.loads(sys.argv[1])
    inputs = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=16)
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        logits = model.eval()(**inputs).logits
    multi = config.problem_type == "multi_label_classification"
    found = logits.sigmoid() if multi else logits.softmax(-1)
    answers[folder] = {"labels": [config.id2label[i] for i in range(config.num_labels)], "found": found.tolist()}
assert not any(name.startswith("winnow") for name in sys.modules)
print(json.dumps(answers))
"""


def with_a_tokenizer_of_qwens_kind(base: Path) -> None:
    """Which transformers takes any tokenizer of such a model for, whatever its files say."""
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<|endoftext|>", "<|fim_pad|>"]
    size = len(tiny_models.WORDS) + 4
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=["\u0120"], show_progress=False
    )
    learned.train_from_iterator(tiny_models.WORDS, trainer)
    model = json.loads(learned.to_str())["model"]
    for file in base.glob("tokenizer*"):
        file.unlink()
    merges: Any = [tuple(pair) for pair in model["merges"]]
    Qwen2Tokenizer(vocab=model["vocab"], merges=merges).save_pretrained(base)


def test_checkpoints_load_in_plain_transformers_and_peft_in_a_fresh_process(tmp_path: Path) -> None:
    expected: dict[str, tuple[list[str], torch.Tensor]] = {}
    known: list[list[str | None]] = []
    for model_type in ("bert", "llama", "gemma3", "qwen3_5"):
        base = tiny_models.base_model(tmp_path / model_type, model_type)
        if model_type == "qwen3_5":
            with_a_tokenizer_of_qwens_kind(base)
        for method in ("Full", "HeadOnly", "LoRA"):
            few = model_type in ("gemma3", "qwen3_5")
            for schema in [LABELS[3]] if few else LABELS.values():
                folder = tmp_path / f"{model_type}-{method}-{len(schema.labels)}"
                _, model = publish(folder, base, schema, method)
                encoder = checkpoint.load(folder).encoder
                expected[str(folder)] = (list(schema.labels), probabilities(model, encoder, schema))
                known.append([str(folder), str(base) if method == "LoRA" else None])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    answer = subprocess.run(
        [sys.executable, "-c", OUTSIDER, json.dumps(TEXTS)],
        input=json.dumps({"checkpoints": known}),
        capture_output=True,
        text=True,
        check=True,
        env={**environment, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    found = json.loads(answer.stdout.splitlines()[-1])
    assert found.keys() == expected.keys()
    for name, (labels, values) in expected.items():
        assert found[name]["labels"] == labels
        assert_close(torch.tensor(found[name]["found"]), values, rtol=0, atol=1e-4)
