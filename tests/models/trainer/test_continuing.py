"""Going on from a checkpoint: labels by name, adapters as they were, and what is refused in words."""

import json
import shutil

import numpy as np
import pytest
import tiny_models
import torch
from rows_in_memory import store_dataset
from tiny_training import Trainer
from torch.testing import assert_close

from winnow_classifier import checkpoint
from winnow_classifier.errors import CheckpointError, ConfigError
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.packing import pack

TEXTS, _ = tiny_models.texts(24, seed=5)
ADAPTER = {"loraRank": 4, "loraAlpha": 8}
NOTHING_LEARNED = {"learningRate": 1e-12, "numTrainEpochs": 1}


def rows(storage, *labels):
    targets = np.eye(len(labels), dtype=np.int8)[np.arange(len(TEXTS)) % len(labels)]
    return str(store_dataset(storage, LabelSchema(TaskDetail.MULTICLASS, labels), TEXTS, targets).path)


def job(trainer, name, method, labels, base=None, **parameters):
    made = trainer.job(method, name=name, **parameters)
    update = {"training_dataset": rows(trainer.storage, *labels), "test_dataset": None}
    spec = made.spec.model_dump(by_alias=True, exclude_none=True) | {"testDataset": None}
    spec |= {"trainingDataset": update["training_dataset"]} | ({"baseModel": base} if base else {})
    return made.model_validate({"kind": "TrainingJob", "metadata": {"name": name}, "spec": spec})


def by_label(folder):
    """Logits of three texts, a mapping from label to (3,)."""
    loaded = checkpoint.load(folder)
    with torch.no_grad():
        ids = [encoded.input_ids for encoded in loaded.encoder.encode(TEXTS[:3])]
        logits = loaded.model(pack(ids, loaded.model.position_start))
    return dict(zip(loaded.schema.labels, logits.T, strict=True))


def parent_of(name="v0"):
    return {"checkpoint": {"trainingJob": name}}


@pytest.mark.parametrize(
    ("model_type", "before", "after"),
    [
        ("bert", "LoRA", "LoRA"),
        ("llama", "LoRA", "LoRA"),
        ("deberta-v2", "LoRA", "Full"),
        ("llama", "Full", "HeadOnly"),
        ("roberta", "Full", "LoRA"),
    ],
)
def test_a_label_keeps_its_row_of_the_head_wherever_it_stands_now(tmp_path, model_type, before, after):
    trainer = Trainer(tmp_path, model_type)
    trainer.run(job(trainer, "v0", before, ("a", "b", "c"), **(ADAPTER if before == "LoRA" else {})))
    told = trainer.run(job(trainer, "v1", after, ("c", "new", "a"), parent_of(), **NOTHING_LEARNED))
    old = by_label(trainer.checkpoint(2, "v0"))
    new = by_label(trainer.checkpoint(1, "v1"))
    assert list(new) == ["c", "new", "a"]
    for label in ("a", "c"):
        assert_close(new[label], old[label], rtol=1e-3, atol=1e-4)
    assert not any(torch.allclose(new["new"], logits, atol=1e-3) for logits in old.values())
    codes = {warning["code"]: warning["message"] for warning in told["warnings"]}
    assert codes["NewLabels"].endswith("start: new") and codes["LabelsDropped"].endswith("rows: b")


def test_the_manifest_names_the_checkpoint_it_went_on_from(tmp_path):
    trainer = Trainer(tmp_path)
    trainer.run(job(trainer, "v0", "LoRA", ("a", "b"), **ADAPTER))
    trainer.run(job(trainer, "v1", "LoRA", ("a", "b"), parent_of(), **NOTHING_LEARNED))
    parent = checkpoint.inspect(trainer.checkpoint(2, "v0"))
    child = checkpoint.inspect(trainer.checkpoint(1, "v1")).manifest
    assert child.continued_from.model_dump() == {"training_job": "v0", "checkpoint": "epoch-2", "digest": parent.digest}
    # An adapter that goes on stands on the same base as before, and has the same shape.
    assert child.base_model == parent.manifest.base_model
    assert child.parameters["loraRank"] == 4


def test_an_adapter_on_a_full_checkpoint_stands_on_that(tmp_path):
    trainer = Trainer(tmp_path)
    trainer.run(job(trainer, "v0", "Full", ("a", "b")))
    trainer.run(job(trainer, "v1", "LoRA", ("a", "b"), parent_of(), **NOTHING_LEARNED))
    child = checkpoint.inspect(trainer.checkpoint(1, "v1")).manifest
    assert child.base_model.reference == str(trainer.checkpoint(2, "v0"))
    trainer.run(job(trainer, "v2", "LoRA", ("b", "a"), parent_of("v1"), **NOTHING_LEARNED))
    assert_close(
        by_label(trainer.checkpoint(1, "v2"))["b"], by_label(trainer.checkpoint(1, "v1"))["b"], rtol=1e-3, atol=1e-4
    )


def test_a_path_to_a_checkpoint_goes_on_from_it_too(tmp_path):
    trainer = Trainer(tmp_path)
    trainer.run(job(trainer, "v0", "Full", ("a", "b")))
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(trainer.checkpoint(1, "v0"), elsewhere)
    trainer.run(job(trainer, "v1", "Full", ("b", "a"), str(elsewhere), **NOTHING_LEARNED))
    old, new = by_label(elsewhere), by_label(trainer.checkpoint(1, "v1"))
    assert_close(new["a"], old["a"], rtol=1e-3, atol=1e-4)


def test_what_cannot_go_on_is_refused_in_words(tmp_path):
    trainer = Trainer(tmp_path)
    trainer.run(job(trainer, "v0", "LoRA", ("a", "b"), **ADAPTER))

    def refused(error, words, base=None, **parameters):
        with pytest.raises(error, match=words):
            trainer.run(job(trainer, "v1", "LoRA", ("a", "b"), base or parent_of(), **parameters))

    refused(ConfigError, "loraRank is 16, and the adapter of checkpoint epoch-2 of v0 has 4", loraRank=16)
    refused(ConfigError, "headInit is Ridge, which would overwrite the head", headInit="Ridge")
    refused(CheckpointError, "TrainingJob other has not ended", parent_of("other"))
    refused(CheckpointError, "has no checkpoint epoch-9", {"checkpoint": {"trainingJob": "v0", "name": "epoch-9"}})
    wrong = {"checkpoint": {"trainingJob": "v0", "name": "epoch-1", "digest": "sha256:0"}}
    refused(CheckpointError, "was changed: its digest is", wrong)


def test_a_changed_file_of_the_checkpoint_is_never_learned_from(tmp_path):
    trainer = Trainer(tmp_path)
    trainer.run(job(trainer, "v0", "Full", ("a", "b")))
    weights = trainer.checkpoint(2, "v0") / "config.json"
    weights.write_text(json.dumps(json.loads(weights.read_text()) | {"id2label": {"0": "b", "1": "a"}}))
    with pytest.raises(CheckpointError, match=r"config\.json was changed"):
        trainer.run(job(trainer, "v1", "Full", ("a", "b"), {"checkpoint": {"trainingJob": "v0", "name": "epoch-2"}}))
