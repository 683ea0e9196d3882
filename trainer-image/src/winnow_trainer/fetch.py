"""HTTP as imports may use it: bounded in bytes, seconds and redirects, and to public addresses only.

Whoever may create a Dataset chooses its URL, and the import pod stands within the cluster's network: without the check of
addresses a Dataset could read the cloud's metadata service or services of the cluster (ADR 51).
"""

from __future__ import annotations

import logging
import re
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, BinaryIO, Self
from urllib.parse import quote, urljoin, urlsplit

import httpcore

from winnow_classifier.addresses import ALLOWING, Network, NotPublicError, allowed_addresses, first_reached
from winnow_classifier.errors import SourceError, SourceUnavailable, StorageError
from winnow_classifier.refusals import out_of_reach

log = logging.getLogger(__name__)

Sign = Callable[[str], Mapping[str, str]]  # from a URL to headers that prove who asks

REDIRECTS = 5
TRIES = 5  # without a byte more than before
RETRY_AFTER_SECONDS = 600.0  # waited at most where a server says for how long: rates are counted by minutes
CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 60.0  # without a byte; a connection that is dead says nothing else
ERROR_BYTES = 65_536  # kept of an answer that is not the content
CONTENT = (200, 206)
URL_FORM = "write it as https://host/path, other characters as %XX"
_REDIRECTED = (301, 302, 303, 307, 308)
MAY_PASS = (408, 425, 429)  # beside the answers from 500 on
_BROKEN = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.RemoteProtocolError)


@dataclass(frozen=True, slots=True)
class Limits:
    max_bytes: int = 10 * 1024**3  # of all files of a source together
    timeout_seconds: float = 3_600.0  # for all of them
    allowed_networks: tuple[Network, ...] = ()  # beside what is public
    first_pause_seconds: float = 1.0  # before a second try; each pause is twice the last


@dataclass(frozen=True, slots=True)
class Token:
    """Proves to one server who asks. No other server gets it, wherever a redirect leads."""

    value: str = field(repr=False)
    server: str  # any URL of it

    def headers(self, url: str) -> Mapping[str, str]:
        return {"authorization": f"Bearer {self.value}"} if _server(url) == _server(self.server) else {}


@dataclass(slots=True)
class Answer:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)  # names in small letters
    body: bytes = b""


