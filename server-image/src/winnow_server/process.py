"""The process around an application: its socket, its event loop, and a stop that fails no request."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from winnow_classifier.errors import ConfigError
from winnow_server.connection import Connection

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 75  # above the usual 60 s of proxies, so that they close first
FINISH_SECONDS = 60  # for what is in work when no new connection is taken any more


class Server(uvicorn.Server):
    """uvicorn with a pause before it stops: SIGTERM first turns readiness off and goes on serving."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None], drain_seconds: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._drain_seconds = drain_seconds
        self._stopping: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn would raise the signal again after a clean stop, and the process would not end with 0."""
        originals = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in originals.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, a second one stops at once."""
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(self._stop, signal.Signals(sig).name)

    def _stop(self, why: str) -> None:
        if self._stopping is not None:
            self.should_exit = True
            return
        log.info("Draining", extra={"signal": why, "seconds": self._drain_seconds})
        self._drain()
        self._stopping = asyncio.create_task(self._stop_after_drain())

    async def _stop_after_drain(self) -> None:
        await asyncio.sleep(self._drain_seconds)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Whoever was let in by the kernel, and not yet by us, would be reset with the closed socket: they are let in first."""
        waiting = [connection for listener in sockets or () for connection in accepted(listener)]
        for server in self.servers:
            server.close()
        for connection in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._connection, connection)
        await super().shutdown(sockets)

    def _connection(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)


def configuration(app: ASGIApp, finish_seconds: int = FINISH_SECONDS) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=finish_seconds,
    )


def accepted(listener: socket.socket) -> Iterator[socket.socket]:
    """All who wait at it now."""
    with contextlib.suppress(BlockingIOError):
        while True:
            yield listener.accept()[0]


def listen(host: str, port: int) -> socket.socket:
    """Without a host on every address: a pod may have one of IPv6 only."""
    both = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=both)
    except OSError as err:
        why = (err.strerror or str(err)).partition(" (while")[0]  # the address again
        raise ConfigError(f"Cannot listen on {host}:{port}: {why}.") from err
