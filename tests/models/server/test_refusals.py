"""What a client is told when its request cannot be served: the status, the words, the part that is meant."""

import gzip
import json
import socket
from contextlib import suppress

import pytest

MEBIBYTE = 1024 * 1024


@pytest.mark.parametrize(
    ("body", "status", "code", "param", "words"),
    [
        pytest.param(b"{", 400, "json_invalid", None, "not JSON", id="broken JSON"),
        pytest.param(b"", 400, "json_invalid", None, "not JSON", id="no body"),
        pytest.param(b"input=hello", 400, "json_invalid", None, "not JSON", id="a form"),
        pytest.param(b'{"input": "\xff"}', 400, "json_invalid", None, "not JSON", id="not UTF-8"),
        pytest.param(rb'{"input": "\ud800"}', 400, "json_invalid", None, "not JSON", id="half a surrogate pair"),
        pytest.param({}, 422, "missing", "input", "input is missing", id="no input"),
        pytest.param([], 422, "model_type", None, "must be an object", id="a list"),
        pytest.param({"input": ""}, 422, "text_empty", "input[0]", "is empty", id="an empty text"),
        pytest.param({"input": ["a", " \n"]}, 422, "text_empty", "input[1]", "is empty", id="only white space"),
        pytest.param({"input": []}, 422, "too_short", "input", "is empty", id="no texts"),
        pytest.param({"input": None}, 422, "input_type", "input", "must be a text", id="null"),
        pytest.param({"input": [1, 2]}, 422, "input_type", "input", "item 0 is neither", id="token ids"),
        pytest.param({"input": ["a"] * 1025}, 422, "too_long", "input", "1025 items", id="too many texts"),
        pytest.param({"input": [1] * 1025}, 422, "too_long", "input", "1025 items", id="counted before they are read"),
        pytest.param(
            dict.fromkeys(map(str, range(10_001))), 422, "too_many_errors", None, "10002 places", id="nothing is right"
        ),
        pytest.param(
            {"input": [{"id": "x"}]}, 422, "missing", "input[0].text", "is missing", id="an item without text"
        ),
        pytest.param({"input": [{"text": 3}]}, 422, "string_type", "input[0].text", "a string", id="a text of numbers"),
        pytest.param(
            {"input": "a", "treshold": 1}, 422, "extra_forbidden", "treshold", "not a field", id="unknown field"
        ),
        pytest.param(
            {"input": "a", "truncation": "middle"}, 422, "literal_error", "truncation", "left", id="cut in the middle"
        ),
        pytest.param(
            {"input": "a", "add_special_tokens": False},
            422,
            "literal_error",
            "add_special_tokens",
            "be true",
            id="as JSON writes it",
        ),
        pytest.param(
            {"input": "a", "priority": 10**30},
            422,
            "int_parsing_size",
            "priority",
            "priority is too",
            id="a huge number",
        ),
        pytest.param({"input": "a", "top_k": 0}, 422, "greater_than_equal", "top_k", "at least 1", id="top none"),
        pytest.param(
            {"input": "a", "model": "gpt"}, 404, "model_not_found", "model", "spam-detector", id="other model"
        ),
    ],
)
def test_a_refused_request(server, body, status, code, param, words):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = server.refusal(status, content=content)
    assert (error["code"], error["param"]) == (code, param)
    assert words in error["message"]


@pytest.mark.parametrize("path", ["/classify", "/v1/classification"])
def test_too_many_texts_are_refused_wherever_they_are_sent(server, path):
    error = server.refusal(422, path=path, json={"input": ["a"] * 1025})
    assert (error["code"], error["param"]) == ("too_long", "input")
    assert len(server.client.post(path, json={"input": ["a"] * 1024}).json()["data"]) == 1024


def test_the_words_of_a_refusal_hold_nothing_of_the_text(server):
    error = server.refusal(422, json={"input": [{"text": "secret words", "text_pair": "more secrets"}]})
    assert "secret" not in json.dumps(error)


def test_ten_megabytes_are_refused_before_they_are_read(server):
    error = server.refusal(413, content=json.dumps({"input": "x" * (10 * MEBIBYTE)}))
    assert error["code"] == "body_too_large"
    assert str(2 * MEBIBYTE) in error["message"]


def test_a_body_that_hides_its_size_is_refused_as_soon_as_it_is_too_large(server):
    chunks = (b"x" * MEBIBYTE for _ in range(4))  # sent with Transfer-Encoding: chunked
    assert server.refusal(413, content=chunks)["code"] == "body_too_large"


