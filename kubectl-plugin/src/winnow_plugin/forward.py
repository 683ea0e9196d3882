"""A port of this machine that leads to one of a pod, for as long as a block runs: by `kubectl port-forward`, which knows
every way of signing in."""

from __future__ import annotations

import queue
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import IO, NoReturn

from winnow_classifier.errors import ConfigError
from winnow_plugin.cluster import Place
from winnow_plugin.errors import ClusterError, Unreachable

START_SECONDS = 30.0
END_SECONDS = 5.0
_LISTENING = re.compile(r"^Forwarding from 127\.0\.0\.1:(\d+) ->")


def kubectl() -> Path:
    """Raises ConfigError."""
    if (found := shutil.which("kubectl")) is None:
        raise ConfigError(
            "kubectl is not on the PATH", hint="bytes go through kubectl port-forward and kubectl exec: install kubectl"
        )
    return Path(found)


@contextmanager
def forwarded(program: Path, place: Place, namespace: str, pod: str, port: int) -> Iterator[int]:
    """The local port. Raises ClusterError without the right to it, Unreachable for anything else that may pass."""
    command = [str(program), "port-forward", "-n", namespace, "--address", "127.0.0.1", f"pod/{pod}", f":{port}"]
    command += place.kubectl_options
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is ours: the file is left in a known state first
    )
    assert process.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    reader = Thread(target=_read, args=(process.stdout, lines), name="port-forward", daemon=True)
    reader.start()
    try:
        yield _listening(lines, namespace, pod)
    finally:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(END_SECONDS)
        process.stdout.close()


def _read(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    """Until it ends, so that kubectl is never held up by a full pipe."""
    for line in stream:
        lines.put(line)
    lines.put(None)


def _listening(lines: queue.Queue[str | None], namespace: str, pod: str) -> int:
    deadline = time.monotonic() + START_SECONDS
    said: list[str] = []
    try:
        while (line := lines.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
            if match := _LISTENING.match(line):
                return int(match[1])
            said.append(line.strip())
    except queue.Empty:
        said.append(f"it did not start within {START_SECONDS:.0f} seconds")
    words = " ".join(filter(None, said)) or "it ended without a word"
    if "forbidden" in words.lower():
        raise ClusterError(
            f"you may not forward ports of pods in the namespace {namespace}: {words}",
            hint="get pods, and get and create pods/portforward are needed; ask whoever grants rights in this cluster, "
            f"and check with kubectl auth can-i create pods --subresource=portforward -n {namespace}",
        )
    raise Unreachable(f"kubectl port-forward to pod {pod}: {words}")


@contextmanager
def signals_unwind() -> Iterator[None]:
    """So that kubectl, and a pod that we made, end with us also when we are told to end."""

    def unwind(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # nohup
            signal.signal(number, unwind)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
