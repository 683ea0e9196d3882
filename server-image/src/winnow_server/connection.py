"""One connection, between its bytes and the application: uvicorn's protocol with what it does without.

A request's head is bounded in bytes and in time, an answer in how long nothing of it is taken, an offer to speak another
protocol is no more than a header, and what is on its way as the server stops is answered.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import httptools
import orjson
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from winnow_server.errors import ApiError, BadRequest, HeadersTooLarge, RequestTimedOut

log = logging.getLogger(__name__)

HEAD_BYTES = 64 * 1024  # request line and headers; no proxy in front lets more through
HEAD_SECONDS = 30.0  # as for a body
TAKE_SECONDS = 120.0  # within these a client has to take something of its answer
LAST_SECONDS = 0.2  # to wait, as the server stops, for a request that is on its way: a round trip
# To read the rest of a request that was answered before all of it came. Closing at once would reset the connection, and a
# client that sends everything before it reads would never see the answer.
LINGER_SECONDS = 5.0


class Outlet(NamedTuple):
    """The transport, for an answer that may be the connection's last."""

    write: Callable[[bytes], None]
    is_closing: Callable[[], bool]
    close: Callable[[], None]


class Connection(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._held = 0  # bytes of the head, or of what is around a body's pieces, which the parser keeps
        self._refused = False
        self._in_body = False
        self._running: RequestResponseCycle | None = None
        self._left = asyncio.Event()
        self._deadline: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._left.set()
        self._head_came()
        self._all_taken()
        if self._running is not None:  # uvicorn tells the newest request alone, which may only wait behind this one
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_taking()

    def resume_writing(self) -> None:
        self._all_taken()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._refused:
            return
        if not self._in_work():
            if self._in_body:  # answered before it was read, as a refusal is: each piece may take as long
                self._head_came()
            self._await_head()
        while data and not self.transport.is_closing():
            piece, data = data[: HEAD_BYTES - self._held], data[HEAD_BYTES - self._held :]
            self._held += len(piece)
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                if not self._offers_upgrade():
                    # CONNECT: answered as any other request, and what follows it is not read.
                    self.cycle.keep_alive, self._refused = False, True
                    return
                data = self._head_without_upgrade() + piece[upgrade.args[0] :] + data
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
            except httptools.HttpParserError:
                self._not_http()
                return
            if self._held >= HEAD_BYTES:
                message = f"The request line and the headers have more than {HEAD_BYTES} bytes."
                self._refuse(HeadersTooLarge(message, code="headers_too_large"))
                return

    def shutdown(self) -> None:
        """End the connection, but first answer a request that is on its way: closing with unread bytes would reset the
        connection."""
        if self._in_work():
            super().shutdown()
        else:
            self.loop.call_later(LAST_SECONDS, self._stop)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._unset_keepalive_if_required()
        if not self._in_work():
            self._await_head()
        # For those who must know at once that the client left: receive() says so only after all that has come of the body.
        self.scope["state"]["left"] = self._left

    def on_headers_complete(self) -> None:
        self._held = 0
        if self._offers_upgrade():
            return  # the head is parsed again, without the offer
        self._head_came()
        self._in_body = True
        super().on_headers_complete()
        self.cycle.transport = Outlet(self.transport.write, self.transport.is_closing, self._close)  # type: ignore[assignment]
        if len(self.pipeline) == 1:  # uvicorn stops reading here, and who does not read does not see the client leave
            self.flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        self._held = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._held = 0
        if not self._offers_upgrade():
            self._in_body = False
            super().on_message_complete()
            if not self._in_work():  # what follows an answer: the connection is kept as behind any other one
                self._head_came()
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _offers_upgrade(self) -> bool:
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _head_without_upgrade(self) -> bytes:
        """The parser takes what follows such a head for the other protocol. A server that ignores the offer reads the request
        as it is (RFC 9110, 7.8)."""
        lines = [b" ".join((self.parser.get_method(), self.url, b"HTTP/" + self.parser.get_http_version().encode()))]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join((*lines, b"", b""))

    def _in_work(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._too_late)

    def _head_came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _await_taking(self) -> None:
        self._taking = self.loop.call_later(TAKE_SECONDS, self._look_at_taking, self.transport.get_write_buffer_size())

    def _all_taken(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def _look_at_taking(self, before: int) -> None:
        """Break off an answer of which the client took nothing since. Not by close(), which would wait for the client
        again."""
        if self.transport.get_write_buffer_size() < before:
            self._await_taking()
        else:
            log.warning("A client takes nothing of its answer")
            self.transport.abort()

    def _too_late(self) -> None:
        if self._held:
            message = f"The request line and the headers did not arrive within {HEAD_SECONDS:.0f} s."
            self._refuse(RequestTimedOut(message, code="headers_timeout"))
        else:
            self.transport.close()

    def _not_http(self) -> None:
        if self._in_work() and not self._in_body:  # behind a whole request, which is answered as if nothing followed
            self.cycle.keep_alive, self._refused = False, True
            return
        message = "What was sent is not HTTP/1.1, or a body has another length than its headers say."
        self._refuse(BadRequest(message, code="http_invalid"))

    def _refuse(self, error: ApiError) -> None:
        self._refused = True
        if self._in_work():  # a fault may be in a body, or in headers at the end of a chunked one
            if self.pipeline or self.cycle.response_started:
                self.transport.close()
                return
            self.cycle.disconnected = True  # so that it says nothing more
            self.cycle.message_event.set()
            self._left.set()
        request_id = uuid.uuid4().hex
        log.info("Request", extra={"requestId": request_id, "status": error.status})
        self.transport.write(STATUS_LINE[error.status] + answer(error.body(request_id), request_id))
        self._linger()

    def _stop(self) -> None:
        if self._in_work():
            super().shutdown()
        else:
            self._close()

    def _close(self) -> None:
        if (self._in_body or self._refused) and not self.transport.is_closing():
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Close our side; what still comes is read and thrown away for a while."""
        self._refused = True
        self.pipeline.clear()
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)


def answer(body: dict[str, Any], request_id: str) -> bytes:
    """Headers and body of a connection's last answer."""
    content = orjson.dumps(body)
    headers = f"content-type: application/json\r\ncontent-length: {len(content)}\r\nx-request-id: {request_id}\r\n"
    return headers.encode() + b"x-content-type-options: nosniff\r\nconnection: close\r\n\r\n" + content
