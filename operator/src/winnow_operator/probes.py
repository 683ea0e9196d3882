"""The operator's own port: is it alive, is it ready, what does it count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiohttp import web

from winnow_operator.lease import DURATION_SECONDS
from winnow_operator.metrics import Metrics

LAG_SECONDS = 5.0  # an event loop that is this late renews no Lease
BEAT_SECONDS = 0.5


class Probes:
    def __init__(
        self, metrics: Metrics, *, renewed: Callable[[], float | None], ready: Callable[[], str | None]
    ) -> None:
        """`renewed`: when the Lease was renewed, None on a replica that stands by. `ready`: None, or what is still missing."""
        self._metrics, self._renewed, self._ready = metrics, renewed, ready
        self._beat = time.monotonic()
        self._runner: web.AppRunner | None = None

    async def serve(self, port: int) -> None:
        app = web.Application()
        app.add_routes(
            [web.get("/healthz", self.healthz), web.get("/readyz", self.readyz), web.get("/metrics", self._page)]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, None, port).start()

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def beat(self) -> None:
        """For ever: shows that the event loop turns."""
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(BEAT_SECONDS)

    async def healthz(self, _: web.Request) -> web.Response:
        now, renewed = time.monotonic(), self._renewed()
        if now - self._beat > LAG_SECONDS:
            return _answer(500, f"the event loop is {now - self._beat:.0f} s late")
        if renewed is not None and now - renewed > DURATION_SECONDS:
            return _answer(500, f"the Lease was renewed {now - renewed:.0f} s ago")
        return _answer(200, "ok")

    async def readyz(self, _: web.Request) -> web.Response:
        missing = self._ready()
        return _answer(200, "ok") if missing is None else _answer(503, missing)

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.page(), headers={"Content-Type": "text/plain; version=0.0.4"})


def _answer(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text + "\n")
