"""More than the model can do, clients that leave, and a model that fails."""

import logging
import re
import threading
import time
from contextlib import contextmanager

import pytest
import tiny_server
import torch

from winnow_server import engine, precision, tokenising


@pytest.fixture
def gate():
    return tiny_server.Gate()


@pytest.fixture
def narrow(checkpoint_folder, gate):
    """A server whose queue holds 40 tokens and whose batches hold 16; "prize" has three."""
    with tiny_server.running(checkpoint_folder, prepare=gate.guard, max_queue_tokens=40, max_batch_tokens=16) as server:
        yield server
        gate.open()


class Background:
    """Requests that are on their way while the test goes on."""

    def __init__(self, server):
        self.server = server
        self.threads = []
        self.answers = []

    def send(self, texts, **fields):
        def post():
            self.answers.append(self.server.client.post("/v1/classify", json={"input": texts, **fields}))

        self.threads.append(threading.Thread(target=post))
        self.threads[-1].start()

    def statuses(self):
        for thread in self.threads:
            thread.join()
        return [answer.status_code for answer in self.answers]


def post(body):
    return b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@contextmanager
def sent(server, body):
    """A request whose client leaves at the end."""
    with server.connect() as client:
        client.sendall(post(body))
        yield


def hold(server, gate, waiting_texts):
    """One batch in the model, and these texts waiting behind it."""
    gate.close()
    background = Background(server)
    background.send("meeting")
    assert gate.reached.wait(10)
    background.send(waiting_texts)
    server.until(lambda: server.metric("clf_queue_tokens") == 3 * len(waiting_texts))
    return background


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(narrow, gate):
    background = hold(narrow, gate, ["prize"] * 13)
    response = narrow.client.post("/v1/classify", json={"input": "prize"})
    assert response.status_code == 429
    assert response.json()["error"]["code"] == "queue_full"
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert narrow.metric("clf_rejected_total") == 1
    gate.open()
    assert background.statuses() == [200, 200]
    assert narrow.classify("prize")["data"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/predict", {"inputs": "prize"}, id="text-embeddings-inference"),
        pytest.param("/v1/models/spam-detector:predict", {"instances": ["prize"]}, id="KServe"),
        pytest.param(
            "/v2/models/spam-detector/infer",
            {"inputs": [{"name": "t", "shape": [1], "datatype": "BYTES", "data": ["prize"]}]},
            id="Open Inference Protocol",
        ),
    ],
)
def test_clients_of_other_protocols_read_in_their_own_words_that_the_queue_is_full(narrow, gate, path, body):
    background = hold(narrow, gate, ["prize"] * 13)
    response = narrow.client.post(path, json=body)
    error = response.json()
    assert (response.status_code, error["error_type"], error["code"]) == (429, "Overloaded", "queue_full")
    assert 1 <= int(response.headers["retry-after"]) <= 60
    gate.open()
    assert background.statuses() == [200, 200]


def test_a_request_of_many_texts_gets_room_for_all_or_none(narrow, gate):
    background = hold(narrow, gate, ["prize"] * 10)
    assert narrow.client.post("/v1/classify", json={"input": ["prize"] * 4}).status_code == 429
    assert narrow.metric("clf_queue_tokens") == 30
    background.send(["prize"] * 3)
    narrow.until(lambda: narrow.metric("clf_queue_tokens") == 39)
    gate.open()
    assert background.statuses() == [200, 200, 200]


def test_what_has_no_room_is_not_even_tokenised_once_texts_like_it_were_counted(narrow, gate, monkeypatch):
    for _ in range(10):
        narrow.classify(["prize"] * 8)
    background = hold(narrow, gate, ["prize"] * 13)
    tokenised = []
    monkeypatch.setattr(tokenising, "tokenise", lambda *request: tokenised.append(request))
    assert narrow.client.post("/v1/classify", json={"input": "prize"}).status_code == 429
    assert tokenised == []
    gate.open()
    assert background.statuses() == [200, 200]


def test_texts_that_are_cut_short_take_no_more_room_than_they_will_have(narrow, gate):
    background = hold(narrow, gate, ["prize"] * 8)
    background.send(["prize " * 40] * 2, truncate_prompt_tokens=4)
    narrow.until(lambda: narrow.metric("clf_queue_tokens") == 24 + 2 * 4)
    gate.open()
    assert background.statuses() == [200, 200, 200]


def test_what_waits_runs_in_batches_within_the_token_budget(narrow, gate):
    background = hold(narrow, gate, ["prize"] * 12)
    gate.open()
    assert background.statuses() == [200, 200]
    assert gate.batches == [[3], [3] * 5, [3] * 5, [3] * 2]


