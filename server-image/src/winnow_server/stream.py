"""One NDJSON stream: lines in, results out in their order, in bounded memory, at the pace of the slowest of client and model.

Three tasks: the reader takes a line when there is room in the window, the finisher waits for the window's oldest result,
the sender writes what is finished. A full window stops the reader, and with it, through TCP, the client.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from winnow_server.errors import ApiError, Overloaded, RequestTimedOut, Unavailable
from winnow_server.protocols import ndjson
from winnow_server.schemas import check_text
from winnow_server.service import Service
from winnow_server.thresholds import Rules
from winnow_server.ticket import Ticket

WINDOW_LINES = 256  # read and not answered: enough to fill batches
WINDOW_CHARACTERS = 1024 * 1024
# Results that the client has not taken yet. Many clients send everything before they read anything: so much of that works.
UNREAD_BYTES = 8 * 1024 * 1024
# Sent at a time, and counted as taken from then on: the connection holds some of it, however slow the client is.
PIECE_BYTES = 64 * 1024
IDLE_SECONDS = 120.0  # without a byte from the client
RETRY_AFTER_SECONDS = 10


class Slots:
    """How many streams may run at once."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._count = count

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Raises Overloaded."""
        if self._free == 0:
            raise Overloaded(
                f"{self._count} streams run already, which is the most at once. Try again in {RETRY_AFTER_SECONDS} s.",
                code="too_many_streams",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            )
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


@dataclass(frozen=True, slots=True)
class Pending:
    index: int
    id: str | None
    work: Ticket | ApiError
    characters: int


class Stream(Response):
    media_type = ndjson.MEDIA_TYPE

    def __init__(self, service: Service, slots: Slots, options: ndjson.Options, rules: Rules) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._service = service
        self._slots = slots
        self._options = options
        self._rules = rules
        self._slot = contextlib.ExitStack()
        self._window: deque[Pending] = deque()
        self._characters = 0
        self._unread = bytearray()
        self._changed = asyncio.Condition()
        self._begun = False  # something was read: uvicorn then has told the client to go on (100-continue)
        self._read = self._finished = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = scope["state"]["request_id"]
        with self._slot:
            try:
                self._slot.enter_context(self._slots.one())
            except Overloaded as refused:
                self._service.metrics.rejected(refused.code)
                raise
            try:
                async with asyncio.TaskGroup() as tasks:
                    leaving = tasks.create_task(self._leaving(scope["state"]["left"]))
                    tasks.create_task(self._reader(receive))
                    tasks.create_task(self._finisher(request_id))
                    tasks.create_task(self._sender(send, leaving))
            except* ClientDisconnect:
                pass
            finally:
                for pending in self._window:
                    if isinstance(pending.work, Ticket):
                        self._service.drop(pending.work)

    async def _reader(self, receive: Receive) -> None:
        index = -1
        try:
            async with contextlib.aclosing(self._chunks(receive)) as chunks:
                async for line in ndjson.lines(chunks, self._service.limits.body_bytes):
                    index += 1
                    await self._enter(self._submitted(index, line))
        except (RequestTimedOut, Unavailable) as err:
            await self._enter(Pending(index + 1, None, err, 0))
        async with self._changed:
            self._read = self._begun = True
            self._changed.notify_all()

    async def _leaving(self, left: asyncio.Event) -> None:
        await left.wait()
        raise ClientDisconnect

    async def _chunks(self, receive: Receive) -> AsyncGenerator[bytes]:
        """Raises RequestTimedOut, Unavailable, ClientDisconnect."""
        draining = asyncio.ensure_future(self._service.draining.wait())
        more = True
        try:
            while more:
                message = asyncio.ensure_future(receive())
                done, _ = await asyncio.wait(
                    {message, draining}, timeout=IDLE_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if message not in done:
                    message.cancel()
                    raise stopped() if draining in done else idle()
                if message.result()["type"] == "http.disconnect":
                    raise ClientDisconnect
                async with self._changed:
                    self._begun = True
                    self._changed.notify_all()
                more = message.result().get("more_body", False)
                yield message.result().get("body", b"")
                if more and draining.done():
                    raise stopped()
        finally:
            draining.cancel()

    def _submitted(self, index: int, line: bytes | ApiError) -> Pending:
        if isinstance(line, ApiError):
            return Pending(index, None, line, 0)
        id_ = None
        try:
            item = ndjson.item_of(line)
            id_ = item.id
            check_text(item.text, self._service.limits.text_characters, ndjson.FIELD)
            ticket = self._service.submit_background(item.text, field=ndjson.FIELD, truncation=self._options.truncation)
            return Pending(index, id_, ticket, len(item.text))
        except ApiError as err:
            return Pending(index, id_, err, 0)

    async def _enter(self, pending: Pending) -> None:
        async with self._changed:
            self._window.append(pending)
            self._characters += pending.characters
            self._changed.notify_all()
            await self._changed.wait_for(
                lambda: len(self._window) < WINDOW_LINES and self._characters < WINDOW_CHARACTERS
            )

    async def _finisher(self, request_id: str) -> None:
        labels = self._service.announced.manifest.labels
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._window or self._read)
                await self._changed.wait_for(lambda: len(self._unread) < UNREAD_BYTES)
            if not self._window:
                break
            pending = self._window[0]
            answer = await self._answer(pending, labels, request_id)
            self._service.metrics.line(ok="error" not in answer)
            async with self._changed:
                self._window.popleft()
                self._characters -= pending.characters
                self._unread += orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
                self._changed.notify_all()
        async with self._changed:
            self._finished = True
            self._changed.notify_all()

    async def _answer(self, pending: Pending, labels: tuple[str, ...], request_id: str) -> dict[str, Any]:
        try:
            if isinstance(pending.work, ApiError):
                raise pending.work
            ticket = await self._service.finish_background(pending.work, self._rules)
        except ApiError as err:
            return ndjson.failed(pending.index, pending.id, err, request_id)
        return ndjson.rendered(pending.index, pending.id, ticket, labels, with_logits=self._options.return_logits)

    async def _sender(self, send: Send, leaving: asyncio.Task[None]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._begun)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        more = True
        while more:
            async with self._changed:
                await self._changed.wait_for(lambda: self._unread or self._finished)
                body = bytes(self._unread[:PIECE_BYTES])
                del self._unread[:PIECE_BYTES]
                more = bool(self._unread) or not self._finished
                self._changed.notify_all()
            if not more:
                self._slot.close()  # before the client can know that its stream is over, and begin the next
            await send({"type": "http.response.body", "body": body, "more_body": more})
        leaving.cancel()


def stopped() -> Unavailable:
    return Unavailable(
        "The server stops. No line from this index on was read: send them again, another server takes them.",
        code="draining",
    )


def idle() -> RequestTimedOut:
    return RequestTimedOut(
        f"Nothing came for {IDLE_SECONDS:g} s. No line from this index on was read.", code="body_timeout"
    )
