"""The termination message: always valid JSON of at most 4,096 bytes, and the essentials stay."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow_classifier.metrics import HIGHER_IS_BETTER
from winnow_trainer.termination import fitted, tells_all, write

DIGEST = "sha256:" + "a" * 64


def training(epochs, best=3, words="done", validation=False, warnings=0):
    return {
        "kind": "train",
        "state": "Complete",
        "reason": "Trained",
        "message": words,
        "primaryMetric": "f1",
        "higherIsBetter": True,
        "bestCheckpoint": f"epoch-{best}",
        "overlap": 12,
        "epochs": [
            {
                "epoch": n,
                "checkpoint": f"epoch-{n}",
                "trainLoss": 0.123456,
                "metrics": dict.fromkeys(HIGHER_IS_BETTER, 0.654321),
                **({"validationMetrics": dict.fromkeys(HIGHER_IS_BETTER, 0.765432)} if validation else {}),
            }
            for n in range(1, epochs + 1)
        ],
        "checkpoints": [
            {"name": f"epoch-{n}", "epoch": n, "digest": DIGEST, "sizeBytes": 91_599_173} for n in range(1, epochs + 1)
        ],
        "warnings": [{"code": "LongTexts", "message": "ü" * 300} for _ in range(warnings)],
    }


def importing(labels, problems, characters=1_000, letter="ü"):
    return {
        "kind": "import",
        "state": "Ready",
        "reason": "Verified",
        "message": "rows",
        "digest": DIGEST,
        "taskDetail": "Multilabel",
        "rows": 10_000,
        "labelCount": labels,
        "labels": [[f"{n} {letter * 120}", 20] for n in range(labels)],
        "tokens": {"mean": 14.7, "p50": 12, "p95": 30, "p99": 50, "max": 300},
        "duplicates": 1,
        "conflicts": 2,
        "skippedRows": problems,
        "warnings": [{"code": "FewExamples", "message": letter * characters} for _ in range(10)],
        "problems": [{"line": n, "column": 1, "message": letter * characters} for n in range(problems)],
        "problemCount": problems,
    }


def told(message):
    encoded = fitted(message)
    assert len(encoded) <= 4_096
    return json.loads(encoded)


def test_a_short_message_is_told_whole():
    message = training(epochs=2, best=1)
    assert told(message) == message


def named(message):
    """With the names of metrics in each epoch, if they were told once."""
    names = message.pop("metricNames", None)
    for epoch in message["epochs"] if names else ():
        for rows in ("metrics", "validationMetrics"):
            if isinstance(epoch.get(rows), list):
                epoch[rows] = dict(zip(names, epoch[rows], strict=True))
    return message


def test_the_names_of_metrics_are_told_once_before_anything_is_left_out():
    message = training(epochs=5, best=3, validation=True)
    message["epochs"][1]["metrics"]["roc_auc"] = None
    assert len(json.dumps(message)) > 1.7 * 4_096
    assert named(told(message)) == message


def test_then_metrics_of_older_epochs_go():
    message = named(told(training(epochs=9, best=3, validation=True)))
    assert message["epochs"][0]["metrics"] == {"f1": 0.654321}
    assert message["epochs"][2]["metrics"] == dict.fromkeys(HIGHER_IS_BETTER, 0.654321)  # the best
    assert message["epochs"][8]["metrics"] == dict.fromkeys(HIGHER_IS_BETTER, 0.654321)  # the last
    assert [checkpoint["name"] for checkpoint in message["checkpoints"]] == [f"epoch-{n}" for n in range(1, 10)]


@pytest.mark.parametrize("warnings", [0, 6])
def test_two_sets_of_metrics_in_a_hundred_epochs_stay_of_the_best_and_the_last_if_warnings_leave_room(warnings):
    message = named(told(training(epochs=100, best=3, validation=True, warnings=warnings)))
    names = HIGHER_IS_BETTER if not warnings else ["f1"]
    for epoch in (message["epochs"][0], message["epochs"][-1]):
        assert epoch["metrics"] == dict.fromkeys(names, 0.654321)
        assert epoch["validationMetrics"] == dict.fromkeys(names, 0.765432)
    assert [message["epochs"][n]["checkpoint"] for n in (0, -1)] == ["epoch-3", "epoch-100"]
    assert [warning["code"] for warning in message["warnings"]] == ["LongTexts"] * warnings


@pytest.mark.parametrize(("epochs", "all_of_it"), [(0, True), (2, True), (5, True), (9, False), (100, False)])
def test_it_is_known_whether_it_tells_all(epochs, all_of_it):
    assert tells_all(training(epochs=epochs, best=1, validation=True)) is all_of_it


def test_a_hundred_epochs_keep_the_best_and_the_last():
    whole = training(epochs=100, best=3, words="w" * 2_000)
    before = copy.deepcopy(whole)
    message = told(whole)
    assert whole == before
    assert {
        name: message[name] for name in ("kind", "state", "reason", "primaryMetric", "bestCheckpoint", "overlap")
    } == {
        "kind": "train",
        "state": "Complete",
        "reason": "Trained",
        "primaryMetric": "f1",
        "bestCheckpoint": "epoch-3",
        "overlap": 12,
    }
    names = [checkpoint["name"] for checkpoint in message["checkpoints"]]
    assert names[0] == "epoch-3"
    assert names[-1] == "epoch-100"
    assert all(checkpoint["digest"] == DIGEST for checkpoint in message["checkpoints"])
    assert [epoch["checkpoint"] for epoch in message["epochs"]] == names
    assert named(message)["epochs"][0]["metrics"]["f1"] == 0.654321


def test_five_hundred_long_labels_and_twenty_long_problems():
    message = told(importing(labels=500, problems=20))
    assert (message["digest"], message["rows"], message["labelCount"]) == (DIGEST, 10_000, 500)
    assert (message["problemCount"], message["tokens"]["p95"]) == (20, 30)
    assert message["problems"][0]["line"] == 0
    assert message["problems"][0]["message"].endswith("…")


def test_many_short_labels_stay():
    message = importing(labels=0, problems=0)
    message["labels"], message["warnings"] = [[f"intent_{n}", 130] for n in range(77)], []
    assert len(told(message)["labels"]) == 77


def test_a_long_reason_of_failure_is_cut_at_its_end():
    message = told({"kind": "train", "state": "Failed", "reason": "InternalError", "message": "\u2028é" * 5_000})
    assert message["reason"] == "InternalError"
    assert message["message"].startswith("\u2028é" * 70)
    assert message["message"].endswith("…")


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(
        st.builds(
            training,
            st.integers(0, 300),
            st.integers(1, 300),
            st.text(max_size=3_000),
            st.booleans(),
            st.integers(0, 20),
        ),
        st.builds(importing, st.integers(0, 600), st.integers(0, 20), st.integers(0, 3_000), st.sampled_from('a"\n😀')),
    )
)
def test_it_always_fits(message):
    found = told(message)
    assert found["kind"] == message["kind"]
    assert found["state"] == message["state"]


def test_a_message_that_cannot_be_written_does_not_hide_the_exit_code(tmp_path, caplog):
    write(tmp_path / "no" / "folder", training(1))
    assert "Termination message not written" in caplog.text
    write(None, training(1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_have_become_null(value):
    message = training(1)
    message["epochs"][0]["trainLoss"] = value
    assert told(message)["epochs"][0]["trainLoss"] is None
