"""A bucket for tests: a folder that is served as an S3 server would, as far as listing and reading go."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

DATE = "2026-11-24T20:00:00.000Z"


@dataclass
class TinyBucket:
    """`bucket` of a server; the folder holds its objects."""

    folder: Path
    refusal: tuple[int, str] | None = None  # instead of every answer: status and S3's word for it; or 200 and a page
    asked: list[str] = field(default_factory=list)  # "LIST" or the key
    signed_by: list[str] = field(default_factory=list)  # the Authorization headers
    endpoint: str = ""

    @property
    def environ(self) -> Mapping[str, str]:
        return {"AWS_ENDPOINT_URL_S3": self.endpoint}

    def answer(self, path: str, query: Mapping[str, list[str]]) -> tuple[int, bytes, str]:
        """Status, body, ETag."""
        if self.refusal == (200, "page"):
            return 200, b"<!doctype html><title>console<br></title>", ""
        if self.refusal:
            status, code = self.refusal
            return status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode(), ""
        key = path.removeprefix("/bucket").lstrip("/")
        self.asked.append(key or "LIST")
        if not key:
            return 200, self.listing(query["prefix"][0]).encode(), ""
        content = (self.folder / key).read_bytes()
        return 200, content, etag(content)

    def listing(self, prefix: str) -> str:
        files = {path.relative_to(self.folder).as_posix(): path for path in self.folder.rglob("*") if path.is_file()}
        entries = (
            f"<Contents><Key>{escape(name)}</Key><LastModified>{DATE}</LastModified>"
            f"<ETag>&quot;{etag(path.read_bytes())}&quot;</ETag><Size>{path.stat().st_size}</Size></Contents>"
            for name, path in sorted(files.items())
            if name.startswith(prefix)
        )
        return f"<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated>{''.join(entries)}</ListBucketResult>"


def etag(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@contextlib.contextmanager
def served(folder: Path) -> Iterator[TinyBucket]:
    bucket = TinyBucket(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            bucket.signed_by.append(self.headers.get("authorization", ""))
            parts = urlsplit(self.path)
            status, body, tag = bucket.answer(unquote(parts.path), parse_qs(parts.query, keep_blank_values=True))
            self.send_response(status)
            self.send_header("content-type", "application/xml")
            self.send_header("content-length", str(len(body)))
            if tag:
                self.send_header("etag", f'"{tag}"')
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        bucket.endpoint = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield bucket
        server.shutdown()
