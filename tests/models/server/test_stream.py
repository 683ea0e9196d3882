"""POST /v1/classify/batch: lines in, lines out."""

import asyncio
import http.client
import json
import socket
import threading
import time
from contextlib import closing, contextmanager
from types import SimpleNamespace

import pytest
import tiny_server
import torch

from winnow_server import connection, stream
from winnow_server.errors import Overloaded, Unprocessable
from winnow_server.limits import Limits
from winnow_server.protocols import ndjson
from winnow_server.thresholds import NO_RULES

PATH = "/v1/classify/batch"


def ask(server, lines, **query):
    body = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    response = server.client.post(PATH, content=body, params=query)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def test_lines_are_answered_in_their_order_with_the_same_probabilities(server):
    texts = ["prize", "meeting", "win free money now"] * 300
    answers = ask(server, texts)
    assert [answer["index"] for answer in answers] == list(range(900))
    expected = server.probabilities(texts[:3])
    for number, answer in enumerate(answers):
        assert list(answer["scores"].values()) == pytest.approx(expected[number % 3], abs=1e-5)
    assert set(answers[0]) == {
        "index",
        "label",
        "predicted_labels",
        "abstained",
        "scores",
        "tokens",
        "truncated",
        "original_tokens",
    }


def test_a_bad_line_answers_an_error_line_and_the_stream_goes_on(server):
    long = "meeting " * 20
    lines = [
        "prize",
        b"{broken\n",
        b"\n",
        {"id": "a", "text": " "},
        {"txt": 1},
        {"id": "b", "text": "meeting"},
        long,
        b'"end"',
    ]
    answers = ask(server, lines, truncation="error")
    assert [answer["index"] for answer in answers] == [0, 1, 2, 3, 4, 5, 6]
    codes = [answer.get("error", {}).get("code") for answer in answers]
    assert codes == [None, "json_invalid", "text_empty", "missing", None, "text_too_long", None]
    assert (answers[2]["id"], answers[4]["id"]) == ("a", "b")
    assert [answers[place]["error"]["message"].partition(".")[0] for place in (2, 5)] == [
        "text is empty",
        "text has 22 tokens, 12 are read",
    ]
    counted = server.exposed()
    assert counted['clf_stream_lines_total{outcome="ok"}'] >= 3
    assert counted['clf_stream_lines_total{outcome="error"}'] >= 4


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        pytest.param(
            b'"win","text":"other","id":"x"', "json_invalid", "The line is not JSON", id="members behind a text"
        ),
        pytest.param(
            b'"a"}', "json_invalid", "at column 4.", id="where it goes wrong is counted from the line's beginning"
        ),
        pytest.param(b"[1]", "line_type", "The line must be a text, or an object with a text", id="a list"),
        pytest.param(b"null", "line_type", "The line must be a text, or an object with a text", id="nothing"),
    ],
)
def test_a_line_is_read_as_it_stands(server, line, code, words):
    (answer,) = ask(server, [line])
    assert answer["error"]["code"] == code
    assert words in answer["error"]["message"]
    assert "id" not in answer


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'"prize"\r\n\r\n{"text": "prize"}\r\n', id="as on Windows"),
        pytest.param(
            b'\xef\xbb\xbf"prize"\n\xef\xbb\xbf{"text": "prize"}\n', id="files with a mark, one behind the other"
        ),
        pytest.param(b' "prize"\t\n {"text": "prize"}', id="white space around, and no end of the last line"),
    ],
)
def test_lines_are_read_as_editors_write_them(server, body):
    first, second = ask(server, [body])
    assert first["scores"] == pytest.approx(second["scores"], abs=1e-5)


def test_a_line_that_is_too_large_is_left_out_without_being_held(checkpoint_folder):
    with tiny_server.running(checkpoint_folder, limits=Limits(body_bytes=1_000)) as server:
        most = json.dumps("prize").ljust(1_000).encode()
        body = b"\n".join((b'"prize"', most, most + b" ", b"x" * 5_000, b'"prize"'))
        answers = [json.loads(line) for line in server.client.post(PATH, content=body).text.splitlines()]
        codes = [answer.get("error", {}).get("code") for answer in answers]
        assert codes == [None, None, "line_too_large", "line_too_large", None]


