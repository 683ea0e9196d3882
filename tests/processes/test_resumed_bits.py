"""Whole runs that stop in between: they go on exactly where they stopped, and end with the bits of one that did not stop."""

import shutil
from pathlib import Path
from threading import Event

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import Trainer, stop_after, weights

from winnow_classifier import checkpoint
from winnow_trainer.job import TrainingJob
from winnow_trainer.learner import Learner
from winnow_trainer.progress import Progress
from winnow_trainer.resume_writer import ResumeWriter


def expect_same_weights(found: Path, expected: Path):
    ours, theirs = weights(found), weights(expected)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


AVERAGED = {"emaDecay": 0.9}


@pytest.mark.parametrize(
    ("method", "step", "given"),
    [
        *(("Full", 4, {}), ("Full", 6, {}), ("LoRA", 8, {}), ("HeadOnly", 7, {})),
        *(("Full", 4, AVERAGED), ("Full", 6, AVERAGED), ("LoRA", 8, AVERAGED)),
    ],
)
def test_a_run_stopped_after_a_step_ends_with_the_same_bits_as_an_undisturbed_one(tmp_path, method, step, given):
    straight, broken = Trainer(tmp_path / "straight"), Trainer(tmp_path / "broken")
    straight.run(straight.job(method, **given))
    stopped = broken.run(broken.job(method, **given), stop_after(broken.progress, step))
    assert (stopped["state"], stopped["reason"]) == ("Stopped", "Stopped")
    assert [path.name for path in (tmp_path / "broken" / "runs" / "spam-v1" / "resume").iterdir()] == [f"step-{step}"]
    told = broken.run(broken.job(method, **given))
    assert told["state"] == "Complete"
    for epoch in (1, 2):
        expect_same_weights(broken.checkpoint(epoch), straight.checkpoint(epoch))
        drawn = [(each.checkpoint(epoch) / "curves.json").read_bytes() for each in (broken, straight)]
        assert drawn[0] == drawn[1]
    assert told["epochs"] == straight.run(straight.job(method, **given))["epochs"]
    assert not (tmp_path / "broken" / "runs" / "spam-v1" / "resume").exists()


def test_half_written_files_of_a_killed_run_are_passed_over(tmp_path):
    straight, broken = Trainer(tmp_path / "straight"), Trainer(tmp_path / "broken")
    straight.run(straight.job())
    broken.run(broken.job(), stop_after(broken.progress, 8))
    run = tmp_path / "broken" / "runs" / "spam-v1"
    whole = run / "resume" / "step-8"
    for half in ("step-9", ".tmp-step-10"):
        shutil.copytree(whole, run / "resume" / half)
        (run / "resume" / half / "state.pt").write_bytes(b"half")
    (run / "checkpoints" / ".tmp-epoch-2").mkdir()
    (run / "checkpoints" / ".tmp-epoch-2" / "model.safetensors").write_bytes(b"half")
    (run / "checkpoints" / "epoch-1" / "config.json").write_text("{}")
    told = broken.run(broken.job())
    assert [entry["name"] for entry in told["checkpoints"]] == ["epoch-2"]  # the damaged one is not offered
    (warning,) = [one["message"] for one in told["warnings"] if one["code"] == "CheckpointChanged"]
    assert warning.startswith("epoch-1 is not as it was published")
    assert "config.json" in warning
    expect_same_weights(broken.checkpoint(2), straight.checkpoint(2))
    # Its epoch is over, and would never be made again.
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["epoch-1", "epoch-2"]


def test_a_damaged_checkpoint_of_an_epoch_that_comes_again_is_made_again(tmp_path):
    straight, broken = Trainer(tmp_path / "straight"), Trainer(tmp_path / "broken")
    straight.run(straight.job())
    broken.run(broken.job(), stop_after(broken.progress, 8))
    shutil.rmtree(tmp_path / "broken" / "runs" / "spam-v1" / "resume")
    (broken.checkpoint(1) / "config.json").write_text("{}")
    told = broken.run(broken.job())
    assert [entry["name"] for entry in told["checkpoints"]] == ["epoch-1", "epoch-2"]
    assert "CheckpointChanged" not in {one["code"] for one in told["warnings"]}
    for epoch in (1, 2):
        expect_same_weights(broken.checkpoint(epoch), straight.checkpoint(epoch))


@pytest.mark.parametrize("given", [{}, AVERAGED], ids=str)
def test_a_stop_during_an_evaluation_loses_no_step(tmp_path, monkeypatch, given):
    straight, broken = Trainer(tmp_path / "straight"), Trainer(tmp_path / "broken")
    straight.run(straight.job(**given))
    monkeypatch.setattr(ResumeWriter, "affordable", lambda *_: False)  # none was written at the end of the epoch
    stop = Event()
    predict = Learner.predict
    monkeypatch.setattr(Learner, "predict", lambda *rows: stop.set() or predict(*rows))
    assert broken.run(broken.job(**given), stop)["state"] == "Stopped"
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "broken" / "runs" / "spam-v1" / "resume").iterdir()] == ["step-6"]
    assert broken.run(broken.job(**given))["state"] == "Complete"
    expect_same_weights(broken.checkpoint(2), straight.checkpoint(2))


