"""A whole run: what it publishes, that it goes on exactly where it stopped, and how it fails."""

import errno
import json
import logging
import threading
import time
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import tiny_models
import torch
from rows_in_memory import store_dataset
from safetensors.torch import load_file, save_file
from tiny_training import BINARY, Trainer, dataset, never, stop_after, weights
from torch.testing import assert_close
from transformers import PreTrainedTokenizerFast

from winnow_classifier import checkpoint
from winnow_classifier.dataset import load_dataset
from winnow_classifier.errors import (
    BaseModelError,
    ConfigError,
    DataError,
    DivergedError,
    OutOfMemoryError_,
    StorageAway,
    StorageFull,
)
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.metrics import evaluate
from winnow_classifier.mirror import BucketMirror, Mirror
from winnow_classifier.packing import pack
from winnow_trainer import failures, resume
from winnow_trainer.job import TrainingJob
from winnow_trainer.learner import Learner
from winnow_trainer.prepare import prepare
from winnow_trainer.resume import Position
from winnow_trainer.resume_writer import ResumeWriter
from winnow_trainer.room import Patience
from winnow_trainer.steps import steps_of_epoch
from winnow_trainer.train import train


def test_each_epoch_is_evaluated_and_published(trainer):
    told = trainer.run(trainer.job())
    assert (told["kind"], told["state"], told["primaryMetric"], told["higherIsBetter"]) == (
        "train",
        "Complete",
        "f1",
        True,
    )
    assert [(epoch["epoch"], epoch["checkpoint"]) for epoch in told["epochs"]] == [(1, "epoch-1"), (2, "epoch-2")]
    for entry in told["checkpoints"]:
        found = checkpoint.inspect(trainer.checkpoint(entry["epoch"]), entry["digest"])
        assert found.size_bytes == entry["sizeBytes"]
    assert told["epochs"][1]["trainLoss"] < told["epochs"][0]["trainLoss"]
    shown = trainer.progress.snapshot()
    assert (shown["state"], shown["percent"], shown["totalSteps"], shown["totalEpochs"]) == ("Complete", 100.0, 12, 2)
    assert shown["epochs"] == told["epochs"]


@pytest.mark.parametrize("method", ["HeadOnly", "Full"])
def test_what_takes_its_time_beside_the_steps_is_said_while_it_lasts(trainer, method):
    said = []
    trainer.progress.listen(lambda changed, state: said.append((state.get("message"), "step" in changed)))
    told = trainer.run(trainer.job(method, headInit="Ridge"))
    words = list(dict.fromkeys(words.partition(":")[0] for words, _ in said if words and "is written" not in words))
    features = "features of the training rows are computed"
    tests = "features of the test rows are computed" if method == "HeadOnly" else "the test rows are answered"
    assert words[:2] == [features, tests]
    assert next(words for words, _ in said if words) == f"{features}: 0 of 22"
    written = [f"metrics of epoch {epoch} are computed, and its checkpoint is written" for epoch in (1, 2)]
    assert [words for words, _ in said if words and "is written" in words] == written
    assert all(words is None for words, steps in said if steps)
    assert told["message"] not in words


@pytest.mark.parametrize(
    ("model_type", "method", "given"),
    [
        ("bert", "Full", {}),
        pytest.param("gpt2", "LoRA", {}, id="an adapter beside transposed weights"),
        pytest.param("bert", "Full", {"emaDecay": 0.9}, id="averaged weights"),
    ],
)
def test_predictions_and_metrics_are_those_of_the_published_model(tmp_path, model_type, method, given):
    trainer = Trainer(tmp_path, model_type)
    trainer.run(trainer.job(method, **given))
    loaded = checkpoint.load(trainer.checkpoint(2))
    lines = [json.loads(line) for line in (trainer.checkpoint(2) / "predictions.jsonl").read_text().splitlines()]
    texts, spam = tiny_models.texts(8, seed=2)
    assert [line["input"] for line in lines] == texts
    assert [line["expected"] for line in lines] == [{"ham": 1 - is_spam, "spam": is_spam} for is_spam in spam]
    with torch.no_grad():
        logits = loaded.model(pack([encoded.input_ids for encoded in loaded.encoder.encode(texts)]))
    probabilities = loaded.schema.probabilities(logits)
    found = torch.tensor([[line["probabilities"][label] for label in BINARY.labels] for line in lines])
    assert_close(found, probabilities, rtol=0, atol=1e-5)
    assert [line["predicted"] for line in lines] == loaded.schema.predicted(probabilities)
    expected = [line["probabilities"]["spam" if is_spam else "ham"] for line, is_spam in zip(lines, spam, strict=True)]
    assert [line["scores"]["matching_score"] for line in lines] == pytest.approx(expected, abs=1e-6)
    report = json.loads((trainer.checkpoint(2) / "metrics.json").read_bytes())
    targets = [[1 - is_spam, is_spam] for is_spam in spam]
    assert report["metrics"] == pytest.approx(evaluate(found.double(), targets, BINARY), abs=1e-5)
    assert loaded.manifest.metrics == report["metrics"]
    if method == "LoRA":
        adapter = weights(trainer.checkpoint(2))
        assert all(value.abs().sum() > 0 for name, value in adapter.items() if "lora_B" in name)


