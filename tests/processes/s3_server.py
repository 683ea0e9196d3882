"""A real S3 server (Versity's) for tests: a folder whose folders are the buckets."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from winnow_cluster.paths import Paths
from winnow_cluster.tools import Toolbox

START_SECONDS = 20
KEYS = {"AWS_ACCESS_KEY_ID": "winnow-tests", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20)}


@dataclass(frozen=True)
class Server:
    endpoint: str
    folder: Path
    process: subprocess.Popen[bytes]


@contextmanager
def running(folder: Path, port: int = 0, keys: Mapping[str, str] = KEYS) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", port)) as free:
        port = free.getsockname()[1]
    metadata = folder.with_name(f"metadata-of-{folder.name}")  # what a file cannot keep, such as digests of parts
    metadata.mkdir(exist_ok=True)
    program = Toolbox(Paths.of_this_clone()).program("versitygw")
    process = subprocess.Popen(
        [program, "--quiet", "--port", f"127.0.0.1:{port}", "posix", "--sidecar", metadata, folder],
        env={
            **os.environ,
            "ROOT_ACCESS_KEY": keys["AWS_ACCESS_KEY_ID"],
            "ROOT_SECRET_KEY": keys["AWS_SECRET_ACCESS_KEY"],
        },
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        yield Server(f"http://127.0.0.1:{port}", folder, process)
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"versitygw does not answer on port {port}; exit code {process.poll()}")
