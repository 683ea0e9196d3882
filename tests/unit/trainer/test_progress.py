"""Where a run stands, over HTTP and on the terminal."""

import io
import json
import socket
import urllib.error
import urllib.request
from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families

from winnow_classifier.errors import ConfigError
from winnow_trainer.console import TerminalLine, duration
from winnow_trainer.progress import Progress
from winnow_trainer.progress_server import served

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
EPOCH = {"epoch": 1, "checkpoint": "epoch-1", "trainLoss": 0.3, "metrics": {"f1": 0.95, "roc_auc": None}}


@pytest.fixture
def progress():
    return Progress(clock=lambda: NOW)


@pytest.fixture
def get(progress):
    with served(progress, port=0, host="127.0.0.1") as port:

        def fetch(path):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.headers["Content-Type"], answer.read()

        yield fetch


def test_progress_is_there_from_the_first_moment(get):
    content_type, body = get("/progress")
    assert content_type == "application/json"
    assert json.loads(body) == {"state": "Running", "percent": 0.0, "updatedAt": "2026-05-04T03:02:01Z"}
    assert get("/healthz")[1] == b"ok\n"


def test_updates_are_seen_at_once_and_none_takes_a_field_out(progress, get):
    progress.update(epoch=1, totalEpochs=3, step=5, totalSteps=30, percent=16.67, loss=0.5, etaSeconds=90)
    progress.update(etaSeconds=None, epochs=[EPOCH], bestCheckpoint="epoch-1")
    assert json.loads(get("/progress")[1]) == {
        "state": "Running",
        "percent": 16.67,
        "epoch": 1,
        "totalEpochs": 3,
        "step": 5,
        "totalSteps": 30,
        "loss": 0.5,
        "epochs": [EPOCH],
        "bestCheckpoint": "epoch-1",
        "updatedAt": "2026-05-04T03:02:01Z",
    }


def test_prometheus_reads_the_same_figures(progress, get):
    progress.update(epoch=2, step=5, percent=50.0, loss=0.5, tokensPerSecond=2_300, learningRate=1e-4, epochs=[EPOCH])
    families = text_string_to_metric_families(get("/metrics")[1].decode())
    values = {(s.name, s.labels.get("metric")): s.value for family in families for s in family.samples}
    assert values["winnow_training_epoch", None] == 2
    assert values["winnow_training_step", None] == 5
    assert values["winnow_training_progress_ratio", None] == 0.5
    assert values["winnow_training_loss", None] == 0.5
    assert values["winnow_training_tokens_per_second", None] == 2_300
    assert values["winnow_training_learning_rate", None] == 1e-4
    assert values["winnow_training_metric", "f1"] == 0.95
    assert values["winnow_training_epoch_loss", None] == 0.3
    assert ("winnow_training_metric", "roc_auc") not in values
    assert values["process_resident_memory_bytes", None] > 0


def test_other_paths_are_not_found(get):
    with pytest.raises(urllib.error.HTTPError) as refused:
        get("/etc/passwd")
    assert refused.value.code == 404
    assert b"/progress" in refused.value.read()
    refused.value.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6 here")
def test_it_is_read_by_ipv4_and_ipv6_alike(progress):
    with served(progress, port=0) as port:
        for host in ("127.0.0.1", "[::1]"):
            assert urllib.request.urlopen(f"http://{host}:{port}/healthz").read() == b"ok\n"


def test_a_taken_port_is_said_in_words(progress):
    with served(progress, port=0) as port:
        second = served(progress, port=port)
        with pytest.raises(ConfigError, match=f"--progress-port {port}"):
            second.__enter__()


def test_a_long_run_stays_within_what_the_operator_reads(progress):
    metrics = {f"metric_{n}": 0.123456 for n in range(12)}
    progress.update(
        bestCheckpoint="epoch-7",
        primaryMetric="metric_1",
        epochs=[{"epoch": n, "checkpoint": f"epoch-{n}", "trainLoss": 0.1, "metrics": metrics} for n in range(1, 501)],
    )
    encoded = progress.as_json()
    assert len(encoded) <= 64 * 1_024
    found = json.loads(encoded)
    assert len(found["epochs"]) == 500
    assert found["epochs"][0]["metrics"] == {"metric_1": 0.123456}
    assert found["epochs"][-1]["metrics"] == metrics


def test_a_field_that_progress_does_not_have_is_a_bug(progress):
    with pytest.raises(TypeError, match="no field epochs_total"):
        progress.update(epochs_total=3)


def test_a_narrow_terminal_never_wraps_the_line_that_is_drawn_again(progress, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    screen, seconds = io.StringIO(), iter(range(100))
    progress.listen(TerminalLine(screen, clock=lambda: next(seconds)))
    progress.update(message="base model hf://meta-llama/Llama-3.1-8B-Instruct is downloaded: 3.2 GiB of 15.0 GiB")
    progress.update(message=None, totalEpochs=3, epoch=1, totalSteps=300, step=100, loss=0.41, tokensPerSecond=2_345)
    drawn = screen.getvalue().split("\r\x1b[K")[1:]
    assert drawn[0].startswith("base model hf://meta-llama") and drawn[1].startswith("epoch 1/3  step 100/300")
    assert [len(line) for line in drawn] == [59, 59]


def test_a_terminal_shows_one_line_and_keeps_each_epoch(progress, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    screen, seconds = io.StringIO(), iter(range(100))
    progress.listen(TerminalLine(screen, clock=lambda: next(seconds)))
    progress.update(totalEpochs=3, totalSteps=300)
    progress.update(
        epoch=1, step=100, percent=33.3, loss=0.41, tokensPerSecond=2_345, etaSeconds=200, primaryMetric="f1"
    )
    progress.update(epochs=[EPOCH])
    progress.update(state="Complete", percent=100.0)
    lines = [line.split("\r\x1b[K")[-1] for line in screen.getvalue().replace("\r\x1b[K", "\n\r\x1b[K").split("\n")]
    assert "epoch 1/3  step 100/300  [######..............] 33 %  loss 0.4100  2,345 tokens/s  3m20s left" in lines
    assert "epoch-1:  train loss 0.3000  f1 0.9500  roc_auc undefined" in lines
    assert screen.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0s"), (59.6, "1m00s"), (200, "3m20s"), (3_600, "1h00m"), (90_000, "25h00m")]
)
def test_durations(seconds, words):
    assert duration(seconds) == words
