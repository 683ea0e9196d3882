"""What may stand between the operator and its API server, and misbehave: a load balancer, and the server's own limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web
from integration_client import server_and_tls

DROPPED = ("host", "connection", "content-length", "transfer-encoding", "accept-encoding")  # of one connection only

EXPIRED = b'{"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}\n'


class Proxy:
    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session, self._server = session, server
        self._silent: set[str] = set()
        self._expired: set[str] = set()
        self.refuse: Callable[[web.Request], web.Response | None] = lambda _: None

    def forget_watch(self, plural: str) -> None:
        """It tells nothing more and is not closed, as where a load balancer forgot its connection."""
        self._silent.add(plural)

    def expire_watch(self, plural: str) -> None:
        """Instead of what it would tell next it says, once, that its version is gone: what happened until the next list is told by nobody."""
        self._expired.add(plural)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if (refused := self.refuse(request)) is not None:
            return refused
        headers = {name: value for name, value in request.headers.items() if name.lower() not in DROPPED}
        async with self._session.request(
            request.method, self._server + request.path_qs, data=body or None, headers=headers
        ) as answer:
            passed = web.StreamResponse(status=answer.status)
            passed.content_type = answer.content_type
            await passed.prepare(request)
            plural = request.path.rpartition("/")[2] if "watch" in request.query else ""
            async for line in answer.content:
                if plural in self._silent:
                    await asyncio.Event().wait()
                if plural in self._expired:
                    self._expired.remove(plural)
                    await passed.write(EXPIRED)
                    break
                await passed.write(line)
            return passed


@asynccontextmanager
async def between(admin: Path, operator: Path, told: Path) -> AsyncIterator[Proxy]:
    """`told` is the operator's kubeconfig, but leads through the proxy."""
    server, context = server_and_tls(admin)
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        proxy = Proxy(session, server)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        _lead_to(f"http://127.0.0.1:{runner.addresses[0][1]}", operator, told)
        try:
            yield proxy
        finally:
            await runner.cleanup()


def _lead_to(url: str, kubeconfig: Path, told: Path) -> None:
    config = yaml.safe_load(kubeconfig.read_text())
    config["clusters"][0]["cluster"] = {"server": url}
    told.write_text(yaml.safe_dump(config))
