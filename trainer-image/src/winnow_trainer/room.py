"""Waiting for storage that is full, or for a bucket that does not answer: a volume or a quota can be enlarged, a server comes back,
and what a training has learned cannot be had again soon."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

from winnow_classifier.errors import StorageAway
from winnow_classifier.profile import Warn
from winnow_classifier.refusals import NOT_REACHED
from winnow_trainer.failures import is_full
from winnow_trainer.stopping import Stopped

log = logging.getLogger(__name__)
T = TypeVar("T")
NO_ROOM, NO_ANSWER = "StorageFull", "StorageUnavailable"
WORDS = {NO_ROOM: "storage is full", NO_ANSWER: "the bucket does not answer"}
ADVICE = {
    NO_ROOM: "enlarge the volume or its quota, or delete old runs",
    NO_ANSWER: NOT_REACHED,
}


@dataclass(frozen=True, slots=True)
class Patience:
    # Long enough for a person who is called to enlarge a volume. A pod that ended at once would be started again at once, and after
    # maxRestarts of that, within minutes, the job would be lost.
    seconds: float = 1_800.0
    every: float = 15.0  # a try costs a whole write, but a person who made room shall not wait long


def lack(error: BaseException) -> str | None:
    """The code of a warning if the error is that storage is full or away, which may pass; else None."""
    if isinstance(error, StorageAway):
        return NO_ANSWER
    return NO_ROOM if is_full(error) else None


def when_there_is_room(
    what: str, write: Callable[[], T], stop: Event, tell: Callable[[Warn | None], None], patience: Patience
) -> T:
    """What `write` returns. It is tried again while storage is full or away; it must leave nothing behind when it fails.

    `tell` is called with a warning while it waits, and with None afterwards. Raises Stopped, and what `write` raised last
    when patience is at its end.
    """
    deadline = time.monotonic() + patience.seconds
    waits = None
    while True:
        try:
            found = write()
            break
        except Exception as error:
            left = deadline - time.monotonic()
            code = lack(error)
            if code is None or left <= 0:
                raise
            if waits != code:
                awaited = "room in storage" if code == NO_ROOM else "the bucket"
                log.warning(f"Waiting for {awaited}", extra={"for": what, "seconds": round(left)})
                tell(
                    Warn(
                        code,
                        f"{WORDS[code]}, and {what} waits: it is tried again every {patience.every:g} seconds, for "
                        f"{patience.seconds / 60:g} minutes; {ADVICE[code]}",
                    )
                )
            waits = code
        if stop.wait(min(patience.every, left)):
            raise Stopped
    if waits:
        log.info("Storage takes it again", extra={"for": what})
        tell(None)
    return found
