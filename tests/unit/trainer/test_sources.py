"""Rows fetched by HTTP: from a real server on this machine, by the import's command line."""

import contextlib
import hashlib
import ipaddress
import json
import threading
import time
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import plain_authority
import pytest
import yaml

from winnow_classifier.addresses import is_allowed
from winnow_classifier.bucket import Bucket, Credentials, signature
from winnow_classifier.errors import SourceError, SourceUnavailable, StorageAway
from winnow_classifier.refusals import told
from winnow_trainer.cli import main
from winnow_trainer.fetch import Fetcher, Limits, retry_after, shown

ROWS = "".join(f'{{"prompt": "text {number}", "completion": {number % 2}}}\n' for number in range(2_000)).encode()
HERE = ipaddress.ip_network("127.0.0.0/8")


class Server:
    """Says what its routes say, and remembers what was asked."""

    def __init__(self):
        self.routes = {}
        self.requests = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.requests.append((self.path, dict(self.headers)))
                outer.routes.get(self.path, lambda request: say(request, 404))(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"


def say(request, status, body=b"", length=None, **headers):
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    request.end_headers()
    request.wfile.write(body)


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def run(tmp_path, capsys):
    def run(source, *options, allowed=("--allow-network", "127.0.0.0/8")):
        manifest = tmp_path / "dataset.yaml"
        spec = {"modelService": "m", "source": source}
        manifest.write_text(yaml.safe_dump({"kind": "Dataset", "metadata": {"name": "d"}, "spec": spec}))
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        given = ["import", "--dataset", manifest, "--storage", tmp_path / "storage", "--scratch", scratch]
        code = main([str(part) for part in (*given, *allowed, *options)])
        assert list(scratch.iterdir()) == []
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def http(server, path, content=ROWS):
    return {"http": {"url": f"{server.url}{path}", "sha256": hashlib.sha256(content).hexdigest()}}


def test_rows_from_a_web_server(server, run):
    server.routes["/a"] = lambda request: say(request, 302, Location="/mail/rows.jsonl?key=secret")
    server.routes["/mail/rows.jsonl?key=secret"] = lambda request: say(request, 200, ROWS)
    code, out, _ = run(http(server, "/a"), "--json")
    assert code == 0
    assert json.loads(out)["rows"] == 2_000


def test_rows_that_stand_in_the_manifest(run):
    assert run({"inline": ROWS.decode()}, "--json")[0] == 0


@pytest.mark.parametrize(
    ("source", "code", "says"),
    [
        (lambda s: http(s, "/none"), 10, "/none answers 404 Not Found"),
        (lambda s: http(s, "/rows", b"other rows"), 10, "is wanted"),
        (lambda s: http(s, "/round"), 10, "more than 5 redirects"),
        (lambda s: http(s, "/away"), 10, "file is no scheme that rows are fetched by"),
        (lambda s: http(s, "/nowhere"), 10, "/nowhere leads to what is not a URL"),
        (lambda s: http(s, "/no-port"), 10, "/no-port leads to what is not a URL"),
        (lambda s: http(s, "/log-in"), 10, "it is a web page"),
        (lambda s: http(s, "/link-local"), 10, "the address 169.254.169.254, which is not public"),
        (lambda s: {"http": {"url": "http://me:hunter2@127.0.0.1/", "sha256": "0" * 64}}, 10, "a user or a password"),
        (lambda s: {"http": {"url": "http://127.0.0.1:99999/", "sha256": "0" * 64}}, 10, "no host or port that can be"),
        (lambda s: {"http": {"url": s.url}}, 10, "spec.source: http.sha256: Field required"),
        (lambda s: {"http": {"url": s.url, "sha256": "0" * 64}, "ftp": {}}, 10, "spec.source: ftp:"),
        (lambda s: {"configMap": {"name": "mail", "key": "rows"}}, 10, "configMap can be read in a cluster only"),
    ],
)
def test_what_cannot_be_fetched_is_said(server, run, source, code, says):
    server.routes["/rows"] = lambda request: say(request, 200, ROWS)
    server.routes["/round"] = lambda request: say(request, 307, Location="/round")
    server.routes["/away"] = lambda request: say(request, 302, Location="file:///etc/passwd")
    server.routes["/nowhere"] = lambda request: say(request, 302, Location="http://[::1/rows")
    server.routes["/no-port"] = lambda request: say(request, 302, Location="http://127.0.0.1:99999/rows")
    server.routes["/log-in"] = lambda request: say(request, 200, b"<html>", Content_Type="text/html; charset=utf-8")
    server.routes["/link-local"] = lambda request: say(request, 302, Location="http://169.254.169.254/latest/")
    found, out, err = run(source(server))
    assert (found, out) == (code, "")
    assert says in err
    assert "hunter2" not in err


@pytest.mark.parametrize(
    ("keys", "glob", "says"),
    [
        pytest.param(["a", "a/b.csv"], "", "/p/a/b.csv cannot be kept as a file: another one is named", id="both"),
        pytest.param(["x" * 300 + ".csv"], "", ".csv has no name for a file", id="a long name"),
        pytest.param(["a.csv"], "[z-a].csv", "[z-a].csv is no glob", id="no glob"),
    ],
)
def test_keys_of_a_bucket_that_cannot_be_files_are_said(server, run, keys, glob, says):
    entries = "".join(f"<Contents><Key>p/{key}</Key><Size>{len(ROWS)}</Size></Contents>" for key in keys)
    listing = f"<ListBucketResult>{entries}</ListBucketResult>".encode()
    server.routes["/mails?list-type=2&prefix=p%2F"] = lambda request: say(request, 200, listing)
    for key in keys:
        server.routes[f"/mails/p/{key}"] = lambda request: say(request, 200, ROWS)
    code, _, err = run({"s3": {"uri": f"s3://mails/p/{glob}", "endpoint": server.url}})
    assert code == 10
    assert says in err
    assert "bug" not in err


def test_own_addresses_are_out_of_bounds_until_they_are_allowed(server, run):
    server.routes["/rows"] = lambda request: say(request, 200, ROWS)
    code, _, err = run(http(server, "/rows"), allowed=())
    assert code == 10
    assert "the address 127.0.0.1, which is not public" in err
    assert "fetch.allowedNetworks" in err
    code, _, err = run(http(server, "/rows"), allowed=("--allow-network", "10.0.0.0/8"))
    assert (code, server.requests) == (10, [])


def test_a_file_that_is_too_large_is_not_fetched_to_its_end(server, run):
    server.routes["/rows"] = lambda request: say(request, 200, ROWS)
    code, _, err = run(http(server, "/rows"), "--max-bytes", "1000")
    assert code == 10
    assert "a source may have 1,000 bytes" in err


def fetcher(**limits):
    return Fetcher(Limits(allowed_networks=(HERE,), first_pause_seconds=0.001, **limits))


def test_a_broken_connection_is_taken_up_where_it_broke(server, tmp_path):
    def half(request):
        if "Range" in request.headers:
            start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            span = f"bytes {start}-{len(ROWS) - 1}/{len(ROWS)}"
            say(request, 206, ROWS[start:], ETag='"1"', Content_Range=span)
        else:
            say(request, 200, ROWS[:30_000], length=len(ROWS), ETag='"1"')
            request.close_connection = True

    server.routes["/rows"] = half
    with fetcher(max_bytes=len(ROWS)) as fetching:
        assert fetching.file(f"{server.url}/rows", tmp_path / "rows").status == 206
    assert (tmp_path / "rows").read_bytes() == ROWS
    assert server.requests[1][1]["if-range"] == '"1"'


def test_a_server_that_knows_no_ranges_begins_anew(server, tmp_path):
    answers = iter((lambda request: (say(request, 200, b"o" * 70, length=100), setattr(request, "close_connection", True)),
                    lambda request: say(request, 200, b"n" * 100)))  # fmt: skip
    server.routes["/rows"] = lambda request: next(answers)(request)
    with fetcher(max_bytes=100) as fetching:
        fetching.file(f"{server.url}/rows", tmp_path / "rows")
    assert (tmp_path / "rows").read_bytes() == b"n" * 100


def test_versions_are_not_mixed_where_a_server_does_not_know_if_range(server, tmp_path):
    """As Versity's, which sends the part of whatever is there by now."""
    old, new = b"o" * 100, b"n" * 100

    def replaced(request):
        if len(server.requests) == 1:
            say(request, 200, old[:70], length=100, ETag='"1"')
            request.close_connection = True
        elif "Range" in request.headers:
            say(request, 206, new[70:], ETag='"2"', Content_Range="bytes 70-99/100")
        else:
            say(request, 200, new, ETag='"2"')

    server.routes["/rows"] = replaced
    with fetcher(max_bytes=100) as fetching:
        fetching.file(f"{server.url}/rows", tmp_path / "rows")
    assert (tmp_path / "rows").read_bytes() == new


def test_trouble_of_the_server_may_pass(server, tmp_path):
    answers = iter([503, 500, 429, 200])
    server.routes["/rows"] = lambda request: say(request, next(answers), ROWS)
    with fetcher() as fetching:
        assert fetching.file(f"{server.url}/rows", tmp_path / "rows").status == 200
    assert (tmp_path / "rows").read_bytes() == ROWS


@pytest.mark.parametrize("said", ["1", "date"])
def test_a_server_that_says_for_how_long_is_not_asked_before(server, tmp_path, said):
    """As of the Hub's rates, which are counted by five minutes."""
    times = []

    def answer(request):
        times.append(time.time())
        soon = formatdate(times[0] + 2, usegmt=True)  # a date has whole seconds
        say(request, 200, ROWS) if len(times) > 1 else say(request, 429, Retry_After=said if said == "1" else soon)

    server.routes["/rows"] = answer
    with fetcher() as fetching:
        assert fetching.file(f"{server.url}/rows", tmp_path / "rows").status == 200
    assert times[1] - times[0] >= 0.9


@pytest.mark.parametrize(
    ("said", "seconds"), [("", 0), ("30", 30), ("999999", 600), ("-5", 0), ("soon", 0), (formatdate(0), 0)]
)
def test_how_long_a_server_wants_to_be_left_alone(said, seconds):
    assert retry_after({"retry-after": said}) == seconds


def test_who_gets_further_at_each_try_comes_to_the_end(server, tmp_path):
    rows = bytes(range(60)) * 2

    def some(request):
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        span = {"Content_Range": f"bytes {start}-{len(rows) - 1}/{len(rows)}"} if start else {}
        say(request, 206 if start else 200, rows[start : start + 10], length=len(rows) - start, ETag='"1"', **span)
        request.close_connection = True

    server.routes["/rows"] = some
    with fetcher() as fetching:
        fetching.file(f"{server.url}/rows", tmp_path / "rows")
    assert (tmp_path / "rows").read_bytes() == rows
    assert len(server.requests) == 12


def test_trouble_that_stays_is_worth_another_pod(server, tmp_path):
    server.routes["/rows"] = lambda request: say(request, 503)
    with fetcher() as fetching, pytest.raises(SourceUnavailable, match=r"5 tries; the last: .* 503 Service") as caught:
        fetching.file(f"{server.url}/rows", tmp_path / "rows")
    assert (caught.value.exit_code, len(server.requests)) == (20, 5)


def test_a_name_without_an_address_is_said(tmp_path):
    with fetcher() as fetching, pytest.raises(SourceUnavailable, match=r"the name nothing\.invalid cannot be resolved"):
        fetching.file("http://nothing.invalid/rows", tmp_path / "rows")


def test_a_certificate_that_is_not_trusted_is_what_the_hint_is_about(tmp_path, run, monkeypatch):
    monkeypatch.setattr("winnow_trainer.fetch.TRIES", 1)
    monkeypatch.setattr("winnow_classifier.bucket.TRIES", 1)
    monkeypatch.setattr("winnow_classifier.bucket.QUICK_TRIES", 1)
    with plain_authority.served(tmp_path) as kubeconfig:
        url = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        code, _, err = run({"http": {"url": f"{url}/rows", "sha256": "0" * 64}})
        there = Bucket("bucket", "", endpoint=url, region="us-east-1", credentials=None, networks=[HERE])
        with pytest.raises(StorageAway) as caught, told(there, there.uri(), "storage", "rights"):
            there.sizes("")
    assert code == 20
    for hint in (err, str(caught.value.hint)):
        assert "its certificate must be valid today" in hint


def test_time_is_bounded(server, tmp_path):
    server.routes["/rows"] = lambda request: say(request, 503)
    with fetcher(timeout_seconds=0.0) as fetching, pytest.raises(SourceError, match="not read within"):
        fetching.file(f"{server.url}/rows", tmp_path / "rows")


def test_time_is_bounded_however_slowly_an_answer_begins(server, tmp_path):
    def drip(request):
        with contextlib.suppress(OSError):  # the client goes
            for _ in range(50):
                request.wfile.write(b"H")
                time.sleep(0.1)

    server.routes["/rows"] = drip
    began = time.monotonic()
    with fetcher(timeout_seconds=0.5) as fetching, pytest.raises(SourceUnavailable, match="not read within"):
        fetching.file(f"{server.url}/rows", tmp_path / "rows")
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.96.0.1", "169.254.169.254", "192.168.1.1", "0.0.0.0", "100.64.0.1", "224.0.0.1", "::1",
        "fe80::1", "fd00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "ff02::1", "255.255.255.255",
    ],
)  # fmt: skip
def test_only_public_addresses_are_fetched_from(address):
    assert not is_allowed(ipaddress.ip_address(address))
    if "." in address:
        assert is_allowed(ipaddress.ip_address(address), [ipaddress.ip_network("0.0.0.0/0")])


def test_public_addresses_are_allowed():
    assert is_allowed(ipaddress.ip_address("9.9.9.9"))
    assert is_allowed(ipaddress.ip_address("2620:fe::fe"))


def test_what_may_be_secret_is_not_shown():
    assert shown("https://me:pass@host:1/a/b?token=1#x") == "https://host:1/a/b"


def test_signatures_are_those_of_the_documentation():
    credentials = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    url = "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J"
    signed = signature(url, "us-east-1", credentials, datetime(2013, 5, 24, tzinfo=UTC))
    wanted = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    assert signed["authorization"].endswith(f"Signature={wanted}")
