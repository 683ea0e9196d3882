"""A file that arrives piece by piece: how much is there, what may come next, whether it is whole. Knows no HTTP.

What arrived lies in a folder and survives the process, so that the next one goes on where this one stood. The file gets its
last name once it is whole and has the right digest.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock

from winnow_classifier.errors import NoRoomForUpload, StorageError, UploadAbandoned, WinnowError
from winnow_classifier.files import is_full

log = logging.getLogger(__name__)

FOLDER = "uploads"  # in storage: a folder for each upload
FILE = "rows"
PART = "rows.part"
IDLE_SECONDS = 3_600.0
STALE_SECONDS = 86_400.0  # far more than a pod waits for its next byte
BUFFER_BYTES = 1 << 20
# Bytes between two syncs: a node that dies loses what was not synced, and more syncs would hold up the network.
SYNC_BYTES = 256 << 20

Read = Callable[[memoryview], int]  # as readinto1 of a stream: 0 at its end
Clock = Callable[[], float]


class Refused(Exception):  # noqa: N818 - an answer, not a failure of ours
    """Why bytes are not taken, with the HTTP status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Reception:
    """One file. One writer at a time; any thread may ask how far it is."""

    def __init__(self, folder: Path, size_bytes: int, sha256: str, clock: Clock = time.monotonic) -> None:
        """Goes on with what is in the folder. Raises NoRoomForUpload, StorageError."""
        self._folder, self.size_bytes, self.sha256 = folder, size_bytes, sha256
        self._clock, self._last_byte = clock, clock()
        self._writer, self._ended = Lock(), Event()
        self._digest = hashlib.sha256()
        self._failure: WinnowError | None = None
        self.received_bytes = 0
        self.complete = False
        try:
            self._open()
        except OSError as err:
            raise self._failed(err) from err
        self._last_byte = clock()

    @property
    def file(self) -> Path:
        return self._folder / FILE

    @property
    def _part(self) -> Path:
        return self._folder / PART

    def append(self, offset: int, length: int, read: Read) -> None:
        """Takes `length` bytes that begin at `offset`, which must be where the file ends now; what came before a connection
        breaks is kept. Raises Refused."""
        if not self._writer.acquire(blocking=False):
            raise Refused(423, "another connection is sending this file now")
        try:
            self._check(offset, length)
            self._take(length, read)
            if self.received_bytes == self.size_bytes:
                self._finish()
        except OSError as err:
            self._failure = self._failed(err)
            raise Refused(507 if isinstance(self._failure, NoRoomForUpload) else 500, str(self._failure)) from err
        finally:
            self._last_byte = self._clock()
            self._writer.release()

    def announce(self) -> None:
        """Wakes who waits, if there is news. Apart from append, so that the sender is answered first."""
        if self.complete or self._failure:
            self._ended.set()

    def wait(self, idle_seconds: float = IDLE_SECONDS) -> Path:
        """The file, once it is whole. Raises UploadAbandoned after so long without a byte, StorageError, NoRoomForUpload."""
        while not self._ended.wait(max(0.01, self._last_byte + idle_seconds - self._clock())):
            # The lock: a writer that is at work is not idle, however slow its disk.
            if self._clock() >= self._last_byte + idle_seconds and self._writer.acquire(blocking=False):
                self._failure = UploadAbandoned(f"no byte of the file came for {_duration(idle_seconds)}")
                self.remove()
                self._writer.release()
                break
        if self._failure:
            raise self._failure
        return self.file

    def remove(self) -> None:
        try:
            shutil.rmtree(self._folder)
        except OSError as err:
            log.warning("Upload not removed", extra={"folder": str(self._folder), "error": str(err)})

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        os.utime(self._folder)  # not stale, however old what lies in it is
        if self.file.exists():
            self.received_bytes, self.complete = self.size_bytes, True
            self._ended.set()
            return
        with self._part.open("ab+") as stream:
            if stream.tell() > self.size_bytes:
                stream.truncate(0)
            stream.seek(0)
            self._digest = hashlib.file_digest(stream, "sha256")
            self.received_bytes = stream.tell()
        free, missing = shutil.disk_usage(self._folder).free, self.size_bytes - self.received_bytes
        if free < missing:
            self.remove()
            raise NoRoomForUpload(
                f"the file has {self.size_bytes:,} bytes, and the volume has room for {free:,} more",
                hint="enlarge the volume or delete what is not needed in it",
            )
        if not missing:
            with suppress(Refused):  # of another file: begin anew
                self._finish()
            self.announce()

    def _check(self, offset: int, length: int) -> None:
        if self._failure:
            raise Refused(410, str(self._failure))
        if offset != self.received_bytes:
            raise Refused(409, f"{self.received_bytes:,} bytes are here, and these begin at byte {offset:,}")
        if length > self.size_bytes - offset:
            raise Refused(413, f"the file has {self.size_bytes:,} bytes, and these would be {offset + length:,}")

    def _take(self, length: int, read: Read) -> None:
        buffer = memoryview(bytearray(min(length, BUFFER_BYTES)))
        since_sync = 0
        with self._part.open("ab", buffering=0) as stream:
            while length:
                try:
                    count = read(buffer[: min(length, len(buffer))])
                except OSError:  # of the connection
                    return
                if not count:
                    return
                written = 0
                while written < count:
                    written += stream.write(buffer[written:count])
                self._digest.update(buffer[:count])
                self.received_bytes += count
                self._last_byte = self._clock()
                length -= count
                since_sync += count
                if since_sync >= SYNC_BYTES:
                    os.fsync(stream.fileno())
                    since_sync = 0

    def _finish(self) -> None:
        """Raises Refused for another file, which is thrown away."""
        found = self._digest.hexdigest()
        if found != self.sha256:
            os.truncate(self._part, 0)
            self._digest, self.received_bytes = hashlib.sha256(), 0
            raise Refused(422, f"what arrived has the SHA-256 {found}, and {self.sha256} is wanted")
        with self._part.open("rb") as stream:
            os.fsync(stream.fileno())
        self._part.replace(self.file)
        self.complete = True

    def _failed(self, err: OSError) -> StorageError:
        if is_full(err):
            self.remove()
            message = f"no room is left for the file after {self.received_bytes:,} of {self.size_bytes:,} bytes"
            return NoRoomForUpload(message, hint="enlarge the volume or delete what is not needed in it")
        return StorageError(f"{self._part} cannot be written: {err.strerror or err}")


def remove_stale(uploads: Path) -> None:
    """Folders that nobody has written to for a day: their datasets were deleted, or their nodes lost."""
    try:
        folders = [folder for folder in uploads.iterdir() if folder.is_dir()]
        for folder in folders:
            touched = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            if touched < time.time() - STALE_SECONDS:
                shutil.rmtree(folder)
                log.info("Abandoned upload removed", extra={"folder": folder.name})
    except FileNotFoundError:
        return  # there are none, or another import removes them
    except OSError as err:
        log.warning("Abandoned uploads not removed", extra={"error": str(err)})


def _duration(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 60 else f"{seconds:g} seconds"
