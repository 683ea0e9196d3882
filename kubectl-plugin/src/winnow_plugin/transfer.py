"""A file to the receiver of an import pod, from where it stands: see winnow_trainer/receiver.py for the other end."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from typing import IO, Any

from winnow_plugin.errors import Unreachable, UploadRefused
from winnow_plugin.upload_spec import LocalFile

PATH = "/upload"
REQUEST_BYTES = 64 << 20  # what a broken connection can cost at most, if its last answer is lost
PIECE_BYTES = 1 << 20
ANSWER_SECONDS = 120.0  # a disk may be slow to take what is in memory
BUSY_SECONDS = 60.0  # longer than the receiver waits for a sender that is gone
BUSY_PAUSE_SECONDS = 2.0

Tell = Callable[[int], None]  # bytes that have arrived, or are on their way


def send(port: int, file: LocalFile, tell: Tell, began: Tell = lambda offset: None) -> None:
    """Send until the receiver has the whole file. `began` is called once, with where it goes on. Raises Unreachable where the
    connection breaks, which is worth another try, and UploadRefused."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        state = _ask(connection)
        if (state.get("sha256"), state.get("sizeBytes")) != (file.sha256, file.size_bytes):
            raise UploadRefused("the pod awaits another file", hint="delete the Dataset and upload again")
        began(state["receivedBytes"])
        busy_until = time.monotonic() + BUSY_SECONDS
        with file.path.open("rb") as stream:
            while not state["complete"]:
                status, state = _put(connection, stream, file, state["receivedBytes"], tell)
                if status == 423 and time.monotonic() < busy_until:
                    time.sleep(BUSY_PAUSE_SECONDS)
                elif status not in (200, 409):
                    raise _refusal(status, state, file)
                if status != 200 and not state["complete"]:
                    state = _ask(connection)
                    began(state["receivedBytes"])
    except (OSError, http.client.HTTPException, ValueError) as err:
        raise Unreachable(f"the connection to the pod broke: {err or type(err).__name__}") from err
    finally:
        connection.close()


def _ask(connection: http.client.HTTPConnection) -> dict[str, Any]:
    connection.request("GET", PATH)
    return _answer(connection)[1]


def _put(
    connection: http.client.HTTPConnection, stream: IO[bytes], file: LocalFile, offset: int, tell: Tell
) -> tuple[int, dict[str, Any]]:
    end = min(offset + REQUEST_BYTES, file.size_bytes)
    connection.putrequest("PUT", PATH)
    connection.putheader("Upload-Offset", str(offset))
    connection.putheader("Content-Length", str(end - offset))
    connection.endheaders()
    while offset < end:
        sent = connection.sock.sendfile(stream, offset, min(PIECE_BYTES, end - offset))
        if not sent:
            raise UploadRefused(
                f"{file.path} became shorter while it was sent", hint="leave it alone, and upload again"
            )
        offset += sent
        tell(offset)
    return _answer(connection)


def _answer(connection: http.client.HTTPConnection) -> tuple[int, dict[str, Any]]:
    response = connection.getresponse()
    said = json.loads(response.read())
    if not isinstance(said, dict) or not isinstance(said.get("receivedBytes"), int) or "complete" not in said:
        raise ValueError(f"something that is no import pod answers: HTTP {response.status}")
    return response.status, said


def _refusal(status: int, state: dict[str, Any], file: LocalFile) -> UploadRefused | Unreachable:
    message = str(state.get("message", f"HTTP {status}"))
    if status == 422:
        hint = f"was {file.path} changed while it was sent? Upload it again"
        return UploadRefused(f"the file did not arrive as it is: {message}", hint)
    if status == 423:
        return UploadRefused(message, hint="wait for the other upload, or end it")
    if status in (410, 500, 507):
        return Unreachable(f"the import pod gave up: {message}")  # its Dataset will say so, too
    return UploadRefused(f"the import pod refuses the file: {message}")
