"""Probes, metrics, what is served, and the files of the test page."""

import json
import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import tiny_server

import winnow_server
from winnow_classifier.tokens import Encoder
from winnow_server import responses
from winnow_server.logs import JsonFormatter
from winnow_server.protocols import ndjson
from winnow_server.ticket import Timing

STATIC = Path(winnow_server.__file__).parent / "static"


def test_while_the_model_loads_the_server_is_alive_but_not_ready(checkpoint_folder):
    loading = threading.Event()
    with tiny_server.running(checkpoint_folder, before_load=loading.wait, wait=False) as server:
        assert server.client.get("/v2/health/live").status_code == 200
        ready = server.client.get("/v2/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"ready": False, "phase": "loading"})
        refused = server.client.post("/v1/classify", json={"input": "prize"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert int(refused.headers["retry-after"]) > 0
        assert server.metric("clf_ready") == 0
        assert server.exposed()['clf_rejected_total{reason="not_ready"}'] == 1
        loading.set()
        server.until(lambda: server.client.get("/v2/health/ready").status_code == 200)
        assert server.metric("clf_ready") == 1
        assert server.probabilities("prize")


def test_while_it_drains_the_server_answers_and_sends_clients_elsewhere(checkpoint_folder):
    with tiny_server.running(checkpoint_folder) as server:
        server.service.drain()
        assert server.client.get("/v2/health/ready").status_code == 503
        assert server.client.get("/v2/health/live").status_code == 200
        response = server.client.post("/v1/classify", json={"input": "prize"})
        assert (response.status_code, response.headers["connection"]) == (200, "close")


def test_a_server_that_is_stopped_while_it_loads_never_wants_requests(checkpoint_folder):
    loading = threading.Event()
    with tiny_server.running(checkpoint_folder, before_load=loading.wait, wait=False) as server:
        server.on_loop(server.service.drain)
        loading.set()
        server.until(lambda: server.client.get("/v2/health/ready").json()["phase"] != "loading")
        assert server.client.get("/v2/health/ready").json() == {"ready": False, "phase": "draining"}
        assert server.metric("clf_ready") == 0


def test_a_stop_does_not_wait_for_a_model_that_loads(checkpoint_folder):
    loading = threading.Event()  # never set: the thread is a daemon, and who would get the model is gone
    patience = threading.Timer(20, loading.set)
    patience.start()
    with tiny_server.running(checkpoint_folder, before_load=loading.wait, wait=False) as server:
        server.on_loop(server.service.drain)
    patience.cancel()
    assert not loading.is_set()


def test_the_model_card_says_what_is_served(server):
    card = server.client.get("/v1/model").json()
    assert card["id"] == "spam-detector"
    assert card["checkpoint"] == "epoch-2"
    assert card["labels"] == ["ham", "spam"]
    assert card["max_tokens"] == tiny_server.MAX_TOKENS
    assert card["metrics"] == {"f1": 0.97, "roc_auc": None}
    assert card["training_job"]["name"] == "email-v1"
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", card["digest"])
    (entry,) = server.client.get("/v1/models").json()["data"]
    length = server.client.get("/info").json()["max_input_length"]
    assert (entry["id"], entry["object"], entry["max_model_len"]) == ("spam-detector", "model", length)


def test_metrics_count_what_happened(checkpoint_folder):
    with tiny_server.running(checkpoint_folder) as server:
        server.classify(["prize", "win free money now prize claim cash offer click winner meeting report"])
        server.client.get("/")  # a probe of KServe's is no work, though a POST there is
        assert server.metric("clf_requests_total") == 1
        assert server.metric("clf_predictions_total") == 2
        assert server.metric("clf_truncated_total") == 1
        assert server.metric("clf_input_tokens_sum") == 3 + 12
        assert server.metric("clf_batch_tokens_sum") == 3 + 12
        assert server.metric("clf_requests_running") == 0
        names = server.client.get("/metrics").text
        assert 'model_name="spam-detector",model_version="email-v1/epoch-2@sha256:' in names


def test_predictions_are_counted_by_what_was_decided_and_confidence_by_what_is_most_probable(checkpoint_folder):
    with tiny_server.running(checkpoint_folder) as server:
        (plain,) = server.classify("prize")["data"]
        other = {"ham": "spam", "spam": "ham"}[plain["label"]]
        (overruled,) = server.classify("prize", thresholds={other: 0.0})["data"]
        assert overruled["predicted_labels"] == [other]
        exposed = server.exposed()
        for label in ("ham", "spam"):
            assert exposed[f'clf_predictions_total{{label="{label}"}}'] == 1
        assert exposed[f'clf_confidence_count{{label="{plain["label"]}"}}'] == 2


@pytest.mark.parametrize(
    ("model_type", "places"),
    [
        pytest.param("bert", 2 * 16, id="in attention, which pads to a multiple of eight"),
        pytest.param("deberta-v2", 2 * 12, id="in a type that does not pack"),
    ],
)
def test_what_a_batch_computes_for_nothing_is_measured(tmp_path, model_type, places):
    with tiny_server.running(tiny_server.publish(tmp_path, model_type)) as server:
        for texts in (["prize", "prize"], ["prize", "prize " * 20]):
            server.classify(texts)
        exposed = server.exposed()
        assert exposed["clf_batch_padding_ratio_count"] == 2
        assert exposed['clf_batch_padding_ratio_bucket{le="0.0"}'] == 1
        assert exposed["clf_batch_padding_ratio_sum"] == pytest.approx(1 - (3 + 12) / places)


def test_the_documentation_has_the_metrics_that_there_are_and_no_others(server):
    server.classify("prize")
    page = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    rows = re.findall(r"^\| (`clf_.*?) \|", page, re.M)
    documented = {name for row in rows for name in re.findall(r"clf_\w+", row)}
    exposed = set(re.findall(r"^# HELP (clf_\w+(?<!_created)) ", server.client.get("/metrics").text, re.M))
    assert documented == exposed


def test_the_stages_of_a_request_are_timed_in_a_header(server):
    header = server.client.post("/v1/classify", json={"input": "prize"}).headers["server-timing"]
    assert re.fullmatch(r"tok;dur=[\d.]+, queue;dur=[\d.]+, infer;dur=[\d.]+", header)
    seconds = Timing(arrived=1.0, tokenised=1.002, started=1.005, finished=1.015)
    milliseconds = "tok;dur=2.00, queue;dur=3.00, infer;dur=10.00"
    assert responses.server_timing(SimpleNamespace(timing=seconds)) == milliseconds


def test_probes_are_answered_while_long_texts_are_tokenised(server):
    """Cut at its beginning, each is tokenised again and again until the rest fits."""
    texts = ["prize " * 40_000] * 8
    with ThreadPoolExecutor(1) as clients:
        began = time.monotonic()
        asked = clients.submit(server.classify, texts, truncation="left")
        waits = []
        while not asked.done():
            before = time.monotonic()
            assert server.client.get("/v2/health/live").status_code == 200
            waits.append(time.monotonic() - before)
        took = time.monotonic() - began
    assert asked.result()["data"][7]["original_tokens"] == 40_002
    assert len(waits) >= 5
    assert max(waits) < took / 2


TEXT = "free money"
TENSOR = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [TEXT]}
KSERVE, INFER = "/v1/models/spam-detector:predict", "/v2/models/spam-detector/infer"


def lines(*values):
    return "".join(f"{json.dumps(value)}\n" for value in values)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/classify", {"input": TEXT}, 200),
        ("/v1/classify", {"input": [TEXT, ""]}, 422),
        ("/v1/classify", {"input": TEXT, TEXT: 1}, 422),
        pytest.param("/v1/classify", f'{{"input": "{TEXT}', 400, id="broken JSON"),
        ("/v1/classification", {"input": TEXT}, 200),
        ("/v1/classification", {"input": TEXT, "model": TEXT}, 404),
        ("/predict", {"inputs": TEXT}, 200),
        ("/predict", {"inputs": [TEXT, TEXT]}, 422),
        (KSERVE, {"instances": [TEXT]}, 200),
        (KSERVE, {"instances": [{"text": [TEXT]}]}, 422),
        (INFER, {"inputs": [TENSOR]}, 200),
        (INFER, {"inputs": [{**TENSOR, "data": [TEXT, TEXT]}]}, 422),
        pytest.param("/v1/classify/batch", lines(TEXT, {"text": TEXT, TEXT: 1}, [TEXT]) + TEXT, 200, id="a stream"),
    ],
)
def test_no_text_gets_into_the_log(server, caplog, path, body, status):
    caplog.set_level(logging.DEBUG)
    content = body if isinstance(body, str) else json.dumps(body)
    assert server.client.post(path, content=content).status_code == status
    server.until(lambda: any(record.getMessage() == "Request" for record in caplog.records))
    levels = {record.levelname for record in caplog.records if record.getMessage() == "Request"}
    assert levels == {"DEBUG" if status == 200 else "INFO"}
    assert all("money" not in str(vars(record)) for record in caplog.records)