def test_the_work_of_a_client_that_left_is_dropped(narrow, gate):
    gate.close()
    background = Background(narrow)
    background.send("meeting")
    assert gate.reached.wait(10)
    with sent(narrow, b'{"input": ["prize", "cash", "win"]}'):
        narrow.until(lambda: narrow.metric("clf_queue_tokens") == 9)
    narrow.until(lambda: narrow.metric("clf_queue_tokens") == 0)
    gate.open()
    assert background.statuses() == [200]
    assert gate.batches == [[3]]


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
def test_the_work_of_a_client_that_left_is_dropped_though_it_has_asked_for_more(narrow, gate, caplog, later):
    gate.close()
    background = Background(narrow)
    background.send("meeting")
    assert gate.reached.wait(10)
    with narrow.connect() as client:
        asked, more = post(b'{"input": ["prize", "cash", "win"]}'), post(b'{"input": "offer"}')
        client.sendall(asked if later else asked + more)
        narrow.until(lambda: narrow.metric("clf_queue_tokens") == 9)
        if later:
            client.sendall(more)
    narrow.until(lambda: narrow.metric("clf_queue_tokens") == 0)
    gate.open()
    assert background.statuses() == [200]
    assert gate.batches == [[3]]
    narrow.until(lambda: narrow.metric("clf_requests_running") == 0)
    assert narrow.exposed()['clf_requests_total{code="499",endpoint="/v1/classify"}'] == 1
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_metrics_say_exactly_what_happened(narrow, gate):
    started = time.perf_counter()
    answers = narrow.classify(["prize", "win free money now prize claim cash offer click winner"])[
        "data"
    ]  # 3 + 12 tokens
    narrow.refusal(422, json={"input": ""})
    gate.close()
    background = Background(narrow)
    background.send("meeting")
    assert gate.reached.wait(10)
    with sent(narrow, b'{"input": "cash"}'):
        narrow.until(lambda: narrow.exposed()["clf_queue_size"] == 1)
    narrow.until(lambda: narrow.exposed()["clf_queue_size"] == 0)
    background.send(["prize"] * 13)
    narrow.until(lambda: narrow.exposed()["clf_queue_tokens"] == 39)
    waits = time.perf_counter()
    assert narrow.exposed()["clf_queue_size"] == 1
    narrow.refusal(429, json={"input": "prize"})
    assert narrow.exposed()["clf_requests_running"] == 2
    waited = time.perf_counter() - waits
    gate.open()
    assert background.statuses() == [200, 200]
    # A batch and a request are counted once they are answered.
    narrow.until(lambda: narrow.exposed()["clf_batch_size_count"] == 5 and narrow.metric("clf_requests_total") == 6)
    took = time.perf_counter() - started

    answers += [item for answer in background.answers for item in answer.json()["data"]]
    top = {label: [max(item["probs"]) for item in answers if item["label"] == label] for label in ("ham", "spam")}
    exposed = narrow.exposed()
    counted = {series: value for series, value in exposed.items() if re.search(r"_(total|count)\b", series)}
    assert counted == {
        'clf_requests_total{code="200",endpoint="/v1/classify"}': 3,
        'clf_requests_total{code="422",endpoint="/v1/classify"}': 1,
        'clf_requests_total{code="429",endpoint="/v1/classify"}': 1,
        'clf_requests_total{code="499",endpoint="/v1/classify"}': 1,
        'clf_request_duration_seconds_count{endpoint="/v1/classify"}': 6,
        'clf_rejected_total{reason="queue_full"}': 1,
        **{f'clf_predictions_total{{label="{label}"}}': len(found) for label, found in top.items()},
        **{f'clf_confidence_count{{label="{label}"}}': len(found) for label, found in top.items()},
        "clf_tokenize_duration_seconds_count": 3,
        "clf_queue_duration_seconds_count": 3,
        "clf_inference_duration_seconds_count": 5,
        "clf_batch_size_count": 5,
        "clf_batch_tokens_count": 5,
        "clf_batch_padding_ratio_count": 5,
        "clf_input_tokens_count": 16,
        "clf_truncated_total": 0,
        'clf_stream_lines_total{outcome="ok"}': 0,
        'clf_stream_lines_total{outcome="error"}': 0,
    }
    assert (exposed["clf_batch_size_sum"], exposed["clf_batch_tokens_sum"]) == (16, 57)
    for label, found in top.items():
        assert exposed[f'clf_confidence_sum{{label="{label}"}}'] == pytest.approx(sum(found))
    assert waited < exposed["clf_queue_duration_seconds_sum"] < took
    assert waited < exposed["clf_inference_duration_seconds_sum"] < took
    assert 2 * waited < exposed['clf_request_duration_seconds_sum{endpoint="/v1/classify"}'] < 3 * took
    assert 0 < exposed["clf_tokenize_duration_seconds_sum"] < took
    assert exposed["clf_model_info"] == 1
    assert exposed["clf_model_load_seconds"] > 0


