"""What kept features and a ridge start are worth to method HeadOnly, on this machine's CPUs.

    python benchmarks/head_only.py [DATA] [--rows 4000] [--epochs 5] [--json FILE]

DATA as in training.py. Three programs train the head on the same rows for the same epochs: Winnow, whose body runs once
a row; the same with the body run in each step, packed as Winnow packs; and transformers' Trainer with a frozen body and
dynamic padding. Times are of features and steps, not of evaluation. Then the accuracy on the test rows after one epoch
and after all, with a random and with a ridge start. The bar: five epochs nine times as fast as the Trainer's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from threading import Event
from typing import Any

import torch
from accelerate.state import AcceleratorState

import training
from bars import verdict
from winnow_classifier.cpu import usable_cpus
from winnow_classifier.model import quiet_transformers
from winnow_trainer.examples import Examples
from winnow_trainer.learner import Learner
from winnow_trainer.schedule import learning_rate
from winnow_trainer.steps import count_steps, steps_of_epoch
from winnow_trainer.train import make_accelerator

BAR = 9.0
RATE = 1e-3


def winnow(task: training.Task, rows: Examples, epochs: int, start: str, kept: bool) -> tuple[float, Learner]:
    AcceleratorState._reset_state(reset_partial_state=True)
    parameters = training.PARAMETERS.model_copy(update={"head_init": start, "learning_rate": RATE})
    accelerator = make_accelerator()
    model = training.assembled(task, "HeadOnly", parameters, accelerator.device)
    began = time.perf_counter()
    learner = Learner(model, rows, task.schema, "HeadOnly", parameters, accelerator, Event())
    if not kept:
        learner.features = None
        began = time.perf_counter()
    learner.start_head(torch.arange(len(rows)).numpy())
    total, done = epochs * count_steps(len(rows), parameters.batch_size), 0
    for epoch in range(1, epochs + 1):
        learner.learn()
        for step in steps_of_epoch(len(rows), parameters.batch_size, parameters.seed, epoch):
            learner.step(step, learning_rate("linear", RATE, parameters.warmup_ratio, done, total))
            done += 1
        learner.read()
    return time.perf_counter() - began, learner


def accuracy(learner: Learner, test: Examples) -> float:
    predicted = learner.predict(test).argmax(dim=1).numpy()
    return float((predicted == test.targets.argmax(axis=1)).mean())


def measure(task: training.Task, count: int, epochs: int) -> dict[str, Any]:
    rows = task.first(count)
    winnow(task, task.first(80), 1, "Random", kept=True)
    seconds: dict[str, float] = {}
    seconds["Winnow"], random = winnow(task, rows, epochs, "Random", kept=True)
    seconds["Winnow, body in each step"], _ = winnow(task, rows, epochs, "Random", kept=False)
    seconds["Trainer, frozen body"] = training.peer(task, rows, epochs, "random", frozen=True).seconds
    scores = {f"Random, {epochs} epochs": accuracy(random, task.test)}
    for start, number in (("Random", 1), ("Ridge", 1), ("Ridge", epochs)):
        took, learner = winnow(task, rows, number, start, kept=True)
        scores[f"{start}, {number} epochs"] = accuracy(learner, task.test)
        if (start, number) == ("Ridge", epochs):
            seconds["Winnow, ridge start"] = took
    return {"rows": len(rows), "epochs": epochs, "cpus": usable_cpus(), "seconds": seconds, "accuracy": scores}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder with train.csv and test.csv")
    parser.add_argument("--rows", type=int, default=4_000, help="training rows (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parser.parse_args()
    training.wait_as_the_trainer_does()
    quiet_transformers()
    torch.set_num_threads(usable_cpus())
    torch.set_flush_denormal(True)
    result = measure(training.load(options.data), options.rows, options.epochs)
    ours = result["seconds"]["Winnow"]
    for name, took in result["seconds"].items():
        print(f"{name:<28} {took:8.1f} s  {took / ours:6.1f} times Winnow's")
    for name, score in result["accuracy"].items():
        print(f"{name:<28} accuracy {score:.4f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    faster = result["seconds"]["Trainer, frozen body"] / ours
    return verdict([] if faster >= BAR else [f"{faster:.1f} times as fast as the Trainer, of {BAR:g}"])


if __name__ == "__main__":
    sys.exit(main())
