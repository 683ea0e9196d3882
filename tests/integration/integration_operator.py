"""The operator as it runs in its pod: `python -m winnow_operator` in a process of its own, which tests may kill."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import sys
from pathlib import Path

import aiohttp

START_SECONDS = 90.0  # a bound, not a measure: two seconds on a free core
CANARY = "canary-3f1c9a7e"  # stands in Secrets and rows that the operator must not read, in no log and no status


class Operator:
    """One replica."""

    _numbers = itertools.count(1)

    def __init__(self, kubeconfig: Path, log: Path, namespace: str, pod_name: str = "") -> None:
        self.pod_name = pod_name or f"winnow-operator-{next(self._numbers)}"
        self.log = log
        self.namespace = namespace
        self._kubeconfig = kubeconfig
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0

    @property
    def running(self) -> bool:
        return self._process is not None

    async def start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        environment = {
            **os.environ,
            "KUBECONFIG": str(self._kubeconfig),
            "POD_NAME": self.pod_name,
            "WINNOW_NAMESPACE": self.namespace,
            "WINNOW_TRAINER_IMAGE": "docker.io/winnow/trainer:dev",
            "WINNOW_SERVER_IMAGE": "docker.io/winnow/server:dev",
            "WINNOW_HTTP_PORT": str(self._port),
            "WINNOW_PROGRESS_SECONDS": "2",
            "WINNOW_GUEST_SECONDS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "winnow_operator", env=environment, stdout=log, stderr=log
            )
        await self.until_ready()

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 while nothing listens, or nobody answers."""
        timeout = aiohttp.ClientTimeout(total=5)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"http://127.0.0.1:{self._port}{path}") as answer,
            ):
                return answer.status, await answer.text()
        except (aiohttp.ClientConnectionError, TimeoutError):
            return 0, ""

    async def until_ready(self, seconds: float = START_SECONDS) -> None:
        """Until it says that it has seen everything."""
        try:
            async with asyncio.timeout(seconds):
                while (await self.get("/readyz"))[0] != 200:
                    if self._process is None or self._process.returncode is not None:
                        raise AssertionError(f"The operator ended while starting:\n{self.tail()}")
                    await asyncio.sleep(0.05)  # a port gives no sign when it opens
        except TimeoutError:
            raise AssertionError(f"The operator was not ready within {seconds:.0f} s:\n{self.tail()}") from None

    async def metric(self, name: str) -> float:
        """The sum over all labels."""
        status, text = await self.get("/metrics")
        assert status == 200, f"no metrics: {status}"  # else each would be 0
        lines = [line for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    async def kill(self) -> None:
        """As the kernel does it: without a last word."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """As the kubelet does it; returns the exit code."""
        return await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> int:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """The exit code, once there is one."""
        if self._process is None:
            return 0
        async with asyncio.timeout(30):
            code = await self._process.wait()
        self._process = None
        return code

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
