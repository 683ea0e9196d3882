"""Files that change while the server runs: read again when they do. The kubelet swaps mounted ConfigMaps and Secrets."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # a stat a file; the kubelet itself takes up to a minute

Signature = tuple[tuple[str, int, int, int], ...]


class Watched:
    """A file, or the files of a folder."""

    def __init__(self, path: Path, changed: Callable[[Path], None]) -> None:
        """changed is called on the first look and after every change, also when path appears or goes."""
        self._path = path
        self._changed = changed
        self._seen: Signature | None = None

    def look(self) -> None:
        found = signature(self._path)
        if found != self._seen:
            self._seen = found
            self._changed(self._path)


async def look_on(files: Sequence[Watched]) -> None:
    """Until it is cancelled."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        for file in files:
            try:
                file.look()
            except OSError:
                log.exception("A mounted file cannot be read")


def signature(path: Path) -> Signature:
    """Changes whenever the content may have; empty where there is nothing."""
    found = []
    for file in files_of(path):
        try:
            stat = file.stat()
        except OSError:
            continue
        found.append((file.name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(found)


def files_of(path: Path) -> list[Path]:
    """The file itself, or a folder's files by name, without the kubelet's own, which start with two dots."""
    if not path.is_dir():
        return [path] if path.exists() else []
    return sorted(file for file in path.iterdir() if not file.name.startswith("..") and file.is_file())
