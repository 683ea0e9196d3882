"""Whether anybody asked lately: a queue that is empty whenever an autoscaler looks does not mean that nobody comes."""

import time
from collections.abc import Callable

RECENT_SECONDS = 60.0  # several times the interval in which an autoscaler looks


class Recency:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running = 0
        self._last = float("-inf")

    def started(self) -> None:
        self._running += 1

    def ended(self) -> None:
        self._running -= 1
        self._last = self._clock()

    def recent(self) -> bool:
        return self._running > 0 or self._clock() - self._last < RECENT_SECONDS