@pytest.mark.parametrize("given", [{"optim": "adafactor"}, {"gradientCheckpointing": True}], ids=str)
def test_so_does_one_with_another_optimizer_or_states_that_are_computed_again(tmp_path, given):
    straight, broken = Trainer(tmp_path / "straight"), Trainer(tmp_path / "broken")
    straight.run(straight.job(**given))
    broken.run(broken.job(**given), stop_after(broken.progress, 8))
    broken.run(broken.job(**given))
    ours, theirs = (checkpoint.load(each.checkpoint(2)).model.state_dict() for each in (broken, straight))
    for name, weight in theirs.items():
        assert torch.equal(ours[name], weight), name


@pytest.mark.parametrize("method", ["Full", "HeadOnly"])
def test_so_does_one_whose_head_started_from_ridge_regression(tmp_path, method):
    straight, broken = Trainer(tmp_path / "straight"), Trainer(tmp_path / "broken")
    straight.run(straight.job(method, headInit="Ridge"))
    broken.run(broken.job(method, headInit="Ridge"), stop_after(broken.progress, 4))
    broken.run(broken.job(method, headInit="Ridge"))
    ours, theirs = (load_file(each.checkpoint(2) / "model.safetensors") for each in (broken, straight))
    for name in theirs:
        assert torch.equal(ours[name], theirs[name]), name


def measured_files(trainer):
    """What the checkpoints hold, by SHA-256: all but the moment at which each was made."""
    return [checkpoint.inspect(trainer.checkpoint(epoch)).manifest.files for epoch in (1, 2)]


@pytest.mark.parametrize("later", [0, 2], ids=["at the end of the first epoch", "in the second epoch"])
def test_so_does_one_whose_first_evaluation_warned_of_something(tmp_path, later):
    always_fails = tmp_path / "always_fails.py"
    always_fails.write_text("def score(input_text, expected, predicted): raise ValueError('not today')\n")

    def warned_job(trainer):
        found = trainer.job().spec.model_dump(by_alias=True, exclude_none=True)
        found["metrics"] = {"custom": [{"name": "fails", "file": str(always_fails)}]}
        found |= {"validationSplit": {"percent": 30}}
        found |= {"thresholds": {"objective": "F1", "abstain": {"band": 0.5}}}
        return TrainingJob.model_validate({"kind": "TrainingJob", "metadata": {"name": "spam-v1"}, "spec": found})

    trainer = Trainer(tmp_path)  # one folder for both: reports name it
    told = trainer.run(warned_job(trainer))
    assert {"MetricFailed", "WideBand"} <= {warning["code"] for warning in told["warnings"]}
    straight = measured_files(trainer)
    shutil.rmtree(tmp_path / "runs")
    per_epoch = trainer.progress.snapshot()["totalSteps"] // 2
    trainer.progress = Progress()
    trainer.run(warned_job(trainer), stop_after(trainer.progress, per_epoch + later))
    again = trainer.run(warned_job(trainer))
    assert again["warnings"] == told["warnings"]
    assert measured_files(trainer) == straight


def early_job(trainer, patience=2):
    found = trainer.job(rows=40, numTrainEpochs=6).spec.model_dump(by_alias=True, exclude_none=True)
    # No epoch is better by more than 1: it ends after the first and `patience` more.
    found |= {"validationSplit": {"percent": 30}, "earlyStopping": {"patience": patience, "minDelta": 1}}
    return TrainingJob.model_validate({"kind": "TrainingJob", "metadata": {"name": "spam-v1"}, "spec": found})


def test_a_job_that_waits_for_one_epoch_says_so(tmp_path):
    trainer = Trainer(tmp_path)
    assert "did not get better by more than 1 for 1 epoch. " in trainer.run(early_job(trainer, 1))["message"]


def test_a_job_ends_early_and_says_so_also_after_a_restart(tmp_path):
    straight = Trainer(tmp_path / "straight")
    told = straight.run(early_job(straight))
    assert (told["state"], told["reason"], len(told["epochs"])) == ("Complete", "StoppedEarly", 3)
    assert told["message"].startswith(
        "Stopped early after epoch 3 of 6: f1 on the validation rows did not get better by more than 1 for 2 epochs. "
    )
    assert straight.progress.snapshot()["epoch"] == 3

    broken = Trainer(tmp_path / "broken")
    per_epoch = straight.progress.snapshot()["totalSteps"] // 6
    stop = stop_after(broken.progress, 2 * per_epoch)
    assert broken.run(early_job(broken), stop)["state"] == "Stopped"
    again = broken.run(early_job(broken))
    assert (again["message"], again["epochs"]) == (told["message"], told["epochs"])
    weights = [trainer.checkpoint(3) / "model.safetensors" for trainer in (straight, broken)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