@pytest.mark.parametrize("method", ["LoRA", "HeadOnly"])
@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_a_small_method_leaves_the_base_as_it_was(tmp_path, method, model_type):
    trainer = Trainer(tmp_path, model_type)
    told = trainer.run(trainer.job(method, numTrainEpochs=1))
    assert told["bestCheckpoint"] == "epoch-1"
    loaded = checkpoint.load(trainer.checkpoint(1))
    assert loaded.manifest.pooling == ("cls" if model_type == "bert" else "last")
    if method == "HeadOnly":
        body = load_file(trainer.base / "model.safetensors")
        prefix = loaded.model.base.base_model_prefix
        kept = {name: value for name, value in weights(trainer.checkpoint(1)).items() if "pooler" not in name}
        for name, value in body.items():
            if "pooler" not in name:
                assert torch.equal(kept[f"{prefix}.{name}"], value), name
    else:
        assert not (trainer.checkpoint(1) / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("method", "given", "stands"),
    [
        (
            "Full",
            {},
            {"optim": "adamw", "adamBeta1": 0.9, "adamBeta2": 0.999, "adamEpsilon": 1e-8, "headInit": "Random"},
        ),
        (
            "Full",
            {"adamBeta1": 0.8},
            {"adamBeta1": 0.8, "adamBeta2": 0.999, "labelSmoothing": 0, "emaDecay": 0, "downsamplePercent": 100},
        ),
        (
            "Full",
            {"optim": "adafactor", "gradientCheckpointing": True},
            {"optim": "adafactor", "gradientCheckpointing": True},
        ),
        ("LoRA", {}, {"loraRank": 16, "gradientCheckpointing": False, "loss": {"type": "CrossEntropy"}}),
        ("HeadOnly", {"loss": {"type": "Focal"}}, {"loss": {"type": "Focal"}, "pooling": "Auto"}),
    ],
)
def test_a_checkpoint_says_what_unset_parameters_stood_for(trainer, method, given, stands):
    trainer.run(trainer.job(method, numTrainEpochs=1, **given))
    manifest = checkpoint.inspect(trainer.checkpoint(1)).manifest
    assert manifest.processes == 1
    assert stands.items() <= manifest.parameters.items()
    assert ("adamBeta1" in manifest.parameters) == (given.get("optim") != "adafactor")
    trainer.run(trainer.job(method, name="again", **manifest.parameters))
    first, again = (weights(trainer.checkpoint(1, name)) for name in ("spam-v1", "again"))
    assert again.keys() == first.keys()
    assert all(torch.equal(weight, first[name]) for name, weight in again.items())


def test_a_resume_point_is_written_every_few_minutes(trainer, monkeypatch):
    saved = []
    save = resume.save
    monkeypatch.setattr(resume, "save", lambda folder, done, *rest: saved.append(done) or save(folder, done, *rest))
    minutes = iter(range(100_000))

    def clock():  # on which a minute is long enough for what runs beside
        for writer in [thread for thread in threading.enumerate() if thread.name == "resume-point"]:
            writer.join()
        return next(minutes) * 60.0

    trainer.run(trainer.job(numTrainEpochs=1, perDeviceTrainBatchSize=1), clock=clock)
    assert len(saved) > 2
    assert saved[-1] == 11


def test_each_part_of_a_run_leaves_its_curves_for_tensorboard(trainer, caplog):
    caplog.set_level(logging.INFO)
    trainer.run(trainer.job(loggingSteps=2), stop_after(trainer.progress, 8))
    trainer.run(trainer.job(loggingSteps=2))
    names = sorted(path.name.split(".")[-1] for path in (trainer.storage / "runs/spam-v1/tensorboard").iterdir())
    assert names == ["0", "8"]  # the steps that they begin after
    assert [record.step for record in caplog.records if record.message == "Step"] == [2, 4, 6, 8, 10, 12]


def test_what_is_written_is_the_state_at_the_step_and_not_what_came_after(tmp_path):
    state = {"trainable": {"w": torch.ones(3)}, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "groups": [1]}}
    writer = ResumeWriter(tmp_path)
    writer.save(3, Position(step=3), state)
    state["trainable"]["w"].zero_()
    state["optimizer"]["state"][0]["step"] += 1
    writer.wait()
    position, found = resume.load(tmp_path)
    assert position.step == 3
    assert found["trainable"]["w"].tolist() == [1, 1, 1]
    assert found["optimizer"] == {"state": {0: {"step": torch.tensor(1.0)}}, "groups": [1]}


def test_the_training_goes_on_while_a_point_is_written_and_knows_then_what_that_cost(tmp_path, monkeypatch):
    written, goes_on, save = [], Event(), resume.save

    def busy(*given):
        assert goes_on.wait(timeout=60)
        began = time.thread_time()
        while time.thread_time() - began < 0.05:
            pass
        written.append(save(*given))

    monkeypatch.setattr(resume, "save", busy)
    writer = ResumeWriter(tmp_path)
    writer.save(1, Position(step=1), {"w": torch.ones(3)})
    assert (written, writer.affordable(1e9)) == ([], False)  # back before it is written, and one at a time
    goes_on.set()
    writer.wait()
    assert len(written) == 1
    assert writer.seconds >= 0.05


