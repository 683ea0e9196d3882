"""Training tokens a second on this machine's CPUs: Winnow beside transformers' Trainer, the same model and rows.

    python benchmarks/training.py [DATA] [--rounds 5] [--rows 1600] [--epochs 3] [--json FILE]

DATA is a folder with train.csv and test.csv, columns text and labels (one label a row); without it, the subject lines of
the demo's e-mails, spam or not. Only real tokens count, the optimizer's time does too, reading and tokenising rows do
not. Each round trains one epoch on `--rows` rows with each program in turn, and the medians over the rounds count. Then
each trains once on all rows for `--epochs`, and the accuracies on the test rows are compared: a faster program that
learns less would be no gain. Epochs 0 leaves that out. The Trainer computes in float32 unless it is told otherwise;
Winnow takes bfloat16 where the CPU has instructions for it, so the Trainer told to do the same stands beside, and Winnow
kept to float32. The Trainer that pads each text to maxSeqLength trains a fifth of the rows a round. The bars: 3.5 times
the Trainer with dynamic padding, twice the one that groups texts by length, 8 times the one that pads to maxSeqLength; in
float32 1.3 times the one that groups by length; accuracy within a point.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from threading import Event
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from bars import verdict
from winnow_classifier.cpu import multiplies_bfloat16, spin_briefly, usable_cpus
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.model import Classifier, quiet_transformers
from winnow_classifier.tokens import Encoder, load_tokenizer
from winnow_trainer.examples import Examples, encode
from winnow_trainer.job import Method, Parameters
from winnow_trainer.learner import Learner
from winnow_trainer.methods import assemble
from winnow_trainer.schedule import learning_rate
from winnow_trainer.steps import count_steps, steps_of_epoch
from winnow_trainer.train import make_accelerator

ROOT = Path(__file__).resolve().parents[1]
PREPARED = ROOT / ".local" / "benchmarks"
WINNOW, WINNOW_FP32 = "Winnow", "Winnow, float32"
PADDED, GROUPED, FULL = "Trainer, dynamic padding", "Trainer, group_by_length", "Trainer, padded to maxSeqLength"
GROUPED_BF16 = f"{GROUPED}, bf16"
BARS = {(WINNOW, PADDED): 3.5, (WINNOW, GROUPED): 2.0, (WINNOW, FULL): 8.0, (WINNOW_FP32, GROUPED): 1.3}
SCORED = (WINNOW, PADDED, GROUPED)
FULL_PART = 5  # of the rows: it takes that much longer
SCORE_BAR = 0.01
PARAMETERS = Parameters(
    num_train_epochs=1,
    learning_rate=1.5e-4,
    warmup_ratio=0.1,
    max_grad_norm=1.0,
    per_device_train_batch_size=16,
    gradient_accumulation_steps=1,
    max_seq_length=128,
)


@dataclass(frozen=True)
class Task:
    base: Path
    tokenizer: Any
    schema: LabelSchema
    train: Examples
    test: Examples

    def first(self, rows: int) -> Examples:
        rows = min(rows, len(self.train))
        tokens = self.train.tokens[: self.train.offsets[rows]]
        return Examples(self.train.texts[:rows], self.train.targets[:rows], tokens, self.train.offsets[: rows + 1], 0)


@dataclass(frozen=True)
class Trained:
    seconds: float  # of the steps
    tokens: int  # real ones, padding not counted
    model: Any  # callable: Examples to (N, C) logits


def prepared(image: str, folder: str, content: str) -> Path:
    """What images/IMAGE/prepare.py makes, kept for the next run."""
    if not (PREPARED / folder / content).is_dir():
        program = ROOT / "images" / image / "prepare.py"
        subprocess.run([sys.executable, str(program), str(PREPARED / folder)], check=True)
    return PREPARED / folder / content


def subject_lines(split: str) -> list[tuple[str, str]]:
    lines = (prepared("email-spam-rows", "emails", "rows") / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [(row["prompt"].split("\n", 1)[0], "spam" if row["completion"] else "ham") for row in rows]


def csv_rows(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["labels"]) for row in csv.DictReader(file)]
    order = np.random.default_rng(0).permutation(len(rows))  # such files are often sorted by label
    return [rows[index] for index in order]


def wait_as_the_trainer_does() -> None:
    """Threads' waiting is set when torch is imported: begins again with it set. The peers are in this process, and gain too."""
    if spin_briefly(os.environ):
        os.execv(sys.executable, [sys.executable, *sys.argv])


