"""An HTTP server in a thread of its own, for as long as a block runs."""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from winnow_classifier.errors import ConfigError

log = logging.getLogger(__name__)


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], host: str, port: int, option: str) -> Iterator[int]:
    """Gives the port, which the system chooses for 0. Without a host on every address: a pod may have one of IPv6 only. Raises
    ConfigError, which names the option, for a port that is taken."""
    kind = _OnBoth if not host and socket.has_dualstack_ipv6() else _Server
    try:
        server = kind((host, port), handler)
    except (OSError, OverflowError) as err:
        raise ConfigError(f"{option} {port} cannot be listened on: {err}", hint="choose another port") from err
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name=option, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        log.debug("Request broken off", extra={"client": str(client_address)})


class _OnBoth(_Server):
    """IPv4 and IPv6."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()
