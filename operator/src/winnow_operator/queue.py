"""Which object is looked at next: each key at most once at a time, failures later and later, no key forgotten."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable

from winnow_operator.resources import Key

FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 300.0
BEHIND = 200


class WorkQueue:
    """A key that is added while it is worked on comes again once that is done, so that no change is missed and no two workers
    share it."""

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._ready: asyncio.PriorityQueue[tuple[int, Key]] = asyncio.PriorityQueue()  # by place
        self._places = itertools.count()
        self._behind: set[Key] = set()
        self._since: dict[Key, float] = {}  # keys in _ready, and since when
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, key: Key) -> None:
        if key in self._working:
            self._again.add(key)
        elif key not in self._since:
            self._since[key] = asyncio.get_running_loop().time()
            self._idle.clear()
            place = next(self._places) + (BEHIND if key in self._behind else 0)
            self._behind.discard(key)
            self._ready.put_nowait((place, key))

    def let_others_first(self, key: Key) -> None:
        """Its next turn comes behind the next `BEHIND` keys, so it cannot wait for ever."""
        self._behind.add(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Not later than that; an earlier appointment stands."""
        loop = asyncio.get_running_loop()
        pending = self._timers.get(key)
        if pending is not None:
            if pending.when() <= loop.time() + seconds:
                return
            pending.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def retry(self, key: Key) -> float:
        """After a failure: 1 s, 2 s, 4 s … 5 min, each shortened by up to a half so that keys that failed together do not
        return together."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        seconds = min(FIRST_RETRY_SECONDS * 2.0 ** min(failures, 16), LAST_RETRY_SECONDS) * (1 - self._jitter() / 2)
        self.add_after(key, seconds)
        return seconds

    def failures(self, key: Key) -> int:
        """In a row."""
        return self._failures.get(key, 0)

    def succeeded(self, key: Key) -> None:
        self._failures.pop(key, None)

    async def get(self) -> Key:
        _, key = await self._ready.get()
        del self._since[key]
        if not self._since:
            self._idle.set()
        self._working.add(key)
        return key

    def done(self, key: Key) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    async def idle(self) -> None:
        """Until no key waits to be worked on."""
        await self._idle.wait()

    def depth(self) -> float:
        return float(len(self._since))

    def oldest_seconds(self) -> float:
        if not self._since:
            return 0.0
        return asyncio.get_running_loop().time() - next(iter(self._since.values()))

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _due(self, key: Key) -> None:
        del self._timers[key]
        self.add(key)