@pytest.mark.parametrize("hides_its_size", [False, True])
def test_a_body_may_be_as_large_as_the_limit_says(server, hides_its_size):
    for over in (0, 1):
        body = json.dumps({"input": "prize"}).encode().ljust(2 * MEBIBYTE + over)
        content = (body[at : at + MEBIBYTE] for at in range(0, len(body), MEBIBYTE)) if hides_its_size else body
        answer = server.client.post("/v1/classify", content=content)
        assert answer.status_code == (413 if over else 200)


def test_a_body_has_its_time_however_steadily_it_comes(server, monkeypatch):
    monkeypatch.setattr("winnow_server.body.BODY_SECONDS", 0.3)
    host, port = server.url.removeprefix("http://").split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=0.05) as client:
        client.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(200):
            client.sendall(b" ")
            with suppress(TimeoutError):
                answer = client.recv(65_536)
                break
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "body_timeout"


def test_a_mark_before_the_body_is_none_of_it(server):
    """As PowerShell writes UTF-8."""
    answered = server.client.post("/v1/classify", content=b'\xef\xbb\xbf{"input": "prize"}')
    assert answered.status_code == 200


@pytest.mark.parametrize("path", ["/v1/classify", "/v1/classify/batch"])
def test_a_compressed_body_is_refused_in_words(server, path):
    content, headers = gzip.compress(b'{"input": "prize"}'), {"Content-Encoding": "gzip"}
    error = server.refusal(415, path=path, content=content, headers=headers)
    assert error["code"] == "encoding_unsupported"
    assert "'gzip'" in error["message"]
    for harmless in ("identity", "utf-8"):  # the second is wrong, and some clients send it
        plain = {"Content-Encoding": harmless}
        assert server.client.post("/v1/classify", json={"input": "prize"}, headers=plain).status_code == 200


def test_a_request_of_more_tokens_than_can_ever_wait_is_refused_for_good(server):
    error = server.refusal(413, json={"input": ["win free money now prize claim cash offer"] * 500})
    assert error["code"] == "request_too_large"
    assert "5000 tokens" in error["message"]
    assert server.metric("clf_queue_tokens") == 0


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        pytest.param("GET", "/v1/classify", 405, "method_not_allowed", id="reading where one writes"),
        pytest.param("POST", "/v1/model", 405, "method_not_allowed", id="writing where one reads"),
        pytest.param("POST", "/ui/", 405, "method_not_allowed", id="writing a page"),
        pytest.param("GET", "/v1/nothing", 404, "not_found", id="no such path"),
        pytest.param("GET", "/v1/classify/", 404, "not_found", id="a slash too many"),
        pytest.param("GET", "/ui/../../etc/passwd", 404, "not_found", id="outside"),
        pytest.param("GET", "/ui/nothing.js", 404, "not_found", id="no such file of the page"),
    ],
)
def test_a_wrong_address_has_the_same_shape(server, method, path, status, code):
    assert server.refusal(status, method=method, path=path)["code"] == code


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/classify", "POST"),
        ("POST", "/v1/model", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD, POST"),
        ("GET", "/v2/models/spam-detector/infer", "POST"),
        ("GET", "/v2/models/spam-detector/versions/1/infer", "POST"),
        ("GET", "/v1/models/spam-detector:predict", "POST"),
        ("POST", "/v2/models/spam-detector", "GET, HEAD"),
        ("POST", "/ui/", "GET, HEAD"),
    ],
)
def test_what_may_be_done_is_said_where_something_may_not(server, method, path, allowed):
    refused = server.client.request(method, path)
    assert (refused.status_code, refused.headers["allow"]) == (405, allowed)


def test_the_clients_request_id_comes_back(server):
    answered = server.client.post("/v1/classify", json={"input": "prize"}, headers={"X-Request-Id": "mine-1"})
    assert answered.headers["x-request-id"] == "mine-1"
    refused = server.client.post("/v1/classify", json={}, headers={"X-Request-Id": "mine-2"})
    assert refused.json()["error"]["request_id"] == "mine-2"


@pytest.mark.parametrize(("given", "stays"), [("x" * 128, True), ("x" * 129, False), ("", False), ("a\tb", False)])
def test_a_request_id_that_does_not_belong_in_a_log_is_replaced(server, given, stays):
    found = server.client.get("/v1/model", headers={"X-Request-Id": given}).headers["x-request-id"]
    assert found == given if stays else len(found) == 32


def test_a_client_that_leaves_before_its_body_is_there_does_no_harm(server):
    with server.connect() as client:
        client.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert server.probabilities("prize")