def load(data: Path | None) -> Task:
    train, test = (csv_rows(data / f"{s}.csv") if data else subject_lines(s) for s in ("train", "test"))
    labels = tuple(sorted({label for _, label in train}))
    schema = LabelSchema(TaskDetail.BINARY if len(labels) == 2 else TaskDetail.MULTICLASS, labels)
    base = prepared("base-minilm", "minilm", "model")
    tokenizer = load_tokenizer(base)
    encoder = Encoder(tokenizer, "{text}", PARAMETERS.max_seq_length)
    column = {label: index for index, label in enumerate(labels)}

    def examples(rows: list[tuple[str, str]]) -> Examples:
        targets = np.zeros((len(rows), len(labels)), dtype=np.int8)
        targets[np.arange(len(rows)), [column[label] for _, label in rows]] = 1
        return encode([text for text, _ in rows], targets, encoder)

    return Task(base, tokenizer, schema, examples(train), examples(test))


def assembled(task: Task, method: Method, parameters: Parameters, device: torch.device) -> Classifier:
    return assemble(task.base, task.tokenizer, task.schema, method, parameters, device).to(device)


def winnow(task: Task, rows: Examples, epochs: int, fp32: bool = False) -> Trained:
    """The trainer's own learner, without storage: no checkpoint, no resume point."""
    accelerator = Accelerator(cpu=True) if fp32 else make_accelerator()
    model = assembled(task, "Full", PARAMETERS, accelerator.device)
    learner = Learner(model, rows, task.schema, "Full", PARAMETERS, accelerator, Event())
    total = epochs * count_steps(len(rows), PARAMETERS.batch_size)
    rate = PARAMETERS.learning_rate or 0.0
    done = 0
    began = time.perf_counter()
    for epoch in range(1, epochs + 1):
        learner.learn()
        for step in steps_of_epoch(len(rows), PARAMETERS.batch_size, PARAMETERS.seed, epoch):
            learner.step(step, learning_rate("linear", rate, PARAMETERS.warmup_ratio, done, total))
            done += 1
        learner.read()
    return Trained(time.perf_counter() - began, epochs * len(rows.tokens), learner.predict)


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    def __init__(self, examples: Examples) -> None:
        self.ids = np.split(examples.tokens, examples.offsets[1:-1])
        self.labels = examples.targets.argmax(axis=1)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> dict[str, Any]:
        ids = self.ids[row].tolist()
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": int(self.labels[row]), "length": len(ids)}


class Stopwatch(TrainerCallback):
    seconds = began = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds = time.perf_counter() - self.began


def peer(
    task: Task,
    rows: Examples,
    epochs: int,
    strategy: str = "random",
    bf16: bool = False,
    frozen: bool = False,
    pad_to: int | None = None,
) -> Trained:
    """transformers' Trainer as its examples use it: default attention, collator that pads to the longest of a batch."""
    torch.manual_seed(PARAMETERS.seed)
    model = AutoModelForSequenceClassification.from_pretrained(task.base, num_labels=len(task.schema.labels))
    if frozen:
        model.base_model.requires_grad_(False)
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=PARAMETERS.batch_size,
            num_train_epochs=epochs,
            learning_rate=PARAMETERS.learning_rate or 0.0,
            warmup_steps=PARAMETERS.warmup_ratio,
            max_grad_norm=PARAMETERS.max_grad_norm,
            train_sampling_strategy=strategy,
            use_cpu=True,
            bf16=bf16,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=PARAMETERS.seed,
        )
        padding = "max_length" if pad_to else True
        collator = DataCollatorWithPadding(task.tokenizer, padding=padding, max_length=pad_to)
        Trainer(model, arguments, collator, Rows(rows), callbacks=[watch]).train()

    def predict(examples: Examples) -> torch.Tensor:
        model.eval()
        parts = []
        for start in range(0, len(examples), 64):
            batch = [Rows(examples)[row] for row in range(start, min(start + 64, len(examples)))]
            inputs = {name: value for name, value in collator(batch).items() if name not in ("labels", "length")}
            with torch.no_grad():
                parts.append(model(**inputs).logits)
        return torch.cat(parts)

    return Trained(watch.seconds, epochs * len(rows.tokens), predict)