def test_a_result_that_is_not_a_number_is_an_error_never_a_probability(checkpoint_folder):
    def poison(network):
        def hook(_module, arguments, logits):
            long = torch.tensor(arguments[0].lengths) > 3
            return logits.masked_fill(long[:, None], float("nan"))

        network.register_forward_hook(hook)

    with tiny_server.running(checkpoint_folder, prepare=poison) as server:
        error = server.refusal(500, json={"input": ["prize", "free money"]})
        assert (error["code"], error["param"]) == ("not_finite", "input[1]")
        assert "input[1]" in error["message"]
        foreign = server.client.post("/v1/models/spam-detector:predict", json={"instances": ["prize", "free money"]})
        assert foreign.json()["param"] == "instances[1]"
        assert server.probabilities(["prize"])


class Memory:
    """Of a device with room for so many tokens: a pass that fails holds its own until its frames are gone, as activations do."""

    def __init__(self, tokens, error):
        self.tokens, self.error = tokens, error
        self.held = 0
        self.batches = []

    def watch(self, network):
        forward = network.forward

        def limited(batch):
            activations = Activations(self, sum(batch.lengths))
            self.batches.append(sum(batch.lengths))
            if self.held > self.tokens:
                raise self.error()  # a new one: an error holds what its traceback reaches
            logits = forward(batch)
            del activations
            return logits

        network.forward = limited


class Activations:
    def __init__(self, memory, tokens):
        self.memory, self.tokens = memory, tokens
        memory.held += tokens

    def __del__(self):
        self.memory.held -= self.tokens


@pytest.fixture(
    params=[
        lambda: torch.OutOfMemoryError("CUDA out of memory"),
        lambda: RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"
        ),
    ],
    ids=["GPU", "CPU"],
)
def memory(request):
    return Memory(24, request.param)


def test_out_of_memory_makes_batches_smaller_instead_of_failing_requests(checkpoint_folder, memory):
    with tiny_server.running(checkpoint_folder) as server:
        expected = server.probabilities(["prize"])[0]
    memory.tokens = 60  # of the full batch that the server warms up with
    with tiny_server.running(checkpoint_folder, prepare=memory.watch) as server:
        memory.tokens = 24
        memory.batches.clear()
        for item in server.classify(["prize"] * 20)["data"]:
            assert item["probs"] == pytest.approx(expected, abs=1e-5)
        assert memory.batches == [60, 30, 15, 15, 30, 15, 15]
        memory.batches.clear()
        server.classify(["prize"] * 20)
        assert memory.batches == [15] * 4  # the budget is what went through
        assert server.client.get("/health").status_code == 200


def test_a_device_too_small_for_a_full_batch_is_served_from_in_smaller_ones(checkpoint_folder, memory):
    with tiny_server.running(checkpoint_folder, prepare=memory.watch) as server:
        assert memory.batches == [12, 60, 24]
        assert server.probabilities(["prize"])


def test_a_device_too_small_for_one_text_ends_the_start(checkpoint_folder, memory):
    memory.tokens = 11
    with tiny_server.running(checkpoint_folder, prepare=memory.watch, wait=False) as server:
        server.until(lambda: server.client.get("/v2/health/ready").json()["phase"] == "failed")
        assert memory.batches == [12]


def test_memory_that_does_not_suffice_to_measure_ends_no_start(checkpoint_folder, memory, monkeypatch, caplog):
    def run(*_):
        raise memory.error()

    monkeypatch.setattr(precision, "run", run)
    with tiny_server.running(checkpoint_folder) as server:
        assert server.client.get("/v1/model").json()["precision"] == "float32"
        assert "Precision not measured" in caplog.text


def test_a_text_that_does_not_fit_in_memory_alone_is_named(checkpoint_folder, memory):
    with tiny_server.running(checkpoint_folder, prepare=memory.watch) as server:
        memory.tokens = 6
        error = server.refusal(500, json={"input": ["prize", "win free money now prize claim"]})
        assert (error["code"], error["param"]) == ("out_of_memory", "input[1]")
        assert server.probabilities(["prize"])
        assert server.client.get("/health").status_code == 200


def test_a_batch_that_does_not_end_is_reported_dead_and_one_that_takes_long_is_not(narrow, gate, monkeypatch):
    gate.close()
    background = Background(narrow)
    background.send("prize")
    assert gate.reached.wait(10)
    assert narrow.client.get("/v2/health/live").status_code == 200
    monkeypatch.setattr(engine, "STUCK_SECONDS", 0.05)
    narrow.until(lambda: narrow.client.get("/v2/health/live").status_code == 503)
    assert narrow.client.get("/v2/health/ready").json() == {"ready": False, "phase": "failed"}
    gate.open()
    assert background.statuses() == [200]
    narrow.until(lambda: narrow.client.get("/v2/health/live").status_code == 200)


