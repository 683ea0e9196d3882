"""A bucket of an S3 server: objects listed, read, written and removed, tried again where that may help.

The only module that knows an S3 client; it is imported when a bucket is opened. Whoever makes a ModelService chooses the
endpoint, and the pods stand within the cluster's network: so connections go to checked addresses only (ADR 51, 54).
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

from winnow_classifier.addresses import ALLOWING, Network, NotPublicError, allowed_addresses, first_reached
from winnow_classifier.errors import ConfigError, StorageRefused

if TYPE_CHECKING:
    import socket

    from minio import Minio
    from urllib3 import PoolManager

log = logging.getLogger(__name__)

SCHEME = "s3://"
REGION = "us-east-1"
URI = re.compile(r"s3://(?P<bucket>[a-z0-9][-.a-z0-9]{1,61}[a-z0-9])(?P<prefix>(/[-._a-zA-Z0-9]+)*)/?")
CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 60.0  # without a byte; a connection that is dead says nothing else
QUICK_TRIES = 4  # of one request
TRIES = 4  # of the whole, such as a file of many parts
PAUSE_SECONDS = 1.0  # before a second try; each pause is twice the last
PART_BYTES = 16 * 1024 * 1024  # of which up to four are in memory
CHUNK_BYTES = 1024 * 1024
# Of a proxy's own (520 to 530 are Cloudflare's) too; 501 stays what it is, and at 507 a bucket is full.
_TROUBLE = (408, 425, 429, 500, *range(502, 507), *range(508, 600))
_PASSING = ("InvalidRange", "NoSuchUpload", "OperationAborted", "PreconditionFailed", "RequestTimeout")
T = TypeVar("T")
Headers = dict[str, str | list[str] | tuple[str]]


class Refused(Exception):  # noqa: N818 - what the server does, and no error of ours
    """The server refused the request, and would refuse another try too."""

    def __init__(self, code: str, status: int, region: str = "") -> None:
        super().__init__(f"{status} {code}".strip())
        self.code, self.status, self.region = code, status, region


class Unreachable(Exception):  # noqa: N818
    """No answer, or trouble of the server's, after several tries."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """As in a Secret, under the names that every S3 tool reads."""

    key_id: str
    secret: str
    token: str = ""

    @classmethod
    def of(cls, environ: Mapping[str, str], prefix: str = "") -> Self | None:
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        key_id, secret, token = (environ.get(prefix + name, "").strip() for name in names)
        return cls(key_id, secret, token) if key_id and secret else None


@dataclass(frozen=True, slots=True)
class Stored:
    size_bytes: int
    timestamp: float  # seconds since the epoch
    etag: str  # the server's word for the content: other bytes have another one


