"""The built-in metrics: how good probabilities are against the expected labels, by scikit-learn's definitions.

Shapes: N rows, C labels. A metric that the rows do not define (ROC AUC where every row has the same label) is None,
and `why_undefined` says why.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

from winnow_classifier.errors import ConfigError, DivergedError
from winnow_classifier.labels import LabelSchema, TaskDetail

Floats = npt.NDArray[np.float64]
Ones = npt.NDArray[np.int8]

HIGHER_IS_BETTER: Mapping[str, bool] = MappingProxyType(
    {
        "matching_score": True,
        "accuracy": True,
        "precision": True,
        "recall": True,
        "f1": True,
        "precision_macro": True,
        "recall_macro": True,
        "f1_macro": True,
        "f1_micro": True,
        "f1_weighted": True,
        "roc_auc": True,
        "log_loss": False,
    }
)
BINARY_ONLY = frozenset({"precision", "recall", "f1"})  # of the positive label


@dataclass(frozen=True, slots=True)
class LabelMetrics:
    label: str
    precision: float | None  # None: the label is never predicted
    recall: float | None  # None: no row has the label
    f1: float | None  # None: neither
    support: int  # rows that have the label


@dataclass(frozen=True, slots=True)
class _Scored:
    probabilities: Floats  # (N, C)
    targets: Ones  # (N, C)
    predicted: Ones  # (N, C)
    schema: LabelSchema

    @property
    def multilabel(self) -> bool:
        return self.schema.task_detail is TaskDetail.MULTILABEL


def names(task_detail: TaskDetail) -> tuple[str, ...]:
    """The metrics that a task has: precision, recall and f1 without an average are those of Binary's positive label."""
    return tuple(n for n in HIGHER_IS_BETTER if task_detail is TaskDetail.BINARY or n not in BINARY_ONLY)


def default_primary(task_detail: TaskDetail) -> str:
    return "f1" if task_detail is TaskDetail.BINARY else "f1_macro"


def check_names(asked: Iterable[str], task_detail: TaskDetail) -> None:
    """Raises ConfigError for a metric that is not built in, or not for this task."""
    for name in asked:
        if name not in HIGHER_IS_BETTER:
            raise ConfigError(f'metrics: "{name}" is not a metric', hint=f"one of {', '.join(names(task_detail))}")
        if name not in names(task_detail):
            raise ConfigError(
                f'metrics: "{name}" is the score of a Binary task\'s positive label; this task is {task_detail}',
                hint=f"{name}_macro averages over the labels",
            )


def evaluate(probabilities: npt.ArrayLike, targets: npt.ArrayLike, schema: LabelSchema) -> dict[str, float | None]:
    """Every metric of the task, unrounded. probabilities (N, C), targets (N, C) zeros and ones.

    Raises DivergedError if a probability is not a number.
    """
    scored = _scored(probabilities, targets, schema)
    return {
        name: None if _undefined(name, scored.targets, schema) else float(_METRICS[name](scored))
        for name in names(schema.task_detail)
    }


def one(name: str, probabilities: npt.ArrayLike, targets: npt.ArrayLike, schema: LabelSchema) -> float | None:
    """A single one of `evaluate`'s."""
    scored = _scored(probabilities, targets, schema)
    return None if _undefined(name, scored.targets, schema) else float(_METRICS[name](scored))


def why_undefined(name: str, targets: npt.ArrayLike, schema: LabelSchema) -> str | None:
    """Why `evaluate` gives None for this metric on these rows; None where it gives a number."""
    return _undefined(name, _targets(targets, schema), schema)


def matching_scores(probabilities: npt.ArrayLike, targets: npt.ArrayLike) -> Floats:
    """For each row the mean over its labels of 1 - |p - y|: (N, C), (N, C) to (N,)."""
    distance = np.abs(np.asarray(probabilities, dtype=np.float64) - np.asarray(targets, dtype=np.float64))
    return np.asarray(1.0 - distance.mean(axis=1), dtype=np.float64)


def per_label(probabilities: npt.ArrayLike, targets: npt.ArrayLike, schema: LabelSchema) -> list[LabelMetrics]:
    """Each label against all others, in label order."""
    scored = _scored(probabilities, targets, schema)
    hits = (scored.targets & scored.predicted).sum(axis=0, dtype=np.int64).tolist()
    support = scored.targets.sum(axis=0, dtype=np.int64).tolist()
    predicted = scored.predicted.sum(axis=0, dtype=np.int64).tolist()
    return [
        LabelMetrics(label, _ratio(hit, found), _ratio(hit, there), _ratio(2 * hit, there + found), there)
        for label, hit, there, found in zip(schema.labels, hits, support, predicted, strict=True)
    ]


