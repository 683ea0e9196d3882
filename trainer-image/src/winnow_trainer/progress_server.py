"""GET /progress, /metrics and /healthz on a port of the pod, from a thread that never holds the training up."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest

from winnow_trainer.http_thread import serving
from winnow_trainer.progress import Progress

log = logging.getLogger(__name__)

SOCKET_SECONDS = 5.0  # a client that does not finish its request is left


@contextmanager
def served(progress: Progress, port: int, host: str = "") -> Iterator[int]:
    """Serves while the block runs; gives the port, which the system chooses for 0. Raises ConfigError if it is taken."""
    registry = CollectorRegistry()
    registry.register(progress)
    ProcessCollector(registry=registry)

    class Handler(BaseHTTPRequestHandler):
        timeout: ClassVar[float] = SOCKET_SECONDS
        server_version = "winnow"
        sys_version = ""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/progress":
                state = progress.snapshot()  # or an older one than is told
                self._answer(200, "application/json", progress.as_json())
                progress.was_read(state)
            elif path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif path == "/healthz":
                self._answer(200, "text/plain; charset=utf-8", b"ok\n")
            else:
                self._answer(404, "text/plain; charset=utf-8", b"there are /progress, /metrics and /healthz\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """A pull every few seconds is no news."""

    with serving(Handler, host, port, "--progress-port") as found:
        log.info("Progress served", extra={"port": found})
        yield found
