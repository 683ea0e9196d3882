"""Weights & Biases: what its own client tells a server, over restarts, and what happens when there is none or it fails."""

import json
import sys
import time
from ipaddress import ip_network

import pytest
from tiny_training import Trainer, stop_after
from wandb_server import Server, served

from winnow_trainer import teller, wandb_tracker
from winnow_trainer.tracking import trackers

LOOPBACK = [ip_network("127.0.0.0/8")]
KEY = {"WANDB_API_KEY": "k" * 40}
SAYS = "Weights & Biases is not told, training goes on"


@pytest.fixture
def server():
    with served(Server()) as server:
        yield server


def tracked(trainer, url, **parameters):
    job = trainer.job(**parameters).model_dump(mode="json", by_alias=True, exclude_none=True)
    job["spec"]["tracking"] = {"wandb": {"baseUrl": url, "project": "spam", "entity": "mail"}}
    return type(trainer.job()).model_validate(job)


def errors(caplog):
    return [record.error for record in caplog.records if record.message == SAYS]


def test_a_training_with_a_stop_in_between_is_one_run(tmp_path, server, caplog):
    trainer = Trainer(tmp_path)
    job, track = tracked(trainer, server.url, loggingSteps=2), trackers(LOOPBACK, {**KEY, "AWS_SECRET": "s3cr3t"})
    trainer.run(job, stop_after(trainer.progress, 8), track=track)
    ((run_id, run),) = server.runs.items()
    assert server.end(run_id) == (143, True)
    told = trainer.run(job, track=track)
    assert list(server.runs) == [run_id]
    assert server.end(run_id) == (0, True)
    assert (run["name"], run["project"], server.keys) == ("spam-v1", "spam", {"k" * 40})
    config = json.loads(run["config"])
    assert config["method"]["value"] == "Full"
    assert config["learningRate"]["value"] == "0.01"
    assert [step for step, _ in server.points(run_id, "train/loss")] == [2, 4, 6, 8, 10, 12]
    assert dict(server.points(run_id, "test/f1")) == {
        6: pytest.approx(told["epochs"][0]["metrics"]["f1"]),
        12: pytest.approx(told["epochs"][1]["metrics"]["f1"]),
    }
    assert errors(caplog) == []
    assert {path.rpartition("/")[0] for path in server.paths} <= {"", "/upload", f"/files/mail/spam/{run_id}"}


@pytest.mark.parametrize(
    ("program", "says"),
    [
        pytest.param("sys.exit(9)", "its client ended with exit code 9", id="crashes"),
        pytest.param("print('hello'); sys.exit(9)", "JSONDecodeError: ", id="says what it should not"),
        pytest.param("time.sleep(60)", "the end of the run was not told within 0 s", id="hangs"),
        pytest.param('print(\'{"error": "disk full", "final": true}\')', "disk full", id="gives up"),
    ],
)
def test_a_client_that_fails_takes_nothing_with_it(tmp_path, server, caplog, monkeypatch, program, says):
    begun = "import sys, time; sys.stdin.readline(); print('{\"begun\": true}', flush=True)"
    monkeypatch.setattr(wandb_tracker, "COMMAND", [sys.executable, "-c", f"{begun}; {program}"])
    monkeypatch.setattr(teller, "CLOSE_SECONDS", 0.3)
    trainer = Trainer(tmp_path)
    assert trainer.run(tracked(trainer, server.url), track=trackers(LOOPBACK, KEY))["state"] == "Complete"
    assert len(errors(caplog)) == 1
    assert says in errors(caplog)[0]


def test_a_key_that_is_refused_in_between_is_told_at_the_end(tmp_path, server, caplog):
    """The client ends as if all were well."""
    trainer, answer = Trainer(tmp_path), server.answer

    def until_there_are_values(path, *request):
        if path.endswith("/file_stream"):
            server.status = 401
        return answer(path, *request)

    server.answer = until_there_are_values
    told = trainer.run(tracked(trainer, server.url), track=trackers(LOOPBACK, KEY))
    assert told["state"] == "Complete"
    (warning,) = [warning for warning in told["warnings"] if warning["code"] == "NotTracked"]
    assert "Weights & Biases does not know all of this run: values are missing there" in warning["message"]
    assert KEY["WANDB_API_KEY"] not in caplog.text


@pytest.mark.parametrize(
    ("url", "networks", "environ", "status", "says"),
    [
        pytest.param("http://127.0.0.1:9", LOOPBACK, KEY, 200, "127.0.0.1:9: Connection refused", id="nobody listens"),
        pytest.param("http://127.0.0.1:9", [], KEY, 200, "fetch.allowedNetworks", id="an address not to be used"),
        pytest.param("", LOOPBACK, {}, 200, "the environment has no WANDB_API_KEY", id="no key"),
        pytest.param("", LOOPBACK, KEY, 401, "error 401", id="a key that is refused"),
    ],
)
def test_a_server_that_is_not_told_is_a_warning(tmp_path, server, caplog, url, networks, environ, status, says):
    server.status = status
    trainer = Trainer(tmp_path)
    began = time.monotonic()
    told = trainer.run(tracked(trainer, url or server.url), track=trackers(networks, environ))
    assert told["state"] == "Complete"
    assert time.monotonic() - began < teller.CLOSE_SECONDS
    assert says in errors(caplog)[0]
    (warning,) = [warning for warning in told["warnings"] if warning["code"] == "NotTracked"]
    assert says in warning["message"]
