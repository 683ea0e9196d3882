"""A file of a bucket that changes while the server runs: looked at again and again, brought here when it is another one.
Whoever watches the file here (watched.py) does the rest."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from winnow_classifier.mirror import Mirror

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0  # a HEAD request; a minute less or more matters to nobody, requests cost money


@contextmanager
def following(mirror: Mirror, path: Path) -> Iterator[None]:
    """Follow the file in a thread that nobody waits for: a bucket that hangs holds up neither requests nor the end of the
    process."""
    stop = threading.Event()
    threading.Thread(target=_follow, args=(mirror, path, stop), name="mirror", daemon=True).start()
    try:
        yield
    finally:
        stop.set()


def _follow(mirror: Mirror, path: Path, stop: threading.Event) -> None:
    away = False
    while not stop.wait(LOOK_SECONDS):
        try:
            mirror.refresh(path)
        except Exception as err:  # whatever it is, the next look may go well
            if not away and not stop.is_set():
                log.warning(
                    "Storage cannot be looked at, what was read last stays in force",
                    extra={"file": mirror.shown(path), "error": str(err)},
                )
            away = True
        else:
            if away:
                log.info("Storage can be looked at again", extra={"file": mirror.shown(path)})
            away = False
