"""`python -m winnow_server wake` as its pod runs it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_it_starts_without_torch_and_stops_when_it_is_asked_to() -> None:
    light = "import sys, winnow_server.__main__, winnow_server.waking.wake; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", light], check=False).returncode == 0
    port = free_port()
    command = [sys.executable, "-m", "winnow_server", "wake", "--name", "web", "--port", str(port)]
    command += ["--upstream", f"http://127.0.0.1:{free_port()}", "--drain-seconds", "0", "--host", "127.0.0.1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{port}/v2/health/ready"

        def answers() -> bool:
            try:
                return httpx.get(url, verify=False).status_code == 200
            except httpx.TransportError:
                return False

        until(answers)
        resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * 4 // 1024
        assert resident < 64  # MiB: what its pod asks for
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        assert process.stderr is not None
        process.stderr.close()