def test_a_model_that_keeps_failing_is_reported_dead(checkpoint_folder):
    def break_it(network):
        def hook(_module, _arguments):
            raise RuntimeError("device-side assert")

        network.register_forward_pre_hook(hook)

    loaded: list[torch.nn.Module] = []
    with tiny_server.running(checkpoint_folder, prepare=loaded.append) as server:
        assert server.client.get("/v2/health/live").status_code == 200
        break_it(loaded[0])
        for _ in range(3):
            error = server.refusal(500, json={"input": ["prize", "cash"]})
            assert error["code"] == "model_failed"
            assert "assert" not in error["message"]
        # A request is answered before it is known whether the model still runs another one.
        server.until(lambda: server.client.get("/v2/health/live").status_code == 503)
        assert server.client.get("/health").status_code == 503
        ready = server.client.get("/v2/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"ready": False, "phase": "failed"})
        assert server.client.get("/v2/models/spam-detector/ready").status_code == 503
        assert server.client.get("/v1/models/spam-detector").status_code == 503
        assert server.metric("clf_ready") == 0


def fails_on(tokens):
    """Hangs it on a model: no text of so many tokens runs."""

    def fail(network):
        def hook(_module, arguments):
            if tokens in arguments[0].lengths:
                raise RuntimeError("index out of range in self")

        network.register_forward_pre_hook(hook)

    return fail


@pytest.mark.parametrize(
    ("texts", "named", "passes"),
    [
        pytest.param(["prize"] * 137 + ["see you monday"] + ["prize"] * 62, "input[137]", 17, id="one of them"),
        pytest.param(["see you monday"] * 200, "input[0]", 9, id="all of them"),
    ],
)
def test_the_text_that_the_model_fails_on_is_found_in_few_passes_and_named(
    checkpoint_folder, gate, texts, named, passes
):
    def prepare(network):
        gate.guard(network)
        fails_on(tokens=5)(network)

    with tiny_server.running(checkpoint_folder, prepare=prepare, max_batch_tokens=1_000) as server:
        gate.batches.clear()
        error = server.refusal(500, json={"input": texts})
        assert (error["code"], error["param"]) == ("model_failed", named)
        assert named in error["message"]
        server.until(lambda: server.metric("clf_batch_size_count") == 1)
        assert len(gate.batches) <= passes


def test_a_request_that_the_model_fails_on_each_time_takes_no_server_down(checkpoint_folder):
    with tiny_server.running(checkpoint_folder, prepare=fails_on(tokens=5)) as server:
        for _ in range(5):
            assert server.refusal(500, json={"input": "see you monday"})["code"] == "model_failed"
        assert server.client.get("/v2/health/ready").status_code == 200
        assert server.classify("meeting")["data"]


def test_a_request_that_the_model_fails_on_fails_no_other(checkpoint_folder, gate):
    """Nor is a device broken that runs the others."""

    def prepare(network):
        fails_on(tokens=5)(network)
        gate.guard(network)

    with tiny_server.running(checkpoint_folder, prepare=prepare) as server:
        for _ in range(4):
            background = hold(server, gate, ["prize", "cash"])
            background.send("see you monday")
            background.send(["meeting", "lunch"])
            server.until(lambda: server.metric("clf_queue_tokens") == 6 + 5 + 6)
            gate.open()
            assert sorted(background.statuses()) == [200, 200, 200, 500]
            (failed,) = [answer.json()["error"] for answer in background.answers if answer.status_code == 500]
            assert failed["code"] == "model_failed"
        assert server.client.get("/health").status_code == 200


def test_a_token_that_the_model_has_no_embedding_for_is_refused_by_name(tmp_path, caplog):
    """A checkpoint whose tokenizer holds one that was added and never trained serves every other text."""
    folder = tiny_server.publish(tmp_path, added_tokens=["<extra>"])
    with tiny_server.running(folder) as server:
        assert "the tokenizer knows them" in caplog.text
        for _ in range(4):
            error = server.refusal(422, json={"input": ["prize", "win <extra> money"]})
            assert (error["code"], error["param"]) == ("token_unknown", "input[1]")
            assert "'<extra>'" in error["message"]
        assert server.probabilities("win extra money")
        assert server.client.get("/health").status_code == 200


def test_a_text_of_which_the_tokenizer_leaves_nothing_is_refused_as_an_empty_one(tmp_path):
    with tiny_server.running(tiny_server.publish(tmp_path, words_alone=True)) as server:
        for _ in range(4):
            error = server.refusal(422, json={"input": ["prize", "2026"]})
            assert (error["code"], error["param"]) == ("text_empty", "input[1]")
            assert error["message"] == "input[1] is empty for the model: its tokenizer leaves no token of it."
        assert server.probabilities("prize 2026") == server.probabilities("prize")
        assert server.client.get("/health").status_code == 200
