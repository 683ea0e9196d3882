"""What a server is told beside the training, by a thread of its own: one that is slow or down never holds the training up."""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

M = TypeVar("M")
T = TypeVar("T")

WAITING = 10_000  # messages that may wait: more than an hour of most runs
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
ERROR_CHARACTERS = 500  # of what a server says
CLOSE_SECONDS = 15.0  # that the end of a run waits for what is still to be sent


class UnreachableError(Exception):
    """A later try may help."""


class RefusedError(Exception):
    """No later try would."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class Teller(Generic[M]):
    def __init__(self, server: str, work: Callable[[], None]) -> None:
        """`work` runs in the thread, takes what `waiting` gives it until all is `told`, and may raise what it likes of the
        two errors above."""
        self._server = server
        self._work = work
        self._queue: Queue[M] = Queue(WAITING)
        self._closing = Event()
        self._warned = self._over = False
        self._lack: str | None = None
        self._thread = Thread(target=self._run, name=server, daemon=True)  # a process may end without it

    def start(self) -> None:
        self._thread.start()

    def put(self, message: M) -> None:
        try:
            self._queue.put_nowait(message)
        except Full:
            if not self._over and self._lack is None:
                self._lose(f"{WAITING} messages wait already, further ones are left out")

    def close(self) -> str | None:
        """Say that nothing more comes. Returns why the server does not know everything, None if it does."""
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._lose(f"the end of the run was not told within {CLOSE_SECONDS:.0f} s")
            self._over = True
        return self._lack

    @property
    def closing(self) -> bool:
        return self._closing.is_set()

    @property
    def told(self) -> bool:
        return self.closing and self._queue.empty()

    def waiting(self) -> list[M]:
        """The messages that wait, soon after they come."""
        found: list[M] = []
        try:
            found.append(self._queue.get(timeout=0.2))
            while True:
                found.append(self._queue.get_nowait())
        except Empty:
            return found

    def until_done(self, call: Callable[[], T]) -> T:
        """Raises UnreachableError only once the run has ended."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return call()
            except UnreachableError as error:
                if self.closing:
                    raise
                if not self._warned:
                    self.warn(f"{error}; it is tried again for as long as the training runs")
            self._closing.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def warn(self, error: str) -> None:
        self._warned = True
        log.warning(f"{self._server} is not told, training goes on", extra={"error": error[:ERROR_CHARACTERS]})

    def _lose(self, error: str) -> None:
        self.warn(error)
        self._lack = f"{self._server} does not know all of this run: {error[:ERROR_CHARACTERS]}"

    def _run(self) -> None:
        try:
            self._work()
        except (RefusedError, UnreachableError, OSError) as error:
            if not self._over:
                self._lose(f"{error}; nothing more is told there")
        except Exception as error:  # a remembered id that is broken, for example: trackers are a courtesy
            if not self._over:
                self._lose(f"{type(error).__name__}: {error}; nothing more is told there")
        finally:
            self._over = True