class Bucket:
    """`prefix` goes before every key. Methods raise Refused or Unreachable, StorageRefused where the address may not be
    connected to, and OSError of the local disk."""

    def __init__(
        self,
        name: str,
        prefix: str,
        *,
        endpoint: str | None,
        region: str,
        credentials: Credentials | None,
        networks: Iterable[Network] = (),
    ) -> None:
        host, secure = _server(endpoint, region)
        self.name, self.prefix = name, prefix.strip("/")
        self.signs = credentials is not None
        self.served = False  # by now, with these keys
        self.server = f"{'https' if secure else 'http'}://{host}"
        try:
            self._client = _client_class()(
                host,
                credentials.key_id if credentials else None,
                credentials.secret if credentials else None,
                credentials.token or None if credentials else None,
                secure=secure,
                region=region,
                http_client=_connections(tuple(networks)),
            )
        except ValueError as err:
            raise ConfigError(f"{self.server} is not the URL of an S3 server: {err}") from err
        self._client.set_app_info("winnow", "1")

    @classmethod
    def at(cls, uri: str, networks: Iterable[Network], environ: Mapping[str, str], keys: str = "") -> Self:
        """A bucket whose keys, endpoint and region are in the environment, as for every S3 tool. `keys`: a prefix of their
        names there. Raises ConfigError."""
        return cls(
            *name_and_prefix(uri),
            endpoint=environ.get(f"{keys}AWS_ENDPOINT_URL_S3") or environ.get(f"{keys}AWS_ENDPOINT_URL") or None,
            region=environ.get(f"{keys}AWS_REGION") or environ.get(f"{keys}AWS_DEFAULT_REGION") or REGION,
            credentials=Credentials.of(environ, keys),
            networks=networks,
        )

    def uri(self, key: str = "") -> str:
        return SCHEME + "/".join(part for part in (self.name, self.prefix, key) if part)

    def sizes(self, folder: str) -> dict[str, int]:
        """Of all objects below it, in bytes, by their names within it."""
        return {name: stored.size_bytes for name, stored in self.objects(folder).items()}

    def objects(self, folder: str) -> dict[str, Stored]:
        """All objects below it, by their names within it."""
        start = f"{self._key(folder)}/" if self._key(folder) else ""

        def found() -> dict[str, Stored]:
            objects = {}
            for each in self._client.list_objects(self.name, prefix=start, recursive=True):
                name = str(each.object_name).removeprefix(start)
                if name and not name.endswith("/"):
                    modified = each.last_modified.timestamp() if each.last_modified else 0.0
                    objects[name] = Stored(each.size or 0, modified, each.etag or "")
            return objects

        return self._tried(found)

    def etag(self, key: str) -> str | None:
        """The server's word for the object's content; None if there is no such object, or the server refuses: why it does
        stands in the body of an answer only, and a HEAD request has none."""
        try:
            return self._tried(lambda: self._client.stat_object(self.name, self._key(key))).etag or ""
        except Refused:
            return None

    def get(self, key: str, path: Path) -> bool:
        """Fetch the object into a file; goes on where a connection broke. False if there is no such object, and then no
        file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        etag = ""

        def read() -> None:
            nonlocal etag
            goes_on: Headers = {"If-Match": f'"{etag}"'} if out.tell() and etag else {}
            if not goes_on:
                out.seek(0)
                out.truncate()
            try:
                response = self._client.get_object(self.name, self._key(key), out.tell(), request_headers=goes_on)
            except Exception:
                etag = ""  # what cannot go on begins anew
                raise
            try:
                etag = response.headers.get("etag", "").strip('"')
                for chunk in response.stream(CHUNK_BYTES):
                    out.write(chunk)
            finally:
                response.close()
                response.release_conn()

        with path.open("wb") as out:
            try:
                self._tried(read)
                return True
            except Refused as err:
                if err.code != "NoSuchKey":
                    raise
        path.unlink()
        return False

    def put(self, key: str, path: Path) -> None:
        """Store the file as an object, which appears whole or not at all. The server checks its bytes by their digest."""
        from urllib3.exceptions import HTTPError

        def write() -> None:
            written = self._client.fput_object(self.name, self._key(key), str(path), part_size=PART_BYTES)
            # S3 answers 200 before it has put the parts together, and an error may follow, which the client takes for success.
            if written.etag is None:
                raise HTTPError("the parts were not put together")

        self._tried(write)

    def remove(self, keys: Iterable[str]) -> None:
        """Remove these objects, one after the other in this order; one that is not there is no error."""
        for key in keys:
            self._tried(partial(self._client.remove_object, self.name, self._key(key)))

    def _key(self, key: str) -> str:
        return "/".join(part for part in (self.prefix, key) if part)

    def _tried(self, attempt: Callable[[], T]) -> T:
        from minio.error import InvalidResponseError, S3Error, ServerError
        from urllib3.exceptions import HTTPError

        number, pause = 1, PAUSE_SECONDS
        while True:
            try:
                found = attempt()
                self.served = True
                return found
            except NotPublicError as err:
                message = f"{err}, which is not public, and a bucket may have public addresses only"
                raise StorageRefused(message, hint=ALLOWING) from err
            except (InvalidResponseError, ParseError, ValueError) as err:  # a console's page, for example
                raise Refused("not as an S3 server", 0) from err
            except S3Error as err:
                status = err.response.status
                if err.code not in _PASSING and status not in _TROUBLE:
                    raise Refused(err.code or "", status, err.response.headers.get("x-amz-bucket-region", "")) from err
                said = f"{status} {err.code}"
                failed: Exception = err
            except ServerError as err:
                if err.status_code not in _TROUBLE:
                    raise Refused("", err.status_code) from err
                said, failed = str(err.status_code), err
            except HTTPError as err:
                said, failed = _reason(err), err
            if number == TRIES:
                raise Unreachable(said) from failed
            log.info("S3 request failed, trying again", extra={"server": self.server, "error": said, "attempt": number})
            time.sleep(pause)
            number, pause = number + 1, pause * 2


def name_and_prefix(uri: str) -> tuple[str, str]:
    """Raises ConfigError."""
    found = URI.fullmatch(uri)
    if not found or ".." in uri:
        raise ConfigError(f"{uri} is not s3://bucket or s3://bucket/prefix, the prefix of letters, digits and - . _ /")
    return found["bucket"], found["prefix"].strip("/")


def signature(url: str, region: str, credentials: Credentials, now: datetime | None = None) -> dict[str, str]:
    """Headers that sign a GET without a body (AWS Signature Version 4), for a client that connects in its own way."""
    from minio.credentials.credentials import Credentials as Keys
    from minio.signer import sign_v4_s3

    moment, parts = now or datetime.now(UTC), urlsplit(url)
    empty = hashlib.sha256(b"").hexdigest()
    headers: Headers = {
        "host": parts.netloc,
        "x-amz-content-sha256": empty,
        "x-amz-date": moment.strftime("%Y%m%dT%H%M%SZ"),
    }
    if credentials.token:
        headers["x-amz-security-token"] = credentials.token
    sign_v4_s3(
        method="GET",
        url=parts,
        region=region,
        headers=headers,
        credentials=Keys(credentials.key_id, credentials.secret, credentials.token or None),
        content_sha256=empty,
        date=moment,
    )
    return {name.lower(): str(value) for name, value in headers.items()}


def _client_class() -> type[Minio]:
    from minio import Minio
    from minio.error import MinioException
    from urllib3.exceptions import HTTPError

    class Client(Minio):
        def _abort_multipart_upload(self, bucket_name: str, object_name: str, upload_id: str) -> None:
            """Clear up after an upload that failed. An error here is not raised: it would hide why the upload failed."""
            try:
                super()._abort_multipart_upload(bucket_name, object_name, upload_id)
            except (MinioException, HTTPError) as err:
                log.warning(
                    "Parts of a failed upload stay in the bucket", extra={"key": object_name, "error": str(err)}
                )

    return Client


def _server(endpoint: str | None, region: str) -> tuple[str, bool]:
    """Host with port, and whether by TLS."""
    if not endpoint:
        return f"s3.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}", True
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/") or parts.query:
        raise ConfigError(
            f"{endpoint} is not the URL of an S3 server", hint="write it as https://host or https://host:port"
        )
    if "@" in parts.netloc:
        raise ConfigError("the endpoint has a user or a password in it", hint="keys belong into the Secret")
    return parts.netloc, parts.scheme == "https"


def _reason(err: Exception) -> str:
    """The cause in an error of urllib3, which wraps it into what it was doing and puts the connection in front."""
    inner = getattr(err, "reason", None)
    return str(inner if isinstance(inner, Exception) else err).rpartition("): ")[2]


def _connections(networks: tuple[Network, ...]) -> PoolManager:
    """Connections to checked addresses, within time limits; a redirect is an answer, since a signature is for one server."""
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Retry, Timeout
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

    def connected(connection: Any, connect: Callable[[], socket.socket]) -> socket.socket:
        host = connection.host
        try:
            addresses = allowed_addresses(host, connection.port, networks)
        except OSError as err:
            raise NameResolutionError(host, connection, err) from err  # type: ignore[arg-type]

        def connect_to(address: str) -> socket.socket:
            connection.host = address
            return connect()

        try:
            return first_reached(addresses, connect_to, (NewConnectionError, ConnectTimeoutError))
        finally:
            connection.host = host  # for the Host header and the certificate

    class Http(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return connected(self, super()._new_conn)

    class Https(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return connected(self, super()._new_conn)

    class HttpPool(HTTPConnectionPool):
        ConnectionCls = Http

    class HttpsPool(HTTPSConnectionPool):
        ConnectionCls = Https

    manager = PoolManager(
        maxsize=8,
        timeout=Timeout(connect=CONNECT_SECONDS, read=SILENCE_SECONDS),
        retries=Retry(
            total=QUICK_TRIES - 1,
            redirect=False,
            allowed_methods=None,  # all: each of ours may be repeated
            status_forcelist=_TROUBLE,
            backoff_factor=0.5,
            respect_retry_after_header=False,  # it may name hours
        ),
    )
    manager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}
    return manager
