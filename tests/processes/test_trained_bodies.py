"""Bodies and poolings through whole trainings: what is said of them, and that what is served is what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from tiny_checkpoint import LABELS, publish
from tiny_training import Trainer
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from winnow_classifier import checkpoint
from winnow_classifier.packing import pack
from winnow_trainer import prepare
from winnow_trainer.job import TrainingJob

TEXTS = [[2, 5, 3], [2, *range(4, 30), 3], [2, 9, 8, 3], [2, 3], [2, *range(6, 20), 3]]


@pytest.mark.parametrize("method", ["LoRA", "HeadOnly"])
def test_deberta_trains_says_that_it_is_padded_and_is_served_as_it_was_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    trainer = Trainer(tmp_path, "deberta-v2")
    told = trainer.run(trainer.job(method))
    (warning,) = [warning for warning in told["warnings"] if warning["code"] == "PaddedBatches"]
    assert "deberta-v2 run in float32 in padded batches" in warning["message"]
    assert warning["message"] in caplog.messages
    assert checkpoint.inspect(trainer.checkpoint(2)).manifest.batches == "Padded"
    expect_served_as_measured(trainer.checkpoint(2))


@pytest.mark.parametrize(
    ("model_type", "method"),
    [
        pytest.param("gemma3", "Full", id="reads pictures too"),
        pytest.param("gemma3", "LoRA", id="reads pictures too, adapted"),
        pytest.param("qwen3_5", "Full", id="reads pictures too, says nothing of padding"),
        pytest.param("qwen3_5", "LoRA", id="reads pictures too, says nothing of padding, adapted"),
        pytest.param("qwen3_next", "LoRA", id="has experts"),
    ],
)
def test_a_body_of_many_parts_trains_and_is_served_as_it_was_measured(
    tmp_path: Path, model_type: str, method: str
) -> None:
    trainer = Trainer(tmp_path, model_type)
    trainer.run(trainer.job(method))
    expect_served_as_measured(trainer.checkpoint(2))


def test_texts_around_the_length_where_longrope_changes_train_and_are_served_as_each_is_read_alone(
    tmp_path: Path,
) -> None:
    tiny_models.base_model(tmp_path / "base", "phi3", **tiny_models.LONGROPE)
    trainer = Trainer(tmp_path, "phi3")
    trainer.run(trainer.job("Full"))
    folder = trainer.checkpoint(2)
    expect_served_as_measured(folder)
    loaded = checkpoint.load(folder)
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        alone = torch.cat([plain(torch.tensor([text])).logits for text in TEXTS])
        assert_close(loaded.model(pack(TEXTS)), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", sorted(tiny_models.CONFIGS))
@pytest.mark.parametrize("method", ["Full", "LoRA"])
def test_a_loaded_checkpoint_of_each_type_answers_as_the_trained_model(
    tmp_path: Path, model_type: str, method: str
) -> None:
    base = tiny_models.base_model(tmp_path / "base", model_type)
    _, model = publish(tmp_path / "epoch-2", base, LABELS[3], method)
    loaded = checkpoint.load(tmp_path / "epoch-2")
    batch = pack(TEXTS, model.position_start)
    with torch.no_grad():
        # The adapter is merged into the weights: the same sums in another order.
        assert_close(loaded.model(batch), model(batch), rtol=1e-4, atol=1e-4)


def expect_served_as_measured(folder: Path, atol: float = 1e-5) -> None:
    loaded = checkpoint.load(folder)
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    ids = [encoded.input_ids for encoded in loaded.encoder.encode([line["input"] for line in lines])]
    with torch.no_grad():
        logits = loaded.model(pack(ids, loaded.model.position_start))
    served = torch.as_tensor(loaded.schema.probabilities(logits), dtype=torch.float64)
    measured = torch.tensor([[line["probabilities"][label] for label in loaded.schema.labels] for line in lines])
    assert_close(served, measured.double(), rtol=0, atol=atol)


def test_a_pooling_of_our_own_is_said_and_served(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    told = trainer.run(trainer.job("Full", pooling="Mean"))
    manifest = checkpoint.inspect(trainer.checkpoint(2)).manifest
    assert (manifest.pooling, manifest.pools_as_transformers) == ("mean", False)
    assert "PoolingOfWinnow" in [warning["code"] for warning in told["warnings"]]
    expect_served_as_measured(trainer.checkpoint(2))


def test_modernbert_pooled_by_the_mean_loads_in_plain_transformers(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path, "modernbert")
    told = trainer.run(trainer.job("Full", pooling="Mean"))
    folder = trainer.checkpoint(2)
    assert "PoolingOfWinnow" not in [warning["code"] for warning in told["warnings"]]
    loaded = checkpoint.load(folder)
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        alone = torch.cat([plain(torch.tensor([text])).logits for text in TEXTS])
        assert_close(loaded.model(pack(TEXTS)), alone, rtol=1e-4, atol=1e-5)


def decoder_that_pads_with(pad: str, tmp_path: Path, spare: str = "[PAD]") -> Trainer:
    """Its tokenizer ends no text in [SEP], which is its last token by name, and its vocabulary has the token `spare`."""
    trainer = Trainer(tmp_path, "llama")
    tokenizer = tiny_models.tokenizer("llama")
    tokenizer.eos_token, tokenizer.pad_token = "[SEP]", pad
    tokenizer.save_pretrained(trainer.base)
    file = trainer.base / "tokenizer.json"
    file.write_text(file.read_text().replace("[PAD]", spare))
    return trainer


def with_template(template: str, job: TrainingJob, **spec: Any) -> TrainingJob:
    return job.model_copy(update={"spec": job.spec.model_copy(update={"prompt_template": template, **spec})})


def expect_the_same_of_plain_transformers(folder: Path, texts: list[str]) -> None:
    """As its users do it: all texts padded into one batch."""
    loaded = checkpoint.load(folder)
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rendered = [loaded.encoder.render(text) for text in texts]
    inputs = AutoTokenizer.from_pretrained(folder)(rendered, return_tensors="pt", padding=True)
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        ours = loaded.model(pack([encoded.input_ids for encoded in loaded.encoder.encode(texts)]))
        assert_close(ours.softmax(-1), plain(**inputs).logits.softmax(-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("pad", "template", "text"),
    [
        pytest.param("[SEP]", "{text} [SEP]", "win free money", id="the template"),
        pytest.param("[SEP]", "{text}", "win free money [SEP]", id="a text itself"),
        pytest.param("[UNK]", "{text}", "win free \U0001f4b0", id="a character that the tokenizer does not know"),
    ],
)
def test_what_ends_in_the_token_that_the_tokenizer_pads_with_loads_in_plain_transformers(
    tmp_path: Path, pad: str, template: str, text: str
) -> None:
    trainer = decoder_that_pads_with(pad, tmp_path)
    told = trainer.run(with_template(template, trainer.job("Full")))
    assert "PoolingOfWinnow" not in [warning["code"] for warning in told["warnings"]]
    expect_the_same_of_plain_transformers(trainer.checkpoint(2), [text, "see you at the meeting"])


def test_a_template_that_ends_in_the_only_padding_token_is_said_and_served_as_measured(tmp_path: Path) -> None:
    trainer = decoder_that_pads_with("[SEP]", tmp_path, spare="[OTHER]")
    told = trainer.run(with_template("{text} [SEP]", trainer.job("Full")))
    (message,) = [warning["message"] for warning in told["warnings"] if warning["code"] == "PoolingOfWinnow"]
    assert message.startswith("promptTemplate ends in [SEP], the base model's padding token")
    assert not checkpoint.inspect(trainer.checkpoint(2)).manifest.pools_as_transformers
    expect_served_as_measured(trainer.checkpoint(2))


def test_going_on_from_an_older_checkpoint_that_pads_with_its_templates_end_names_another_padding_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = decoder_that_pads_with("[SEP]", tmp_path)
    with monkeypatch.context() as older:
        older.setattr(prepare, "part_padding", lambda encoder: True)
        trainer.run(with_template("{text} [SEP]", trainer.job("Full")))
    expect_served_as_measured(trainer.checkpoint(2))
    trainer.run(with_template("{text} [SEP]", trainer.job("Full", "v2"), base_model=str(trainer.checkpoint(2))))
    expect_the_same_of_plain_transformers(trainer.checkpoint(2, "v2"), ["win free money", "see you at the meeting"])


def test_a_tokenizer_that_plain_transformers_takes_for_another_is_said_and_served_as_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer(tmp_path, "qwen2")  # with a tokenizer of another kind than Qwen's, as DeepSeek's distilled ones
    told = trainer.run(trainer.job("Full"))
    (message,) = [warning["message"] for warning in told["warnings"] if warning["code"] == "TokenizerOfWinnow"]
    assert "plain transformers takes Qwen2Tokenizer for a model of type qwen2" in message
    assert message in caplog.messages
    expect_served_as_measured(trainer.checkpoint(2))


def test_a_published_classifier_of_as_many_labels_does_not_lend_its_rows(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    trainer.run(trainer.job("Full"))
    published = tmp_path / "published"  # such as someone's on the Hub: its rows stand for labels of its own
    model = AutoModelForSequenceClassification.from_pretrained(trainer.checkpoint(2))
    model.save_pretrained(published)
    tiny_models.tokenizer("bert").save_pretrained(published)
    job = trainer.job("HeadOnly", name="v2", learningRate=1e-12, numTrainEpochs=1)
    trainer.run(job.model_copy(update={"spec": job.spec.model_copy(update={"base_model": str(published)})}))
    ours = AutoModelForSequenceClassification.from_pretrained(trainer.checkpoint(1, "v2"))
    assert not torch.allclose(ours.classifier.weight, model.classifier.weight, atol=1e-3)
    assert_close(ours.bert.pooler.dense.weight, model.bert.pooler.dense.weight)
