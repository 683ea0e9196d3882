"""`python -m winnow_server wake` as its pod runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
from tiny_server import free_port, until


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
