"""One run on rows of several labels, stopped in between: all that its job asked for is in what it leaves, and is served.

A later one goes on from it, and hears what became different.
"""

import json
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import tiny_models
import torch
from rows_in_memory import store_dataset
from tiny_training import Trainer, stop_after
from torch.testing import assert_close
from transformers import get_scheduler

from winnow_classifier import checkpoint, decision
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.packing import pack
from winnow_trainer.job import TrainingJob

SEVERAL = LabelSchema(TaskDetail.MULTILABEL, ("ad", "long", "team"))
TEMPLATE = "review : {text}"
RATE, WARM_UP, STEPS = 0.02, 0.25, 12
OF_A_LABEL = ("precision", "recall", "f1")
SURETY = "def score(input_text, expected, predicted): return max(predicted.values())\n"


def rows(storage, count, seed, schema=SEVERAL):
    texts, spam = tiny_models.texts(count, seed)
    holds = [[is_spam, len(text.split()) > 6, "team" in text] for text, is_spam in zip(texts, spam, strict=True)]
    targets = np.array(holds, dtype=np.int8)
    if schema.task_detail is not TaskDetail.MULTILABEL:
        targets = np.eye(3, dtype=np.int8)[targets.argmax(axis=1)]
    return str(store_dataset(storage, schema, texts, targets).path)


def job(trainer, name, parameters, **changes):
    spec = trainer.job("LoRA", name, **parameters).spec.model_dump(by_alias=True, exclude_none=True)
    return TrainingJob.model_validate({"kind": "TrainingJob", "metadata": {"name": name}, "spec": spec | changes})


