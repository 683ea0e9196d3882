"""decision.json beside a checkpoint: calibrated probabilities, thresholds below the Deployment's and the request's, abstention."""

import json

import numpy as np
import pytest
import tiny_server

from winnow_classifier import decision as decisions
from winnow_classifier.decision import Abstain, Calibration, Decision, Line
from winnow_classifier.errors import CheckpointError
from winnow_classifier.files import DECISION
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_server import standing
from winnow_server.serve import serve
from winnow_server.settings import parse

BINARY = LabelSchema(TaskDetail.BINARY, ("ham", "spam"))


def binary(**fields):
    return Decision(labels=("ham", "spam"), task_detail=TaskDetail.BINARY, **fields)


def test_probabilities_are_calibrated_and_logits_are_not(tmp_path):
    folder = tiny_server.publish(tmp_path)
    decisions.replace_file(folder, binary(calibration=Calibration(method="Temperature", temperature=4.0)))
    with tiny_server.running(folder) as server:
        (item,) = server.classify("win free money", return_logits=True)["data"]
        scaled = np.exp(np.array(item["logits"]) / 4)
        np.testing.assert_allclose(item["probs"], scaled / scaled.sum(), rtol=1e-5)
        card = server.client.get("/v1/model").json()
        assert card["calibration"] == {"method": "Temperature", "temperature": 4.0}
        assert card["decision"] == json.loads((folder / DECISION).read_bytes())["digest"]
        legacy = server.client.post(
            "/v1/classification", json={"input": "win free money", "data_format": "probs"}
        ).json()
        assert list(legacy["data"][0]["probs"].values()) == item["probs"]


def test_a_calibration_that_leaves_no_number_is_an_error_never_a_probability(tmp_path):
    folder = tiny_server.publish(tmp_path)
    decisions.replace_file(folder, binary(calibration=Calibration(method="Temperature", temperature=1e-39)))
    with tiny_server.running(folder) as server:
        error = server.refusal(500, json={"input": ["prize", "meeting"]})
        assert (error["code"], error["param"]) == ("not_finite", "input[0]")
        assert "calibration" in error["message"]
        foreign = server.client.post("/predict", json={"inputs": "prize"})
        assert (foreign.status_code, foreign.json()["param"]) == (500, "inputs[0]")
        line = server.client.post("/v1/classify/batch", content=b'"prize"').json()
        assert line["error"]["code"] == "not_finite"


def test_platt_moves_each_label_by_itself(tmp_path):
    folder = tiny_server.publish(tmp_path, task_detail=TaskDetail.MULTILABEL, labels=("a", "b"))
    line = {"a": Line(slope=1, intercept=50), "b": Line(slope=1, intercept=-50)}
    decision = Decision(
        labels=("a", "b"), task_detail=TaskDetail.MULTILABEL, calibration=Calibration(method="Platt", labels=line)
    )
    decisions.replace_file(folder, decision)
    with tiny_server.running(folder) as server:
        (item,) = server.classify("prize")["data"]
        assert (item["label"], item["predicted_labels"]) == ("a", ["a"])
        assert item["probs"][0] > 0.99 > 0.01 > item["probs"][1]


def test_the_checkpoints_thresholds_stand_below_the_deployments_and_the_requests(tmp_path):
    folder = tiny_server.publish(tmp_path)
    decisions.replace_file(folder, binary(thresholds={"spam": 0.0}))
    file = tmp_path / "thresholds.json"
    file.write_text("{}")
    with tiny_server.running(folder, thresholds=file) as server:
        assert server.classify("meeting")["data"][0]["predicted_labels"] == ["spam"]
        assert server.classify("meeting", thresholds=1)["data"][0]["predicted_labels"] == ["ham"]
        (tmp_path / "new").write_text('{"spam": 1}')
        (tmp_path / "new").replace(file)
        server.until(lambda: server.classify("meeting")["thresholds"] == {"spam": 1.0})
        assert server.classify("meeting")["data"][0]["predicted_labels"] == ["ham"]
        assert server.classify("meeting", thresholds={"spam": 0})["data"][0]["predicted_labels"] == ["spam"]


def test_a_refit_reaches_a_running_server_and_a_damaged_file_does_not(tmp_path, caplog):
    folder = tiny_server.publish(tmp_path)
    with tiny_server.running(folder) as server:
        assert server.classify("meeting")["data"][0]["abstained"] is False
        decisions.replace_file(folder, binary(thresholds={"spam": 0.5}, abstain=Abstain(band=0.5)))
        server.until(lambda: server.classify("meeting")["data"][0]["abstained"])
        assert server.client.get("/v1/model").json()["abstain"] == {"band": 0.5}
        content = (folder / DECISION).read_text()
        (folder / "new").write_text(content.replace('"spam": 0.5', '"spam": 0.7'))
        (folder / "new").replace(folder / DECISION)
        with pytest.raises(CheckpointError, match="was changed"):
            standing.read_decision(folder / DECISION, server.service)
        server.until(lambda: "Decision cannot be used" in caplog.text)
        assert server.classify("meeting")["data"][0]["abstained"]


NOT_A_DECISION = {
    b"[]": "it holds no object",
    b"3": "it holds no object",
    b"null": "it holds no object",
    b"": "Expecting value",
    b"\xff": "can't decode",
    b"{}": "labels: Field required",
    b"[" * 100_000: "recursion",
    b'{"labels": ["ham", "spam"], "taskDetail": "Binary", "asked": {"a": "\\ud800"}}': "surrogates not allowed",
}


@pytest.mark.parametrize("content", NOT_A_DECISION, ids=lambda content: repr(content[:12]))
def test_what_is_no_decision_is_said_so(content, tmp_path):
    with pytest.raises(CheckpointError, match=r"decision\.json is not a decision of format 1: ") as said:
        decisions.parse(content, tmp_path / DECISION, BINARY)
    assert NOT_A_DECISION[content] in str(said.value)
    assert "\n" not in str(said.value)


def test_a_file_that_is_no_decision_holds_up_no_other_file(tmp_path):
    folder, thresholds = tiny_server.publish(tmp_path), tmp_path / "thresholds.json"
    thresholds.write_text("{}")
    with tiny_server.running(folder, thresholds=thresholds) as server:
        for number, content in enumerate(NOT_A_DECISION):
            (folder / DECISION).write_bytes(content)
            thresholds.write_text(json.dumps({"spam": number / 10}))
            server.until(lambda wanted=number / 10: server.classify("meeting")["thresholds"] == {"spam": wanted})


def test_a_server_does_not_start_with_another_checkpoints_decision(tmp_path):
    folder = tiny_server.publish(tmp_path)
    decisions.replace_file(folder, Decision(labels=("a", "b"), task_detail=TaskDetail.BINARY))
    with pytest.raises(CheckpointError, match="another checkpoint: its labels are a, b"):
        serve(parse(["--checkpoint", str(folder), "--port", "0"]))
