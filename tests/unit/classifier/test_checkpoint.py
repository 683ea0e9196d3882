"""Checkpoints: published whole, verified, and read by tools that know nothing of Winnow."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest
import tiny_models
import torch
from torch.testing import assert_close

from winnow_classifier import base_model, checkpoint
from winnow_classifier.checkpoint import BaseModelEntry, DatasetEntry, JobEntry, Manifest
from winnow_classifier.errors import CheckpointError
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.model import Classifier, Lora, add_lora, classifier_config, load_network
from winnow_classifier.packing import pack
from winnow_classifier.tokens import load_tokenizer

TEXTS = ["win free money", "meeting", "see you at the project review for lunch", "claim a prize now " * 20]
LABELS = {
    2: LabelSchema(TaskDetail.BINARY, ("ham", "spam")),
    3: LabelSchema(TaskDetail.MULTILABEL, ("z", "y", "x")),
    77: LabelSchema(TaskDetail.MULTICLASS, tuple(f"label {number}" for number in range(77))),
}


def publish(folder, base, schema=LABELS[2], method="Full"):
    """A checkpoint of a model as it might stand after some training, and that model."""
    tokenizer = load_tokenizer(base)
    torch.manual_seed(len(schema.labels))
    model = Classifier(load_network(base, classifier_config(base, schema, tokenizer.pad_token_id)))
    if method == "LoRA":
        model = add_lora(model, Lora(4, 8, 0.1, ["all-linear"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or any(f".{head}" in name for head in ("classifier", "score", "pooler")):
                parameter.normal_(std=0.3)
    manifest = Manifest(
        name="epoch-2",
        epoch=2,
        task_detail=schema.task_detail,
        labels=schema.labels,
        problem_type=schema.problem_type,
        method=method,
        architecture=type(model.base).__name__,
        pooling=model.architecture.pooling,
        prompt_template="{text}",
        max_seq_length=16,
        base_model=BaseModelEntry(reference=str(base), digest=base_model.digest(base)),
        training_dataset=DatasetEntry(digest="sha256:0", rows=4),
        metrics={"f1": 0.75, "roc_auc": None},
        training_job=JobEntry(name="spam-v1", uid=None, output_model_name="spam"),
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
    )
    return checkpoint.publish(folder, manifest, model.eval(), tokenizer, {"metrics.json": b"{}\n"}), model


def probabilities(model, encoder, schema):
    with torch.no_grad():
        ids = [encoded.input_ids for encoded in encoder.encode(TEXTS)]
        return schema.probabilities(model(pack(ids, model.position_start)))


@pytest.fixture
def base(tmp_path):
    return tiny_models.base_model(tmp_path / "base")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "spam-v1" / "checkpoints" / "epoch-2"


@pytest.mark.parametrize("model_type", ["bert", "roberta", "llama"])
@pytest.mark.parametrize("method", ["Full", "LoRA"])
def test_a_loaded_checkpoint_answers_as_the_trained_model(tmp_path, folder, model_type, method):
    published, model = publish(folder, tiny_models.base_model(tmp_path / "base", model_type), LABELS[77], method)
    loaded = checkpoint.load(folder, digest=published.digest)
    assert (loaded.schema, loaded.digest) == (LABELS[77], published.digest)
    with torch.no_grad():
        batch = pack([encoded.input_ids for encoded in loaded.encoder.encode(TEXTS)], model.position_start)
        # The adapter is merged into the weights: the same sums in another order.
        assert_close(loaded.model(batch), model(batch), rtol=1e-5, atol=1e-5)


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


def test_checkpoints_load_in_plain_transformers_and_peft_in_a_fresh_process(tmp_path):
    expected, known = {}, []
    for model_type in ("bert", "llama"):
        base = tiny_models.base_model(tmp_path / model_type, model_type)
        for method in ("Full", "HeadOnly", "LoRA"):
            for schema in [LABELS[2]] if method == "HeadOnly" else LABELS.values():
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
    for folder, (labels, values) in expected.items():
        assert found[folder]["labels"] == labels
        assert_close(torch.tensor(found[folder]["found"]), values, rtol=0, atol=1e-4)


def test_the_manifest_names_every_file_and_is_named_by_its_own_digest(base, folder):
    published, _ = publish(folder, base)
    content = json.loads((folder / "checkpoint.json").read_bytes())
    assert set(content["files"]) | {"checkpoint.json"} == {path.name for path in folder.iterdir()}
    assert (content["formatVersion"], content["labels"], content["problemType"]) == (
        1,
        ["ham", "spam"],
        "single_label_classification",
    )
    assert published.size_bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert checkpoint.inspect(folder, published.digest) == published


def test_vllm_finds_what_it_needs_in_the_config(base, folder):
    publish(folder, base, LABELS[3], "LoRA")
    config = json.loads((folder / "config.json").read_bytes())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "z", "1": "y", "2": "x"}
    assert (config["problem_type"], config["pad_token_id"]) == ("multi_label_classification", 0)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "metrics.json"])
def test_a_changed_file_is_named(base, folder, name):
    publish(folder, base)
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(CheckpointError, match=f"{name} was changed"):
        checkpoint.load(folder)


def test_a_lost_file_is_named(base, folder):
    publish(folder, base)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"lost tokenizer\.json"):
        checkpoint.verify(folder)


def test_another_manifest_than_the_promised_one_is_refused(base, folder):
    published, _ = publish(folder, base)
    path = folder / "checkpoint.json"
    path.write_text(path.read_text().replace('"maxSeqLength": 16', '"maxSeqLength": 8'))
    with pytest.raises(CheckpointError, match="was changed"):
        checkpoint.verify(folder, published.digest)


def test_a_folder_without_a_manifest_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"checkpoint\.json is missing"):
        checkpoint.verify(tmp_path)


def test_a_manifest_of_another_format_is_refused(base, folder):
    publish(folder, base)
    path = folder / "checkpoint.json"
    path.write_text(path.read_text().replace('"formatVersion": 1', '"formatVersion": 2'))
    with pytest.raises(CheckpointError, match="not a checkpoint of format 1"):
        checkpoint.verify(folder)


def test_an_adapter_is_not_put_on_another_base(tmp_path, base, folder):
    publish(folder, base, method="LoRA")
    other = tiny_models.base_model(tmp_path / "other", intermediate_size=40)
    with pytest.raises(CheckpointError, match="not the one this adapter was trained on"):
        checkpoint.load(folder, base_model=str(other))


def test_an_adapter_follows_its_base_to_another_place(tmp_path, base, folder):
    publish(folder, base, method="LoRA")
    moved = base.rename(tmp_path / "moved")
    assert checkpoint.load(folder, base_model=str(moved)).manifest.method == "LoRA"


@pytest.mark.parametrize("given", [None, "hf://owner/name@main", "hf://owner/name"])
def test_an_adapter_is_served_on_the_commit_of_its_training_wherever_the_branch_is_now(tmp_path, given):
    commit = "0123456789abcdef0123456789abcdef01234567"
    base = tiny_models.base_model(tmp_path / "storage" / "models" / "owner--name" / commit)
    (base / ".complete").write_text(commit)
    publish(tmp_path / "epoch-2", base, method="LoRA")
    path = tmp_path / "epoch-2" / checkpoint.MANIFEST
    manifest = json.loads(path.read_bytes())
    manifest["baseModel"]["reference"] = f"hf://owner/name@{commit}"
    path.write_text(json.dumps(manifest))
    loaded = checkpoint.load(tmp_path / "epoch-2", base_model=given, storage=tmp_path / "storage")
    assert loaded.manifest.method == "LoRA"


def test_a_half_written_checkpoint_is_never_met(base, folder, monkeypatch):
    def disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "sync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        publish(folder, base)
    assert not folder.exists()
    monkeypatch.undo()
    publish(folder, base)
    assert [path.name for path in folder.parent.iterdir()] == ["epoch-2"]
