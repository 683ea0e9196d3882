"""Where a Dataset's rows are fetched from: HTTP, S3, the Hugging Face Hub (hub_dataset.py), or the manifest itself. What
is mounted is read in row_paths.py."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

from pydantic import Field, ValidationError

from winnow_classifier import row_paths
from winnow_classifier.bucket import Credentials, signature
from winnow_classifier.errors import ConfigError, SourceError
from winnow_classifier.files import sha256_of_file
from winnow_classifier.manifest import Manifest, describe
from winnow_trainer import hub_dataset
from winnow_trainer.fetch import CONTENT, Answer, Fetcher, Limits, shown, status_text
from winnow_trainer.fetched import Fetched
from winnow_trainer.hub_dataset import HubSource

log = logging.getLogger(__name__)

LIST_BYTES = 8 * 1024 * 1024  # of a page of a bucket's list: 1,000 keys of 1,024 characters, and what is around them
_UNSAFE = re.compile(r"[^-._A-Za-z0-9]")


class HttpSource(Manifest):
    url: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class S3Source(Manifest):
    uri: str = Field(pattern=r"^s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](/.*)?$")
    endpoint: str | None = None
    region: str = "us-east-1"
    secret_ref: dict[str, str] | None = None  # the pod has its keys in the environment, as on a laptop


class UploadSource(Manifest):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=1)
    file_name: str | None = None


class Source(Manifest):
    """As in the manifest; one of them. What a pod mounts is of no use here, and is not looked into."""

    inline: str | None = None
    http: HttpSource | None = None
    s3: S3Source | None = None
    hugging_face: HubSource | None = None
    upload: UploadSource | None = None
    config_map: dict[str, Any] | None = None
    persistent_volume_claim: dict[str, Any] | None = None
    image: dict[str, Any] | None = None


def source_of(given: Mapping[str, Any] | None) -> Source:
    """spec.source of a manifest. Raises ConfigError naming the field."""
    if not given:
        raise ConfigError("there are no rows to import", hint="name files with --file, or a manifest with spec.source")
    try:
        return Source.model_validate(given)
    except ValidationError as err:
        raise ConfigError(f"spec.source: {describe(err, Source)}") from err


def fetch(
    source: Source,
    folder: Path,
    limits: Limits,
    environ: Mapping[str, str],
    hub_token_variable: str = hub_dataset.TOKEN_VARIABLE,
    source_keys: str = "",
) -> Fetched:
    """The rows' files, put into the folder. Raises SourceError (SourceUnavailable where a retry may help)."""
    if source.hugging_face is not None:
        fetched = hub_dataset.fetch(source.hugging_face, folder, limits, environ.get(hub_token_variable))
    else:
        fetched = Fetched(_files(source, folder, limits, Credentials.of(environ, source_keys)))
    size = sum(file.stat().st_size for file in fetched.files)
    log.info("Source fetched", extra={"files": len(fetched.files), "sizeBytes": size})
    return fetched


def _files(source: Source, folder: Path, limits: Limits, keys: Credentials | None) -> list[Path]:
    if source.inline is not None:
        file = folder / "rows"
        file.write_text(source.inline, encoding="utf-8")
        return [file]
    with Fetcher(limits) as fetcher:
        if source.http:
            files = [_http(source.http, folder, fetcher)]
        elif source.s3:
            files = _s3(source.s3, folder, fetcher, keys)
        else:
            name = next(iter(source.model_dump(by_alias=True, exclude_none=True)), "spec.source")
            raise ConfigError(f"{name} can be read in a cluster only", hint="name the files with --file")
    return files


def _http(source: HttpSource, folder: Path, fetcher: Fetcher) -> Path:
    file = folder / _file_name(unquote(urlsplit(source.url).path))
    answer = fetcher.file(source.url, file)
    if answer.status not in CONTENT:
        hints = {401: "rows behind a log-in are fetched from s3 or a volume", 403: "the server refuses this cluster"}
        hint = hints.get(answer.status, "check spec.source.http.url")
        raise SourceError(f"{shown(source.url)} answers {status_text(answer.status)}", hint)
    if (found := sha256_of_file(file)) != source.sha256:
        message = f"{shown(source.url)} has the SHA-256 {found}, and {source.sha256} is wanted"
        hint = "the file is another one: check it, and make a Dataset with its digest"
        if answer.headers.get("content-type", "").startswith("text/html"):
            hint = "it is a web page, of a log-in or about the file: check spec.source.http.url"
        raise SourceError(message, hint)
    return file


def _file_name(path: str) -> str:
    """What a file is called that was fetched from there: for people alone, its content says what it is."""
    return _UNSAFE.sub("_", path.rpartition("/")[2])[-200:].lstrip(".") or "rows"