async def test_what_follows_of_a_line_that_is_too_large_is_no_line_of_its_own():
    async def pieces():
        for piece in (b"x" * 600, b"x" * 600, b'"prize"\n"cash"'):
            yield piece

    large, line = [line async for line in ndjson.lines(pieces(), 1_000)]
    assert (large.code, line) == ("line_too_large", b'"cash"')


def test_options_stand_in_the_query(server):
    (answer,) = ask(server, ["prize"], return_logits="true", thresholds='{"spam": 0}')
    assert answer["predicted_labels"] == ["spam"]
    assert set(answer["logits"]) == {"ham", "spam"}
    text = "prize " * 20 + "meeting " * 10
    (left,), (end,) = ask(server, [text], truncation="left"), ask(server, ["meeting " * 10])
    assert left["truncated"]
    assert left["scores"] == pytest.approx(end["scores"], abs=1e-5)
    for option, words in (
        ("truncation", "must be 'right', 'left' or 'error'"),
        ("return_logits", "must be true or false"),
    ):
        refused = server.client.post(PATH, content=b'"a"', params={option: "middle"})
        assert (refused.status_code, refused.json()["error"]["message"]) == (422, f"{option} {words}.")
    refused = server.client.post(PATH, content=b'"a"', params={"thresholds": ["0.1", "0.9"]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "thresholds")
    assert refused.json()["error"]["message"] == "thresholds stands twice in the query: give it once."


def test_a_stream_for_another_model_is_refused(server):
    error = server.refusal(404, path="/v1/classify/batch?model=other", content=b'"prize"\n')
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert server.client.post("/v1/classify/batch?model=spam-detector", content=b'"prize"\n').status_code == 200


def test_a_line_that_the_model_gives_no_number_for_is_an_error_line(checkpoint_folder):
    def poison(network):
        def hook(_module, arguments, logits):
            return logits.masked_fill(torch.tensor(arguments[0].lengths)[:, None] > 3, float("nan"))

        network.register_forward_hook(hook)

    with tiny_server.running(checkpoint_folder, prepare=poison) as server:
        first, second, third = ask(server, ["prize", {"id": "b", "text": "free money"}, "cash"])
        assert list(second) == ["index", "id", "error"]
        assert (second["index"], second["id"], second["error"]["code"]) == (1, "b", "not_finite")
        assert second["error"]["type"] == "internal_error"
        assert first["scores"]
        assert third["scores"]


def test_requests_go_before_lines_that_wait(checkpoint_folder):
    gate = tiny_server.Gate()
    with tiny_server.running(checkpoint_folder, prepare=gate.guard, max_batch_tokens=16) as server:
        server.classify("prize")
        gate.close()
        answers = []
        streaming = threading.Thread(target=lambda: answers.extend(ask(server, ["prize"] * 40)))
        streaming.start()
        assert gate.reached.wait(10)
        server.until(lambda: server.metric("clf_background_tokens") > 100)
        assert server.metric("clf_queue_tokens") == 0
        waiting = threading.Thread(target=lambda: server.classify("win free money now"))
        waiting.start()
        server.until(lambda: server.metric("clf_queue_tokens") == 6)
        gate.open()
        waiting.join()
        streaming.join()
        assert len(answers) == 40
        # What ran when the request came, the request by itself, then the rest in short batches.
        assert gate.batches[1] == [6]
        assert all(sum(batch) <= 4 for batch in gate.batches[2:6])


def head(length):
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (PATH.encode(), length)


@contextmanager
def begun(server, lines, length):
    """A stream of so many lines so far, whose client leaves before it has sent what it announced."""
    with server.connect() as client:
        client.sendall(head(length) + b'"prize"\n' * lines)
        yield client


def told(client, words):
    """The next line that comes with these words."""
    content = b""
    while words not in content or not content.endswith(b"\n"):
        piece = client.recv(65_536)
        assert piece, content
        content += piece
    return next(json.loads(line) for line in content.splitlines() if words in line)


@contextmanager
def unread(server, lines):
    """A stream of wrong lines, whose client does not read what comes."""
    with closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)) as client:
        client.connect()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.request("POST", PATH, b"x\n" * lines, {"X-Request-Id": "r" * 128})
        yield client


