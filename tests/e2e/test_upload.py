"""`kubectl winnow upload` on a real cluster: what breaks on the way costs nothing, and no row stays on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e_support import KUBECTL, Cluster, condition, manifest, model_service, short_rows

PLUGIN = Path(sys.executable).parent / "kubectl-winnow"
SOME_BYTES = 8 << 20
TRAINER_IMAGE = "docker.io/winnow/trainer:dev"


def environment(cluster: Cluster) -> dict[str, str]:
    return {**cluster.env, "PATH": f"{Path(KUBECTL).parent}:{os.environ['PATH']}"}


@contextmanager
def uploading(cluster: Cluster, file: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    command = [str(PLUGIN), "upload", str(file), "--model-service", "mail", "-n", cluster.namespace, *more]
    process = subprocess.Popen(
        command, env=environment(cluster), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def port_forward(plugin: int, other_than: int = 0) -> int:
    """The plugin's own kubectl, once some megabytes went through it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for child in Path(f"/proc/{plugin}/task/{plugin}/children").read_text().split():
            try:
                is_it = int(child) != other_than and b"port-forward" in Path(f"/proc/{child}/cmdline").read_bytes()
                through = int(Path(f"/proc/{child}/io").read_text().split()[1])
            except (FileNotFoundError, ProcessLookupError):  # it ends, or ended while it was read
                continue
            if is_it and through > SOME_BYTES:
                return int(child)
        time.sleep(0.002)
    raise AssertionError("nothing went through kubectl port-forward")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 50 MB."""
    file: Path = tmp_path_factory.mktemp("rows") / "mail.jsonl"
    with file.open("w") as stream:
        for start in range(0, 450_000, 10_000):
            stream.writelines(json.dumps(row) + "\n" for row in short_rows(10_000, start))
    return file


def test_a_broken_port_forward_and_a_killed_pod_cost_nothing(cluster: Cluster, rows: Path) -> None:
    cluster.apply(model_service("mail"))
    with uploading(cluster, rows, "--name", "train", "--labels", "ham,spam") as plugin:
        first = port_forward(plugin.pid)
        os.kill(first, signal.SIGKILL)
        second = port_forward(plugin.pid, other_than=first)
        os.kill(second, signal.SIGSTOP)  # or all would be there before the pod is gone
        waiting = condition(cluster.get("wds", "train"), "Ready")
        (pod,) = cluster.list("pods", "winnow.dev/name=train")
        cluster.run("delete", "pod", pod["metadata"]["name"])
        os.kill(second, signal.SIGCONT)
        out, err = plugin.communicate(timeout=300)
        assert plugin.returncode == 0, err
    assert waiting["reason"] == "AwaitingUpload"
    assert (
        f"kubectl winnow upload mail.jsonl --model-service mail --name train -n {cluster.namespace}"
        in waiting["message"]
    )
    assert "450,000" in out
    assert err.count("trying again") >= 2
    assert not Path(f"/proc/{second}").exists()

    judged = subprocess.run(
        [PLUGIN, "validate", rows, "--labels", "ham,spam", "--json"], capture_output=True, text=True, check=True
    )
    status = cluster.get("wds", "train")["status"]
    assert (status["digest"], status["rows"]) == (json.loads(judged.stdout)["digest"], 450_000)
    on_the_way = cluster.run("get", "configmaps,secrets,jobs,wds,events", "-o", "yaml")
    assert "free prize" not in on_the_way
    assert cluster.run("get", "secrets", "-o", "name") == ""
    assert left_in_storage(cluster) == "[]"

    with uploading(cluster, rows, "--name", "train") as again:
        _, err = again.communicate(timeout=60)
        assert (again.returncode, "holds this file already" in err) == (0, True)


def test_an_upload_that_was_ended_goes_on_and_wrong_rows_are_told(cluster: Cluster, tmp_path: Path, rows: Path) -> None:
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_bytes(rows.read_bytes() + b'{"prompt": "a", "completion": 2}\n')
    cluster.apply(model_service("mail"))
    with uploading(cluster, wrong, "--name", "wrong", "--labels", "ham,spam") as plugin:
        child = port_forward(plugin.pid)
        plugin.send_signal(signal.SIGTERM)
        assert plugin.wait(30) == 128 + signal.SIGTERM
        assert not Path(f"/proc/{child}").exists()
    with uploading(cluster, wrong, "--name", "wrong") as plugin:  # as the Dataset's message says it
        _, err = plugin.communicate(timeout=300)
    assert plugin.returncode == 11, err
    assert f"{wrong}:450001" in err
    assert "completion must be 0 or 1, found 2" in err
    assert left_in_storage(cluster) == "[]"


def left_in_storage(cluster: Cluster) -> str:
    """What lies in uploads/ of the ModelService's volume."""
    look = "import os; print(os.listdir('/storage/uploads'))"
    container = {
        "name": "look",
        "image": TRAINER_IMAGE,
        "command": ["python", "-c", look],
        "volumeMounts": [{"name": "storage", "mountPath": "/storage"}],
    }
    spec = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "storage", "persistentVolumeClaim": {"claimName": "mail-storage"}}],
    }
    cluster.apply({**manifest("Pod", "look", spec), "apiVersion": "v1"})
    return cluster.finished_pod("look")
