"""Waiting for room in storage: a volume or a quota can be enlarged, and what a training has learned cannot be had again soon."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

from winnow_classifier.profile import Warn
from winnow_trainer.failures import is_full
from winnow_trainer.stopping import Stopped

log = logging.getLogger(__name__)
T = TypeVar("T")
NO_ROOM = "StorageFull"


@dataclass(frozen=True, slots=True)
class Patience:
    # Long enough for a person who is called to enlarge a volume. A pod that ended at once would be started again at once, and after
    # maxRestarts of that, within minutes, the job would be lost.
    seconds: float = 1_800.0
    every: float = 15.0  # a try costs as much as the write; who made room shall not wait long


def when_there_is_room(
    what: str, write: Callable[[], T], stop: Event, tell: Callable[[Warn | None], None], patience: Patience
) -> T:
    """What `write` returns; it is tried again while storage is full, and leaves nothing behind where it fails.

    `tell` hears that it waits, and None once it does not any more. Raises Stopped, and at the end of the patience what `write`
    raised last.
    """
    deadline = time.monotonic() + patience.seconds
    waits = False
    while True:
        try:
            found = write()
            break
        except Exception as error:
            left = deadline - time.monotonic()
            if not is_full(error) or left <= 0:
                raise
            if not waits:
                log.warning("Waiting for room in storage", extra={"for": what, "seconds": round(left)})
                tell(
                    Warn(
                        NO_ROOM,
                        f"storage is full, and {what} waits for room: it is tried again every {patience.every:g} seconds, for "
                        f"{patience.seconds / 60:g} minutes; enlarge the volume or its quota, or delete old runs",
                    )
                )
            waits = True
        if stop.wait(min(patience.every, left)):
            raise Stopped
    if waits:
        log.info("There is room again", extra={"for": what})
        tell(None)
    return found
