"""A path that an Ingress or a Gateway hands on in front of the server's own: taken off here, since routes differ in how they
would."""

from collections.abc import Sequence
from urllib.parse import quote

from starlette.types import ASGIApp, Receive, Scope, Send


class Prefixed:
    """ASGI middleware, outermost: below it there are only the server's own paths. What does not begin with a prefix stays as
    it is."""

    def __init__(self, app: ASGIApp, prefixes: Sequence[str]) -> None:
        self._app = app
        self._prefixes = sorted(prefixes, key=len, reverse=True)  # of two that lie in one another the longer is meant

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if path in self._prefixes:
                # Pages have relative addresses: they hold only below a slash.
                headers = [(b"location", f"{path.rpartition('/')[2]}/".encode()), (b"content-length", b"0")]
                await send({"type": "http.response.start", "status": 307, "headers": headers})
                await send({"type": "http.response.body", "body": b""})
                return
            prefix = next((prefix for prefix in self._prefixes if path.startswith(f"{prefix}/")), None)
            if prefix is not None:
                rest = path[len(prefix) :]
                scope = {**scope, "path": rest, "raw_path": quote(rest).encode()}
        await self._app(scope, receive, send)