def shown(url: str) -> str:
    """The URL without what may be secret: no user, no password, no query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class Fetcher:
    """Fetches files within the limits of one source."""

    def __init__(self, limits: Limits, token: Token | None = None) -> None:
        self._limits = limits
        self._token = token
        self._deadline = time.monotonic() + limits.timeout_seconds
        self._bytes_left = limits.max_bytes
        self._pool = httpcore.ConnectionPool(network_backend=_TimedBackend(limits.allowed_networks, self._deadline))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def get(self, url: str, max_bytes: int, sign: Sign | None = None) -> Answer:
        """A small answer, whatever its status. Raises SourceUnavailable or SourceError."""
        return self._tried(url, lambda: self._get(url, max_bytes, sign))

    def file(self, url: str, path: Path, sign: Sign | None = None, size: int | None = None) -> Answer:
        """The URL's content as a file, unless the answer has another status than 200 and 206; goes on where a connection
        broke off. Raises SourceUnavailable or SourceError."""
        if size is not None:
            self._check_size(url, size)
        with _created(url, path) as out:
            part = _Part(out)
            answer = self._tried(url, lambda: self._append(url, part, sign), lambda: part.size)
            if size not in (None, part.size) and answer.status in CONTENT:
                message = f"{shown(url)} has {part.size:,} bytes, and {size:,} were announced"
                raise SourceError(message, hint="it was changed while it was read: import again once it is complete")
        return answer

    def _tried(self, url: str, attempt: Callable[[], Answer], reached: Callable[[], int] = lambda: 0) -> Answer:
        """`reached`: bytes that are there by now; whoever gets further has all tries again."""
        tries, most = 0, 0
        while True:
            try:
                return attempt()
            except (*_BROKEN, _PassingError) as err:
                said = str(err) or type(err).__name__
                self._seconds_left(url)
                tries, most = (1, reached()) if reached() > most else (tries + 1, most)
                if tries == TRIES:
                    message = f"{shown(url)} could not be read in {TRIES} tries; the last: {said}"
                    raise SourceUnavailable(message, hint=out_of_reach(said)) from err
                wanted = err.after_seconds if isinstance(err, _PassingError) else 0.0
                pause = max(self._limits.first_pause_seconds * 2 ** (tries - 1), wanted)
                more = {"url": shown(url), "error": said, "attempt": tries, "seconds": round(pause)}
                log.info("Fetching failed, trying again", extra=more)
                time.sleep(min(pause, self._seconds_left(url)))

    def _get(self, url: str, max_bytes: int, sign: Sign | None) -> Answer:
        def take(answer: Answer, chunk: bytes) -> None:
            if len(answer.body) + len(chunk) > max_bytes:
                raise SourceError(f"{shown(url)} answers with more than {max_bytes:,} bytes, which is no such answer")
            answer.body += chunk

        return self._request(url, sign, {}, lambda answer: partial(take, answer))

    def _append(self, url: str, part: _Part, sign: Sign | None) -> Answer:
        headers = {"range": f"bytes={part.size}-", "if-range": part.validator} if part.size and part.validator else {}

        def consumer(answer: Answer) -> Callable[[bytes], None]:
            # Servers that do not know If-Range, many of S3, send a part of whatever is there by now.
            same = _validator(answer) in ("", part.validator)
            goes_on = answer.status == 206 and headers and _starts_at(answer, part.size) and same
            if not goes_on:
                self._bytes_left += part.size
                part.restart()
            if answer.status == 416:
                raise _PassingError("the server has less than it sent before")
            if answer.status == 206 and not goes_on:
                raise _PassingError("the server does not go on with what it sent before")
            if answer.status not in CONTENT:
                return partial(_keep_start, answer)
            part.validator = _validator(answer) or part.validator
            length = answer.headers.get("content-length", "")
            if length.isdecimal():
                self._check_size(url, int(length))
            return lambda chunk: self._keep(url, part, chunk)

        return self._request(url, sign, headers, consumer)

    def _keep(self, url: str, part: _Part, chunk: bytes) -> None:
        self._check_size(url, len(chunk))
        self._bytes_left -= len(chunk)
        try:
            part.write(chunk)
        except OSError as err:
            raise StorageError(f"rows cannot be kept while they are fetched: {err.strerror or err}") from err

    def _request(
        self,
        url: str,
        sign: Sign | None,
        headers: Mapping[str, str],
        consumer: Callable[[Answer], Callable[[bytes], None]],
    ) -> Answer:
        """Follows redirects, unless the request is signed: a signature is for one server."""
        for _ in range(REDIRECTS + 1):
            _check_url(url)
            signature = sign(url) if sign else {}
            proof = self._token.headers(url) if self._token else {}
            sent = {"accept-encoding": "identity", "user-agent": "winnow", **headers, **signature, **proof}
            wait = {
                "connect": CONNECT_SECONDS,
                "pool": CONNECT_SECONDS,
                "read": SILENCE_SECONDS,
                "write": SILENCE_SECONDS,
            }
            left = self._seconds_left(url)
            timeout = {name: min(seconds, left) for name, seconds in wait.items()}
            target = url.partition("#")[0].encode()
            with self._pool.stream(
                "GET", target, headers=list(sent.items()), extensions={"timeout": timeout}
            ) as response:
                found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
                answer = Answer(response.status, found)
                if response.status in _REDIRECTED and not sign:
                    if "location" not in found:
                        raise SourceError(
                            f"{shown(url)} answers {status_text(response.status)} without saying where to"
                        )
                    url = _led(url, found["location"])
                    continue
                if response.status >= 500 or response.status in MAY_PASS:
                    raise _PassingError(f"the server answers {status_text(response.status)}", retry_after(found))
                take = consumer(answer)
                for chunk in response.iter_stream():
                    take(chunk)
                return answer
        raise SourceError(f"{shown(url)} is reached only through more than {REDIRECTS} redirects")

    def _check_size(self, url: str, more: int) -> None:
        if more > self._bytes_left:
            message = f"{shown(url)} is too large: a source may have {self._limits.max_bytes:,} bytes"
            raise SourceError(message, hint="split it, compress it, or have the chart's value fetch.maxBytes raised")

    def _seconds_left(self, url: str) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            message = f"{shown(url)} was not read within {self._limits.timeout_seconds:,.0f} s"
            raise SourceUnavailable(
                message, hint="if it is that large, have the chart's value fetch.timeoutSeconds raised"
            )
        return left


class _PassingError(Exception):
    """Trouble of the server's that may be over at the next try, `after_seconds` at the soonest."""

    def __init__(self, message: str, after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


class _Part:
    """A file as far as it is fetched."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self.size = 0
        self.validator = ""  # ETag or date of the version that the file has the beginning of

    def write(self, chunk: bytes) -> None:
        self._out.write(chunk)
        self.size += len(chunk)

    def restart(self) -> None:
        self._out.seek(0)
        self._out.truncate()
        self.size, self.validator = 0, ""


class CheckedBackend(httpcore.NetworkBackend):
    """Resolves a name, and connects to the very address that was checked; a second look-up could answer otherwise."""

    def __init__(self, networks: Iterable[Network], what: str = "rows are fetched from") -> None:
        self._networks = tuple(networks)
        self._what = what
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        def connect(address: str) -> httpcore.NetworkStream:
            return self._plain.connect_tcp(address, port, timeout, local_address, socket_options)

        try:
            allowed = allowed_addresses(host, port, self._networks)
        except OSError as err:
            raise httpcore.ConnectError(f"the name {host} cannot be resolved: {err.strerror or err}") from err
        except NotPublicError as err:
            message = f"{err}, which is not public, and {self._what} public addresses only"
            raise SourceError(message, hint=ALLOWING) from err
        return first_reached(allowed, connect, (httpcore.ConnectError, httpcore.ConnectTimeout))


class _TimedBackend(CheckedBackend):
    def __init__(self, networks: Iterable[Network], deadline: float) -> None:
        super().__init__(networks)
        self._deadline = deadline

    def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        return _Timed(super().connect_tcp(*args, **kwargs), self._deadline)


class _Timed(httpcore.NetworkStream):
    """A connection that ends at the deadline, however little at a time arrives: of an answer's head, for example."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._within(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._within(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, self._within(timeout)), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _within(self, timeout: float | None) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the time is over")
        return min(left, left if timeout is None else timeout)


def _created(url: str, path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as err:  # in a bucket a/b may stand beside a
        message = f"{shown(url)} cannot be kept as a file: another one is named like a folder of it"
        raise SourceError(message, hint="rename one of them") from err
    except OSError as err:
        raise StorageError(f"rows cannot be kept while they are fetched: {err.strerror or err}") from err


def _server(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise SourceError("its URL has no host or port that can be read", hint=URL_FORM) from None
    if parts.scheme not in ("http", "https"):
        raise SourceError(
            f"{parts.scheme or 'this'} is no scheme that rows are fetched by", hint="use https:// or http://"
        )
    if parts.username is not None or parts.password is not None:
        raise SourceError(f"{shown(url)} has a user or a password in it", hint="a manifest is no place for secrets")
    if not parts.hostname or port == 0 or re.search(r"[^!-~]", url):
        raise SourceError(f"{shown(url)} is not a URL", hint=URL_FORM)


def _led(url: str, location: str) -> str:
    """Where a redirect leads. Raises SourceError."""
    try:
        leads = urljoin(url, quote(location, safe="%/:=&?~#+!$,;'@()*[]"))
        urlsplit(leads).port  # noqa: B018 - it may not be a number
        return leads
    except ValueError:
        raise SourceError(f"{shown(url)} leads to what is not a URL", hint="tell whoever runs that server") from None


def _keep_start(answer: Answer, chunk: bytes) -> None:
    answer.body = (answer.body + chunk)[:ERROR_BYTES]


def _validator(answer: Answer) -> str:
    """ETag or date of the version that is sent; "" where the server says neither."""
    etag = answer.headers.get("etag", "")
    return etag if etag.startswith('"') else answer.headers.get("last-modified", "")


def retry_after(headers: Mapping[str, str]) -> float:
    """In seconds, by RFC 9110, 10.2.3: a number of them, or a date; 0 where there is none that can be read."""
    said = headers.get("retry-after", "").strip()
    seconds = float(said) if said.isdecimal() else 0.0
    if said and not said.isdecimal():
        with suppress(ValueError):
            seconds = parsedate_to_datetime(said).timestamp() - time.time()
    return min(max(seconds, 0.0), RETRY_AFTER_SECONDS)


def _starts_at(answer: Answer, offset: int) -> bool:
    return answer.headers.get("content-range", "").startswith(f"bytes {offset}-")


def status_text(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
