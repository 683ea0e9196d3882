"""`python -m winnow_server` as a pod runs it, in a process of its own: a stop fails no request."""

from __future__ import annotations

import json
import signal
import socket
import threading
from pathlib import Path

import httpx
import tiny_checkpoint
import tiny_models
import tiny_server
from server_program import logged, started


def test_each_line_of_the_log_is_json_whatever_libraries_say(tmp_path: Path) -> None:
    """As an adapter is loaded, peft asks transformers for what that warns of."""
    tiny_checkpoint.publish(tmp_path / "checkpoint", tiny_models.base_model(tmp_path / "base", "bert"), method="LoRA")
    lines = []
    with started("--checkpoint", tmp_path / "checkpoint", "--drain-seconds", "0") as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(json.loads(line))
            if lines[-1]["message"] == "Ready":
                process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert lines[-1]["message"] == "Stopped"
    assert [line for line in lines if line["logger"] == "py.warnings"] == []


def test_a_request_in_work_when_the_socket_closes_gets_its_answer(tmp_path: Path) -> None:
    with started("--checkpoint", tiny_server.publish(tmp_path), "--drain-seconds", "0") as process:
        port = logged(process, "Listening")["port"]
        logged(process, "Ready")
        body = b'{"input": ["prize", "meeting"]}'
        with socket.create_connection(("127.0.0.1", port), timeout=30) as slow:
            slow.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:10])
            while not running(port):
                assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            logged(process, "Draining")
            while accepts(port):
                assert process.poll() is None
            slow.sendall(body[10:])
            answer = b"".join(iter(lambda: slow.recv(65_536), b""))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer
        assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["data"]) == 2
        logged(process, "Stopped")
        assert process.wait(60) == 0


def running(port: int) -> bool:
    """Whether a request is in work."""
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    return any(line.startswith("clf_requests_running{") and line.endswith(" 1.0") for line in lines)


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def test_sigterm_under_load_fails_no_request(tmp_path: Path) -> None:
    with started("--checkpoint", tiny_server.publish(tmp_path), "--drain-seconds", "1") as process:
        url = f"http://127.0.0.1:{logged(process, 'Listening')['port']}"
        logged(process, "Ready")
        leave = threading.Event()
        statuses: list[int] = []

        def client() -> None:
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


def test_a_second_sigterm_ends_the_waiting(tmp_path: Path) -> None:
    with started("--checkpoint", tiny_server.publish(tmp_path), "--drain-seconds", "600") as process:
        logged(process, "Ready")
        process.send_signal(signal.SIGTERM)
        logged(process, "Draining")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        logged(process, "Stopped")


def test_a_stop_while_the_model_loads_ends_in_0(tmp_path: Path) -> None:
    """The loading thread is then inside of torch: here, for seconds, in a first batch of a million tokens."""
    with started(
        "--checkpoint", tiny_server.publish(tmp_path), "--drain-seconds", "0", "--max-batch-tokens", 10**6
    ) as process:
        url = f"http://127.0.0.1:{logged(process, 'Listening')['port']}/v2/health/ready"
        assert httpx.get(url).json()["phase"] == "loading"
        process.send_signal(signal.SIGTERM)
        logged(process, "Stopped")
        assert process.wait(60) == 0
