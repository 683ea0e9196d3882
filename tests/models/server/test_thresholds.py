"""Predicted labels by thresholds: a request's, and the Deployment's that change while the server runs."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_server

from winnow_classifier.decision import Abstain
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_server.thresholds import Rules, asked_for, predicted

BINARY = LabelSchema(TaskDetail.BINARY, ("ham", "spam"))
ONE_OF = LabelSchema(TaskDetail.MULTICLASS, ("a", "b", "c"))
SEVERAL = LabelSchema(TaskDetail.MULTILABEL, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("schema", "probabilities", "thresholds", "expected"),
    [
        pytest.param(BINARY, [0.35, 0.65], {"spam": 0.7}, ["ham"], id="below: the other"),
        pytest.param(BINARY, [0.3, 0.7], {"spam": 0.7}, ["spam"], id="as printed, 0.7 reaches 0.7"),
        pytest.param(BINARY, [0.6, 0.4], {"spam": 0.3}, ["spam"], id="less likely, but reached"),
        pytest.param(ONE_OF, [0.5, 0.3, 0.2], {"c": 0.2}, ["c"], id="a rare label that must not be missed"),
        pytest.param(ONE_OF, [0.2, 0.3, 0.5], {"c": 0.9}, ["b"], id="the likeliest of the others"),
        pytest.param(ONE_OF, [0.5, 0.3, 0.2], {"a": 0.4, "b": 0.1}, ["b"], id="the one that is furthest above"),
        pytest.param(ONE_OF, [0.5, 0.3, 0.2], {"a": 0.9, "b": 0.9, "c": 0.9}, ["a"], id="none is reached"),
        pytest.param(SEVERAL, [0.5, 0.3, 0.2], {"b": 0.3}, ["a", "b"], id="each by itself"),
        pytest.param(SEVERAL, [0.5, 0.3, 0.2], {"a": 0.6}, [], id="perhaps none"),
    ],
)
def test_which_labels_hold(schema, probabilities, thresholds, expected):
    assert predicted(np.array([probabilities], dtype=np.float32), thresholds, schema) == [expected]


@pytest.mark.parametrize(
    ("schema", "wanted", "expected"),
    [
        pytest.param(SEVERAL, None, {"a": 0.2, "b": 0.4}, id="nothing: what stands"),
        pytest.param(SEVERAL, {"b": 0.9}, {"a": 0.2, "b": 0.9}, id="a label: the others keep what stands"),
        pytest.param(SEVERAL, 0.0, {"a": 0.0, "b": 0.0, "c": 0.0}, id="a number: every label"),
        pytest.param(BINARY, 0.3, {"a": 0.2, "b": 0.4, "spam": 0.3}, id="of a Binary model: the positive label"),
    ],
)
def test_what_a_request_asks_for_stands_above_what_holds_without_it(schema, wanted, expected):
    standing = Rules(thresholds={"a": 0.2, "b": 0.4}, abstain=Abstain(band=0.1))
    assert asked_for(wanted, standing, schema) == replace(standing, thresholds=expected)


def test_a_request_brings_its_own(server):
    texts = ["win free money now", "meeting", "prize", "lunch on monday"]
    plain = server.classify(texts)
    assert plain["thresholds"] == {}
    always = server.classify(texts, thresholds={"spam": 0.0})
    assert (always["thresholds"], [item["predicted_labels"] for item in always["data"]]) == (
        {"spam": 0.0},
        [["spam"]] * 4,
    )
    never = server.classify(texts, thresholds=1)
    assert [item["predicted_labels"] for item in never["data"]] == [["ham"]] * 4
    assert [item["label"] for item in never["data"]] == [item["label"] for item in plain["data"]]


@pytest.mark.parametrize(
    ("thresholds", "code"),
    [
        ({"spma": 0.5}, "label_unknown"),
        ({"spam": 1.5}, "thresholds_type"),
        ({"spam": None}, "thresholds_type"),
        ("0.5", "thresholds_type"),
        (True, "thresholds_type"),
    ],
)
def test_thresholds_that_mean_nothing_are_refused(server, thresholds, code):
    error = server.refusal(422, json={"input": "prize", "thresholds": thresholds})
    assert (error["code"], error["param"]) == (code, "thresholds")


def test_one_number_is_not_enough_where_one_of_several_labels_holds(tmp_path):
    folder = tiny_server.publish(tmp_path, task_detail=TaskDetail.MULTICLASS, labels=("a", "b", "c"))
    with tiny_server.running(folder) as server:
        assert server.refusal(422, json={"input": "prize", "thresholds": 0.4})["code"] == "thresholds_need_labels"
        assert server.classify("prize", thresholds={"c": 0})["data"][0]["predicted_labels"] == ["c"]


def test_the_deployments_thresholds_change_without_a_restart(checkpoint_folder, tmp_path, caplog):
    file = tmp_path / "thresholds.json"
    file.write_text('{"spam": 0, "spma": 0.5}')
    with tiny_server.running(checkpoint_folder, thresholds=file) as server:
        assert server.client.get("/v1/model").json()["thresholds"] == {"spam": 0.0}
        assert server.classify("meeting")["data"][0]["predicted_labels"] == ["spam"]
        assert server.classify("meeting", thresholds={"spam": 1})["data"][0]["predicted_labels"] == ["ham"]
        file.write_text('{"ham": 0.9, "spam": 0}')
        server.until(lambda: len(server.classify("meeting")["thresholds"]) == 2)
        for asked in (0.8, {"spam": 0.8}):  # one number is the positive label's; the other's stands
            assert server.classify("meeting", thresholds=asked)["thresholds"] == {"ham": 0.9, "spam": 0.8}
        for broken in ('{"spam": 2}', "{"):
            caplog.clear()
            file.write_text(broken)
            server.until(lambda: "Thresholds cannot be used" in caplog.text)
            assert server.classify("meeting")["thresholds"] == {"ham": 0.9, "spam": 0.0}
        (tmp_path / "new").write_text('{"spam": 1}')
        (tmp_path / "new").replace(file)
        server.until(lambda: server.client.get("/v1/model").json()["thresholds"] == {"spam": 1.0})
        assert server.classify("prize")["data"][0]["predicted_labels"] == ["ham"]
        assert server.metric("clf_predictions_total") > 3
