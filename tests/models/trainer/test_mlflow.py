"""MLflow: what is told to a server, over restarts, and what happens while there is none.

The server here keeps what the REST API's documentation says of these calls; tests/processes has none, since MLflow is large.
"""

import base64
import json
import logging
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from urllib.parse import parse_qs, urlsplit

import pytest
from tiny_training import Trainer, stop_after

from winnow_trainer import teller
from winnow_trainer.mlflow_api import MlflowApi
from winnow_trainer.mlflow_tracker import MlflowTracker
from winnow_trainer.teller import RefusedError, UnreachableError
from winnow_trainer.tracking import trackers

LOOPBACK = [ip_network("127.0.0.0/8")]


class Server:
    """Experiments and runs, as MLflow answers about them."""

    def __init__(self):
        self.experiments, self.runs, self.headers, self.down = {}, {}, [], 0

    def answer(self, method, path, query, body):
        match method, path.removeprefix("/api/2.0/mlflow/"):
            case "GET", "experiments/get-by-name":
                (name,) = query["experiment_name"]
                if name not in self.experiments:
                    return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"no {name}"}
                return 200, {"experiment": {"experiment_id": self.experiments[name], "name": name}}
            case "POST", "experiments/create":
                self.experiments[body["name"]] = str(len(self.experiments) + 1)
                return 200, {"experiment_id": self.experiments[body["name"]]}
            case "POST", "runs/create":
                run = {"id": f"run{len(self.runs)}", "status": "RUNNING", "params": {}, "metrics": [], **body}
                self.runs[run["id"]] = run
                return 200, {"run": {"info": {"run_id": run["id"]}}}
            case "POST", "runs/log-batch":
                run = self.runs[body["run_id"]]
                assert len(body.get("params", [])) <= 100
                assert len(body.get("metrics", [])) <= 1_000
                run["params"] |= {param["key"]: param["value"] for param in body.get("params", [])}
                run["metrics"] += body.get("metrics", [])
                return 200, {}
            case "POST", "runs/update":
                if body["run_id"] not in self.runs:
                    return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such run"}
                self.runs[body["run_id"]] |= body
                return 200, {}
        return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": path}

    def points(self, run, name):
        return [(point["step"], point["value"]) for point in self.runs[run]["metrics"] if point["key"] == name]


@contextmanager
def served(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self):
            size = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(size)) if size else None
            server.headers.append(self.headers.get("authorization"))
            parts = urlsplit(self.path)
            if server.down:
                server.down -= 1
                status, found = 503, {"message": "starting"}
            else:
                status, found = server.answer(self.command, parts.path, parse_qs(parts.query), body)
            content = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = respond  # noqa: N815 - http.server's names

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def url(server):
    with served(server) as url:
        yield url


def tracked(trainer, url, **parameters):
    job = trainer.job(**parameters).model_dump(mode="json", by_alias=True, exclude_none=True)
    job["spec"]["tracking"] = {"mlflow": {"trackingUri": url, "experiment": "Spam filters"}}
    return type(trainer.job()).model_validate(job)


def test_a_training_with_a_stop_in_between_is_one_run(tmp_path, server, url):
    trainer = Trainer(tmp_path)
    job, track = tracked(trainer, url, loggingSteps=2), trackers(LOOPBACK, {"MLFLOW_TRACKING_TOKEN": "s3cr3t"})
    trainer.run(job, stop_after(trainer.progress, 8), track=track)
    assert server.runs["run0"]["status"] == "KILLED"
    told = trainer.run(job, track=track)
    assert server.experiments == {"Spam filters": "1"}
    (run,) = server.runs.values()
    assert (run["run_name"], run["experiment_id"], run["status"]) == ("spam-v1", "1", "FINISHED")
    assert run["params"]["method"] == "Full"
    assert run["params"]["learningRate"] == "0.01"
    assert [step for step, _ in server.points("run0", "train/loss")] == [2, 4, 6, 8, 10, 12]
    f1 = dict(server.points("run0", "test/f1"))
    assert f1 == {
        6: pytest.approx(told["epochs"][0]["metrics"]["f1"]),
        12: pytest.approx(told["epochs"][1]["metrics"]["f1"]),
    }
    assert set(server.headers) == {"Bearer s3cr3t"}