def test_points_are_as_rare_as_they_are_dear(tmp_path):
    writer = ResumeWriter(tmp_path)
    assert writer.affordable(0)  # what it costs is not known yet
    writer.save(1, Position(step=1), {"w": torch.ones(3)})
    writer.wait()
    writer.seconds = 10.0
    assert not writer.affordable(499)
    assert writer.affordable(501)


def test_a_finished_run_started_again_says_so_and_does_nothing(trainer):
    job = trainer.job()
    told = trainer.run(job)
    before = {path: path.stat().st_mtime_ns for path in trainer.storage.rglob("*")}
    again = trainer.run(job)
    assert again["message"] == f"This run finished before: {told['message']}"
    assert again["checkpoints"] == told["checkpoints"]
    assert {path: path.stat().st_mtime_ns for path in trainer.storage.rglob("*")} == before


def test_a_finished_run_keeps_a_checkpoint_that_somebody_changed_and_says_so(trainer):
    told = trainer.run(trainer.job())
    folder = trainer.storage / "runs" / "spam-v1" / "checkpoints" / told["bestCheckpoint"]
    (folder / "report.html").write_text("my notes")
    again = trainer.run(trainer.job())
    assert (folder / "report.html").read_text() == "my notes"
    assert (again["bestCheckpoint"], again["checkpoints"]) == (told["bestCheckpoint"], told["checkpoints"])
    warning = again["warnings"][-1]
    assert warning["code"] == "CheckpointChanged"
    assert warning["message"].startswith(f"{folder.name} is not as it was published, so that no server will load it")
    assert "report.html was changed" in warning["message"]
    assert trainer.progress.snapshot()["bestCheckpoint"] == told["bestCheckpoint"]


def test_what_a_killed_removal_left_of_a_checkpoint_makes_way_for_the_checkpoint(trainer):
    left = trainer.checkpoint(1)
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"its manifest went first")
    assert [one["name"] for one in trainer.run(trainer.job())["checkpoints"]] == ["epoch-1", "epoch-2"]


@pytest.mark.parametrize("name", ["run.json", "result.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff"], ids=["empty", "a list", "no text"])
def test_a_damaged_file_of_the_run_is_named(trainer, name, content):
    trainer.run(trainer.job())
    path = trainer.storage / "runs" / "spam-v1" / name
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{path} is damaged: ") as said:
        trainer.run(trainer.job())
    assert said.value.hint == f"bring it back as it was, or delete {path.parent} and train again"
    assert path.read_bytes() == content


def test_the_folder_of_another_job_is_left_alone(trainer):
    trainer.run(trainer.job())
    with pytest.raises(ConfigError, match=r"another job: parameters\.seed was 0, now 1"):
        trainer.run(trainer.job(seed=1))


@pytest.mark.parametrize("wrong", [{"maxSeqLength": 65}, {"loraTargetModules": ["q_prj"]}], ids=["length", "modules"])
def test_a_job_that_the_model_refuses_leaves_its_name_to_the_corrected_one(trainer, wrong):
    with pytest.raises(ConfigError):
        trainer.run(trainer.job("LoRA", **wrong))
    assert not (trainer.storage / "runs").exists()
    assert trainer.run(trainer.job("LoRA"))["state"] == "Complete"


def scored(trainer, direction):
    """A job whose best checkpoint is chosen by a metric function."""
    source = trainer.storage / "surety.py"
    source.write_text("def score(input_text, expected, predicted): return max(predicted.values())\n")
    spec = trainer.job().spec.model_dump(by_alias=True, exclude_none=True)
    custom = {"name": "surety", "file": str(source), "direction": direction}
    spec["metrics"] = {"primary": "surety", "custom": [custom]}
    return TrainingJob.model_validate({"kind": "TrainingJob", "metadata": {"name": "spam-v1"}, "spec": spec})


def test_a_run_does_not_go_on_with_its_metric_turned_round(trainer):
    trainer.run(scored(trainer, "Minimize"), stop_after(trainer.progress, 8))
    with pytest.raises(ConfigError, match=r'metrics\.directions\.surety was "Minimize", now "Maximize"'):
        trainer.run(scored(trainer, "Maximize"))
    assert trainer.run(scored(trainer, "Minimize"))["higherIsBetter"] is False


def test_a_run_that_an_earlier_version_began_goes_on_though_it_wrote_no_directions(trainer):
    trainer.run(scored(trainer, "Minimize"), stop_after(trainer.progress, 8))
    path = trainer.storage / "runs" / "spam-v1" / "run.json"
    identity = json.loads(path.read_text())
    del identity["metrics"]["directions"]
    path.write_text(json.dumps(identity))
    assert trainer.run(scored(trainer, "Minimize"))["state"] == "Complete"


def test_without_test_rows_the_last_checkpoint_counts_as_the_best(trainer):
    job = trainer.job()
    job = job.model_copy(update={"spec": job.spec.model_copy(update={"test_dataset": None})})
    told = trainer.run(job)
    assert (told["primaryMetric"], told["bestCheckpoint"], told["epochs"][0]["metrics"]) == (None, "epoch-2", {})
    assert "there are no test or validation rows" in told["message"]
    assert not (trainer.checkpoint(2) / "predictions.jsonl").exists()


