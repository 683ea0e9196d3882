"""Pulls /progress from training pods: a task for each running pod, slow and bounded, because a pod runs a user's data."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import aiohttp

from winnow_operator import pods, report
from winnow_operator.metrics import Metrics
from winnow_operator.observed import TrainingJobSeen
from winnow_operator.resources import Key

FIRST_SECONDS = 2.0
JITTER = 0.2
TIMEOUT = aiohttp.ClientTimeout(total=2)
LIMIT_BYTES = 65_536
CONNECTIONS = 32


class ProgressPoller:
    def __init__(
        self,
        changed: Callable[[Key], None],
        metrics: Metrics,
        period_seconds: float,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._changed, self._metrics, self._period, self._jitter = changed, metrics, period_seconds, jitter
        self._tasks: dict[Key, tuple[str, asyncio.Task[None]]] = {}
        self._latest: dict[Key, report.Training] = {}
        self._session: aiohttp.ClientSession | None = None

    def latest(self, key: Key) -> report.Training | None:
        return self._latest.get(key)

    def follow(self, key: Key, seen: TrainingJobSeen) -> None:
        """Pull from the pod that runs, if one does. What it told stays until the end is recorded."""
        if seen.obj.status.completion_time is not None:
            self.forget(key)
            return
        url = next((url for pod in seen.pods if (url := pods.progress_url(pod))), None)
        current = self._tasks.get(key)
        if current and current[0] == url:
            return
        self._stop(key)
        if url is not None:
            self._tasks[key] = (url, asyncio.create_task(self._pull_for_ever(key, url), name=f"progress {key}"))

    def forget(self, key: Key) -> None:
        self._stop(key)
        self._latest.pop(key, None)

    async def close(self) -> None:
        tasks = [task for _, task in self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        if self._session is not None:
            await self._session.close()

    def _stop(self, key: Key) -> None:
        current = self._tasks.pop(key, None)
        if current:
            current[1].cancel()

    async def _pull_for_ever(self, key: Key, url: str) -> None:
        await asyncio.sleep(FIRST_SECONDS * self._jitter())
        while True:
            told = await self.pull(url)
            self._metrics.progress_pulls.labels("ok" if told else "failed").inc()
            if told is not None and told != self._latest.get(key):
                self._latest[key] = told
                self._changed(key)
            await asyncio.sleep(self._period * (1 - JITTER + 2 * JITTER * self._jitter()))

    async def pull(self, url: str) -> report.Training | None:
        """None for whatever is not a timely, small, valid answer: the next pull, or the termination message, will tell."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=CONNECTIONS)
            self._session = aiohttp.ClientSession(timeout=TIMEOUT, connector=connector, trust_env=False)
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    return None
                body = b""
                async for chunk in response.content.iter_chunked(LIMIT_BYTES):
                    body += chunk
                    if len(body) > LIMIT_BYTES:
                        return None
        except (TimeoutError, aiohttp.ClientError, OSError):
            return None
        return report.parse(report.Training, body)
