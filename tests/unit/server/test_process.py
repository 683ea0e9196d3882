"""`python -m winnow_server` as a pod runs it: exit codes, the termination message, and a stop that fails no request."""

import json
import os
import signal
import subprocess
import sys
import threading

import httpx
import pytest
import tiny_server

from winnow_classifier.errors import CheckpointError, ConfigError
from winnow_server import settings
from winnow_server.__main__ import run, write_termination_message
from winnow_server.serve import serve


def start(*arguments):
    command = [sys.executable, "-m", "winnow_server", "--host", "127.0.0.1", "--port", "0", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)


def logged(process, message):
    """The facts of the next log line with this message."""
    for line in process.stderr:
        facts = json.loads(line)
        if facts["message"] == message:
            return facts
    raise AssertionError(f"the process ended without saying {message!r}")


def test_sigterm_under_load_fails_no_request(checkpoint_folder):
    process = start("--checkpoint", checkpoint_folder, "--drain-seconds", "1")
    url = f"http://127.0.0.1:{logged(process, 'Listening')['port']}"
    logged(process, "Ready")
    leave = threading.Event()
    statuses = []

    def client():
        """As a Service's client: sends as long as the pod is among its endpoints."""
        with httpx.Client(base_url=url, timeout=20) as http:
            while not leave.is_set():
                statuses.append(http.post("/v1/classify", json={"input": ["prize", "meeting"]}).status_code)

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    while len(statuses) < 20:
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    logged(process, "Draining")
    served_before = len(statuses)
    assert httpx.get(f"{url}/v2/health/ready").status_code == 503
    while len(statuses) < served_before + 20:
        assert process.poll() is None
    leave.set()
    for thread in clients:
        thread.join()
    logged(process, "Stopped")
    assert process.wait(60) == 0
    assert set(statuses) == {200}
    process.stderr.close()


def test_a_checkpoint_whose_bytes_changed_is_not_served(tmp_path, capsys):
    folder = tiny_server.publish(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    wanted = ["--checkpoint", folder, "--port", 0, "--termination-log", tmp_path / "termination-log"]
    assert run(settings.parse([str(argument) for argument in wanted])) == 10
    assert "model.safetensors" in capsys.readouterr().err
    message = json.loads((tmp_path / "termination-log").read_text())
    assert (message["kind"], message["state"], message["reason"]) == ("serve", "Failed", "CheckpointInvalid")
    assert "model.safetensors" in message["message"]


def test_another_checkpoint_than_the_one_asked_for_is_not_served(checkpoint_folder):
    wanted = settings.parse(["--checkpoint", str(checkpoint_folder), "--digest", "sha256:" + "0" * 64])
    with pytest.raises(CheckpointError, match="digest"):
        serve(wanted)


def test_a_folder_without_a_checkpoint_is_said_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"checkpoint\.json is missing"):
        serve(settings.parse(["--checkpoint", str(tmp_path)]))


def test_a_port_that_is_taken_is_said_so(checkpoint_folder, server):
    port = server.url.rpartition(":")[2]
    with pytest.raises(ConfigError, match=port):
        serve(settings.parse(["--checkpoint", str(checkpoint_folder), "--host", "127.0.0.1", "--port", port]))


def test_a_termination_message_fits_where_the_kubelet_cuts(tmp_path):
    write_termination_message(tmp_path / "log", "CheckpointInvalid", "ä" * 9_000)
    written = (tmp_path / "log").read_bytes()
    assert len(written) <= 4_096
    assert json.loads(written)["message"].startswith("ää")