def test_test_rows_that_are_also_training_rows_are_counted(trainer):
    job = trainer.job()
    job = job.model_copy(update={"spec": job.spec.model_copy(update={"test_dataset": job.spec.training_dataset})})
    told = trainer.run(job)
    assert told["overlap"] == 22
    assert said(told)["Overlap"].startswith(
        "22 of 22 test rows also stand in the training rows, so metrics look better"
    )


def with_spec(job, **changes):
    spec = job.spec.model_dump(by_alias=True, exclude_none=True) | changes
    spec = {name: value for name, value in spec.items() if value is not None}
    return TrainingJob.model_validate({"kind": job.kind, "metadata": {"name": job.name}, "spec": spec})


def said(told):
    """Warnings by code."""
    return {warning["code"]: warning["message"] for warning in told["warnings"]}


def predicted_texts(folder):
    return [json.loads(line)["input"] for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_overlapping_test_rows_can_be_left_out(trainer):
    job = trainer.job()
    train, test = (load_dataset(Path(path)) for path in (job.spec.training_dataset, job.spec.test_dataset))
    both = store_dataset(
        trainer.storage, train.schema, train.texts[:5] + test.texts, np.concatenate([train.targets[:5], test.targets])
    )
    own = [text for text in test.texts if text not in train.texts]
    told = trainer.run(with_spec(job, testDataset=str(both.path), onOverlap="Drop"))
    dropped = 5 + len(test.texts) - len(own)
    assert (told["overlap"], told["testRows"]) == (dropped, len(own))
    assert f"{dropped} rows were left out of the test rows" in said(told)["Overlap"]
    assert predicted_texts(trainer.checkpoint(1)) == own
    described = json.loads((trainer.checkpoint(1) / "checkpoint.json").read_text())["testDataset"]
    nothing = {"split": None, "validationSplit": None}
    assert described == {"digest": both.digest, "rows": len(own), **nothing, "dropped": dropped}
    with pytest.raises(DataError, match="every row also stands in the training rows, so onOverlap: Drop leaves none"):
        trainer.run(with_spec(job, testDataset=job.spec.training_dataset, onOverlap="Drop"))


def test_test_rows_can_be_taken_out_of_the_training_rows(trainer):
    job = with_spec(trainer.job(rows=60), testDataset=None, testSplit={"percent": 25, "seed": 3})
    told = trainer.run(job)
    described = json.loads((trainer.checkpoint(1) / "checkpoint.json").read_text())
    train, test = described["trainingDataset"], described["testDataset"]
    assert train["rows"] + test["rows"] == 60
    assert told["testRows"] == test["rows"]
    assert 13 <= test["rows"] <= 17
    assert test == {
        "digest": train["digest"],
        "rows": test["rows"],
        "split": {"percent": 25.0, "seed": 3},
        "validationSplit": None,
        "dropped": None,
    }
    texts = load_dataset(Path(job.spec.training_dataset)).texts
    tested = set(predicted_texts(trainer.checkpoint(1)))
    assert sum(text in tested for text in texts) == test["rows"]  # all rows of a text, or none
    assert told["overlap"] == 0
    assert told["epochs"][0]["metrics"]["f1"] is not None


def test_validation_rows_are_taken_from_what_the_test_rows_leave(trainer):
    job = trainer.job(rows=60)
    tested = {"testDataset": None, "testSplit": {"percent": 25, "seed": 3}}
    validated = {"validationSplit": {"percent": 20, "seed": 1}}
    told = trainer.run(with_spec(job, **tested, **validated))
    described = json.loads((trainer.checkpoint(1) / "checkpoint.json").read_text())
    train, test, validation = (described[f"{name}Dataset"] for name in ("training", "test", "validation"))
    assert train["rows"] + test["rows"] + validation["rows"] == 60
    assert (told["trainingRows"], told["testRows"], told["validationRows"]) == (
        train["rows"],
        test["rows"],
        validation["rows"],
    )
    assert abs(validation["rows"] - 0.2 * (60 - test["rows"])) <= 2
    assert validation == {
        "digest": train["digest"],
        "rows": validation["rows"],
        "split": {"percent": 25.0, "seed": 3},
        "validationSplit": {"percent": 20.0, "seed": 1},
        "dropped": None,
    }
    assert train["validationSplit"] == validation["validationSplit"]
    again = replace(trainer, storage=trainer.storage / "again").run(with_spec(job, **tested, **validated))
    assert again["epochs"] == told["epochs"]
    without = replace(trainer, storage=trainer.storage / "without").run(with_spec(job, **tested))
    assert without["testRows"] == told["testRows"]  # what a job is tested on does not depend on its validation rows


def test_the_best_checkpoint_is_the_best_on_validation_rows(trainer):
    job = trainer.job(rows=60, numTrainEpochs=3, learningRate=0.02)
    told = trainer.run(with_spec(job, validationSplit={"percent": 30}))
    values = {epoch["checkpoint"]: epoch["validationMetrics"]["f1"] for epoch in told["epochs"]}
    assert all(epoch["metrics"]["f1"] is not None for epoch in told["epochs"])
    assert (told["selectedOn"], told["primaryMetric"]) == ("Validation", "f1")
    assert told["bestCheckpoint"] == max(values, key=values.get)
    folder = trainer.checkpoint(1)
    report = json.loads((folder / "metrics.json").read_text())
    manifest = json.loads((folder / "checkpoint.json").read_text())
    assert report["selectedOn"] == manifest["selectedOn"] == "Validation"
    assert report["metrics"] == manifest["metrics"]
    assert report["validation"]["metrics"] == manifest["validationMetrics"]
    assert report["validation"]["rows"] == told["validationRows"]
    assert report["rows"] == told["testRows"] == len(predicted_texts(folder))


def test_validation_rows_of_their_own_choose_where_there_are_no_test_rows(trainer):
    job = trainer.job()
    validated = with_spec(job, testDataset=None, validationDataset=job.spec.test_dataset)
    told = trainer.run(validated)
    assert (told["selectedOn"], told["validationRows"], "testRows" in told) == ("Validation", 8, False)
    assert "on the validation rows" in told["message"]
    assert not (trainer.checkpoint(1) / "predictions.jsonl").exists()
    assert json.loads((trainer.checkpoint(1) / "metrics.json").read_text())["validation"]["rows"] == 8
    with pytest.raises(ConfigError, match="validationDataset was"):
        trainer.run(job)


def test_validation_rows_that_are_test_rows_are_counted_and_can_be_left_out(trainer):
    job = trainer.job()
    train, test = (load_dataset(Path(path)) for path in (job.spec.training_dataset, job.spec.test_dataset))
    mixed = store_dataset(
        trainer.storage,
        train.schema,
        [train.texts[0], test.texts[0], "a text of its own", "and another"],
        np.array([[1, 0], [0, 1], [1, 0], [0, 1]], dtype=np.int8),
    )
    kept = trainer.run(with_spec(trainer.job(name="kept"), validationDataset=str(mixed.path)), run="kept")
    assert (kept["validationOverlap"], kept["validationRows"]) == (2, 4)
    dropped = trainer.run(with_spec(job, validationDataset=str(mixed.path), onOverlap="Drop"))
    assert (dropped["validationOverlap"], dropped["validationRows"]) == (2, 2)
    assert json.loads((trainer.checkpoint(1) / "checkpoint.json").read_text())["validationDataset"]["dropped"] == 2
    everything = with_spec(job, validationDataset=job.spec.test_dataset, onOverlap="Drop")
    with pytest.raises(DataError, match="validationDataset: the text of every row also stands in the training or test"):
        trainer.run(everything)


def test_what_is_odd_about_the_rows_is_told_in_words(trainer):
    schema = LabelSchema(TaskDetail.MULTICLASS, ("a", "b", "c"))
    words, _ = tiny_models.texts(60, 5)
    train = store_dataset(trainer.storage, schema, words, np.eye(3, dtype=np.int8)[[n % 3 for n in range(60)]])
    lacking = store_dataset(trainer.storage, schema, ["one", "two"], np.eye(3, dtype=np.int8)[[0, 1]])
    single = store_dataset(trainer.storage, schema, ["three", "four " * 40], np.eye(3, dtype=np.int8)[[2, 2]])
    job = trainer.job(numTrainEpochs=1)
    told = trainer.run(
        with_spec(
            job, trainingDataset=str(train.path), testDataset=str(lacking.path), validationDataset=str(single.path)
        )
    )
    assert said(told)["MissingLabels"] == 'no test row has the label "c"; metrics say nothing about it'
    assert said(told)["SingleClass"] == 'every one of the 2 validation rows has the label "c": metrics say little'
    assert "1 of 2 validation rows (50.0%) are longer than maxSeqLength, 16 tokens" in said(told)["LongTexts"]
    assert trainer.progress.snapshot()["warnings"] == told["warnings"]
    assert (
        trainer.run(
            with_spec(
                job, trainingDataset=str(train.path), testDataset=str(lacking.path), validationDataset=str(single.path)
            )
        )["warnings"]
        == told["warnings"]
    )


def test_test_rows_without_any_label_are_told_of(trainer):
    schema = LabelSchema(TaskDetail.MULTILABEL, ("a", "b"))
    words, spam = tiny_models.texts(20, 5)
    train = store_dataset(trainer.storage, schema, words, np.array([[one, 0] for one in spam], dtype=np.int8))
    none = store_dataset(trainer.storage, schema, ["one", "two"], np.zeros((2, 2), dtype=np.int8))
    job = with_spec(trainer.job(numTrainEpochs=1), trainingDataset=str(train.path), testDataset=str(none.path))
    assert said(trainer.run(job))["SingleClass"] == "every one of the 2 test rows has no label: metrics say little"


def test_rows_of_one_label_only_teach_nothing(trainer):
    job = trainer.job(rows=1)
    with pytest.raises(DataError, match=r"same labels \(ham\), so there is nothing to learn"):
        trainer.run(job)


def test_test_rows_with_an_unknown_label_are_refused(trainer):
    other = dataset(trainer.storage, 8, 2, LabelSchema(TaskDetail.BINARY, ("ham", "phishing")))
    job = trainer.job()
    job = job.model_copy(update={"spec": job.spec.model_copy(update={"test_dataset": str(other.path)})})
    with pytest.raises(DataError, match="phishing"):
        trainer.run(job)


def test_a_base_model_without_weights_is_refused_by_the_name_of_the_file(trainer):
    (trainer.base / "model.safetensors").unlink()
    with pytest.raises(BaseModelError, match=r"has no model\.safetensors"):
        trainer.run(trainer.job())


def test_more_tokens_than_the_model_has_positions_for_are_refused(trainer):
    with pytest.raises(ConfigError, match="maxSeqLength is 512, and the base model has positions for 64") as said:
        trainer.run(trainer.job(maxSeqLength=512))
    assert said.value.hint == "set it to 64 or less"


@pytest.mark.parametrize("needed", ["in a row", "as padding", "nowhere"])
def test_a_tokenizer_may_have_more_tokens_than_the_model_where_no_row_needs_them(trainer, needed):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(trainer.base)
    tokenizer.add_tokens(["agendas"])
    if needed == "as padding":
        tokenizer.add_special_tokens({"pad_token": "<none>"})
    tokenizer.save_pretrained(trainer.base)
    job = trainer.job()
    if needed == "in a row":
        texts, spam = tiny_models.texts(8, seed=2)
        rows = store_dataset(trainer.storage, BINARY, [*texts[1:], "agendas"], np.eye(2, dtype=np.int8)[spam])
        job = job.model_copy(update={"spec": job.spec.model_copy(update={"test_dataset": str(rows.path)})})
    if needed == "nowhere":
        assert trainer.run(job)["state"] == "Complete"
        return
    size, token = (36, "its padding token <none>") if needed == "as padding" else (35, "agendas")
    with pytest.raises(BaseModelError, match=f"has {size} tokens, .* embeddings for 34: none for {token},") as said:
        trainer.run(job)
    assert said.value.hint == f"call resize_token_embeddings({size}) on the model and save it again"


@pytest.mark.parametrize("which", ["training", "test"])
def test_rows_of_which_the_tokenizer_leaves_nothing_are_named(trainer, which):
    """As tokenizers do that drop some characters and add no token of their own."""
    tiny_models.reads_words_alone(trainer.base)
    texts, spam = tiny_models.texts(8, seed=2)
    texts[2], texts[5] = "2026", "4"
    odd = str(store_dataset(trainer.storage, BINARY, texts, np.eye(2, dtype=np.int8)[spam]).path)
    job = (
        with_rows(trainer, odd)
        if which == "training"
        else with_rows(trainer, trainer.job().spec.training_dataset, testDataset=odd)
    )
    with pytest.raises(DataError, match=f"leaves no token of the {which} rows 3, 6") as said:
        trainer.run(job)
    assert said.value.hint == "leave these rows out, or give promptTemplate words of its own"
    assert trainer.run(with_rows(trainer, odd, promptTemplate="you {text}"))["state"] == "Complete"


def poison(trainer, word):
    """The base model's embedding of this word is not a number."""
    state = load_file(trainer.base / "model.safetensors")
    token = PreTrainedTokenizerFast.from_pretrained(trainer.base).convert_tokens_to_ids(word)
    state["embeddings.word_embeddings.weight"][token] = float("nan")
    save_file(state, trainer.base / "model.safetensors", metadata={"format": "pt"})


def rows_with_one_poisoned(trainer, count, seed, place):
    """`count` rows of which only the one at `place` has the word agenda."""
    texts, spam = tiny_models.texts(count, seed)
    texts = [f"{number} {text.replace('agenda', 'notes')}" for number, text in enumerate(texts)]
    texts[place] += " agenda"
    return str(store_dataset(trainer.storage, BINARY, texts, np.eye(2, dtype=np.int8)[spam]).path)


def with_rows(trainer, rows, parameters=None, **spec):
    found = trainer.job(**(parameters or {})).spec.model_dump(by_alias=True, exclude_none=True)
    del found["testDataset"]
    found |= {"trainingDataset": rows, **spec}
    return TrainingJob.model_validate({"kind": "TrainingJob", "metadata": {"name": "spam-v1"}, "spec": found})


@pytest.mark.parametrize(
    ("parameters", "spec"),
    [
        pytest.param({}, {}, id="all rows train"),
        pytest.param({}, {"testSplit": {"percent": 20}, "validationSplit": {"percent": 20}}, id="after splits"),
        pytest.param({"downsamplePercent": 80}, {"testSplit": {"percent": 20}}, id="after a split and a sample"),
        pytest.param({}, {"rebalance": {"ratios": {"ham": 3, "spam": 1}}}, id="where rows are repeated"),
    ],
)
def test_a_loss_that_is_not_finite_ends_the_run_with_step_and_row(trainer, parameters, spec):
    poison(trainer, "agenda")
    job = with_rows(trainer, rows_with_one_poisoned(trainer, 60, 3, place=40), parameters, **spec)
    trained = prepare(job, trainer.storage, never).data.train
    assert any(text.endswith("agenda") for text in trained.texts), "it was taken out: choose another place"
    with pytest.raises(
        DivergedError, match=r"^the loss is not a finite number at epoch 1, step \d+, on the training rows 41; no "
    ) as raised:
        trainer.run(job)
    assert raised.value.exit_code == 13
    assert "learningRate" in (raised.value.hint or "")
    assert str(raised.value).endswith("; no checkpoint yet")


def test_a_gradient_that_is_not_finite_ends_the_run_with_step_and_rows(trainer, monkeypatch):
    losses = Learner.losses

    def steep_after_the_first_step(learner, rows):  # finite losses, of which no finite gradient follows
        found = losses(learner, rows)
        if learner.optimizer.state:
            found.register_hook(lambda gradient: gradient * float("inf"))
        return found

    monkeypatch.setattr(Learner, "losses", steep_after_the_first_step)
    rows = ", ".join(str(row + 1) for row in sorted(steps_of_epoch(22, 4, seed=0, epoch=1)[1]))
    with pytest.raises(DivergedError, match="the gradient is not a finite number") as raised:
        trainer.run(trainer.job())
    assert str(raised.value).endswith(f" at epoch 1, step 2, on the training rows {rows}; no checkpoint yet")


@pytest.mark.parametrize("which", ["test", "validation"])
def test_answers_that_are_not_finite_end_the_run_with_epoch_and_rows(trainer, which):
    poison(trainer, "agenda")
    rows = load_dataset(Path(rows_with_one_poisoned(trainer, 60, 3, place=40)))
    sound = [text.replace(" agenda", "") for text in rows.texts]
    training = str(store_dataset(trainer.storage, BINARY, sound, rows.targets).path)
    with pytest.raises(DivergedError) as raised:
        trainer.run(
            with_rows(trainer, training, **{f"{which}Dataset": rows_with_one_poisoned(trainer, 12, 5, place=3)})
        )
    assert str(raised.value) == (
        f"the model's answers are not finite numbers after epoch 1, on the {which} rows 4; no checkpoint yet"
    )


def test_what_was_published_before_a_loss_that_is_not_finite_stays_and_is_named(trainer, monkeypatch):
    step = Learner.step

    def diverges_in_the_second_epoch(learner, rows, rate):
        result = step(learner, rows, rate)
        return replace(result, losses=result.losses * float("inf")) if trainer.checkpoint(1).exists() else result

    monkeypatch.setattr(Learner, "step", diverges_in_the_second_epoch)
    with pytest.raises(
        DivergedError, match=r"epoch 2, step 1, on the training rows \d+.*; epoch-1 was published before"
    ):
        trainer.run(trainer.job())
    checkpoint.inspect(trainer.checkpoint(1))


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        pytest.param(torch.OutOfMemoryError("CUDA out of memory"), OutOfMemoryError_, 12, id="the GPU's memory"),
        pytest.param(
            RuntimeError("DefaultCPUAllocator: can't allocate memory"), OutOfMemoryError_, 12, id="the host's"
        ),
        pytest.param(OSError(errno.ENOSPC, "No space left on device"), StorageFull, 20, id="the disk"),
        pytest.param(RuntimeError("PytorchStreamWriter failed writing file"), StorageFull, 20, id="the disk, by torch"),
    ],
)
def test_what_runs_out_is_said_in_words_with_its_exit_code(tmp_path, error, kind, code):
    with pytest.raises(kind) as raised, failures.in_words(tmp_path):
        raise error
    assert raised.value.exit_code == code
    assert raised.value.hint


