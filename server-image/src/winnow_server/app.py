"""The HTTP surface: the table of endpoints as an application, with its pages and the layers around it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from winnow_server import openapi
from winnow_server.access import ApiKeys, Guard
from winnow_server.edge import Edge
from winnow_server.endpoints import Endpoint, Handler, endpoints
from winnow_server.json_answer import Json
from winnow_server.refusals import HANDLERS
from winnow_server.routes import Routes
from winnow_server.routing import PathRoute
from winnow_server.service import Service
from winnow_server.watched import Watched, look_on

STATIC = Path(__file__).parent / "static"
DOCS = Path(__file__).parent / "docs"
# Nothing on a page comes from, or goes to, any other host.
PAGE_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; object-src 'none'"


class Page(StaticFiles):
    """A page: files as they lie, under a policy that lets them speak to this host only."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Whole: a range that starlette cannot read it refuses in text, where HTTP wants it to be ignored (RFC 9110, 14.2).
        scope = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != b"range"]}

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [one for one in message["headers"] if one[0] != b"accept-ranges"]
                message["headers"] += [
                    (b"content-security-policy", PAGE_POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                    (b"cache-control", b"no-cache"),
                ]
            await send(message)

        await super().__call__(scope, receive, send_with_policy)


def create_app(
    service: Service,
    *,
    keys: ApiKeys | None = None,
    watched: Sequence[Watched] = (),
    around: Callable[[ASGIApp], ASGIApp] = lambda app: app,
) -> ASGIApp:
    """keys: without them everybody may ask. watched: looked at once already, and from now on again and again. around: a layer
    just below the edge."""
    own_version = version("winnow-server")
    routes = Routes(service, own_version)
    table = endpoints(routes)
    described = Json(
        openapi.document(table, title=service.announced.name, version=own_version, open_to_all=keys is None)
    ).body

    async def describe(request: Request) -> Response:
        return Response(described, media_type="application/json")

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        looking = asyncio.create_task(look_on(watched))
        await service.start()
        yield
        looking.cancel()
        await service.stop()

    app = Starlette(
        routes=[
            *paths(table),
            Route("/openapi.json", describe),
            Route("/ui", routes.page),
            Route("/docs", routes.docs),
            Mount("/ui", Page(directory=STATIC, html=True)),
            Mount("/docs", Page(directory=DOCS, html=True)),
        ],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return Edge(around(Guard(app, keys) if keys else app), service, counted=counted(table, service))


def paths(table: Sequence[Endpoint]) -> list[PathRoute]:
    handlers: dict[str, dict[str, Handler]] = {}
    for endpoint in table:
        handlers.setdefault(endpoint.path, {})[endpoint.method] = endpoint.handler
    return [PathRoute(path, by_method(found), methods=list(found)) for path, found in handlers.items()]


def by_method(handlers: Mapping[str, Handler]) -> Handler:
    async def handle(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return handle


def counted(table: Sequence[Endpoint], service: Service) -> dict[str, str]:
    """The paths whose requests are work, as they are when they name the served model, to what metrics call them."""
    names = {"{model}": service.announced.name, "{version}": service.announced.version}
    found = {}
    for endpoint in table:
        if endpoint.method == "POST":
            path = endpoint.template
            for placeholder, name in names.items():
                path = path.replace(placeholder, name)
            found[path] = endpoint.template
    return found
