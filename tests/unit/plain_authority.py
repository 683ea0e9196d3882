"""An API server's certificate as on many clusters: its authority's says of itself that it is one, and nothing else."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

AUTHORITY = "[req]\ndistinguished_name = name\nx509_extensions = extensions\n[name]\n[extensions]\nbasicConstraints = critical, CA:TRUE\n"
ANSWER = {"kind": "List", "apiVersion": "winnow.dev/v1alpha1", "metadata": {"resourceVersion": "1"}, "items": []}


def as_python_3_13(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its contexts are strict; those of earlier ones, which may run these tests, are not."""
    plain = ssl.create_default_context

    def create(*args: Any, **options: Any) -> ssl.SSLContext:
        context = plain(*args, **options)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", create)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Path]:
    """A server that answers all with an empty list: its kubeconfig."""
    (folder / "authority.cnf").write_text(AUTHORITY)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    of_authority = ["-config", "authority.cnf", "-subj", "/CN=kubernetes", "-keyout", "ca.key", "-out", "ca.crt"]
    of_server = ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1", "-subj", "/CN=server"]
    _openssl(folder, *key, *of_authority)
    _openssl(folder, *key, *of_server, "-addext", "basicConstraints=CA:FALSE", "-keyout", "key", "-out", "crt")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(ANSWER).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        cluster = {"server": f"https://127.0.0.1:{server.server_port}", "certificate-authority": str(folder / "ca.crt")}
        kubeconfig = {
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "demo"}}],
            "current-context": "x",
        }
        (folder / "kubeconfig").write_text(json.dumps(kubeconfig))
        yield folder / "kubeconfig"
        server.shutdown()


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", "req", "-x509", *arguments], cwd=folder, check=True, capture_output=True)