def test_a_server_that_is_away_for_a_while_is_told_all(tmp_path, server, url, monkeypatch, caplog):
    monkeypatch.setattr(teller, "FIRST_PAUSE_SECONDS", 0.01)
    server.down = 3
    tracker = MlflowTracker(MlflowApi(url, {}, LOOPBACK), "E", "v1", {}, tmp_path / "mlflow.json")
    for step in range(5):
        tracker.log(step, {"train/loss": 1.0, "f1@spam": 0.5})
    deadline = time.monotonic() + 20
    while len(server.runs.get("run0", {}).get("metrics", [])) < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert tracker.close("Failed") is None
    assert [step for step, _ in server.points("run0", "f1_spam")] == [0, 1, 2, 3, 4]
    assert server.runs["run0"]["status"] == "FAILED"
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.message == "MLflow is not told, training goes on"
    assert "answers 503: starting" in warning.error


@pytest.mark.parametrize(
    ("url", "networks", "says"),
    [
        pytest.param("http://127.0.0.1:9", LOOPBACK, "127.0.0.1:9", id="nobody listens"),
        pytest.param("http://127.0.0.1:9", [], "fetch.allowedNetworks", id="an address that may not be connected to"),
    ],
)
def test_a_server_that_is_not_there_is_a_warning(tmp_path, caplog, url, networks, says):
    trainer = Trainer(tmp_path)
    began = time.monotonic()
    told = trainer.run(tracked(trainer, url), track=trackers(networks, {}))
    assert told["state"] == "Complete"
    assert time.monotonic() - began < teller.CLOSE_SECONDS
    warnings = [record for record in caplog.records if record.message == "MLflow is not told, training goes on"]
    assert says in warnings[0].error
    (warning,) = [warning for warning in told["warnings"] if warning["code"] == "NotTracked"]
    assert warning["message"].startswith("MLflow does not know all of this run: ")
    assert says in warning["message"]


def test_a_run_that_was_deleted_there_is_begun_anew(tmp_path, server, url):
    (tmp_path / "mlflow.json").write_text('{"runId": "gone"}')
    tracker = MlflowTracker(MlflowApi(url, {}, LOOPBACK), "E", "v1", {"seed": "0"}, tmp_path / "mlflow.json")
    tracker.close("Complete")
    assert server.runs["run0"]["params"] == {"seed": "0"}
    assert json.loads((tmp_path / "mlflow.json").read_text()) == {"runId": "run0"}


@pytest.mark.parametrize(("memory", "says"), [("{", "JSONDecodeError: "), ("{}", "KeyError: 'runId'")])
def test_a_broken_memory_is_a_warning(tmp_path, url, caplog, memory, says):
    trainer = Trainer(tmp_path)
    job = tracked(trainer, url)
    folder = tmp_path / "runs" / "spam-v1"
    folder.mkdir(parents=True)
    (folder / "mlflow.json").write_text(memory)
    assert trainer.run(job, track=trackers(LOOPBACK, {}))["state"] == "Complete"
    (warning,) = [record for record in caplog.records if record.message == "MLflow is not told, training goes on"]
    assert says in warning.error


def test_answers_in_words_and_credentials(server, url):
    name = {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "pass"}
    api = MlflowApi(url + "/", name, LOOPBACK)
    assert api.experiment("A / B") == api.experiment("A / B") == "1"
    assert set(server.headers) == {f"Basic {base64.b64encode(b'ann:pass').decode()}"}
    with pytest.raises(RefusedError, match="answers 404: no such run"):
        api.end("none", "FINISHED", 0)
    server.down = 1
    with pytest.raises(UnreachableError, match="503"):
        api.experiment("E")
    api.close()
