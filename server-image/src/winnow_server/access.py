"""API keys: who may ask. Without a usable key everything that is not open stays closed."""

import hashlib
import hmac
import logging
from collections.abc import Iterator
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from winnow_server.edge import header_values
from winnow_server.errors import Unauthorized
from winnow_server.refusals import refusal
from winnow_server.watched import files_of

log = logging.getLogger(__name__)

MAX_KEY_BYTES = 4_096
# Closed is the default: a new route is closed until someone writes it here. Probes and Prometheus bring no key, a browser
# brings none for a page; the pages hold nothing of the model and ask with a key. /v1/model is closed: labels and metrics.
OPEN = frozenset(
    {"/", "/health", "/ping", "/v2/health/live", "/v2/health/ready", "/metrics", "/ui", "/docs", "/openapi.json"}
)
OPEN_FOLDERS = ("/ui/", "/docs/")


class ApiKeys:
    """Digests only: a key that was read is forgotten. Several may hold at once, so that one can replace another."""

    def __init__(self) -> None:
        self._digests: tuple[bytes, ...] = ()

    def read(self, folder: Path) -> None:
        """Read the keys: one a file, as in a mounted Secret; the file's name is the key's name."""
        digests = []
        for file in files_of(folder):
            key = usable(file.read_bytes()[: MAX_KEY_BYTES + 1])
            if key is None:
                log.warning("Not a usable API key: it must be printable ASCII without spaces", extra={"key": file.name})
            else:
                digests.append(hashlib.sha256(key).digest())
        self._digests = tuple(digests)
        if digests:
            log.info("API keys read", extra={"count": len(digests)})
        else:
            log.error("No usable API key, all requests are refused", extra={"folder": str(folder)})

    def check(self, scope: Scope) -> None:
        """Raises Unauthorized."""
        if not self._digests:
            raise Unauthorized(
                "The server has no API key that it could accept, so it refuses every request: the Secret with the keys is "
                "missing, empty, or holds no usable key.",
                code="api_keys_missing",
            )
        presented = list(keys_in(scope))
        if not presented:
            raise Unauthorized(
                "An API key is needed: send it as Authorization: Bearer, or as X-API-Key.", code="api_key_missing"
            )
        if not any(self._known(key) for key in presented):
            raise Unauthorized("The API key is not one of this server's.", code="api_key_invalid")

    def _known(self, key: bytes) -> bool:
        """Whether the key is known, told in the same time for any key: digests of one length, all of which are compared."""
        digest = hashlib.sha256(key).digest()
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


class Guard:
    """ASGI middleware: what is not open needs a key."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_open(scope["method"], scope["path"]):
            try:
                self._keys.check(scope)
            except Unauthorized as err:
                await refusal(err, scope)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_open(method: str, path: str) -> bool:
    """For reading only: a POST to / is a prediction."""
    return method in ("GET", "HEAD") and (path in OPEN or path.startswith(OPEN_FOLDERS))


def keys_in(scope: Scope) -> Iterator[bytes]:
    """X-API-Key too: the API server's proxy keeps Authorization for itself."""
    yield from header_values(scope, b"x-api-key")
    for value in header_values(scope, b"authorization"):
        scheme, _, key = value.partition(b" ")
        if scheme.lower() == b"bearer" and key.strip():
            yield key.strip()


def usable(content: bytes) -> bytes | None:
    """The key without the line end that editors leave; None if it could not stand in a header."""
    key = content.strip()
    fits = 0 < len(key) <= MAX_KEY_BYTES and all(0x21 <= byte <= 0x7E for byte in key)
    return key if fits else None