class Room:
    """What a run says of room in storage while it goes."""

    def __init__(self, trainer, then=lambda: None):
        self.heard, self.then = [], then
        trainer.progress.listen(self.listen)

    def listen(self, changed, _):
        for warning in changed.get("warnings", []):
            if warning["code"] == "StorageFull":
                self.heard.append(warning["message"])
                self.then()


def test_a_full_disk_costs_resume_points_and_not_the_training(trainer, monkeypatch):
    room = Room(trainer)
    monkeypatch.setattr(resume, "STATE", "/dev/full")  # every write there fails as on a full disk
    # As on a machine that is quick enough to notice at the next step.
    monkeypatch.setattr(ResumeWriter, "check", ResumeWriter.wait)
    told = trainer.run(trainer.job())
    assert (told["state"], len(told["checkpoints"])) == ("Complete", 2)
    assert room.heard[0].startswith(
        "storage is full: the last resume point could not be written, and the training goes on"
    )
    assert "StorageFull" not in {warning["code"] for warning in told["warnings"]}
    assert "StorageFull" not in {warning["code"] for warning in trainer.progress.snapshot()["warnings"]}
    assert "storage is full" not in (trainer.checkpoint(2) / "report.html").read_text()  # the same as with room


@pytest.mark.parametrize("error", [StorageFull("the bucket is full"), StorageAway("no answer")], ids=["full", "away"])
def test_a_bucket_that_takes_no_resume_point_keeps_the_one_of_before(tmp_path, error):
    class NoBucket(Mirror):
        release = BucketMirror.release

        def publish(self, folder, manifest):
            raise error

    resume.save(tmp_path, 1, Position(step=1), {"w": torch.ones(3)})
    with pytest.raises(type(error)):
        resume.save(tmp_path, 2, Position(step=2), {"w": torch.ones(3)}, NoBucket())
    assert resume.load(tmp_path)[0] == Position(step=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_a_stop_without_room_for_a_resume_point_says_where_the_run_goes_on(trainer, monkeypatch):
    trainer.run(trainer.job(), stop_after(trainer.progress, 3))
    found = resume.load(trainer.storage / "runs" / "spam-v1" / "resume")
    monkeypatch.setattr(resume, "load", lambda *_, **__: found)
    monkeypatch.setattr(resume, "STATE", "/dev/full")  # from here on nothing can be written
    told = trainer.run(trainer.job(), stop_after(trainer.progress, 5))
    assert told["state"] == "Stopped"
    assert told["message"] == (
        "Stopped at epoch 1 after 5 of its steps; storage is full, so that it goes on from the resume point before"
    )
    monkeypatch.undo()
    assert [path.name for path in (trainer.storage / "runs" / "spam-v1" / "resume").iterdir()] == ["step-3"]
    assert trainer.run(trainer.job())["state"] == "Complete"


@pytest.fixture
def disk(monkeypatch):
    """Full while it is said to be: half of a checkpoint is written, and then there is no room."""
    whole, says = checkpoint.save_weights, {"full": True}

    def save_weights(model, directory, weights=None):
        if says["full"]:
            (directory / "model.safetensors").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(model, directory, weights)

    monkeypatch.setattr(checkpoint, "save_weights", save_weights)
    return says


def test_a_checkpoint_waits_for_room_and_is_published_once_there_is_some(trainer, disk):
    left_behind = []

    def make_room():
        left_behind.extend(trainer.checkpoint(1).parent.iterdir())
        disk["full"] = False

    room = Room(trainer, make_room)
    told = trainer.run(trainer.job(), patience=Patience(seconds=60, every=0.01))
    assert room.heard[0].startswith("storage is full, and epoch-1 waits: it is tried again every 0.01 seconds")
    assert left_behind == []  # while it waits
    assert (told["state"], len(told["checkpoints"])) == ("Complete", 2)
    assert "StorageFull" not in {warning["code"] for warning in told["warnings"]}


def test_a_wait_for_room_ends_with_the_patience_or_a_stop(trainer, disk):
    with pytest.raises(StorageFull):
        trainer.run(trainer.job(), patience=Patience(seconds=0.05, every=0.01))
    stop = Event()
    Room(trainer, stop.set)
    told = trainer.run(trainer.job(), stop, patience=Patience(seconds=60, every=60))
    assert (told["state"], told["message"]) == (
        "Stopped",
        "Stopped at epoch 1 after 6 of its steps; goes on from there",
    )
    assert list(trainer.checkpoint(1).parent.iterdir()) == []
    disk["full"] = False
    trainer.progress.listen(lambda *_: None)
    assert trainer.run(trainer.job())["state"] == "Complete"


def test_a_stop_before_the_first_step_leaves_nothing_to_go_on_from(trainer):
    stop = Event()
    stop.set()
    assert trainer.run(trainer.job(), stop)["state"] == "Stopped"
    assert trainer.run(trainer.job())["state"] == "Complete"


def test_a_stop_before_a_run_has_read_its_resume_point_claims_nothing_about_where_it_is(trainer):
    first = trainer.run(trainer.job(), stop_after(trainer.progress, 8))
    assert first["message"] == "Stopped at epoch 2 after 2 of its steps; goes on from there"
    stop = Event()
    stop.set()
    again = trainer.run(trainer.job(), stop)
    assert again["message"] == "Stopped while it started; goes on from where it was before"
    assert again["checkpoints"] == first["checkpoints"]


def test_a_file_of_rows_is_imported_first(trainer):
    job = trainer.job(numTrainEpochs=1)
    stored = Path(job.spec.training_dataset)
    rows = trainer.storage / "rows.jsonl"
    rows.touch()
    job = job.model_copy(update={"spec": job.spec.model_copy(update={"training_dataset": str(rows)})})
    imported = []
    told = train(
        job,
        trainer.storage,
        progress=trainer.progress,
        stop=Event(),
        import_rows=lambda path: imported.append(path) or stored,
    )
    assert (told["state"], imported) == ("Complete", [rows])


def test_a_run_learns_with_weights_and_another_loss_and_keeps_them_in_its_manifest(trainer):
    loss = {"classWeights": {"mode": "Custom", "weights": {"spam": 3.0}}, "loss": {"type": "Focal", "gamma": 1.0}}
    told = trainer.run(trainer.job(**loss))
    assert told["epochs"][1]["trainLoss"] < told["epochs"][0]["trainLoss"]
    assert loss.items() <= checkpoint.inspect(trainer.checkpoint(2)).manifest.parameters.items()


def test_a_weight_for_a_label_that_the_rows_lack_is_refused(trainer):
    job = trainer.job(classWeights={"mode": "Custom", "weights": {"eggs": 3.0}})
    with pytest.raises(ConfigError, match=r"eggs is no label of the training rows\. They have: ham, spam"):
        trainer.run(job)