def confusion(probabilities: npt.ArrayLike, targets: npt.ArrayLike, schema: LabelSchema) -> list[list[int]]:
    """Rows by expected label, columns by predicted label (C, C); for Multilabel a row [tn, fp, fn, tp] a label (C, 4)."""
    scored = _scored(probabilities, targets, schema)
    if scored.multilabel:
        y, p = scored.targets.astype(np.bool_), scored.predicted.astype(np.bool_)
        counts = [(~y & ~p).sum(axis=0), (~y & p).sum(axis=0), (y & ~p).sum(axis=0), (y & p).sum(axis=0)]
        return [[int(n) for n in label] for label in zip(*counts, strict=True)]
    matrix: list[list[int]] = sk.confusion_matrix(*_sklearn_rows(scored), labels=range(len(schema.labels))).tolist()
    return matrix


def _scored(probabilities: npt.ArrayLike, targets: npt.ArrayLike, schema: LabelSchema) -> _Scored:
    values = np.asarray(probabilities, dtype=np.float64).reshape(-1, len(schema.labels))
    if not np.isfinite(values).all():
        raise DivergedError("the model answers with probabilities that are not numbers", hint="lower learningRate")
    return _Scored(values, _targets(targets, schema), schema.predicted_targets(values), schema)


def _targets(targets: npt.ArrayLike, schema: LabelSchema) -> Ones:
    return np.asarray(targets, dtype=np.int8).reshape(-1, len(schema.labels))


def _undefined(name: str, targets: Ones, schema: LabelSchema) -> str | None:
    if not len(targets):
        return "there are no rows"
    if name in BINARY_ONLY and not targets[:, 1].any():
        return f'no row has the label "{schema.labels[1]}"'
    if name == "roc_auc" and not _has_both(targets).any():
        return "no label has both rows that have it and rows that do not"
    return None


def _has_both(targets: Ones) -> npt.NDArray[np.bool_]:
    """Which of the C labels some rows have and some do not."""
    return np.asarray(targets.any(axis=0) & ~targets.all(axis=0))


def _sklearn_rows(s: _Scored) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """Expected and predicted, as scikit-learn tells the tasks apart: (N,) label numbers or (N, C) zeros and ones."""
    if s.multilabel:
        return s.targets, s.predicted
    return s.targets.argmax(axis=1), s.predicted.argmax(axis=1)


def _averaged(function: Callable[..., float], average: str) -> Callable[[_Scored], float]:
    # As scikit-learn does when it is called with nothing but the rows: 0/0 counts as 0, and where exactly one label
    # holds, labels that are neither expected nor predicted are left out of the average.
    def score(s: _Scored) -> float:
        if s.multilabel and s.targets.shape[1] == 1:  # scikit-learn would take one column for two classes
            return function(s.targets[:, 0], s.predicted[:, 0], labels=[1], average=average, zero_division=0)
        return function(*_sklearn_rows(s), average=average, zero_division=0)

    return score


def _positive(function: Callable[..., float]) -> Callable[[_Scored], float]:
    return lambda s: function(s.targets[:, 1], s.predicted[:, 1], zero_division=0)


def _accuracy(s: _Scored) -> float:
    """Share of rows with every label right."""
    return float((s.targets == s.predicted).all(axis=1).mean())


def _roc_auc(s: _Scored) -> float:
    """Binary: of the positive label. Else the mean over the labels that have both kinds of rows, each against the rest."""
    columns = [1] if s.schema.task_detail is TaskDetail.BINARY else np.flatnonzero(_has_both(s.targets)).tolist()
    return float(np.mean([sk.roc_auc_score(s.targets[:, c], s.probabilities[:, c]) for c in columns]))


def _log_loss(s: _Scored) -> float:
    """Nats a row; for Multilabel the mean over the labels of each one's own."""
    if s.multilabel:
        columns = zip(s.targets.T, s.probabilities.T, strict=True)
        return float(np.mean([sk.log_loss(y, p, labels=[0, 1]) for y, p in columns]))
    # A float32 softmax sums to 1 within 1e-7 only, which scikit-learn warns about.
    normalised = s.probabilities / s.probabilities.sum(axis=1, keepdims=True)
    return float(sk.log_loss(s.targets.argmax(axis=1), normalised, labels=range(len(s.schema.labels))))


def _ratio(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


_METRICS: Mapping[str, Callable[[_Scored], float]] = {
    "matching_score": lambda s: float(matching_scores(s.probabilities, s.targets).mean()),
    "accuracy": _accuracy,
    "precision": _positive(sk.precision_score),
    "recall": _positive(sk.recall_score),
    "f1": _positive(sk.f1_score),
    "precision_macro": _averaged(sk.precision_score, "macro"),
    "recall_macro": _averaged(sk.recall_score, "macro"),
    "f1_macro": _averaged(sk.f1_score, "macro"),
    "f1_micro": _averaged(sk.f1_score, "micro"),
    "f1_weighted": _averaged(sk.f1_score, "weighted"),
    "roc_auc": _roc_auc,
    "log_loss": _log_loss,
}
