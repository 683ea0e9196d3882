"""`python -m winnow_server` as a pod runs it, in a process of its own that does not outlive its test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def started(*arguments: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "winnow_server", "--host", "127.0.0.1", "--port", "0", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        try:
            yield process
        finally:
            process.kill()


def logged(process: subprocess.Popen[str], message: str) -> dict[str, Any]:
    """The facts of the next log line with this message."""
    assert process.stderr is not None
    for line in process.stderr:
        facts: dict[str, Any] = json.loads(line)
        if facts["message"] == message:
            return facts
    raise AssertionError(f"the process ended without saying {message!r}")
