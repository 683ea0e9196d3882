"""Around every request: its id, its headers, its metrics, its log line; no text ever gets there."""

import logging
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from winnow_server.phase import Phase

if TYPE_CHECKING:
    from winnow_server.service import Service  # brings torch along, which a waker does without

log = logging.getLogger(__name__)

MAX_REQUEST_ID_CHARACTERS = 128
CLIENT_LEFT = 499  # nginx's number for it, in metrics and logs only


class Edge:
    """ASGI middleware; scope["state"]["request_id"] is for the layers below."""

    def __init__(self, app: ASGIApp, service: "Service", counted: Mapping[str, str]) -> None:
        """counted: the paths whose requests are work, and what metrics call them; probes and pages are not."""
        self._app = app
        self._service = service
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = request_id_of(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        status = CLIENT_LEFT

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(raw=message["headers"])
                headers["x-request-id"] = request_id
                headers["x-content-type-options"] = "nosniff"
                if self._service.phase is Phase.DRAINING:
                    # Clients that keep connections have to open a new one, which finds another server.
                    headers["connection"] = "close"
            await send(message)

        endpoint = self._counted.get(scope["path"]) if scope["method"] == "POST" else None
        if endpoint is None:
            await self._app(scope, receive, send_with_headers)
            return
        scope["state"]["endpoint"] = endpoint
        self._service.metrics.request_started()
        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            # The application's last handler has answered and logged it, and raises it again for the server around us.
            if status == CLIENT_LEFT:
                raise
        finally:
            seconds = time.perf_counter() - started
            self._service.metrics.request_ended(endpoint, status, seconds)
            level = logging.DEBUG if status < 400 else logging.INFO
            if log.isEnabledFor(level):
                facts = {"requestId": request_id, "path": scope["path"], "status": status, "seconds": round(seconds, 4)}
                log.log(level, "Request", extra=facts)


def request_id_of(scope: Scope) -> str:
    """The client's X-Request-Id if it can stand in a header and a log, else a new one."""
    for value in header_values(scope, b"x-request-id"):
        if 0 < len(value) <= MAX_REQUEST_ID_CHARACTERS and value.isascii() and value.decode("ascii").isprintable():
            return value.decode("ascii")
    return uuid.uuid4().hex


def header_values(scope: Scope, wanted: bytes) -> Iterator[bytes]:
    return (value for name, value in scope["headers"] if name == wanted)