def settled(server, name):
    """The metric, once it is something and stays as it is."""
    seen, since = 0.0, 0.0

    def stays():
        nonlocal seen, since
        value, now = server.metric(name), time.monotonic()
        if value != seen:
            seen, since = value, now
        return seen > 0 and now - since > 0.5

    server.until(stays)
    return seen


def test_each_answer_is_there_before_the_next_line_is_sent(server):
    with server.connect() as client:
        client.sendall(head(1_000))
        for number, word in enumerate((b"prize", b"meeting", b"cash")):
            client.sendall(b'"%s"\n' % word)
            assert told(client, b'"index":%d' % number)["label"] in ("ham", "spam")


def test_a_client_that_sends_nothing_more_is_told_from_which_line_on(server, monkeypatch):
    monkeypatch.setattr(stream, "IDLE_SECONDS", 0.3)
    with begun(server, lines=2, length=1_000) as client:
        last = told(client, b"body_timeout")
    assert (last["index"], last["error"]["message"][:23]) == (2, "Nothing came for 0.3 s.")


@pytest.mark.usefixtures("small_buffers")
def test_answers_wait_for_a_client_that_does_not_read_up_to_a_size(checkpoint_folder, monkeypatch):
    monkeypatch.setattr(stream, "UNREAD_BYTES", 500_000)
    with tiny_server.running(checkpoint_folder) as server:
        with unread(server, lines=1) as client:
            answer = client.getresponse().read()
        with unread(server, lines=10_000) as client:
            assert 500_000 < settled(server, "clf_stream_lines_total") * len(answer) < 1_000_000
            left = 200_000
            while left > 0:  # it goes on a little: what it lets the server write then is bounded too
                left -= len(client.sock.recv(left))
            server.until(lambda: server.metric("clf_stream_lines_total") * len(answer) > 600_000)
            assert settled(server, "clf_stream_lines_total") * len(answer) < 1_200_000


@pytest.mark.usefixtures("small_buffers")
def test_a_client_that_takes_no_answers_loses_its_connection(checkpoint_folder, monkeypatch):
    monkeypatch.setattr(stream, "UNREAD_BYTES", 10_000)
    monkeypatch.setattr(connection, "TAKE_SECONDS", 0.3)
    with tiny_server.running(checkpoint_folder) as server, unread(server, lines=10_000):
        server.until(lambda: server.metric("clf_stream_lines_total") > 0)
        server.until(lambda: server.metric("clf_requests_running") == 0)
        server.until(lambda: len(server.process.server_state.connections) == 1)


def test_long_lines_fill_the_window_sooner(checkpoint_folder, monkeypatch):
    monkeypatch.setattr(stream, "WINDOW_CHARACTERS", 1_000)
    gate = tiny_server.Gate()
    with tiny_server.running(checkpoint_folder, prepare=gate.guard) as server:
        gate.close()
        with begun(server, lines=0, length=100_000) as client:
            client.sendall(b'"%s"\n' % (b"prize " * 20) * 200)
            assert gate.reached.wait(10)
            waiting = settled(server, "clf_background_tokens")
            gate.open()
        assert waiting <= tiny_server.MAX_TOKENS * 10
        assert len(ask(server, ["prize " * 20] * 200)) == 200, "what was answered makes room"


def test_the_work_of_a_stream_whose_client_left_is_dropped(checkpoint_folder):
    gate = tiny_server.Gate()
    with tiny_server.running(checkpoint_folder, prepare=gate.guard, max_batch_tokens=16) as server:
        gate.close()
        with begun(server, lines=50, length=100_000):
            server.until(lambda: server.metric("clf_background_tokens") > 100)
        server.until(lambda: server.metric("clf_background_tokens") == 0)
        gate.open()
        assert server.probabilities("prize")
        assert len(ask(server, ["prize"])) == 1


