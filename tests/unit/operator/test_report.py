"""What pods tell is checked before it is believed: a pod runs a user's data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from winnow_classifier.metrics import HIGHER_IS_BETTER
from winnow_operator import report
from winnow_trainer.termination import fitted

GOOD: dict[str, Any] = {"state": "Running", "percent": 10.0, "epochs": [{"epoch": 1, "metrics": {"f1": 0.123456789}}]}


def test_metrics_are_rounded_and_undefined_ones_left_out() -> None:
    told = report.parse(
        report.Training,
        '{"state": "Running", "loss": NaN, "epochs": [{"epoch": 1, "metrics": {"f1": 0.123456789, "roc_auc": null, "log_loss": Infinity}}]}',
    )
    assert told is not None
    assert told.epochs[0].metrics == {"f1": 0.123457}
    assert told.loss is None


def test_names_of_metrics_may_be_told_once() -> None:
    """As the trainer does where they would not fit otherwise: the very bytes that it writes."""
    epochs = [
        {"epoch": n, "metrics": dict.fromkeys(HIGHER_IS_BETTER, round(n / 7, 6)), "validationMetrics": {"f1": n / 9}}
        for n in range(1, 8)
    ]
    said = fitted({**GOOD, "epochs": epochs})
    assert len(said) <= 4_096 < len(json.dumps(epochs))
    told = report.parse(report.Training, said)
    assert told is not None
    assert [each.metrics for each in told.epochs] == [
        pytest.approx(dict.fromkeys(HIGHER_IS_BETTER, n / 7), abs=1e-6) for n in range(1, 8)
    ]
    assert [each.validation_metrics for each in told.epochs] == [{"f1": round(n / 9, 6)} for n in range(1, 8)]


@pytest.mark.parametrize("names", [[{}], [["f1"]], "f1", None])
def test_names_that_are_none_are_no_report(names: Any) -> None:
    said = {**GOOD, "metricNames": names, "epochs": [{"epoch": 1, "metrics": [0.5]}]}
    assert report.parse(report.Training, json.dumps(said)) is None


def test_fields_of_a_newer_trainer_are_ignored() -> None:
    told = report.parse(report.Training, json.dumps({**GOOD, "fromTheFuture": 1}))
    assert told is not None
    assert told == report.parse(report.Training, json.dumps(GOOD))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Traceback (most recent call last):", id="not JSON"),
        pytest.param("[]", id="not an object"),
        pytest.param(json.dumps({**GOOD, "state": "Hacked"}), id="a state that is none"),
        pytest.param(json.dumps({**GOOD, "step": -1}), id="a negative count"),
        pytest.param(json.dumps({**GOOD, "bestCheckpoint": "x" * 64}), id="a name too long"),
        pytest.param(json.dumps({**GOOD, "epochs": [{"epoch": 1}] * 1_001}), id="too many epochs"),
        pytest.param(
            json.dumps({**GOOD, "checkpoints": [{"name": "epoch-1", "digest": "sha256:../.."}]}),
            id="a digest that is none",
        ),
    ],
)
def test_what_is_no_report_is_nothing(text: str) -> None:
    assert report.parse(report.Training, text) is None


def test_only_sixty_four_metrics_are_kept() -> None:
    epoch = {"epoch": 1, "metrics": {f"metric_{number:03d}": 0.5 for number in range(200)}}
    told = report.parse(report.Training, json.dumps({**GOOD, "epochs": [epoch]}))
    assert told is not None
    assert len(told.epochs[0].metrics) == 64
