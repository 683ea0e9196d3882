"""Bodies and poolings through whole trainings: what is said of them, and that what is served is what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_models
import torch
from tiny_checkpoint import LABELS, publish
from tiny_training import Trainer
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification

from winnow_classifier import checkpoint
from winnow_classifier.packing import pack

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
