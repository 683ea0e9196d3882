"""Bootstrap intervals against a plain loop over resamples, against theory, and within their cost."""

import time

import numpy as np
import pytest
from random_answers import rows_of

from winnow_classifier import intervals as bootstrap
from winnow_classifier import metrics
from winnow_classifier.intervals import intervals, mean_interval
from winnow_classifier.labels import LabelSchema, TaskDetail


def of_rows(probabilities, targets, schema, seed):
    known = metrics.evaluate(probabilities, targets, schema), metrics.per_label(probabilities, targets, schema)
    return intervals(probabilities, targets, schema, seed, *known)


@pytest.mark.parametrize("detail", list(TaskDetail))
def test_each_resample_is_scored_as_its_rows_would_be(monkeypatch, detail):
    """The products with counts against the metrics themselves, called on the resampled rows."""
    schema, p, y = rows_of(detail, 2 if detail is TaskDetail.BINARY else 4, rows=40, seed=3)
    p = p.round(2)
    if detail is not TaskDetail.MULTILABEL:
        p /= p.sum(axis=1, keepdims=True)
    monkeypatch.setattr(bootstrap, "RESAMPLES", 15)
    monkeypatch.setattr(bootstrap, "RANKED_RESAMPLES", 15)
    counted, of_labels = bootstrap._counted(np.random.default_rng(0), p, y, schema)
    ranked = bootstrap._ranked(np.random.default_rng(0), p, y, schema)
    assert counted.keys() | ranked.keys() == set(metrics.names(detail))
    (weights,) = bootstrap._weights(np.random.default_rng(0), 40, 15)
    for number, counts in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(40), counts)
        expected = metrics.evaluate(p[rows], y[rows], schema)
        for name, values in {**counted, **ranked}.items():
            assert values[number] == pytest.approx(expected[name], rel=1e-4, abs=1e-5), name  # float32 sums
        for c, label in enumerate(metrics.per_label(p[rows], y[rows], schema)):
            for name, values in of_labels.items():
                found, value = float(values[number, c]), getattr(label, name)
                assert found == pytest.approx(value) if value is not None else np.isnan(found), name


def test_an_interval_is_as_wide_as_theory_says():
    schema, p, y = rows_of(TaskDetail.BINARY, 2, rows=2_000)
    found = of_rows(p, y, schema, seed=0)
    accuracy = metrics.evaluate(p, y, schema)["accuracy"]
    half = 1.96 * (accuracy * (1 - accuracy) / 2_000) ** 0.5
    assert found.metrics["accuracy"] == pytest.approx((accuracy - half, accuracy + half), abs=0.15 * half)


@pytest.mark.parametrize("rows", [2_000, 100_000], ids=["all", "more than are resampled"])
def test_so_is_the_interval_of_the_mean_of_a_score_of_each_row(rows):
    scores = np.random.default_rng(0).exponential(size=rows)
    half = 1.96 * scores.std() / rows**0.5
    assert mean_interval(scores, seed=0) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.15 * half)
    assert mean_interval(scores[:1], seed=0) is None


def test_labels_that_resamples_leave_out_do_not_move_an_interval_off_its_value():
    """300 labels of a row or two each: a resample has the mean over some 190 of them."""
    random = np.random.default_rng(0)
    schema = LabelSchema(TaskDetail.MULTICLASS, tuple(f"l{number}" for number in range(300)))
    y = np.eye(300, dtype=np.int8)[np.arange(330) % 300]
    p = random.random((330, 300)) + 0.5 * y
    p /= p.sum(axis=1, keepdims=True)
    values, found = metrics.evaluate(p, y, schema), of_rows(p, y, schema, seed=0).metrics
    for name, (low, high) in found.items():
        assert low <= values[name] <= high, name
    assert found["average_precision"][1] - found["average_precision"][0] < 0.2


@pytest.mark.parametrize("detail", list(TaskDetail))
def test_an_interval_stays_within_what_its_metric_can_be(detail):
    schema, p, y = rows_of(detail, 2 if detail is TaskDetail.BINARY else 3, rows=12)
    found = of_rows(p, y, schema, seed=0)
    for name, (low, high) in found.metrics.items():
        assert low >= (-1 if name == "mcc" else 0), name
        assert high <= 1 or name in ("log_loss", "brier"), name


def test_nor_does_that_cut_off_what_a_model_worse_than_chance_gets():
    """Sure of a wrong label in nine rows of ten: mcc lies below 0, and brier and log loss above 1."""
    schema = LabelSchema(TaskDetail.MULTICLASS, ("a", "b", "c"))
    labels = np.arange(60) % 3
    sure_of = np.where(np.arange(60) % 10, (labels + 1) % 3, labels)
    p, y = 0.01 + 0.97 * np.eye(3)[sure_of], np.eye(3, dtype=np.int8)[labels]
    values, found = metrics.evaluate(p, y, schema), of_rows(p, y, schema, seed=0).metrics
    assert values["mcc"] < 0 and values["brier"] > 1 and values["log_loss"] > 1
    for name in ("mcc", "brier", "log_loss"):
        low, high = found[name]
        assert low < values[name] < high, name


def test_the_same_seed_gives_the_same_of_rows():
    schema, p, y = rows_of(TaskDetail.MULTICLASS, 3, rows=100)
    assert of_rows(p, y, schema, seed=1) == of_rows(p, y, schema, seed=1)
    assert of_rows(p, y, schema, seed=1) != of_rows(p, y, schema, seed=2)


def test_many_rows_cost_a_bounded_time_and_narrow_the_interval():
    schema, p, y = rows_of(TaskDetail.BINARY, 2, rows=100_000)
    began = time.process_time()
    of_many = of_rows(p, y, schema, seed=0)
    assert time.process_time() - began < 5  # some 0.7 s on a free core
    of_few = of_rows(p[:1_000], y[:1_000], schema, seed=0)
    many, few = of_many.metrics, of_few.metrics
    value = metrics.evaluate(p, y, schema)["roc_auc"]
    assert many["roc_auc"][0] < value < many["roc_auc"][1]
    for name in ("f1", "roc_auc", "ece"):
        narrow, wide = (high - low for low, high in (many[name], few[name]))
        assert 5 < wide / narrow < 20, name  # sqrt(100) = 10
    for name in ("precision", "recall", "f1"):
        narrow, wide = (high - low for low, high in (of_many.labels[1][name], of_few.labels[1][name]))
        assert 5 < wide / narrow < 20, f"{name} of a label"


def test_what_is_not_defined_has_no_interval():
    schema, p, y = rows_of(TaskDetail.BINARY, 2, rows=20)
    one_class = np.tile(np.array([[1, 0]], dtype=np.int8), (20, 1))
    found = of_rows(p, one_class, schema, seed=0)
    assert found.metrics.keys() == {
        name for name, value in metrics.evaluate(p, one_class, schema).items() if value is not None
    }
    assert "recall" not in found.labels[1]
    assert of_rows(p[:1], y[:1], schema, seed=0).metrics == {}
