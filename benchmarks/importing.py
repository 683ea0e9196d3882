"""Importing rows: a million lines of JSONL parsed, judged, digested, profiled and stored, beside `datasets` and a Python
check of each row; memory and time at 2, 4 and 8 million rows; token lengths beside the bare tokenizer.

    python benchmarks/importing.py [--rows 1000000] [--rounds 3] [--scale] [--tokenizer FOLDER] [--json FILE]

The rows are made here, 17 words a text, some 120 bytes a line. Each program runs as a process of its own, and its time
and peak memory are those of the process. The peer loads the file with `datasets.load_dataset` and then checks what an
import must at least: the text is there, the target is 0 or 1. The bars: 20 s and 1 GiB a million rows on two cores,
three times as fast as the peer; 80 % of the bare tokenizer's speed. --scale adds the runs at 2, 4 and 8 million rows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from bars import verdict

BAR_SECONDS, BAR_MIB, BAR_RATIO, BAR_TOKENS = 20.0, 1024.0, 3.0, 0.8
PEER = """
import sys
from datasets import load_dataset
rows = load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=sys.argv[2])
for row in rows:
    if not isinstance(row["prompt"], str) or not row["prompt"].strip():
        raise ValueError(row)
    if row["completion"] not in (0, 1):
        raise ValueError(row)
print(len(rows))
"""
BARE = """
import json, sys
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(sys.argv[1])
tokenizer.no_truncation(); tokenizer.no_padding()
with open(sys.argv[2]) as file:
    texts = [json.loads(line)["prompt"] for line in file]
import time
began = time.perf_counter()
for start in range(0, len(texts), 8192):
    for encoding in tokenizer.encode_batch_fast(texts[start : start + 8192]):
        len(encoding)
print(time.perf_counter() - began)
"""


def write_rows(path: Path, rows: int) -> None:
    chosen = random.Random(0)
    words = [f"w{number}" for number in range(5_000)]
    with path.open("w") as file:
        for number in range(rows):
            text = " ".join(chosen.choices(words, k=17))
            file.write(json.dumps({"prompt": text, "completion": number % 2}) + "\n")


def measured(command: list[str], environment: dict[str, str] | None = None) -> tuple[float, float, str]:
    """Seconds, peak MiB and output of a process."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{command[:4]} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - began, used.ru_maxrss / 1024, output


def winnow(rows: Path, folder: Path, *more: str) -> tuple[float, float, str]:
    with tempfile.TemporaryDirectory(dir=folder) as storage:
        command = [sys.executable, "-m", "winnow_trainer", "import", "--file", str(rows), "--storage", storage]
        return measured([*command, *more])


def peer(rows: Path, folder: Path) -> tuple[float, float, str]:
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        return measured([sys.executable, "-c", PEER, str(rows), cache], {"HF_HUB_OFFLINE": "1"})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", action="store_true", help="also 2, 4 and 8 million rows")
    parser.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="a base model whose tokenizer measures rows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parser.parse_args()
    result: dict[str, Any] = {"cpus": len(os.sched_getaffinity(0)), "loadAverage": os.getloadavg()[0]}
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder, rows = Path(name), Path(name) / "rows.jsonl"
        write_rows(rows, options.rows)
        runs: dict[str, list[tuple[float, float]]] = {"Winnow": [], "datasets and a check": []}
        for _ in range(options.rounds):
            runs["Winnow"].append(winnow(rows, folder)[:2])
            runs["datasets and a check"].append(peer(rows, folder)[:2])
        print(f"{options.rows:,} rows, {rows.stat().st_size / 1e6:.0f} MB, medians of {options.rounds} rounds")
        print("| program | seconds | peak MiB |\n|---|---|---|")
        for program, samples in runs.items():
            print(f"| {program} | {median(s for s, _ in samples):.1f} | {median(m for _, m in samples):.0f} |")
        ours, theirs = (median(s for s, _ in samples) for samples in runs.values())
        memory = max(m for _, m in runs["Winnow"])
        print(f"Winnow is faster by {theirs / ours:.2f}", flush=True)
        result |= {"runs": runs, "ratio": theirs / ours}
        million = options.rows / 1e6
        missed += [f"{ours:.1f} s of {BAR_SECONDS * million:.0f}"] if ours > BAR_SECONDS * million else []
        missed += [f"{memory:.0f} MiB of {BAR_MIB:.0f}"] if memory > BAR_MIB else []
        missed += [f"{theirs / ours:.2f} times of {BAR_RATIO}"] if theirs / ours < BAR_RATIO else []
        if options.tokenizer:
            part = folder / "part.jsonl"
            write_rows(part, options.rows // 5)
            bare = [
                measured([sys.executable, "-c", BARE, str(options.tokenizer / "tokenizer.json"), str(part)])
                for _ in range(options.rounds)
            ]
            tokenizing = median(float(output) for _, _, output in bare)
            plain = median(winnow(part, folder)[0] for _ in range(options.rounds))
            whole = median(
                winnow(part, folder, "--base-model", str(options.tokenizer))[0] for _ in range(options.rounds)
            )
            share = tokenizing / (whole - plain)
            print(
                f"token lengths of {options.rows // 5:,} rows: {whole - plain:.1f} s more than without, "
                f"the bare tokenizer {tokenizing:.1f} s: {share:.0%} of its speed",
                flush=True,
            )
            result["tokenizerShare"] = share
            missed += [f"{share:.0%} of the tokenizer's speed, {BAR_TOKENS:.0%} wanted"] if share < BAR_TOKENS else []
        for millions in (2, 4, 8) if options.scale else ():
            write_rows(rows, millions * 1_000_000)
            seconds, mib, _ = winnow(rows, folder)
            print(
                f"{millions} million rows: {seconds:.1f} s, {seconds / millions:.1f} s a million, {mib:.0f} MiB",
                flush=True,
            )
            result[f"{millions}M"] = [seconds, mib]
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return verdict(missed)


if __name__ == "__main__":
    sys.exit(main())
