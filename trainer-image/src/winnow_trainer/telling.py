"""What a training warns of: what stays, which reports say too, and storage that is full or away, which passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from threading import Event
from typing import Any, Protocol, TypeVar

from winnow_classifier.profile import Warn
from winnow_trainer.room import ADVICE, WORDS, Patience, when_there_is_room

T = TypeVar("T")
POINTS = "resume points"


class Progress(Protocol):
    def update(self, **fields: Any) -> None: ...


class Telling:
    """The warnings of one training."""

    def __init__(self, warnings: Sequence[Warn], progress: Progress, stop: Event, patience: Patience) -> None:
        """`patience`: with storage that is full or away."""
        self.warnings = list(warnings)
        self._short_of_room: dict[str, Warn] = {}  # by what the room is for; in no report, since it passes
        self._progress, self._stop, self._patience = progress, stop, patience

    def told(self) -> list[dict[str, str]]:
        return [asdict(warning) for warning in (*self._short_of_room.values(), *self.warnings)]

    def warn_once(self, warnings: Sequence[Warn]) -> None:
        """Add warnings of an evaluation, but only once for each subject, which is what the message begins with."""
        known = {warning.message.split(":")[0] for warning in self.warnings}
        self.warnings += [warning for warning in warnings if warning.message.split(":")[0] not in known]

    def when_there_is_room(self, what: str, write: Callable[[], T]) -> T:
        """What `write` returns, later where storage is full or away. Raises Stopped, and what `write` raises."""
        return when_there_is_room(what, write, self._stop, partial(self._tell_of_room, what), self._patience)

    def resume_points(self, lack: str | None) -> None:
        """Warn that the last resume point could not be written, with why; None takes the warning away."""
        warning = lack and Warn(
            lack,
            f"{WORDS[lack]}: the last resume point could not be written, and the training goes on without it. After a stop it "
            f"would go on from the one before; {ADVICE[lack]}",
        )
        self._tell_of_room(POINTS, warning or None)

    def _tell_of_room(self, what: str, warning: Warn | None) -> None:
        """Warn that storage is full or away for this; None takes the warning away."""
        if warning == self._short_of_room.get(what):
            return
        self._short_of_room.pop(what, None)
        if warning is not None:
            self._short_of_room[what] = warning
        self._progress.update(warnings=self.told())