PROGRAMS: dict[str, Callable[[Task, Examples, int], Trained]] = {
    WINNOW: winnow,
    WINNOW_FP32: lambda task, rows, epochs: winnow(task, rows, epochs, fp32=True),
    PADDED: peer,
    GROUPED: lambda task, rows, epochs: peer(task, rows, epochs, "group_by_length"),
    FULL: lambda task, rows, epochs: peer(task, rows, epochs, pad_to=PARAMETERS.max_seq_length),
}
if multiplies_bfloat16():
    PROGRAMS[GROUPED_BF16] = lambda task, rows, epochs: peer(task, rows, epochs, "group_by_length", bf16=True)


def run(name: str, task: Task, rows: Examples, epochs: int) -> Trained:
    AcceleratorState._reset_state(reset_partial_state=True)  # it keeps the precision of the program before
    return PROGRAMS[name](task, rows, epochs)


def accuracy(trained: Trained, test: Examples) -> float:
    predicted = trained.model(test).argmax(dim=1).numpy()
    return float((predicted == test.targets.argmax(axis=1)).mean())


def measure(task: Task, rounds: int, rows: int, epochs: int) -> dict[str, Any]:
    sample = task.first(rows)
    speeds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for name in PROGRAMS:
        run(name, task, task.first(80), 1)  # buffers and thread pools come into being
    for number in range(rounds):
        for name in PROGRAMS:
            trained = run(name, task, task.first(rows // FULL_PART) if name == FULL else sample, 1)
            speeds[name].append(trained.tokens / trained.seconds)
            print(f"round {number + 1}: {name:<32} {speeds[name][-1]:8.0f} tokens/s", flush=True)
    scores: dict[str, float] = {}
    for name in SCORED if epochs else ():
        scores[name] = accuracy(run(name, task, task.train, epochs), task.test)
        print(f"{epochs} epochs: {name:<32} accuracy {scores[name]:.4f}", flush=True)
    medians = {name: median(values) for name, values in speeds.items()}
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": usable_cpus(),
        "loadAverage": os.getloadavg()[0],
        "torch": torch.__version__,
        "rows": len(sample),
        "meanTokens": round(float(sample.lengths.mean()), 1),
        "tokensPerSecond": medians,
        "samples": speeds,
        "ratios": {
            own: {name: medians[own] / medians[name] for name in PROGRAMS if name not in (WINNOW, WINNOW_FP32)}
            for own in (WINNOW, WINNOW_FP32)
        },
        "epochs": epochs,
        "accuracy": scores,
    }


def failures(result: dict[str, Any]) -> list[str]:
    below = [
        f"{own} beside {name}: {result['ratios'][own][name]:.2f} of {bar}"
        for (own, name), bar in BARS.items()
        if result["ratios"][own][name] < bar
    ]
    scores = result["accuracy"]
    return below + [
        f"accuracy {scores[WINNOW]:.4f}, {name} {score:.4f}"
        for name, score in scores.items()
        if scores[WINNOW] < score - SCORE_BAR
    ]


def table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['rows']} rows a round, {result['meanTokens']} tokens a text, {result['cpus']} CPUs, medians of "
        f"{len(result['samples'][WINNOW])} rounds; accuracy after {result['epochs']} epochs on all rows",
        "| program | tokens/s | Winnow is faster by | in float32 by | accuracy |",
        "|---|---|---|---|---|",
    ]
    for name, speed in result["tokensPerSecond"].items():
        ratios = [
            f"{result['ratios'][own][name]:.2f}" if name in result["ratios"][own] else ""
            for own in (WINNOW, WINNOW_FP32)
        ]
        score = f"{result['accuracy'][name]:.4f}" if name in result["accuracy"] else ""
        lines.append(f"| {name} | {speed:,.0f} | {' | '.join(ratios)} | {score} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "data", type=Path, nargs="?", help="folder with train.csv and test.csv (default: the demo's mails)"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1600, help="rows of a round (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="of the runs whose accuracy counts; 0: none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parser.parse_args()
    wait_as_the_trainer_does()
    quiet_transformers()
    torch.set_num_threads(usable_cpus())
    torch.set_flush_denormal(True)
    result = measure(load(options.data), options.rounds, options.rows, options.epochs)
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return verdict(failures(result))


if __name__ == "__main__":
    sys.exit(main())
