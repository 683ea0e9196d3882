"""The HTTP surface of a waker: requests of the server's that need a key are held until one answers; all others are answered here."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence

import httpx2
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from winnow_server.access import ApiKeys, Guard, is_open
from winnow_server.body import gone, read_body
from winnow_server.edge import request_id_of
from winnow_server.errors import ApiError, Unavailable
from winnow_server.json_answer import Json
from winnow_server.refusals import HANDLERS
from winnow_server.routing import PathRoute
from winnow_server.waking.room import RETRY_SECONDS, Room
from winnow_server.waking.upstream import Upstream
from winnow_server.watched import Watched, look_on

log = logging.getLogger(__name__)

STREAM = "/v1/classify/batch"
# What the server answers, so that browsers' own requests and those of scanners are answered here and start nothing. Written
# down again, since the server's table brings its model along; a test holds one against the other.
MODEL = "/v2/models/{model:path}"
VERSION = f"{MODEL}/versions/{{version:path}}"
WORK = (
    "/v1/classify",
    "/classify",
    "/v1/classification",
    STREAM,
    "/predict",
    "/v1/models/{model:path}:predict",
    f"{VERSION}/infer",
    f"{MODEL}/infer",
)
QUESTIONS = (
    f"{VERSION}/ready",
    f"{MODEL}/ready",
    VERSION,
    MODEL,
    "/v2",
    "/v2/",
    "/v1/models",
    "/v1/models/{model:path}",
    "/v1/model",
    "/v1/examples",
    "/info",
)
PAGES = ("/openapi.json", "/ui", "/docs", "/ui/{file:path}", "/docs/{file:path}")
# Of one connection (RFC 9110, 7.6.1); the client's library says the length anew.
HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"}
)


class Hold:
    """The server's paths, as an ASGI application."""

    def __init__(self, room: Room, upstream: Upstream, *, body_bytes: int, seconds: float) -> None:
        """body_bytes: of one request. seconds: for how long a request waits for a server."""
        self._room, self._upstream = room, upstream
        self._body_bytes, self._seconds = body_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if is_open(request.method, scope["path"]):
            # Whoever looks at a page may be anybody: that starts nothing.
            answer = await self._upstream.send(self._forwarded(request, b""))
            if answer is None:
                raise asleep("No server runs, and this page starts none: a request to /v1/classify does.")
            await relay(answer, send)
            return
        with self._room.wanted():
            outcome = "left"
            try:
                answer = await self._held(request)
                outcome = "answered"
            except Unavailable:
                outcome = "asleep"
                raise
            except ApiError:
                outcome = "refused"
                raise
            finally:
                self._room.ended(outcome)
            await relay(answer, send)

    async def _held(self, request: Request) -> httpx2.Response:
        """Raises ApiError, ClientDisconnect."""
        if request.scope["path"] == STREAM and request.method == "POST":
            raise asleep("No server runs yet, and a stream cannot be held. One is being started.")
        declared = request.headers.get("content-length", "")
        chunked = "transfer-encoding" in request.headers
        size = int(declared) if declared.isdecimal() else self._body_bytes if chunked else 0
        with self._room.place(min(size, self._body_bytes)) as place:
            body = await read_body(request, self._body_bytes)
            place.size = len(body)
            sending = asyncio.create_task(self._answer(request, body))
            leaving = asyncio.create_task(gone(request))
            try:
                await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
                if not sending.done():
                    raise ClientDisconnect
                return sending.result()
            finally:
                sending.cancel()
                leaving.cancel()

    async def _answer(self, request: Request, body: bytes) -> httpx2.Response:
        """Of the first server that takes it. Raises Unavailable when none came in time."""
        until = asyncio.get_running_loop().time() + self._seconds
        while (answer := await self._upstream.send(self._forwarded(request, body))) is None:
            try:
                async with asyncio.timeout_at(until):
                    await self._upstream.appears()
            except TimeoutError as err:
                raise asleep(f"No server was ready within {self._seconds:.0f} s. One is being started.") from err
        return answer

    def _forwarded(self, request: Request, body: bytes) -> httpx2.Request:
        own = HOP_BY_HOP | {b"content-length", b"x-request-id"}
        headers = [(name, value) for name, value in request.headers.raw if name not in own]
        headers.append((b"x-request-id", request.scope["state"]["request_id"].encode()))
        target = request.scope["raw_path"] + (b"?" + query if (query := request.scope["query_string"]) else b"")
        url = self._upstream.url.copy_with(raw_path=target)
        return httpx2.Request(request.method, url, headers=headers, content=body)


def asleep(message: str) -> Unavailable:
    return Unavailable(message, code="asleep", headers={"Retry-After": str(RETRY_SECONDS)})


async def relay(answer: httpx2.Response, send: Send) -> None:
    """Byte for byte. The connection is closed behind it, so that the client's next one finds a server itself."""
    try:
        headers = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in HOP_BY_HOP]
        headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        async for chunk in answer.aiter_raw():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        await answer.aclose()


class Named:
    """ASGI middleware, outermost: the request's id for the layers below and the answer, and a log line of what was refused."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                headers["x-request-id"] = request_id
                headers["x-content-type-options"] = "nosniff"
                if message["status"] >= 400:
                    headers["connection"] = "close"
                    facts = {"requestId": request_id, "path": scope["path"], "status": message["status"]}
                    log.info("Request", extra=facts)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def create_app(
    room: Room,
    upstream: Upstream,
    *,
    body_bytes: int,
    seconds: float,
    keys: ApiKeys | None = None,
    watched: Sequence[Watched] = (),
) -> ASGIApp:
    async def live(request: Request) -> Response:
        return Json({"live": True})

    async def ready(request: Request) -> Response:
        """It wants requests, which is what clients and proxies ask."""
        return Json({"ready": True, "phase": "asleep"})

    async def metrics(request: Request) -> Response:
        return Response(room.exposition(), headers={"content-type": CONTENT_TYPE_LATEST})

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        looking = asyncio.create_task(look_on(watched))
        yield
        looking.cancel()
        await upstream.close()

    hold = Hold(room, upstream, body_bytes=body_bytes, seconds=seconds)
    app = Starlette(
        routes=[
            PathRoute("/health", live),
            PathRoute("/ping", live),
            PathRoute("/v2/health/live", live),
            PathRoute("/v2/health/ready", ready),
            PathRoute("/metrics", metrics),
            PathRoute("/", hold, methods=["GET", "POST"]),
            *(PathRoute(path, hold, methods=["POST"]) for path in WORK),
            *(PathRoute(path, hold, methods=["GET"]) for path in (*QUESTIONS, *PAGES)),
        ],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return Named(Guard(app, keys) if keys else app)
