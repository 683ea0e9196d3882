"""A Hugging Face Hub of a few repositories on this machine, and the server that it redirects to for large files.

Its answers have the shape of the Hub's, for datasets and models: the list of a revision with sizes and digests, files by
commit, a redirect to another server for what is kept in LFS, and its codes for what is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS = (".parquet", ".gz", ".zst", ".safetensors", "tokenizer.json")


def parquet(columns: Mapping[str, Any], features: Mapping[str, Any]) -> bytes:
    """As `datasets` itself writes it."""
    import datasets

    out = io.BytesIO()
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(out)
    return out.getvalue()


@dataclass
class Repository:
    refs: dict[str, str] = field(default_factory=dict)  # from a branch or a tag to a commit
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tokens: tuple[str, ...] = ()  # of the accounts that are let in; none: everyone is
    gated: bool = False
    kind: str = "datasets"  # or models

    def commit(self, files: Mapping[str, str | bytes], ref: str = "main") -> str:
        content = {path: given.encode() if isinstance(given, str) else given for path, given in files.items()}
        sha = hashlib.sha1(repr((ref, sorted(content.items()))).encode()).hexdigest()
        self.refs[ref], self.commits[sha] = sha, content
        return sha


class TinyHub:
    def __init__(self, host: str | None = None) -> None:
        """`host`: the address of this machine that others reach it by."""
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []  # path and headers, their names in small letters
        self.cdn_requests: list[tuple[str, dict[str, str]]] = []
        self.breaks_after: int | None = None  # bytes of the next large file, once
        self.held = threading.Event()  # large files come once it is set
        self.held.set()
        self.damaged: set[str] = set()  # paths that come with other bytes
        self.xet: str | None = None  # the URL of the store that large files are also in, for clients that know it
        self._hub, self._cdn = (_server(answer, host or "127.0.0.1") for answer in (self._answer, self._large))
        self.url = f"http://{host or '127.0.0.1'}:{self._hub.server_port}"
        self.cdn = f"http://{host or 'localhost'}:{self._cdn.server_port}"

    @contextmanager
    def running(self) -> Iterator[TinyHub]:
        servers = (self._hub, self._cdn)
        threads = [threading.Thread(target=each.serve_forever, kwargs={"poll_interval": 0.01}) for each in servers]
        for thread in threads:
            thread.start()
        yield self
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()

    def repository(self, name: str, **fields: Any) -> Repository:
        return self.repositories.setdefault(name, Repository(**fields))

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        url = urlsplit(request.path)
        if (
            url.path == "/api/agent-harnesses"
        ):  # a list that the Hub's own client wants where it finds an AI agent's variables
            return _refuse(request, 404, None)
        self.requests.append((request.path, _headers(request)))
        parts = url.path.removeprefix("/api").strip("/").split("/")
        if parts[0] not in ("datasets", "models"):  # files of models are asked for by their name alone
            parts = ["models", *parts]
        name, (kind, revision, *path) = "/".join(parts[1:3]), [*parts[3:], "", ""][: max(2, len(parts) - 3)]
        repository = self.repositories.get(name)
        if repository is None or parts[0] != repository.kind:
            return _refuse(request, 401 if "Authorization" not in request.headers else 404, "RepoNotFound")
        if repository.tokens:
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if given == "expired":
                return _refuse(request, 401, None, X_Error_Message="Invalid credentials in Authorization header")
            if given not in repository.tokens:
                code = "GatedRepo" if repository.gated else "RepoNotFound"
                return _refuse(request, 403 if given and repository.gated else 401, code)
        commit = repository.refs.get(unquote(revision), unquote(revision))
        files = repository.commits.get(commit)
        if files is None:
            return _refuse(request, 404, "RevisionNotFound")
        if kind == "revision":
            blobs = parse_qs(url.query).get("blobs") == ["true"]
            body = {"id": name, "sha": commit, "siblings": [_sibling(path, files[path], blobs) for path in files]}
            return _say(request, 200, json.dumps(body).encode(), Content_Type="application/json")
        if kind == "tree":
            tree = [{"type": "file", "path": path, **_listed(path, files[path])} for path in files]
            return _say(request, 200, json.dumps(tree).encode(), Content_Type="application/json")
        if kind == "xet-read-token":
            pass_ = {"X_Xet_Cas_Url": self.xet, "X_Xet_Access_Token": "t", "X_Xet_Token_Expiration": 2**31}
            return _say(request, 200, b"{}", **pass_)
        assert kind == "resolve", request.path
        file = unquote("/".join(path))
        if file not in files:
            return _refuse(request, 404, "EntryNotFound")
        if file.endswith(LFS):
            place = f"{self.cdn}/{name}/{commit}/{'/'.join(path)}?X-Amz-Signature=secret"
            linked = {
                "X_Linked_Size": len(files[file]),
                "X_Linked_ETag": f'"{hashlib.sha256(files[file]).hexdigest()}"',
            }
            if self.xet:
                route = f"{self.url}/api/{parts[0]}/{name}/xet-read-token/{commit}"
                linked |= {"X_Xet_Hash": hashlib.sha256(files[file]).hexdigest(), "X_Xet_Refresh_Route": route}
            return _say(request, 302, b"", Location=place, X_Repo_Commit=commit, **linked)
        return _say(request, 200, files[file], ETag=f'"{hashlib.sha1(files[file]).hexdigest()}"', X_Repo_Commit=commit)

    def _large(self, request: BaseHTTPRequestHandler) -> None:
        self.cdn_requests.append((request.path, _headers(request)))
        self.held.wait()
        owner, name, commit, *path = unquote(urlsplit(request.path).path).strip("/").split("/")
        content = self.repositories[f"{owner}/{name}"].commits[commit]["/".join(path)]
        if "/".join(path) in self.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        more = {"ETag": '"2"', "Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        sent, self.breaks_after = content[start:][: self.breaks_after], None
        _say(request, 206 if "Range" in request.headers else 200, sent, length=len(content) - start, **more)
        request.close_connection = len(sent) < len(content) - start


def _headers(request: BaseHTTPRequestHandler) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _sibling(path: str, content: bytes, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    size = {"size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
    lfs = {"lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}}
    return {"rfilename": path, **size, **(lfs if path.endswith(LFS) else {})}


def _listed(path: str, content: bytes) -> dict[str, Any]:
    """Of a file in a tree: what a sibling says, by other names."""
    said = _sibling(path, content, blobs=True)
    lfs = {"lfs": {**said["lfs"], "oid": said["lfs"]["sha256"]}} if "lfs" in said else {}
    return {"size": said["size"], "oid": said["blobId"], **lfs}


def _refuse(request: BaseHTTPRequestHandler, status: int, code: str | None, **headers: object) -> None:
    _say(request, status, b'{"error": "no"}', **({"X_Error_Code": code} if code else {}), **headers)


def _say(request: BaseHTTPRequestHandler, status: int, body: bytes, length: Any = None, **headers: object) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), str(value))
    request.send_header("Content-Length", str(len(body) if length is None else length))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)


def _server(answer: Callable[[BaseHTTPRequestHandler], None], host: str) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        def do_HEAD(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((host, 0), Handler)
    server.daemon_threads = True
    return server
