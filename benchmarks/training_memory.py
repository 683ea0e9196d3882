"""Peak memory of a whole training on a CPU: Winnow's command beside a program around transformers' Trainer, the same rows.

    python benchmarks/training_memory.py DATA [--rows 1600] [--rounds 3] [--json FILE]

DATA is a folder with train.csv and test.csv, columns text and labels (one label a row). Both train MiniLM in full for two
epochs on `--rows` rows, evaluate all test rows after each and write a checkpoint, each as a process of its own; the peak is
the kernel's (ru_maxrss). The Trainer groups texts by length and keeps model and optimizer, as it does by default. The bar:
at most 1.2 times the Trainer's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import yaml
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainingArguments,
)

import quality
from bars import verdict
from training import PARAMETERS, Rows, load, prepared
from winnow_classifier.labels import TaskDetail
from winnow_classifier.model import quiet_transformers

BAR = 1.2
EPOCHS = 2


def write_job(data: Path, most: int, folder: Path) -> Path:
    rows, test = quality.read(data / "train.csv")[:most], quality.read(data / "test.csv")
    schema = quality.kind_of(rows)
    if schema.task_detail is not TaskDetail.MULTICLASS:
        raise SystemExit(f"{data}: each row needs exactly one label")
    quality.write(folder / "train.csv", rows, schema)
    quality.write(folder / "test.csv", [row for row in test if row[1][0] in schema.labels], schema)
    parameters = quality.SETTINGS | {"numTrainEpochs": EPOCHS}
    spec = {
        "trainingDataset": "train.csv",
        "testDataset": "test.csv",
        "baseModel": str(prepared("base-minilm", "minilm", "model")),
        "method": "Full",
        "parameters": parameters,
    }
    job = {"kind": "TrainingJob", "metadata": {"name": "memory"}, "spec": spec}
    (folder / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    return folder / "job.yaml"


def trainer(data: Path, most: int, folder: Path) -> None:
    """The whole program that people write around the Trainer. In a process of its own."""
    task = load(data)
    model = AutoModelForSequenceClassification.from_pretrained(task.base, num_labels=len(task.schema.labels))
    arguments = TrainingArguments(
        str(folder),
        per_device_train_batch_size=PARAMETERS.batch_size,
        per_device_eval_batch_size=quality.SETTINGS["perDeviceEvalBatchSize"],
        num_train_epochs=EPOCHS,
        learning_rate=quality.SETTINGS["learningRate"],
        train_sampling_strategy="group_by_length",
        use_cpu=True,
        report_to=[],
        eval_strategy="epoch",
        save_strategy="epoch",
        disable_tqdm=True,
    )
    collator = DataCollatorWithPadding(task.tokenizer)

    def metrics(found: EvalPrediction) -> dict[str, float]:
        return {"accuracy": float((np.asarray(found.predictions).argmax(axis=1) == found.label_ids).mean())}

    Trainer(
        model, arguments, collator, Rows(task.first(most)), eval_dataset=Rows(task.test), compute_metrics=metrics
    ).train()


def peak_of(command: Sequence[str], log: Path) -> int:
    """Bytes; raises SystemExit with what the process said if it failed."""
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{log.read_text()[-4_000:]}")
    return used.ru_maxrss * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train.csv and test.csv")
    parser.add_argument("--rows", type=int, default=1600, help="of train.csv (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--trainer", type=Path, metavar="DIR", help=argparse.SUPPRESS)
    options = parser.parse_args()
    quiet_transformers()
    if options.trainer:
        trainer(options.data, options.rows, options.trainer)
        return 0
    peaks: dict[str, list[float]] = {"Winnow": [], "Trainer": []}
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            job = write_job(options.data, options.rows, folder)
            train = [sys.executable, "-m", "winnow_trainer", "train", "--job", str(job), "--storage", f"{name}/storage"]
            again = [
                sys.executable,
                __file__,
                str(options.data),
                "--rows",
                str(options.rows),
                "--trainer",
                f"{name}/peer",
            ]
            for program, command in (("Winnow", train), ("Trainer", again)):
                peaks[program].append(peak_of(command, folder / "log") / 2**20)
                print(f"round {number + 1}: {program:<8} {peaks[program][-1]:6.0f} MiB", flush=True)
    ratio = median(peaks["Winnow"]) / median(peaks["Trainer"])
    print("| program | peak MiB | ratio |\n|---|---|---|")
    print(f"| Winnow | {median(peaks['Winnow']):,.0f} | {ratio:.2f} |")
    print(f"| Trainer, `group_by_length` | {median(peaks['Trainer']):,.0f} | |")
    if options.json:
        options.json.write_text(json.dumps({"peakMiB": peaks, "ratio": ratio, "rows": options.rows}, indent=2) + "\n")
    return verdict([] if ratio <= BAR else [f"{ratio:.2f} times the Trainer's memory of at most {BAR}"])


if __name__ == "__main__":
    sys.exit(main())
