"""Files that change while the server runs: read again when they do. The kubelet swaps mounted ConfigMaps and Secrets."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from winnow_classifier.errors import StorageError

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # a stat a file; the kubelet itself takes up to a minute

Signature = tuple[tuple[str, int, int, int, int], ...]


class Watched:
    """A file, or the files of a folder."""

    def __init__(self, path: Path, changed: Callable[[Path], None]) -> None:
        """changed is called on the first look and after every change, also when path appears or goes."""
        self.path = path
        self._changed = changed
        self._seen: Signature | None = None
        self._wrong = ""  # the last look's error

    def look(self) -> None:
        """Raises what changed raises; the next look then calls it again, whether the file changes or not."""
        found = signature(self.path)
        if found != self._seen:
            self._changed(self.path)
            self._seen = found

    def look_again(self) -> None:
        """Never raises: what was read last stays in force. What goes wrong again and again is logged once."""
        try:
            self.look()
            self._wrong = ""
        except Exception as err:
            if repr(err) != self._wrong:
                log.exception("File cannot be read, what was read last stays in force", extra={"file": str(self.path)})
            self._wrong = repr(err)


async def look_on(files: Sequence[Watched]) -> None:
    """Until it is cancelled."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        for file in files:
            file.look_again()


def look_first(files: Sequence[Watched]) -> None:
    """Raises StorageError if one cannot be read, and what reading it raises."""
    for file in files:
        try:
            file.look()
        except OSError as err:
            raise StorageError(f"{err.filename or file.path} cannot be read: {err.strerror}.") from err


def signature(path: Path) -> Signature:
    """Changes whenever the content may have; empty where there is nothing."""
    found = []
    for file in files_of(path):
        try:
            stat = file.stat()
        except OSError:
            continue
        found.append((file.name, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino))
    return tuple(found)


def files_of(path: Path) -> list[Path]:
    """The file itself, or a folder's files by name, without the kubelet's own, which start with two dots."""
    if not path.is_dir():
        return [path] if path.exists() else []
    return sorted(file for file in path.iterdir() if not file.name.startswith("..") and file.is_file())