def test_of_the_lines_that_a_client_left_behind_none_is_read(checkpoint_folder):
    """However many have come already: more than uvicorn takes before it stops reading, and no longer sees who leaves."""
    gate = tiny_server.Gate()
    with tiny_server.running(checkpoint_folder, prepare=gate.guard, max_batch_tokens=16) as server:
        gate.close()
        with begun(server, lines=25_000, length=1_000_000):
            assert gate.reached.wait(10)
        gate.open()
        server.until(lambda: server.metric("clf_requests_running") == 0)
        assert server.metric("clf_stream_lines_total") < 10 * stream.WINDOW_LINES


def test_a_full_window_stops_reading(checkpoint_folder):
    gate = tiny_server.Gate()
    with tiny_server.running(checkpoint_folder, prepare=gate.guard, max_batch_tokens=16) as server:
        gate.close()
        answers = []
        streaming = threading.Thread(target=lambda: answers.extend(ask(server, ["prize"] * 5_000)))
        streaming.start()
        assert gate.reached.wait(10)
        server.until(lambda: server.metric("clf_background_tokens") > 3 * 200)
        assert settled(server, "clf_background_tokens") <= 3 * stream.WINDOW_LINES
        gate.open()
        streaming.join()
        assert [answer["index"] for answer in answers] == list(range(5_000))


def test_only_so_many_streams_run_at_once(checkpoint_folder):
    gate = tiny_server.Gate()
    with tiny_server.running(checkpoint_folder, prepare=gate.guard, limits=Limits(streams=1)) as server:
        gate.close()
        streaming = threading.Thread(target=lambda: ask(server, ["prize"]))
        streaming.start()
        assert gate.reached.wait(10)
        refused = server.client.post(PATH, content=b'"prize"')
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_streams")
        assert int(refused.headers["retry-after"]) > 0
        assert server.exposed()['clf_rejected_total{reason="too_many_streams"}'] == 1
        gate.open()
        streaming.join()
        assert len(ask(server, ["prize"])) == 1


def test_a_server_that_stops_says_from_which_line_on_to_send_again(checkpoint_folder):
    with tiny_server.running(checkpoint_folder) as server, server.connect() as client:
        client.sendall(head(1_000) + b'"prize"\n"cash"\n')
        server.until(lambda: server.metric("clf_stream_lines_total") == 2)
        server.on_loop(server.service.drain)
        last = told(client, b"draining")
    assert (last["index"], last["error"]["code"]) == (2, "draining")


class Refusing:
    """A service that classifies nothing, for what a stream does by itself."""

    def __init__(self):
        self.draining = asyncio.Event()
        self.limits = Limits()
        self.announced = SimpleNamespace(manifest=SimpleNamespace(labels=("ham", "spam")))
        self.metrics = SimpleNamespace(line=lambda ok: None)

    def submit_background(self, text, **_):
        raise Unprocessable("No.", code="no")


async def sent(service, slots, receive):
    """The stream's messages, each with whether another stream could begin as it was sent."""
    found = []

    async def send(message):
        try:
            with slots.one():
                found.append((message, True))
        except Overloaded:
            found.append((message, False))

    scope = {"type": "http", "state": {"request_id": "r", "left": asyncio.Event()}}
    streaming = stream.Stream(service, slots, ndjson.Options(), NO_RULES)
    await asyncio.wait_for(streaming(scope, receive, send), 10)
    return found


async def test_a_server_that_stops_waits_for_no_client_that_goes_on_sending():
    service = Refusing()
    pieces = 0

    async def receive():
        nonlocal pieces
        pieces += 1
        if pieces == 3:
            service.draining.set()
        return {"type": "http.request", "body": b'"prize"\n', "more_body": True}

    messages = await sent(service, stream.Slots(1), receive)
    *_, last = b"".join(message.get("body", b"") for message, _ in messages).splitlines()
    assert (json.loads(last)["index"], json.loads(last)["error"]["code"]) == (pieces, "draining")


async def test_a_stream_leaves_its_place_before_its_client_can_know_that_it_is_over():
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    messages = await sent(Refusing(), stream.Slots(1), receive)
    assert [(message.get("more_body"), free) for message, free in messages] == [(None, False), (False, True)]
