"""The S3 client against servers that answer as they should not. Against a real one: tests/processes/test_storage_s3.py."""

import contextlib
import ipaddress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from winnow_classifier import bucket
from winnow_classifier.bucket import Bucket, Refused, Unreachable
from winnow_classifier.errors import StorageError, StorageFull
from winnow_classifier.mirror import BucketMirror
from winnow_classifier.refusals import told

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
XML = "application/xml"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(bucket, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(bucket, "QUICK_TRIES", 1)


@contextlib.contextmanager
def answering(answer):
    """A bucket of a server; `answer` gets method and query of a request, and gives status, content type and body."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status, kind, body = answer(self.command, self.path.partition("?")[2])
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.send_header("etag", '"0"')
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

        do_DELETE = do_GET = do_HEAD = do_POST = do_PUT = respond  # noqa: N815 - http.server's names

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        yield Bucket("bucket", "", endpoint=endpoint, region="us-east-1", credentials=None, networks=LOOPBACK)
        server.shutdown()


@pytest.mark.parametrize("failures", [pytest.param(1, id="once"), pytest.param(100, id="always")])
def test_parts_that_are_not_put_together_are_no_object(tmp_path, failures):
    """S3 says so in the body of an answer 200, which it begins before it knows."""
    file = tmp_path / "large"
    file.write_bytes(bytes(bucket.PART_BYTES + 1))
    begun = []

    def answer(method, query):
        if method == "POST" and query == "uploads=":
            begun.append(query)
            return 200, XML, b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
        if method == "POST" and len(begun) <= failures:
            return 200, XML, b"<Error><Code>InternalError</Code><Message>Please try again.</Message></Error>"
        return 200, XML, b"<CompleteMultipartUploadResult><ETag>0</ETag></CompleteMultipartUploadResult>"

    with answering(answer) as there:
        if failures > bucket.TRIES:
            with pytest.raises(Unreachable, match="the parts were not put together"):
                there.put("large", file)
        else:
            there.put("large", file)
    assert len(begun) == min(failures + 1, bucket.TRIES)


def test_parts_that_cannot_be_removed_do_not_hide_why_they_are_no_object(tmp_path):
    file = tmp_path / "large"
    file.write_bytes(bytes(bucket.PART_BYTES + 1))

    def answer(method, query):
        if method == "POST":
            return 200, XML, b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
        code = b"AccessDenied" if method == "DELETE" else b"QuotaExceeded"
        return 403, XML, b"<Error><Code>" + code + b"</Code><Message>no</Message></Error>"

    with answering(answer) as there, pytest.raises(StorageFull), told(there, there.uri("large"), "storage", "rights"):
        there.put("large", file)


def test_keys_that_have_run_out_are_told_by_a_refresh_too(tmp_path):
    """S3 answers a HEAD request 400 then, without a word."""
    expired = b"<Error><Code>ExpiredToken</Code><Message>no</Message></Error>"
    with answering(lambda method, query: (400, XML, expired)) as there, pytest.raises(StorageError) as caught:
        BucketMirror(tmp_path, there).refresh(tmp_path / "decision.json")
    assert caught.value.hint == "the AWS_SESSION_TOKEN of spec.storage.s3.secretRef has run out"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        pytest.param(403, Refused, id="a firewall's page"),
        pytest.param(404, Refused, id="another server's page"),
        pytest.param(408, Unreachable, id="a proxy that waited long"),
        pytest.param(501, Refused, id="no such thing here"),
        pytest.param(503, Unreachable, id="a proxy without a server"),
        pytest.param(522, Unreachable, id="a proxy of Cloudflare's without a server"),
    ],
)
def test_pages_of_what_stands_in_between_are_worth_another_try_where_they_tell_of_trouble(tmp_path, status, error):
    file = tmp_path / "small"
    file.write_bytes(b"0")
    with answering(lambda method, query: (status, "text/html", b"<h1>No</h1>")) as there:
        for what in (lambda: there.put("small", file), lambda: there.objects(""), lambda: there.remove(["small"])):
            with pytest.raises(error):
                what()
