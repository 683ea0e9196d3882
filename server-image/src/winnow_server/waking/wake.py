"""python -m winnow_server wake: the command line of a waker, and its process."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import prometheus_client

from winnow_server.access import ApiKeys
from winnow_server.limits import MEBIBYTE, Limits
from winnow_server.prefix import Prefixed
from winnow_server.process import Server, configuration, listen
from winnow_server.settings import Parser, port, positive, prefix, seconds, wait
from winnow_server.waking.app import create_app
from winnow_server.waking.room import Room
from winnow_server.waking.upstream import Upstream
from winnow_server.watched import Watched, look_first

log = logging.getLogger(__name__)

ROOM_BYTES = 64 * MEBIBYTE


@dataclass(frozen=True, slots=True)
class Settings:
    name: str
    upstream: str
    host: str
    port: int
    max_held_requests: int
    max_body_bytes: int
    hold_seconds: float
    api_keys: Path | None
    path_prefix: list[str]
    drain_seconds: float
    log_level: str


def parse(arguments: Sequence[str]) -> Settings:
    """Ends the process with 10 and words on stderr if an argument is wrong."""
    about = "Hold requests until a server is ready, and let an autoscaler see that they wait."
    parser = Parser(prog="python -m winnow_server wake", description=about)
    add = parser.add_argument
    add("--name", required=True, help="the model_name of its metrics, as the server's have it")
    add("--upstream", required=True, metavar="URL", help="where ready servers answer, and nobody while there are none")
    add("--host", default="", help="the address to listen on (default: every one, IPv6 too)")
    add("--port", type=port, default=8080, help="0 takes a free one and logs it (default: %(default)s)")
    add("--max-held-requests", type=positive, default=256, metavar="N", help="(default: %(default)s)")
    add("--max-body-bytes", type=positive, default=Limits().body_bytes, metavar="N", help="of one (default: 2 MiB)")
    add("--hold-seconds", type=seconds, default=120.0, metavar="S", help="for one (default: %(default).0f)")
    add("--api-keys", type=Path, metavar="DIR", help="ask for one of these keys, a file for each; read again on change")
    prefixes = "answer below this path too, where an Ingress leads one here as it is (repeatable)"
    add("--path-prefix", type=prefix, action="append", default=[], metavar="/PATH", help=prefixes)
    add("--drain-seconds", type=wait, default=5.0, metavar="S", help="to take requests after SIGTERM (default: 5)")
    add("--log-level", choices=("debug", "info", "warning"), default="info")
    return Settings(**vars(parser.parse_args(arguments)))


def wake(settings: Settings) -> None:
    """Returns after a clean stop. Raises ConfigError if the port is taken, StorageError if the keys cannot be read."""
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    room = Room(settings.name, requests=settings.max_held_requests, size=ROOM_BYTES)
    keys = ApiKeys() if settings.api_keys else None
    watched = [Watched(settings.api_keys, keys.read)] if keys and settings.api_keys else []
    look_first(watched)
    app = create_app(
        room,
        Upstream(settings.upstream),
        body_bytes=settings.max_body_bytes,
        seconds=settings.hold_seconds,
        keys=keys,
        watched=watched,
    )
    # What is held has been promised an answer: a pod that is replaced waits for it.
    config = configuration(Prefixed(app, settings.path_prefix), finish_seconds=int(settings.hold_seconds) + 60)
    with listen(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        log.info("Holding requests", extra={"host": host, "port": port, "upstream": settings.upstream})
        Server(config, lambda: None, settings.drain_seconds).run(sockets=[listener])
    log.info("Stopped")
