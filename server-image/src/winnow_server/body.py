"""Reading a request's body: bounded in bytes and in time, whatever Content-Length claims."""

import asyncio

from starlette.requests import ClientDisconnect, Request

from winnow_server.errors import RequestTimedOut, TooLarge, UnsupportedEncoding

BODY_SECONDS = 30.0
COMPRESSIONS = {
    "gzip",
    "x-gzip",
    "deflate",
    "compress",
    "br",
    "zstd",
}  # of what else stands there, utf-8 for example, nothing hangs


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Raises UnsupportedEncoding, TooLarge as soon as it is known, RequestTimedOut, ClientDisconnect."""
    refuse_compressed(request)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large(max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                body += message.get("body", b"")
                if len(body) > max_bytes:
                    raise too_large(max_bytes)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as err:
        raise RequestTimedOut(f"The body did not arrive within {BODY_SECONDS:.0f} s.", code="body_timeout") from err


def refuse_compressed(request: Request) -> None:
    """A few bytes may hold gigabytes. Raises UnsupportedEncoding."""
    encoding = request.headers.get("content-encoding", "")
    if COMPRESSIONS & set(map(str.strip, encoding.lower().split(","))):
        raise UnsupportedEncoding(
            f"The body is encoded as {encoding[:40]!r}, and only read as it is. Send it without Content-Encoding.",
            code="encoding_unsupported",
            headers={"Accept-Encoding": "identity"},  # RFC 9110, 15.5.16
        )


async def gone(request: Request) -> None:
    """Returns when the client has left; call it after the body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def too_large(max_bytes: int) -> TooLarge:
    return TooLarge(
        f"The body is larger than {max_bytes} bytes. Shorten the text, or send fewer texts in a request.",
        code="body_too_large",
    )