def raise_quoting(function):
    """The function, failing with a message that quotes a text about money."""

    def failing(*arguments, **named):
        if "money" in repr(arguments):
            raise ValueError(f"cannot read {arguments}") from KeyError(repr(arguments))
        return function(*arguments, **named)

    return failing


@pytest.mark.parametrize(
    ("module", "function", "message"),
    [
        (Encoder, "encode", "Tokenising failed"),
        (responses, "classify", "Request failed"),
    ],
)
def test_an_error_that_quotes_a_text_is_logged_without_it(server, caplog, monkeypatch, module, function, message):
    monkeypatch.setattr(module, function, raise_quoting(getattr(module, function)))
    server.refusal(500, json={"input": TEXT})
    (record,) = [record for record in caplog.records if record.getMessage() == message]
    logged = json.loads(JsonFormatter().format(record))
    assert "money" not in str(vars(record))
    assert "builtins.ValueError\n" in logged["error"] and "builtins.KeyError\n" in logged["error"]
    assert "raise ValueError(" in logged["error"]
    assert server.metric("clf_requests_running") == 0  # so that whatever would be logged behind the answer is
    assert "money" not in caplog.text


def test_an_error_in_a_stream_is_logged_with_what_it_was(server, caplog, monkeypatch):
    monkeypatch.setattr(ndjson, "rendered", raise_quoting(ndjson.rendered))
    with suppress(httpx.RemoteProtocolError):  # its answer may have begun
        server.client.post("/v1/classify/batch", content=lines({"text": TEXT, "id": TEXT}))
    (record,) = [record for record in caplog.records if record.getMessage() == "Request failed"]
    assert "money" not in str(vars(record))
    assert "builtins.ValueError\n" in record.error


@pytest.mark.parametrize("path", ["/", "/ui"])
def test_the_page_is_found_by_a_relative_address(server, path):
    response = server.client.get(path, headers={"Accept": "text/html,*/*;q=0.8"})
    assert (response.status_code, response.headers["location"]) == (307, "ui/")


def test_the_page_may_speak_to_its_own_host_only(server):
    page = server.client.get("/ui/")
    assert page.status_code == 200
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    for file in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert server.client.get(f"/ui/{file}").status_code == 200


@pytest.mark.parametrize("asked", ["bytes=a-b", "bytes=5-1", "lines=1-2", "bytes=0-3", "bytes=99999999-"])
def test_a_pages_file_comes_whole_whatever_range_is_asked_for(server, asked):
    answer = server.client.get("/ui/app.js", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, (STATIC / "app.js").read_bytes())
    assert "accept-ranges" not in answer.headers


@pytest.mark.parametrize("file", sorted(STATIC.iterdir()), ids=lambda file: file.name)
def test_no_file_of_the_page_names_another_host_or_an_absolute_path(file):
    text = file.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|//[a-z0-9-]+\.[a-z]|[\"'(]/[a-z]", text)
    assert not re.search(r"innerHTML|eval\(|<script>| style=", text)
