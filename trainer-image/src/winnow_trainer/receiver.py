"""Takes a Dataset's file over HTTP, on the loopback of the pod: `kubectl port-forward` ends there, nothing else reaches it.

GET /upload (HEAD too) says how many bytes are there; PUT /upload with Upload-Offset appends some that begin there. The answer
is JSON: receivedBytes, sizeBytes, sha256, complete, and message where something was refused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from io import DEFAULT_BUFFER_SIZE, BufferedReader
from pathlib import Path
from typing import ClassVar, cast

import orjson

from winnow_classifier.errors import NoRoomForUpload, StorageFull, WinnowError
from winnow_trainer.http_thread import serving
from winnow_trainer.reception import BUFFER_BYTES, Reception, Refused

log = logging.getLogger(__name__)

PORT = 8082
HOST = "127.0.0.1"
PATH = "/upload"
# A sender whose network is gone holds the file for so long against its own next try.
SOCKET_SECONDS = 20.0
DISCARDED_BYTES = 64 << 20  # of a refused request: read on, so that its sender gets to hear why


@contextmanager
def received(reception: Reception, port: int, idle_seconds: float) -> Iterator[Path]:
    """The file for as long as it is read, once it is whole. It goes when the reading has ended, well or not; it stays where
    the next pod of the same Job goes on. Raises UploadAbandoned, StorageError, ConfigError for a port that is taken."""
    with served(reception, port):
        file = reception.wait(idle_seconds)
        log.info("Upload received", extra={"sizeBytes": reception.size_bytes, "sha256": reception.sha256})
        try:
            yield file
        except StorageFull as err:
            reception.remove()
            raise NoRoomForUpload(str(err), err.hint) from err
        except (WinnowError, MemoryError) as err:
            if not isinstance(err, WinnowError) or err.exit_code != 20:
                reception.remove()
            raise
        reception.remove()


@contextmanager
def served(reception: Reception, port: int = 0) -> Iterator[int]:
    """Serves while the block runs; gives the port, which the system chooses for 0."""

    class Handler(_Handler):
        file = reception

    with serving(Handler, HOST, port, "--receive-port") as found:
        log.info("Upload awaited", extra={"port": found, "receivedBytes": reception.received_bytes})
        yield found


class _Handler(BaseHTTPRequestHandler):
    file: ClassVar[Reception]
    protocol_version = "HTTP/1.1"
    timeout: ClassVar[float] = SOCKET_SECONDS
    server_version = "winnow"
    sys_version = ""

    def do_GET(self) -> None:
        if self._known():
            self._answer(200)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        offset, length = self._number("Upload-Offset"), self._number("Content-Length")
        if length is None:
            self.close_connection = True  # where this request ends is not known
            return self._answer(411, "Content-Length is needed, a whole number")
        body = _Body(cast(BufferedReader, self.rfile), length)
        try:
            if not self._known():
                return None
            if offset is None:
                raise Refused(400, "Upload-Offset is needed, a whole number")
            self.file.append(offset, length, body.read)
            if body.left:
                self.close_connection = True  # it broke; there is nobody to answer
                return None
            return self._answer(200)
        except Refused as err:
            self.close_connection = True
            body.discard()
            return self._answer(err.status, str(err))
        finally:
            self.file.announce()

    def _known(self) -> bool:
        if self.path.partition("?")[0] == PATH:
            return True
        self.close_connection = True
        self._answer(404, f"there is {PATH} only")
        return False

    def _number(self, header: str) -> int | None:
        value = self.headers.get(header, "")
        return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else None

    def _answer(self, status: int, message: str = "") -> None:
        said = {
            "receivedBytes": self.file.received_bytes,
            "sizeBytes": self.file.size_bytes,
            "sha256": self.file.sha256,
            "complete": self.file.complete,
            **({"message": message} if message else {}),
        }
        body = orjson.dumps(said)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Upload-Offset", str(self.file.received_bytes))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Of one file there are many requests."""


class _Body:
    """Of one request, and nothing of the next."""

    def __init__(self, stream: BufferedReader, length: int) -> None:
        self._stream, self.left = stream, length
        self._most = DEFAULT_BUFFER_SIZE

    def read(self, view: memoryview) -> int:
        # What came with the headers first: into a larger view, readinto1 would wait for more before it gives that.
        count = self._stream.readinto1(view[: min(self.left, self._most)])
        self._most = BUFFER_BYTES
        self.left -= count
        return count

    def discard(self) -> None:
        view, allowed = memoryview(bytearray(BUFFER_BYTES)), DISCARDED_BYTES
        with suppress(OSError):
            while self.left and allowed > 0 and (count := self.read(view)):
                allowed -= count