@dataclass
class Told:
    """A tracker: what was told of each step."""

    steps: dict[int, dict[str, float]] = field(default_factory=dict)

    def log(self, step, values):
        if "train/loss" in values:
            assert step not in self.steps, "told twice"
            self.steps[step] = values

    def flush(self):
        pass

    def close(self, state):
        pass


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The trainer, what its run said in the end, and what was told of its steps before and after the stop."""
    trainer, told = Trainer(tmp_path_factory.mktemp("storage")), Told()
    surety = trainer.storage / "surety.py"
    surety.write_text(SURETY)
    wanted = job(
        trainer,
        "tags-v1",
        {
            "learningRate": RATE,
            "lrSchedulerType": "cosine",
            "warmupRatio": WARM_UP,
            "loggingSteps": 1,
            "loraDropout": 0.25,
        },
        trainingDataset=rows(trainer.storage, 24, seed=1),
        validationDataset=rows(trainer.storage, 30, seed=2),
        testDataset=rows(trainer.storage, 20, seed=3),
        promptTemplate=TEMPLATE,
        metrics={
            "functions": ["accuracy", "f1_micro"],
            "custom": [{"name": "surety", "file": str(surety), "direction": "Maximize"}],
        },
        thresholds={"objective": "F1"},
    )
    stopped = trainer.run(wanted, stop_after(trainer.progress, 8), track=lambda *_: [told])
    assert (stopped["state"], list(told.steps)) == ("Stopped", list(range(1, 9)))
    return trainer, trainer.run(wanted, track=lambda *_: [told]), told.steps


@pytest.fixture
def folder(ran):
    return ran[0].checkpoint(2, "tags-v1")


def report(folder):
    return json.loads((folder / "metrics.json").read_bytes())


def predictions(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_each_label_has_a_loss_of_its_own(ran):
    _, _, steps = ran
    assert steps[1]["train/loss"] == pytest.approx(math.log(2), abs=0.05)  # a head at random is a coin for each


def test_its_rates_are_those_of_transformers_schedule_as_if_it_had_not_stopped(ran):
    _, _, steps = ran
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    warm_up = math.ceil(WARM_UP * STEPS)
    scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=warm_up, num_training_steps=STEPS)
    expected = []
    for _ in range(STEPS):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert [steps[step]["train/learning_rate"] for step in range(1, STEPS + 1)] == pytest.approx(expected)


def test_what_is_served_is_what_was_measured_in_the_same_prompt(folder):
    loaded = checkpoint.load(folder)
    assert loaded.encoder.prompt_template == TEMPLATE
    lines = predictions(folder)
    with torch.no_grad():
        ids = [encoded.input_ids for encoded in loaded.encoder.encode([line["input"] for line in lines])]
        logits = loaded.model(pack(ids, loaded.model.position_start))
    served = decision.decided(loaded.schema, decision.read(folder, loaded.schema)).probabilities(logits)
    measured = torch.tensor([[line["probabilities"][label] for label in SEVERAL.labels] for line in lines])
    assert_close(measured, served, rtol=0, atol=1e-5)


def test_each_label_is_calibrated_and_cut_by_itself(folder):
    found = decision.read(folder, SEVERAL)
    assert found.calibration.method == "Platt"
    assert found.calibration.labels.keys() == found.thresholds.keys() == set(SEVERAL.labels)
    assert len({(line.slope, line.intercept) for line in found.calibration.labels.values()}) == 3
    for line in predictions(folder):
        probabilities = {label: np.float32(each) for label, each in line["probabilities"].items()}
        over = [label for label in SEVERAL.labels if probabilities[label] >= np.float32(found.thresholds[label])]
        assert line["predicted"] == over


def test_metrics_are_those_that_were_asked_for_with_the_primary_and_the_users_own(ran, folder):
    _, told, _ = ran
    asked = {"accuracy", "f1_micro", "f1_macro", "surety"}
    found = report(folder)
    assert found["metrics"].keys() == found["validation"]["metrics"].keys() == asked
    assert (told["primaryMetric"], told["epochs"][1]["metrics"].keys()) == ("f1_macro", asked)


@pytest.mark.parametrize("which", ["test", "validation"])
def test_each_metric_that_is_defined_lies_within_its_interval(folder, which):
    found = report(folder) if which == "test" else report(folder)["validation"]
    of_labels = [(label["intervals"], {name: label[name] for name in OF_A_LABEL}) for label in found["labels"]]
    for intervals, values in [(found["intervals"], found["metrics"]), *of_labels]:
        assert intervals.keys() == {name for name, value in values.items() if value is not None}
        for name, (low, high) in intervals.items():
            assert 0 <= low <= values[name] <= high <= 1, name
    low, high = found["intervals"]["surety"]
    assert low < high


def test_all_that_lies_beside_the_weights_is_there(folder):
    assert {"report.html", "curves.json", "errors.jsonl", "confusion.png", "pr.png", "roc.png", "reliability.png"} <= {
        path.name for path in folder.iterdir()
    }
    assert {len(line["expected"]) for line in predictions(folder)} == {3}
    assert len(report(folder)["confusion"]) == 3


def test_its_adapter_says_what_part_of_its_inputs_was_dropped(folder):
    assert json.loads((folder / "adapter_config.json").read_bytes())["lora_dropout"] == 0.25


def test_going_on_in_another_prompt_and_for_another_task_is_told(ran):
    trainer, _, _ = ran
    one_of = LabelSchema(TaskDetail.MULTICLASS, SEVERAL.labels)
    told = trainer.run(
        job(
            trainer,
            "tags-v2",
            {"numTrainEpochs": 1},
            trainingDataset=rows(trainer.storage, 12, seed=1, schema=one_of),
            testDataset=rows(trainer.storage, 8, seed=3, schema=one_of),
            baseModel={"checkpoint": {"trainingJob": "tags-v1", "name": "epoch-2"}},
        )
    )
    said = {warning["code"]: warning["message"] for warning in told["warnings"]}
    assert said["PromptTemplateDiffers"] == (
        "promptTemplate is another one than that of epoch-2 of tags-v1: 'review : {text}'"
    )
    assert said["TaskDetailDiffers"] == (
        "epoch-2 of tags-v1 was trained on Multilabel rows, these are Multiclass: its scores mean something else"
    )