def _s3(source: S3Source, folder: Path, fetcher: Fetcher, credentials: Credentials | None) -> list[Path]:
    if source.secret_ref and not credentials:
        name = source.secret_ref.get("name", "")
        message = f"Secret {name} has no AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY with content"
        raise SourceError(message, hint="give the Secret both keys; outside a cluster, set them in the environment")
    return _Bucket(source, fetcher, credentials).fetch(folder)


class _Bucket:
    """Addressed by path (https://endpoint/bucket/key), which every S3 server understands."""

    def __init__(self, source: S3Source, fetcher: Fetcher, credentials: Credentials | None) -> None:
        self._uri = source.uri
        self._name, _, self._path = source.uri.removeprefix("s3://").partition("/")
        endpoint = source.endpoint or f"https://s3.{source.region}.amazonaws.com"
        self._url = f"{endpoint.rstrip('/')}/{self._name}"
        self._region, self._credentials, self._fetcher = source.region, credentials, fetcher

    def fetch(self, folder: Path) -> list[Path]:
        if self._path and not self._path.endswith("/") and not row_paths.is_glob(self._path):
            file = folder / _file_name(self._path)
            self._get(self._path, file, None)
            return [file]
        start = row_paths.fixed_part(self._path)
        sizes = {key.removeprefix(start): size for key, size in self._list(start).items()}
        names = row_paths.chosen((name for name in sizes if name and not name.endswith("/")), self._path[len(start) :])
        if not names:
            raise row_paths.no_match(self._uri, list(sizes), f"s3://{self._name}/{start}")
        for name in names:
            if not row_paths.is_a_path(name):
                raise SourceError(f"s3://{self._name}/{start}{name} has no name for a file", hint="rename it")
        for name in names:
            self._get(start + name, folder / name, sizes[name])
        return [folder / name for name in names]

    def _get(self, key: str, file: Path, size: int | None) -> None:
        answer = self._fetcher.file(f"{self._url}/{quote(key, safe='/~')}", file, self._sign, size)
        if answer.status not in CONTENT:
            raise self._refused(f"s3://{self._name}/{key}", answer)

    def _list(self, prefix: str) -> dict[str, int]:
        """Keys with their sizes in bytes."""
        sizes: dict[str, int] = {}
        query = {"list-type": "2", "prefix": prefix}
        while True:
            encoded = "&".join(f"{name}={quote(value, safe='~')}" for name, value in sorted(query.items()))
            answer = self._fetcher.get(f"{self._url}?{encoded}", LIST_BYTES, self._sign)
            if answer.status != 200:
                raise self._refused(self._uri, answer)
            root = _xml(answer)
            if root is None:
                raise SourceError(f"{shown(self._url)} does not answer as an S3 server", hint="check s3.endpoint")
            for entry in root.iterfind("{*}Contents"):
                sizes[entry.findtext("{*}Key", "")] = int(entry.findtext("{*}Size", "0"))
            if len(sizes) > row_paths.MAX_FILES:
                raise row_paths.too_many(self._uri)
            more = root.findtext("{*}NextContinuationToken")
            if not more or root.findtext("{*}IsTruncated") != "true":
                return sizes
            query["continuation-token"] = more

    def _refused(self, what: str, answer: Answer) -> SourceError:
        root = _xml(answer)
        code = root.findtext("{*}Code", root.findtext("Code", "")) if root is not None else ""
        region = answer.headers.get("x-amz-bucket-region", "")
        hint = _S3_HINTS.get(code) or _S3_HINTS.get(str(answer.status))
        if region and region != self._region:
            hint = f"the bucket lies in {region}: set s3.region"
        said = status_text(answer.status) + (f", {_UNSAFE.sub('', code)[:64]}" if code else "")
        return SourceError(f"{what} cannot be read from {shown(self._url)}: the server answers {said}", hint)

    def _sign(self, url: str) -> Mapping[str, str]:
        return signature(url, self._region, self._credentials) if self._credentials else {}


_S3_HINTS: Mapping[str, str] = {
    "NoSuchBucket": "there is no such bucket: check s3.uri and s3.endpoint",
    "NoSuchKey": "there is no such key; for all below a prefix end the URI with /",
    "InvalidAccessKeyId": "the server does not know the AWS_ACCESS_KEY_ID of s3.secretRef",
    "XAdminUserNotFound": "the server does not know the AWS_ACCESS_KEY_ID of s3.secretRef",  # Versity
    "SignatureDoesNotMatch": "the AWS_SECRET_ACCESS_KEY of s3.secretRef does not belong to its AWS_ACCESS_KEY_ID",
    "ExpiredToken": "the AWS_SESSION_TOKEN of s3.secretRef has run out",
    "403": "the keys of s3.secretRef need the permissions s3:GetObject and, for prefixes and globs, s3:ListBucket",
    "404": "check s3.uri and s3.endpoint",
    "301": "check s3.region",
    "307": "check s3.region",
}


def _xml(answer: Answer) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(answer.body)
    except ElementTree.ParseError:
        return None
