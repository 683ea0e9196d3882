"""How far something long has come, on stderr: a bar on a terminal, now and then a line where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from winnow_plugin.words import percent, plain

LINE_SECONDS = 10.0
Clock = Callable[[], float]


class Meter:
    """Of bytes; use it as a context, so that the cursor comes back. Words that are said meanwhile stand above the bar."""

    def __init__(self, what: str, total: int, clock: Clock = time.monotonic) -> None:
        self._what, self._total, self._clock = plain(what), total, clock
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._begun = self._told = clock()
        self._start = 0

    def __enter__(self) -> Meter:
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(file=sys.stderr, highlight=False, markup=False, emoji=False),
            )
            self._task = self._bar.add_task(self._what, total=self._total)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def begin(self, done: int) -> None:
        """From there on speed is measured: what was there before was not fast."""
        self._begun, self._start = self._clock(), done
        if self._bar:
            self._bar.reset(self._task, completed=done)

    def at(self, done: int) -> None:
        if self._bar:
            self._bar.update(self._task, completed=done)
        elif (now := self._clock()) - self._told >= LINE_SECONDS:
            self._told = now
            print(f"{self._what}: {self._line(done, now)}", file=sys.stderr, flush=True)

    def say(self, words: str) -> None:
        if self._bar:
            self._bar.console.print(plain(words))
        else:
            print(plain(words), file=sys.stderr, flush=True)

    def _line(self, done: int, now: float) -> str:
        speed = (done - self._start) / max(1e-3, now - self._begun)
        left = f", {(self._total - done) / speed:.0f} s left" if speed > 0 else ""
        return f"{percent(done / self._total)} of {decimal(self._total)}, {decimal(int(speed))}/s{left}"
