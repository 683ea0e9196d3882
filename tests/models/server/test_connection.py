"""What a connection bears: heads without end, clients that send nothing, offers of other protocols, the end of the server."""

import json
import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest
import tiny_server

from winnow_server import connection

BODY = b'{"input": ["prize"]}'
POST = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(BODY)
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n"


def rest(client):
    """All that comes until the server closes."""
    return b"".join(iter(lambda: client.recv(65_536), b""))


def exchange(server, content):
    with server.connect() as client:
        client.sendall(content)
        return rest(client)


def error(answer, status):
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in head
    return json.loads(body)["error"]


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(LIVE + b"X-A: " + b"a" * 1_000_000, id="one header"),
        pytest.param(LIVE + b"X-A: a\r\n" * 10_000, id="many headers"),
        pytest.param(LIVE + b"X-A: " + b"a" * connection.HEAD_BYTES + b"\r\n\r\n", id="a complete one in one piece"),
        pytest.param(b"GET /" + b"a" * 100_000, id="a path"),
        pytest.param(LIVE + b"\r\n" + LIVE + b"X-A: " + b"a" * 200_000, id="behind another request"),
    ],
)
def test_a_head_is_read_up_to_a_size(server, head):
    answer = exchange(server, head)
    refused = error(answer[answer.index(b"HTTP/1.1 431") :], 431)
    assert refused["code"] == "headers_too_large"
    assert "65536 bytes" in refused["message"]


def test_a_long_head_is_read_and_a_body_is_none(server):
    filled = LIVE + b"X-A: " + b"a" * 60_000 + b"\r\nConnection: close\r\n\r\n"
    assert exchange(server, filled).startswith(b"HTTP/1.1 200 ")
    assert server.classify("prize " * 40_000)["data"]


def test_what_stands_behind_a_chunked_body_is_bounded_too(server):
    chunked = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n" + BODY
    behind = b"\r\n0\r\nX-A: a\r\n\r\n"
    assert exchange(server, chunked + behind + LIVE + b"Connection: close\r\n\r\n").count(b"HTTP/1.1 200 ") == 2
    refused = error(exchange(server, chunked + behind[:-4] + b"a" * 2 * connection.HEAD_BYTES), 431)
    assert refused["code"] == "headers_too_large"


CHUNKED = b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 200, id="TLS"),
        pytest.param(POST + b"Transfer-Encoding: chunked\r\n\r\n" + BODY, id="a body of two lengths"),
        pytest.param("GET /v1/modèle HTTP/1.1\r\nHost: x\r\n\r\n".encode(), id="a path that is not encoded"),
        pytest.param(b"POST /v1/classify" + CHUNKED, id="a chunk without a length"),
        pytest.param(b"POST /v1/classify/batch" + CHUNKED, id="a stream's"),
    ],
)
def test_what_is_not_http_is_refused_in_the_one_shape(server, content):
    assert error(exchange(server, content), 400)["code"] == "http_invalid"


def test_what_is_not_http_behind_a_request_takes_no_answer_from_it(server):
    """As of a client that counts characters and not bytes: the last ones stand behind the body."""
    answer = exchange(server, LIVE + b"\r\n" + POST + b"\r\n" + BODY + b"}]" * 500_000)
    assert answer.count(b"HTTP/1.1 ") == answer.count(b"HTTP/1.1 200 ") == 2
    assert b"predicted_labels" in answer


def test_a_head_that_does_not_come_ends_the_connection(server, impatient):
    assert error(exchange(server, LIVE + b"X-A"), 408)["code"] == "headers_timeout"
    assert exchange(server, b"") == b""
    with server.connect() as client:
        client.sendall(LIVE + b"\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")
        client.sendall(LIVE)
        assert error(rest(client), 408)


def test_a_body_that_nobody_reads_does_not_keep_a_connection(server, impatient):
    with server.connect() as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        assert client.recv(65_536).startswith(b"HTTP/1.1 404 ")
        client.sendall(b"d")
        assert rest(client) == b""


def test_a_connection_may_idle_between_requests_and_a_body_has_its_own_time(server, impatient):
    with server.connect() as client:
        for _ in range(2):
            client.sendall(POST + b"\r\n" + BODY[:5])
            time.sleep(0.5)
            client.sendall(BODY[5:])
            assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.5)


@contextmanager
def three_long_answers(checkpoint_folder):
    with tiny_server.running(checkpoint_folder) as server, server.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_000)
        asked = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n%s\r\n"
        client.sendall(asked % b"" * 2 + asked % b"Connection: close\r\n")
        yield server, client


@pytest.mark.usefixtures("small_buffers")
def test_who_takes_nothing_of_an_answer_loses_the_connection(checkpoint_folder, monkeypatch):
    monkeypatch.setattr(connection, "TAKE_SECONDS", 0.3)
    with three_long_answers(checkpoint_folder) as (server, _):
        server.until(lambda: len(server.process.server_state.connections) == 2)
        server.until(lambda: len(server.process.server_state.connections) == 1)


