"""How good classifiers of real rows are: MiniLM trained in full, thresholds and calibration fitted, measured on test rows.

    python benchmarks/quality.py DATA [--fold K/N] [--epochs N] [--rows N] [--minutes M] [--peer] [--json FILE]

DATA is a folder with train.csv and test.csv, columns text and labels; labels are joined by |, and none is a label too. What
kind of task it is follows from the rows: one label or none (Binary), exactly one (Multiclass), any (Multilabel). A tenth of
the training rows are validation rows; the rest train, through the command line as a user's would. The best epoch on
validation rows counts. --fold 2/5 tests on the second fifth of the rows of both files, and trains on the others: where test
rows are few, the mean over all folds tells more than one of them. --peer trains transformers' Trainer on the same rows with
the same settings (Multiclass only).

The bars: Binary F1 0.97; Multilabel macro-F1 0.50 with fitted thresholds and 0.05 above threshold 0.5 on the same
probabilities, those that are served; Multiclass within half a point of the Trainer in two thirds of its time; expected
calibration error 0.02 everywhere. --epochs, --rows and --minutes bound the time, and may miss them.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from bars import verdict
from training import GROUPED, PADDED, Task, accuracy, csv_rows, peer, prepared
from winnow_classifier.cpu import usable_cpus
from winnow_classifier.files import DECISION
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.metrics import HIGHER_IS_BETTER
from winnow_classifier.model import quiet_transformers
from winnow_classifier.tokens import Encoder, load_tokenizer
from winnow_trainer import deciding
from winnow_trainer.examples import Examples, encode

VALIDATION_PART = 0.1
ECE_BAR, BINARY_F1_BAR, MACRO_F1_BAR, FITTED_BAR, ACCURACY_BAR, TIME_BAR = 0.02, 0.97, 0.50, 0.05, 0.005, 2 / 3
SETTINGS: dict[str, Any] = {
    "learningRate": 1.5e-4,
    "warmupRatio": 0.1,
    "maxGradNorm": 1,
    "perDeviceTrainBatchSize": 16,
    "gradientAccumulationSteps": 1,
    "perDeviceEvalBatchSize": 64,
    "maxSeqLength": 128,
}


@dataclass(frozen=True)
class Recipe:
    epochs: int
    parameters: dict[str, Any]
    spec: dict[str, Any]


F1 = {"thresholds": {"objective": "F1"}}
RECIPES = {
    # Some hundred validation rows are soon all right; log loss still tells epochs apart.
    TaskDetail.BINARY: Recipe(
        4, {"headInit": "Ridge", "learningRate": 1e-4, "pooling": "Mean"}, {"metrics": {"primary": "log_loss"}, **F1}
    ),
    TaskDetail.MULTICLASS: Recipe(8, {"headInit": "Ridge"}, {"metrics": {"primary": "accuracy"}}),
    # A random head takes an epoch until rare labels are above the noise; ridge regression starts there.
    TaskDetail.MULTILABEL: Recipe(
        5,
        {
            "headInit": "Ridge",
            "pooling": "Mean",
            "learningRate": 4e-4,
            "emaDecay": 0.999,
            "perDeviceTrainBatchSize": 32,
            "maxSeqLength": 64,
        },
        F1,
    ),
}

Row = tuple[str, tuple[str, ...]]


def kind_of(rows: Sequence[Row]) -> LabelSchema:
    labels = sorted({label for _, held in rows for label in held})
    most, least = max(len(held) for _, held in rows), min(len(held) for _, held in rows)
    if len(labels) == 1:
        return LabelSchema(TaskDetail.BINARY, (f"not_{labels[0]}", labels[0]))
    return LabelSchema(TaskDetail.MULTICLASS if most == least == 1 else TaskDetail.MULTILABEL, tuple(labels))


def read(path: Path) -> list[Row]:
    return [(text, tuple(filter(None, labels.split("|")))) for text, labels in csv_rows(path) if text.strip()]


def write(path: Path, rows: Sequence[Row], schema: LabelSchema) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        if schema.task_detail is TaskDetail.BINARY:
            table.writerow(["prompt", "completion"])
            table.writerows([text, len(held)] for text, held in rows)
            return
        table.writerow(["prompt", "completion"])
        table.writerows(
            [text, json.dumps({label: int(label in held) for label in schema.labels})] for text, held in rows
        )


@dataclass(frozen=True)
class Rows:
    schema: LabelSchema
    train: list[Row]
    validation: list[Row]
    test: list[Row]


def split(data: Path, fold: tuple[int, int] | None, most: int | None) -> Rows:
    """The rows in an order of their own, and a tenth of those that train taken out: the same for everyone."""
    rows, test = read(data / "train.csv"), read(data / "test.csv")
    schema = kind_of(rows)
    if fold:
        part, parts = fold
        order = np.random.default_rng(1).permutation(len(rows) + len(test))
        every = [[*rows, *test][index] for index in order]
        test = every[part - 1 :: parts]
        rows = [row for place, row in enumerate(every) if place % parts != part - 1]
    rows = rows[:most]
    held_out = round(len(rows) * VALIDATION_PART)
    return Rows(schema, rows[held_out:], rows[:held_out], test)


def a_fold(text: str) -> tuple[int, int]:
    part, parts = map(int, text.split("/"))
    if not 1 <= part <= parts:
        raise ValueError
    return part, parts


def weights(rows: Rows) -> dict[str, Any]:
    """Of labels: the square roots of those that are balanced. Macro-F1 counts a rare label as much as any, and weights of
    several hundred would leave its few rows nothing to tell apart."""
    positives = {label: sum(label in held for _, held in rows.train) for label in rows.schema.labels}
    balanced = {label: (len(rows.train) - count) / count for label, count in positives.items() if count}
    return {"mode": "Custom", "weights": {label: round(math.sqrt(weight), 2) for label, weight in balanced.items()}}


def winnow(rows: Rows, base: Path, epochs: int, minutes: float | None, folder: Path) -> dict[str, Any]:
    """Wall-clock seconds of the whole command, and decision.json's figures of the best epoch."""
    recipe = RECIPES[rows.schema.task_detail]
    for name in ("train", "validation", "test"):
        write(folder / f"{name}.csv", getattr(rows, name), rows.schema)
    weighted = {"classWeights": weights(rows)} if rows.schema.task_detail is TaskDetail.MULTILABEL else {}
    spec = {
        "trainingDataset": "train.csv",
        "validationDataset": "validation.csv",
        "testDataset": "test.csv",
        "baseModel": str(base),
        "method": "Full",
        "parameters": {**SETTINGS, **recipe.parameters, "numTrainEpochs": epochs, **weighted},
        **recipe.spec,
    }
    job = {"kind": "TrainingJob", "metadata": {"name": "quality"}, "spec": spec}
    (folder / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    command = [sys.executable, "-m", "winnow_trainer", "train", "--job", str(folder / "job.yaml")]
    began = time.perf_counter()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, "--storage", str(folder / "storage")], stdout=log, stderr=log)
        try:
            process.wait(minutes * 60 if minutes else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait()
    seconds = time.perf_counter() - began
    checkpoints = sorted((folder / "storage" / "runs" / "quality" / "checkpoints").glob("epoch-*"))
    if not checkpoints:
        raise SystemExit((folder / "log").read_text())
    found = [(primary(path), path) for path in checkpoints]
    value, best = max(found, key=lambda pair: (pair[0], -int(pair[1].name.removeprefix("epoch-"))))
    decision = json.loads((best / DECISION).read_bytes())
    kept = json.loads((best / "checkpoint.json").read_bytes())["files"][deciding.LOGITS]
    judged = deciding.load(best / deciding.LOGITS, kept["sha256"])
    calibrated = deciding.fit(judged["validation"], judged["test"], rows.schema, None).measured
    assert calibrated is not None
    return {
        "seconds": seconds,
        "epoch": best.name,
        "epochs": len(checkpoints),
        "validation": value,
        "all": {path.name: json.loads((path / DECISION).read_bytes())["measured"]["after"] for path in checkpoints},
        "before": decision["measured"]["before"],
        "calibrated": calibrated.after,
        "after": decision["measured"]["after"],
    }


def primary(checkpoint: Path) -> float:
    """On validation rows, the higher the better."""
    manifest = json.loads((checkpoint / "checkpoint.json").read_bytes())
    name = manifest["primaryMetric"]
    return float(manifest["validationMetrics"][name]) * (1 if HIGHER_IS_BETTER[name] else -1)


def trainers_best(rows: Rows, base: Path, epochs: int) -> dict[str, Any]:
    """transformers' Trainer in float32, as it is: the better of its two orders of rows, and that one's seconds."""
    tokenizer = load_tokenizer(base)
    encoder = Encoder(tokenizer, "{text}", SETTINGS["maxSeqLength"])
    column = {label: index for index, label in enumerate(rows.schema.labels)}

    def examples(part: Sequence[Row]) -> Examples:
        targets = np.zeros((len(part), len(column)), dtype=np.int8)
        targets[np.arange(len(part)), [column[held[0]] for _, held in part]] = 1
        return encode([text for text, _ in part], targets, encoder)

    task = Task(base, tokenizer, rows.schema, examples(rows.train), examples(rows.test))
    found = {}
    for name, order in ((PADDED, "random"), (GROUPED, "group_by_length")):
        trained = peer(task, task.train, epochs, order)
        found[name] = {"seconds": trained.seconds, "accuracy": accuracy(trained, task.test)}
        print(f"{name}: accuracy {found[name]['accuracy']:.4f} in {trained.seconds:.0f} s", flush=True)
    return max(found.values(), key=lambda one: one["accuracy"])


def failures(task: TaskDetail, ours: dict[str, Any], theirs: dict[str, Any] | None) -> list[str]:
    calibrated, after = ours["calibrated"], ours["after"]
    found = []
    if after["ece"] > ECE_BAR:
        found.append(f"expected calibration error {after['ece']:.4f} of at most {ECE_BAR}")
    if task is TaskDetail.BINARY and after["f1"] < BINARY_F1_BAR:
        found.append(f"F1 {after['f1']:.4f} of {BINARY_F1_BAR}")
    if task is TaskDetail.MULTILABEL and after["f1_macro"] < MACRO_F1_BAR:
        found.append(f"macro-F1 {after['f1_macro']:.4f} of {MACRO_F1_BAR}")
    if task is TaskDetail.MULTILABEL and after["f1_macro"] < calibrated["f1_macro"] + FITTED_BAR:
        at_half = calibrated["f1_macro"]
        found.append(f"macro-F1 {after['f1_macro']:.4f}, at 0.5 {at_half:.4f}: less than {FITTED_BAR} more")
    if theirs and after["accuracy"] < theirs["accuracy"] - ACCURACY_BAR:
        found.append(f"accuracy {after['accuracy']:.4f}, the Trainer's {theirs['accuracy']:.4f}")
    if theirs and ours["seconds"] > theirs["seconds"] * TIME_BAR:
        found.append(f"{ours['seconds']:.0f} s, the Trainer {theirs['seconds']:.0f} s")
    return found


SHOWN = ("accuracy", "f1", "f1_macro", "f1_micro", "ece", "brier", "log_loss")


def table(result: dict[str, Any]) -> str:
    ours, theirs = result["winnow"], result["trainer"]
    lines = [
        f"{result['data']}, {result['task']}: {result['rows']:,} rows train, {result['validationRows']:,} validate, "
        f"{result['testRows']:,} test; {ours['epoch']} of {ours['epochs']} is the best; {ours['seconds']:.0f} s in all",
        "| on test rows | raw, at 0.5 or the likeliest | calibrated, the same | calibrated, thresholds fitted |",
        "|---|---|---|---|",
    ]
    for name in SHOWN:
        if name in ours["before"]:
            values = [f"{ours[which][name]:.4f}" for which in ("before", "calibrated", "after")]
            lines.append(f"| {name} | {' | '.join(values)} |")
    if theirs:
        lines.append(f"transformers' Trainer: accuracy {theirs['accuracy']:.4f} in {theirs['seconds']:.0f} s of steps")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train.csv and test.csv")
    parser.add_argument(
        "--fold", type=a_fold, metavar="K/N", help="test on that part of all rows (default: on test.csv)"
    )
    parser.add_argument("--epochs", type=int, help="(default: by the kind of task)")
    parser.add_argument("--rows", type=int, help="of train.csv, no more (default: all)")
    parser.add_argument("--minutes", type=float, help="stop Winnow's training then; the epochs that are done count")
    parser.add_argument("--peer", action="store_true", help="also train transformers' Trainer (Multiclass)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parser.parse_args()
    quiet_transformers()
    torch.set_num_threads(usable_cpus())
    rows = split(options.data, options.fold, options.rows)
    task = rows.schema.task_detail
    base = prepared("base-minilm", "minilm", "model")
    epochs = options.epochs or RECIPES[task].epochs
    with tempfile.TemporaryDirectory() as folder:
        ours = winnow(rows, base, epochs, options.minutes, Path(folder))
    compared = options.peer and task is TaskDetail.MULTICLASS
    result = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": usable_cpus(),
        "loadAverage": os.getloadavg()[0],
        "data": options.data.name,
        "fold": options.fold,
        "task": task,
        "rows": len(rows.train),
        "validationRows": len(rows.validation),
        "testRows": len(rows.test),
        "winnow": ours,
        "trainer": None,
    }
    print(table(result), flush=True)
    if compared:
        result["trainer"] = trainers_best(rows, base, epochs)
        print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return verdict(failures(task, ours, result["trainer"]))


if __name__ == "__main__":
    sys.exit(main())
