"""What an evaluation leaves, on a real cluster: a function from a ConfigMap, and `kubectl winnow artifacts`."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from e2e_support import BASE_TINY_LLAMA, KUBECTL, Cluster, dataset, model_service, short_rows, training_job

PLUGIN = Path(sys.executable).parent / "kubectl-winnow"
COST = "def score(input_text, expected, predicted):\n    return 0 if predicted.labels == expected.labels else 5\n"
BROKEN = "def score(input_text, expected, predicted):\n    return len(predicted) / 0\n"


def start(cluster: Cluster, *arguments: str) -> subprocess.Popen[str]:
    env = {**cluster.env, "PATH": f"{Path(KUBECTL).parent}:{os.environ['PATH']}"}
    command = [str(PLUGIN), "artifacts", "v1", *arguments, "-n", cluster.namespace]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True, preexec_fn=hears_interrupts)


def hears_interrupts() -> None:
    """A shell's background jobs, and so a whole suite, may have been started deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(cluster: Cluster, *arguments: str) -> str:
    process = start(cluster, *arguments)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    return out


def readers(cluster: Cluster) -> list[str]:
    return [pod["metadata"]["name"] for pod in cluster.list("pods", "winnow.dev/artifacts-of=v1")]


def reads_or_ended(cluster: Cluster, process: subprocess.Popen[str]) -> bool:
    return bool(readers(cluster)) or process.poll() is not None


def test_a_function_of_a_config_map_picks_the_best_and_artifacts_are_fetched(cluster: Cluster, tmp_path: Path) -> None:
    custom = [
        {"name": "cost", "configMap": {"name": "functions", "key": "cost.py"}, "direction": "Minimize"},
        {"name": "broken", "configMap": {"name": "functions", "key": "broken.py"}},
    ]
    cluster.apply(
        model_service("mail", BASE_TINY_LLAMA),
        dataset("train", "mail", short_rows(60)),
        dataset("test", "mail", short_rows(20, start=100)),
        training_job(
            "v1",
            "mail",
            method="HeadOnly",
            parameters={"numTrainEpochs": 2, "maxSeqLength": 32},
            metrics={"primary": "cost", "custom": custom},
        ),
    )
    waiting = cluster.says("tj", "v1", "Accepted", status="False", reason="MetricSourceNotFound")
    assert "ConfigMap functions does not exist" in waiting["message"]
    functions = {"cost.py": COST, "broken.py": BROKEN}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "functions"}, "data": functions})
    status = cluster.wait("tj", "v1", "Complete", seconds=300)["status"]
    assert (status["primaryMetric"], status["higherIsBetter"]) == ("cost", False)
    assert "cost" in status["epochs"][0]["metrics"]
    assert "broken" not in status["epochs"][0]["metrics"]
    (failed,) = [each for each in status["datasets"]["warnings"] if each["code"] == "MetricFailed"]
    assert "ZeroDivisionError: division by zero (line 2 of broken.py), at row 1" in failed["message"]

    best = status["bestCheckpoint"]
    assert best in run(cluster)
    listed = run(cluster, "best")
    assert "report.html" in listed
    assert "predictions.jsonl" in listed
    run(cluster, best, "--download", str(tmp_path), "--file", "report.html", "--file", "*.png")
    assert len(list((tmp_path / best).glob("*.png"))) == 6
    run(cluster, "best", "--download", str(tmp_path))
    manifest = (tmp_path / best / "checkpoint.json").read_bytes()
    (told,) = [each for each in status["checkpoints"] if each["name"] == best]
    assert told["digest"] == "sha256:" + hashlib.sha256(manifest).hexdigest()
    for name, entry in json.loads(manifest)["files"].items():
        assert hashlib.sha256((tmp_path / best / name).read_bytes()).hexdigest() == entry["sha256"], name
    assert readers(cluster) == []

    for number in range(5):  # a quick download may be done before the signal
        process = start(cluster, "best", "--download", str(tmp_path / f"again-{number}"))
        cluster.until("the pod that reads", partial(reads_or_ended, cluster, process))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        if process.returncode != 0:
            break
    assert process.returncode == 130
    cluster.until("its end", lambda: not readers(cluster))
