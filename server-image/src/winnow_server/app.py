"""The HTTP surface: which path does what, and the one way in which errors leave."""

import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from winnow_server import model, responses
from winnow_server.body import gone, read_body
from winnow_server.edge import CLIENT_LEFT, Edge
from winnow_server.errors import ApiError, BadRequest, InternalError, MethodNotAllowed, NotFound
from winnow_server.responses import Json
from winnow_server.schemas import ClassificationRequest, ClassifyRequest, Item, parse, texts_of
from winnow_server.service import Phase, Service
from winnow_server.ticket import Ticket

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
# Nothing on the page comes from, or goes to, any other host.
PAGE_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; object-src 'none'"


class Routes:
    def __init__(self, service: Service, max_body_bytes: int) -> None:
        self._service = service
        self._max_body_bytes = max_body_bytes

    async def classify(self, request: Request) -> Response:
        asked = parse(ClassifyRequest, await read_body(request, self._max_body_bytes))
        ticket = await self._run(request, asked.model, asked.input, refuse_truncation=asked.truncation == "error")
        return self._answer(responses.classify(asked, ticket, self._service.announced), ticket)

    async def classification(self, request: Request) -> Response:
        asked = parse(ClassificationRequest, await read_body(request, self._max_body_bytes))
        ticket = await self._run(request, asked.model, asked.input, refuse_truncation=False)
        return self._answer(responses.classification(asked, ticket, self._service.announced), ticket)

    async def live(self, request: Request) -> Response:
        alive = self._service.alive()
        return Json({"live": alive}, 200 if alive else 503)

    async def ready(self, request: Request) -> Response:
        phase = self._service.phase
        return Json({"ready": phase is Phase.READY, "phase": phase}, 200 if phase is Phase.READY else 503)

    async def metrics(self, request: Request) -> Response:
        return Response(self._service.metrics.exposition(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def models(self, request: Request) -> Response:
        name = self._service.announced.name
        entry = {"id": name, "object": "model", "created": self._service.started_at, "owned_by": "winnow"}
        return Json({"object": "list", "data": [entry]})

    async def model(self, request: Request) -> Response:
        return Json(model.card(self._service.announced, self._service.started_at))

    async def page(self, request: Request) -> Response:
        # Relative, so that it holds behind a port-forward, a sub-path and the API server's proxy.
        return Response(status_code=307, headers={"location": "ui/"})

    async def _run(
        self, request: Request, model_name: str | None, items: list[Item], *, refuse_truncation: bool
    ) -> Ticket:
        served = self._service.announced.name
        if model_name is not None and model_name != served:
            raise NotFound(
                f"This server does not serve {model_name!r}; it serves {served!r}.",
                code="model_not_found",
                param="model",
            )
        return await self._service.classify(
            texts_of(items), refuse_truncation=refuse_truncation, gone=lambda: gone(request)
        )

    def _answer(self, content: Any, ticket: Ticket) -> Response:
        return Json(content, headers={"server-timing": responses.server_timing(ticket)})


class Page(StaticFiles):
    """The test page: files as they lie, under a policy that lets them speak to this host only."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [
                    (b"content-security-policy", PAGE_POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                    (b"cache-control", b"no-cache"),
                ]
            await send(message)

        await super().__call__(scope, receive, send_with_policy)


def create_app(service: Service, *, max_body_bytes: int) -> ASGIApp:
    routes = Routes(service, max_body_bytes)
    inference = [
        Route("/v1/classify", routes.classify, methods=["POST"]),
        Route("/classify", routes.classify, methods=["POST"]),
        Route("/v1/classification", routes.classification, methods=["POST"]),
    ]
    information = [
        Route("/health", routes.live),
        Route("/v2/health/live", routes.live),
        Route("/v2/health/ready", routes.ready),
        Route("/metrics", routes.metrics),
        Route("/v1/models", routes.models),
        Route("/v1/model", routes.model),
        Route("/", routes.page),
        Route("/ui", routes.page),
        Mount("/ui", Page(directory=STATIC, html=True)),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = Starlette(
        routes=[*inference, *information],
        exception_handlers={
            ApiError: refuse,
            HTTPException: refuse,
            ClientDisconnect: answer_nobody,
            Exception: refuse,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return Edge(app, service, counted=frozenset(route.path for route in inference))


async def refuse(request: Request, error: Exception) -> Response:
    """Every error that a client sees comes from here."""
    refusal = as_api_error(error, request)
    request_id = request.scope["state"]["request_id"]
    if refusal.status >= 500 and not isinstance(error, ApiError):
        log.error("Request failed", exc_info=error, extra={"requestId": request_id})
    return Json(refusal.body(request_id), refusal.status, headers=dict(refusal.headers))


async def answer_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_LEFT)


def as_api_error(error: Exception, request: Request) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        path = request.scope["path"]
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "")
            message = f"{path} takes {allowed}, not {request.method}."
            return MethodNotAllowed(message, code="method_not_allowed", headers={"Allow": allowed})
        if error.status_code == 404:
            return NotFound(f"There is nothing at {path}.", code="not_found")
        return BadRequest(str(error.detail), code="bad_request")
    return InternalError("The server failed on this request.", code="internal")
