"""Built-in metrics against hand values and scikit-learn called directly, as a user would check them."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_answers import rows_of
from sklearn import metrics as sk

from winnow_classifier import metrics
from winnow_classifier.errors import ConfigError, DivergedError
from winnow_classifier.labels import LabelSchema, TaskDetail

SPAM = LabelSchema(TaskDetail.BINARY, ("ham", "spam"))
CLOSE = {"rel": 1e-9, "abs": 1e-12}  # float64


def close(value):
    return None if value is None else pytest.approx(value, **CLOSE)


def test_four_rows_by_hand():
    # Expected spam, spam, ham, ham; predicted spam, ham, spam, ham.
    spam = np.array([0.9, 0.4, 0.6, 0.2])
    found = metrics.evaluate(np.stack([1 - spam, spam], axis=1), [[0, 1], [0, 1], [1, 0], [1, 0]], SPAM)
    assert found["matching_score"] == pytest.approx((0.9 + 0.4 + 0.4 + 0.8) / 4, **CLOSE)
    assert found["accuracy"] == 0.5
    assert (found["precision"], found["recall"], found["f1"]) == (0.5, 0.5, 0.5)
    assert found["roc_auc"] == 0.75  # of the four pairs of a spam and a ham, three are in order
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.4, 0.8]).mean(), **CLOSE)


def by_scikit_learn(p, y, schema):
    """Every metric of the task, each called as a user would call it."""
    detail = schema.task_detail
    if detail is TaskDetail.MULTILABEL:
        expected, predicted = y, (p >= 0.5).astype(int)
        columns = [c for c in range(y.shape[1]) if 0 < y[:, c].sum() < len(y)]
        own = {
            "multilabel_exact_match": sk.accuracy_score(expected, predicted),
            "mcc": np.mean([sk.matthews_corrcoef(y[:, c], predicted[:, c]) for c in range(y.shape[1])]),
            "log_loss": np.mean([sk.log_loss(y[:, c], p[:, c], labels=[0, 1]) for c in range(y.shape[1])]),
            "brier": np.mean([sk.brier_score_loss(y[:, c], p[:, c], pos_label=1) for c in range(y.shape[1])]),
        }
    else:
        expected, predicted = y.argmax(axis=1), p.argmax(axis=1)
        columns = [1] if detail is TaskDetail.BINARY else [c for c in range(y.shape[1]) if 0 < y[:, c].sum() < len(y)]
        binary = detail is TaskDetail.BINARY
        own = {
            "binary_accuracy" if binary else "multiclass_accuracy": sk.accuracy_score(expected, predicted),
            "mcc": sk.matthews_corrcoef(expected, predicted),
            "log_loss": sk.log_loss(expected, p, labels=range(y.shape[1])),
            "brier": sk.brier_score_loss(expected, p[:, 1], pos_label=1)
            if binary
            else sk.brier_score_loss(expected, p, labels=range(y.shape[1]), scale_by_half=False),
        }
        if binary:
            own |= {
                f"{name}": getattr(sk, f"{name}_score")(expected, predicted, zero_division=0)
                for name in ("precision", "recall", "f1")
            }
            undefined = not expected.any()
            own |= dict.fromkeys(("precision", "recall", "f1"), None) if undefined else {}
    with_positives = [c for c in ([1] if detail is TaskDetail.BINARY else range(y.shape[1])) if y[:, c].any()]
    defined = [c for c in columns if 0 < y[:, c].sum() < len(y)]
    return {
        "matching_score": (1 - np.abs(p - y)).mean(),
        "text_match": sk.accuracy_score(expected, predicted),
        "accuracy": sk.accuracy_score(expected, predicted),
        "hamming_loss": sk.hamming_loss(expected, predicted),
        "roc_auc": np.mean([sk.roc_auc_score(y[:, c], p[:, c]) for c in defined]) if defined else None,
        "average_precision": np.mean([sk.average_precision_score(y[:, c], p[:, c]) for c in with_positives])
        if with_positives
        else None,
        **own,
        **{
            f"{name}_{average}": getattr(sk, f"{name}_score")(expected, predicted, average=average, zero_division=0)
            for name in ("precision", "recall", "f1")
            for average in ("macro", "micro", "weighted")
        },
    }


def of_a_label_by_scikit_learn(p, y, predicted):
    """Against all others: (N,) each."""
    return {
        "precision": sk.precision_score(y, predicted) if predicted.any() else None,
        "recall": sk.recall_score(y, predicted) if y.any() else None,
        "f1": sk.f1_score(y, predicted) if y.any() or predicted.any() else None,
        "support": y.sum(),
        "roc_auc": sk.roc_auc_score(y, p) if 0 < y.sum() < len(y) else None,
        "average_precision": sk.average_precision_score(y, p) if y.any() else None,
        "mcc": sk.matthews_corrcoef(y, predicted),
        "brier": sk.brier_score_loss(y, p, pos_label=1),
    }


@given(
    detail=st.sampled_from(TaskDetail),
    labels=st.integers(2, 6),
    rows=st.integers(1, 40),
    seed=st.integers(0, 2**31),
    decimals=st.sampled_from([1, 2, 8]),
)
@settings(max_examples=30, deadline=None)
def test_every_metric_is_that_of_scikit_learn(detail, labels, rows, seed, decimals):
    """Rounded probabilities tie often, few rows leave labels without any: both on purpose."""
    schema, p, y = rows_of(detail, 2 if detail is TaskDetail.BINARY else labels, rows, seed)
    p = np.clip(p.round(decimals), 0.001, 0.999)
    if detail is not TaskDetail.MULTILABEL:
        p /= p.sum(axis=1, keepdims=True)
    found = metrics.evaluate(p, y, schema)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are missing
        expected = by_scikit_learn(p, y, schema)
        each = [of_a_label_by_scikit_learn(p[:, c], y[:, c], q) for c, q in enumerate(schema.predicted_targets(p).T)]
    assert found.keys() - {"ece"} == expected.keys()
    for name, value in expected.items():
        assert found[name] == close(value), name
    for label, values in zip(metrics.per_label(p, y, schema), each, strict=True):
        for name, value in values.items():
            assert getattr(label, name) == close(value), name
    for name, scores in metrics.row_scores(p, y, schema).items():
        assert scores.mean() == pytest.approx(found[name], **CLOSE), name


def test_expected_calibration_error_by_hand():
    # Two bins: two rows at 0.9, one of them right; two rows at 0.6, both right.
    p = np.array([[0.1, 0.9], [0.1, 0.9], [0.4, 0.6], [0.4, 0.6]])
    found = metrics.evaluate(p, [[0, 1], [1, 0], [0, 1], [0, 1]], SPAM)
    assert found["ece"] == pytest.approx(0.5 * 0.4 + 0.5 * 0.4, **CLOSE)
    sure = metrics.evaluate([[0.0, 1.0], [1.0, 0.0]], [[0, 1], [1, 0]], SPAM)
    assert (sure["ece"], sure["brier"]) == (0.0, 0.0)


def test_float32_probabilities_are_fine():
    schema, p, y = rows_of(TaskDetail.MULTICLASS, 7)
    rough = metrics.evaluate(p.astype(np.float32), y, schema)
    assert rough == pytest.approx(metrics.evaluate(p, y, schema), rel=1e-5)


def test_one_sigmoid_label_is_scored_as_itself():
    schema, p, y = rows_of(TaskDetail.MULTILABEL, 1)
    found = metrics.evaluate(p, y, schema)
    f1 = sk.f1_score(y[:, 0], p[:, 0] >= 0.5)
    assert (found["f1_macro"], found["f1_micro"], found["f1_weighted"]) == pytest.approx((f1, f1, f1), **CLOSE)
    assert metrics.per_label(p, y, schema)[0].f1 == pytest.approx(f1, **CLOSE)


def test_test_rows_of_one_class_leave_some_metrics_undefined():
    p, y = [[0.9, 0.1], [0.4, 0.6]], [[1, 0], [1, 0]]
    found = metrics.evaluate(p, y, SPAM)
    undefined = {"precision", "recall", "f1", "roc_auc", "average_precision"}
    assert {name for name, value in found.items() if value is None} == undefined
    assert metrics.why_undefined("f1", y, SPAM) == 'no row has the label "spam"'
    assert "no label has both" in metrics.why_undefined("roc_auc", y, SPAM)
    assert metrics.why_undefined("accuracy", y, SPAM) is None
    assert found["accuracy"] == 0.5


def test_roc_auc_leaves_out_labels_that_no_test_row_has():
    schema, p, y = rows_of(TaskDetail.MULTICLASS, 3)
    keep = y[:, 2] == 0
    expected = np.mean([sk.roc_auc_score(y[keep, c], p[keep, c]) for c in (0, 1)])
    assert metrics.evaluate(p[keep], y[keep], schema)["roc_auc"] == pytest.approx(expected, **CLOSE)


def test_no_rows_leave_every_metric_undefined():
    assert set(metrics.evaluate(np.empty((0, 2)), np.empty((0, 2)), SPAM).values()) == {None}
    assert metrics.why_undefined("accuracy", np.empty((0, 2)), SPAM) == "there are no rows"


def test_matching_scores_of_each_row():
    scores = metrics.matching_scores([[0.9, 0.1], [0.5, 1.0]], [[1, 0], [0, 0]])
    assert scores.tolist() == pytest.approx([0.9, 0.25], **CLOSE)


def test_each_label_by_itself():
    p = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]
    ham, spam = metrics.per_label(p, [[1, 0], [1, 0], [0, 1]], SPAM)
    assert (ham.label, ham.precision, ham.recall, ham.support) == ("ham", pytest.approx(2 / 3), 1.0, 2)
    assert (spam.label, spam.precision, spam.recall, spam.f1, spam.support) == ("spam", None, 0.0, 0.0, 1)


def test_confusion():
    schema, p, y = rows_of(TaskDetail.MULTICLASS, 3)
    assert metrics.confusion(p, y, schema) == sk.confusion_matrix(y.argmax(axis=1), p.argmax(axis=1)).tolist()
    schema, p, y = rows_of(TaskDetail.MULTILABEL, 3)
    by_label = sk.multilabel_confusion_matrix(y, (p >= 0.5).astype(int))
    assert metrics.confusion(p, y, schema) == by_label.reshape(-1, 4).tolist()


def test_probabilities_that_are_not_numbers_are_a_diverged_training():
    with pytest.raises(DivergedError, match="not numbers"):
        metrics.evaluate([[np.nan, 0.5]], [[0, 1]], SPAM)


def test_the_default_primary_metric():
    assert metrics.default_primary(TaskDetail.BINARY) == "f1"
    assert metrics.default_primary(TaskDetail.MULTICLASS) == "f1_macro"
    assert metrics.default_primary(TaskDetail.MULTILABEL) == "f1_macro"
    assert [name for name, higher in metrics.HIGHER_IS_BETTER.items() if not higher] == [
        "log_loss",
        "brier",
        "ece",
        "hamming_loss",
    ]


def test_metrics_that_do_not_exist_or_fit_are_refused():
    metrics.check_names(["f1", "roc_auc"], TaskDetail.BINARY)
    with pytest.raises(ConfigError, match='"f2" is not a metric') as raised:
        metrics.check_names(["f2"], TaskDetail.BINARY)
    assert "f1_macro" in raised.value.hint
    with pytest.raises(ConfigError, match="this task is Multilabel") as raised:
        metrics.check_names(["f1"], TaskDetail.MULTILABEL)
    assert raised.value.hint == "f1_macro averages over the labels"
    with pytest.raises(ConfigError, match="this task is Multiclass") as raised:
        metrics.check_names(["f1"], TaskDetail.MULTICLASS)
    assert "import two names as taskDetail: Binary" in raised.value.hint
    with pytest.raises(ConfigError, match='"binary_accuracy" is for Binary tasks; this task is Multiclass'):
        metrics.check_names(["binary_accuracy"], TaskDetail.MULTICLASS)
