"""Built-in metrics against hand values and scikit-learn called directly, as a user would check them."""

import numpy as np
import pytest
from sklearn import metrics as sk

from winnow_classifier import metrics
from winnow_classifier.errors import ConfigError, DivergedError
from winnow_classifier.labels import LabelSchema, TaskDetail

SPAM = LabelSchema(TaskDetail.BINARY, ("ham", "spam"))
CLOSE = {"rel": 1e-9, "abs": 1e-12}  # float64


def rows_of(detail, labels, rows=200, seed=0):
    """Random probabilities with a grain of truth, and targets."""
    random = np.random.default_rng(seed)
    if detail is TaskDetail.MULTILABEL:
        targets = (random.random((rows, labels)) < 0.4).astype(np.int8)
        probabilities = np.clip(0.5 * random.random((rows, labels)) + 0.4 * targets, 0.001, 0.999)
    else:
        targets = np.eye(labels, dtype=np.int8)[random.integers(0, labels, rows)]
        probabilities = random.dirichlet(np.ones(labels), rows) + 0.3 * targets
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    return LabelSchema(detail, tuple(f"label {n}" for n in range(labels))), probabilities, targets


def test_four_rows_by_hand():
    # Expected spam, spam, ham, ham; predicted spam, ham, spam, ham.
    spam = np.array([0.9, 0.4, 0.6, 0.2])
    found = metrics.evaluate(np.stack([1 - spam, spam], axis=1), [[0, 1], [0, 1], [1, 0], [1, 0]], SPAM)
    assert found["matching_score"] == pytest.approx((0.9 + 0.4 + 0.4 + 0.8) / 4, **CLOSE)
    assert found["accuracy"] == 0.5
    assert (found["precision"], found["recall"], found["f1"]) == (0.5, 0.5, 0.5)
    assert found["roc_auc"] == 0.75  # of the four pairs of a spam and a ham, three are in order
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.4, 0.8]).mean(), **CLOSE)


def test_binary_metrics_are_those_of_scikit_learn():
    schema, p, y = rows_of(TaskDetail.BINARY, 2)
    expected, predicted = y[:, 1], p.argmax(axis=1)
    assert metrics.evaluate(p, y, schema) == pytest.approx(
        {
            "matching_score": (1 - np.abs(p[:, 1] - y[:, 1])).mean(),
            "accuracy": sk.accuracy_score(expected, predicted),
            "precision": sk.precision_score(expected, predicted),
            "recall": sk.recall_score(expected, predicted),
            "f1": sk.f1_score(expected, predicted),
            "precision_macro": sk.precision_score(expected, predicted, average="macro"),
            "recall_macro": sk.recall_score(expected, predicted, average="macro"),
            "f1_macro": sk.f1_score(expected, predicted, average="macro"),
            "f1_micro": sk.f1_score(expected, predicted, average="micro"),
            "f1_weighted": sk.f1_score(expected, predicted, average="weighted"),
            "roc_auc": sk.roc_auc_score(expected, p[:, 1]),
            "log_loss": sk.log_loss(expected, p),
        },
        **CLOSE,
    )


@pytest.mark.parametrize(("detail", "labels"), [(TaskDetail.MULTICLASS, 5), (TaskDetail.MULTILABEL, 4)])
def test_averaged_metrics_are_those_of_scikit_learn(detail, labels):
    schema, p, y = rows_of(detail, labels)
    if detail is TaskDetail.MULTICLASS:
        expected, predicted = y.argmax(axis=1), p.argmax(axis=1)
        auc, loss = sk.roc_auc_score(expected, p, multi_class="ovr", average="macro"), sk.log_loss(expected, p)
    else:
        expected, predicted = y, (p >= 0.5).astype(int)
        auc = sk.roc_auc_score(y, p, average="macro")
        loss = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    averages = {
        f"{name}_{average}": getattr(sk, f"{name}_score")(expected, predicted, average=average)
        for name, kinds in {"precision": ["macro"], "recall": ["macro"], "f1": ["macro", "micro", "weighted"]}.items()
        for average in kinds
    }
    assert metrics.evaluate(p, y, schema) == pytest.approx(
        {
            "matching_score": (1 - np.abs(p - y)).mean(),
            "accuracy": sk.accuracy_score(expected, predicted),
            "roc_auc": auc,
            "log_loss": loss,
            **averages,
        },
        **CLOSE,
    )


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
    assert {name for name, value in found.items() if value is None} == {"precision", "recall", "f1", "roc_auc"}
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
    assert [name for name, higher in metrics.HIGHER_IS_BETTER.items() if not higher] == ["log_loss"]


def test_metrics_that_do_not_exist_or_fit_are_refused():
    metrics.check_names(["f1", "roc_auc"], TaskDetail.BINARY)
    with pytest.raises(ConfigError, match='"f2" is not a metric') as raised:
        metrics.check_names(["f2"], TaskDetail.BINARY)
    assert "f1_macro" in raised.value.hint
    with pytest.raises(ConfigError, match="this task is Multilabel") as raised:
        metrics.check_names(["f1"], TaskDetail.MULTILABEL)
    assert raised.value.hint == "f1_macro averages over the labels"