@pytest.mark.usefixtures("small_buffers")
def test_an_answer_may_be_taken_slowly(checkpoint_folder, monkeypatch):
    monkeypatch.setattr(connection, "TAKE_SECONDS", 0.8)
    content = b""
    with three_long_answers(checkpoint_folder) as (_, client):
        while piece := client.recv(10_000):
            content += piece
            time.sleep(0.1)
    assert content.count(b'"openapi":"3.1.0"') == 3
    assert content.endswith(b"}")


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_an_offer_of_another_protocol_is_ignored(server, protocol, version):
    offer = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABk\r\n\r\n".encode()
    head = POST.replace(b"1.1", version.encode()) + offer
    with server.connect() as client:
        client.sendall(head[:60])
        client.sendall(head[60:] + BODY[:5])
        client.sendall(BODY[5:] + LIVE + b"Connection: close\r\n\r\n")
        answers = rest(client)
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert b'"predicted_labels"' in answers
    assert answers.count(b"HTTP/1.1 200 ") == (2 if version == "1.1" else 1)


@pytest.mark.parametrize("target", [b"x:80", b"/", b"*", b"http://x/"])
@pytest.mark.parametrize("behind", [b"", LIVE + b"\r\n"], ids=["", "what is for the tunnel"])
def test_a_tunnel_is_refused(server, target, behind):
    answer = exchange(server, b"CONNECT " + target + b" HTTP/1.1\r\nHost: x:80\r\n\r\n" + behind)
    assert answer.startswith(b"HTTP/1.1 4")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert exchange(server, LIVE + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.usefixtures("impatient")
def test_a_body_whose_answer_came_before_it_is_read_to_its_end(server):
    """As of who sends all of it before reading: the answer would be lost with the connection."""
    with server.connect() as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 404 ")
        for byte in b"0123456789":
            client.sendall(bytes([byte]))
            time.sleep(0.1)
        client.sendall(LIVE + b"Connection: close\r\n\r\n")
        assert rest(client).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("head", [b"1.1\r\nHost: x\r\nConnection: close", b"1.0"])  # the second is nginx's
def test_the_last_answer_of_a_connection_is_not_lost_over_a_body_that_is_still_sent(server, head):
    body = bytes(16 * 1024 * 1024)
    with server.connect() as client:
        client.sendall(b"POST /v1/classify HTTP/%s\r\nContent-Length: %d\r\n\r\n" % (head, len(body)))
        client.sendall(body)
        assert error(rest(client), 413)["code"] == "body_too_large"


def test_what_follows_the_last_answer_of_a_connection_is_not_answered(server):
    answer = exchange(server, POST + b"Connection: close\r\n\r\n" + BODY + POST + b"\r\n" + BODY[:5])
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_stream_that_ends_with_the_server_ends_in_full(checkpoint_folder):
    with tiny_server.running(checkpoint_folder) as server, server.connect() as client:
        client.sendall(
            b"POST /v1/classify/batch HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + b'"prize"\n'
        )
        answer = client.recv(65_536)

        def stop():
            server.service.drain()
            server.process.should_exit = True

        server.on_loop(stop)
        while b'"draining"' not in answer:
            answer += client.recv(65_536)
        time.sleep(2 * connection.LAST_SECONDS)
        client.sendall(bytes(16 * 1024 * 1024))
        assert (answer + rest(client)).endswith(b"0\r\n\r\n")


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_that_offers_http2_is_answered(server):
    command = ["curl", "-s", "--http2", "-d", BODY.decode(), f"{server.url}/v1/classify"]
    answer = subprocess.run(command, capture_output=True, check=True, timeout=30).stdout
    assert len(json.loads(answer)["data"]) == 1


def test_who_connects_as_the_server_stops_is_answered(checkpoint_folder, monkeypatch):
    monkeypatch.setattr(connection, "LAST_SECONDS", 10)
    with tiny_server.running(checkpoint_folder) as server:
        connected = threading.Event()

        def stop():
            server.service.drain()
            server.process.should_exit = True
            assert connected.wait(20)
            time.sleep(0.2)  # its next look, each 0.1 s, then comes before it looks for who has connected

        server.on_loop(stop)
        clients = [server.connect() for _ in range(10)]
        early, late = clients[:5], clients[5:]
        for client in early:
            client.sendall(POST + b"\r\n" + BODY)
        connected.set()
        answers = [rest(client) for client in early]
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        for client in late:
            client.sendall(POST + b"\r\n" + BODY)
        answers += [rest(client) for client in late]
        for client in clients:
            client.close()
    assert all(answer.startswith(b"HTTP/1.1 200 ") and b"connection: close" in answer for answer in answers)
