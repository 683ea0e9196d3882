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
from winnow_classifier.labels import TWO_NAMES, LabelSchema, TaskDetail

Floats = npt.NDArray[np.float64]
Ones = npt.NDArray[np.int8]

HIGHER_IS_BETTER: Mapping[str, bool] = MappingProxyType(
    {
        "matching_score": True,
        "text_match": True,
        "accuracy": True,
        "binary_accuracy": True,
        "multiclass_accuracy": True,
        "multilabel_exact_match": True,
        "precision": True,
        "recall": True,
        "f1": True,
        "precision_macro": True,
        "recall_macro": True,
        "f1_macro": True,
        "precision_micro": True,
        "recall_micro": True,
        "f1_micro": True,
        "precision_weighted": True,
        "recall_weighted": True,
        "f1_weighted": True,
        "roc_auc": True,
        "average_precision": True,
        "mcc": True,
        "log_loss": False,
        "brier": False,
        "ece": False,
        "hamming_loss": False,
    }
)
ONLY_FOR: Mapping[str, TaskDetail] = MappingProxyType(
    {
        "binary_accuracy": TaskDetail.BINARY,
        "multiclass_accuracy": TaskDetail.MULTICLASS,
        "multilabel_exact_match": TaskDetail.MULTILABEL,
        **dict.fromkeys(("precision", "recall", "f1"), TaskDetail.BINARY),  # of the positive label
    }
)
OF_THE_POSITIVE_LABEL = frozenset({"precision", "recall", "f1"})
ECE_BINS = 15  # of equal width, as in Guo et al. 2017, arXiv:1706.04599


@dataclass(frozen=True, slots=True)
class LabelMetrics:
    label: str
    precision: float | None  # None: the label is never predicted
    recall: float | None  # None: no row has the label
    f1: float | None  # None: neither
    support: int  # rows that have the label
    roc_auc: float | None  # None: no row has the label, or every one
    average_precision: float | None  # None: no row has the label
    mcc: float | None  # None: no rows, as the next
    brier: float | None


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
    return tuple(name for name in HIGHER_IS_BETTER if ONLY_FOR.get(name, task_detail) is task_detail)


def default_primary(task_detail: TaskDetail) -> str:
    return "f1" if task_detail is TaskDetail.BINARY else "f1_macro"


def check_names(asked: Iterable[str], task_detail: TaskDetail) -> None:
    """Raises ConfigError for a metric that is not built in, or not for this task."""
    for name in asked:
        if name not in HIGHER_IS_BETTER:
            raise ConfigError(f'metrics: "{name}" is not a metric', hint=f"one of {', '.join(names(task_detail))}")
        if name in OF_THE_POSITIVE_LABEL and task_detail is not TaskDetail.BINARY:
            hint = f"{name}_macro averages over the labels"
            raise ConfigError(
                f'metrics: "{name}" is the score of a Binary task\'s positive label; this task is {task_detail}',
                hint=f"{hint}; or {TWO_NAMES}" if task_detail is TaskDetail.MULTICLASS else hint,
            )
        if name not in names(task_detail):
            raise ConfigError(
                f'metrics: "{name}" is for {ONLY_FOR[name]} tasks; this task is {task_detail}',
                hint="accuracy is the same for every task",
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
    hits = (scored.targets & scored.predicted).sum(axis=0, dtype=np.int64)
    support = scored.targets.sum(axis=0, dtype=np.int64)
    found = scored.predicted.sum(axis=0, dtype=np.int64)
    rows = len(scored.targets)
    return [
        LabelMetrics(
            label=label,
            precision=_ratio(int(hits[c]), int(found[c])),
            recall=_ratio(int(hits[c]), int(support[c])),
            f1=_ratio(2 * int(hits[c]), int(support[c] + found[c])),
            support=int(support[c]),
            roc_auc=roc_auc(scored.targets[:, c], scored.probabilities[:, c]),
            average_precision=average_precision(scored.targets[:, c], scored.probabilities[:, c]),
            mcc=_matthews(int(hits[c]), int(support[c]), int(found[c]), rows) if rows else None,
            brier=float(np.square(scored.probabilities[:, c] - scored.targets[:, c]).mean()) if rows else None,
        )
        for c, label in enumerate(schema.labels)
    ]


def roc_auc(targets: Ones, scores: Floats) -> float | None:
    """The chance that a row with the label scores higher than one without, ties counting half. (N,), (N,)."""
    positives = int(np.count_nonzero(targets))
    negatives = len(targets) - positives
    if not positives or not negatives:
        return None
    order = np.argsort(scores, kind="stable")
    _, first = np.unique(scores[order], return_index=True)
    last = np.append(first[1:], len(scores))
    middle = (first + last + 1) / 2  # the mean rank, from 1, of rows that score the same
    ranks = np.repeat(middle, last - first)
    above = ranks[np.asarray(targets, dtype=np.bool_)[order]].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def average_precision(targets: Ones, scores: Floats) -> float | None:
    """Precision at each score, weighted by the recall that it adds. (N,), (N,)."""
    if not np.count_nonzero(targets):
        return None
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(np.asarray(targets, dtype=np.float64)[order])
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of rows that score the same
    recall = hits[ends] / hits[-1]
    return float((np.diff(recall, prepend=0.0) * hits[ends] / (ends + 1)).sum())


def expected_calibration_error(confidence: Floats, right: npt.ArrayLike) -> float:
    """|share that is right - mean confidence| over bins of equal width, weighted by rows. (N,), (N,)."""
    values = np.asarray(right, dtype=np.float64)
    bins = ece_bins(confidence)
    gaps = np.bincount(bins, weights=values - confidence, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def ece_bins(confidence: Floats) -> npt.NDArray[np.int64]:
    """The bin of each: (a, b], so that 1 is in the last one."""
    return np.clip(np.ceil(np.asarray(confidence) * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)


def confidences(probabilities: Floats, targets: Ones, schema: LabelSchema) -> tuple[Floats, Floats]:
    """What is held against each other in a reliability diagram: of each row the probability of the likeliest label and
    whether it holds, (N,) and (N,); for Multilabel each label's own, (N, C) and (N, C)."""
    if schema.task_detail is TaskDetail.MULTILABEL:
        return probabilities, targets.astype(np.float64)
    chosen = probabilities.argmax(axis=1)
    rows = np.arange(len(chosen))
    return probabilities[rows, chosen], targets[rows, chosen].astype(np.float64)


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
    if name in OF_THE_POSITIVE_LABEL and not targets[:, 1].any():
        return f'no row has the label "{schema.labels[1]}"'
    if name == "roc_auc" and not _has_both(targets).any():
        return "no label has both rows that have it and rows that do not"
    if name == "average_precision" and not _with_positives(targets, schema).any():
        only = schema.task_detail is TaskDetail.BINARY
        return f'no row has the label "{schema.labels[1]}"' if only else "no row has any label"
    return None


def _has_both(targets: Ones) -> npt.NDArray[np.bool_]:
    """Which of the C labels some rows have and some do not."""
    return np.asarray(targets.any(axis=0) & ~targets.all(axis=0))


def _with_positives(targets: Ones, schema: LabelSchema) -> npt.NDArray[np.bool_]:
    """Which labels count for average_precision; of Binary only the positive one does."""
    found = np.asarray(targets.any(axis=0))
    if schema.task_detail is TaskDetail.BINARY:
        found = found & np.array([False, True])
    return found


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
    return float(np.mean([roc_auc(s.targets[:, c], s.probabilities[:, c]) for c in columns]))


def _average_precision(s: _Scored) -> float:
    """Binary: of the positive label. Else the mean over the labels that some row has."""
    columns = np.flatnonzero(_with_positives(s.targets, s.schema)).tolist()
    return float(np.mean([average_precision(s.targets[:, c], s.probabilities[:, c]) for c in columns]))


def _mcc(s: _Scored) -> float:
    """Over all classes, or for Multilabel the mean over the labels of each one's own."""
    if not s.multilabel:  # Gorodkin's R_K
        rows, hits = len(s.targets), int((s.targets & s.predicted).sum())
        there, found = (part.sum(axis=0).astype(np.float64) for part in (s.targets, s.predicted))
        spread = (rows**2 - float(np.square(found).sum())) * (rows**2 - float(np.square(there).sum()))
        return (hits * rows - float((there * found).sum())) / spread**0.5 if spread else 0.0
    counts = zip((s.targets & s.predicted).sum(axis=0), s.targets.sum(axis=0), s.predicted.sum(axis=0), strict=True)
    each = [_matthews(int(hits), int(there), int(found), len(s.targets)) for hits, there, found in counts]
    return float(np.mean(each))


def _matthews(hits: int, there: int, found: int, rows: int) -> float:
    """Of one label; 0 where the rows or the answers have only one kind."""
    spread = there * (rows - there) * found * (rows - found)
    return float((hits * rows - there * found) / spread**0.5) if spread else 0.0


def _brier(s: _Scored) -> float:
    """Mean of (p - y)^2: of the positive label for Binary, summed over the labels for Multiclass, their mean for Multilabel."""
    return float(brier_of_rows(s.probabilities, s.targets, s.schema).mean())


def brier_of_rows(probabilities: Floats, targets: Ones, schema: LabelSchema) -> Floats:
    squares = np.square(probabilities - targets)
    if schema.task_detail is TaskDetail.BINARY:
        return np.asarray(squares[:, 1])
    return np.asarray(squares.mean(axis=1) if schema.task_detail is TaskDetail.MULTILABEL else squares.sum(axis=1))


def _ece(s: _Scored) -> float:
    """Of the likeliest label's probability; for Multilabel the mean over the labels of each one's own."""
    confidence, right = confidences(s.probabilities, s.targets, s.schema)
    if not s.multilabel:
        return expected_calibration_error(confidence, right)
    columns = zip(confidence.T, right.T, strict=True)
    return float(np.mean([expected_calibration_error(p, y) for p, y in columns]))


def _hamming_loss(s: _Scored) -> float:
    """Multilabel: share of the answers, over rows and labels, that are wrong. Else the share of wrong rows."""
    return float((s.targets != s.predicted).mean()) if s.multilabel else 1.0 - _accuracy(s)


def _log_loss(s: _Scored) -> float:
    return float(log_loss_of_rows(s.probabilities, s.targets, s.schema).mean())


def log_loss_of_rows(probabilities: Floats, targets: Ones, schema: LabelSchema) -> Floats:
    """Nats a row; for Multilabel the mean over the labels of each one's own. As scikit-learn clips: to float64's epsilon."""
    tiny = np.finfo(np.float64).eps
    if schema.task_detail is TaskDetail.MULTILABEL:
        right = np.where(targets == 1, probabilities, 1.0 - probabilities)
        return np.asarray(-np.log(np.clip(right, tiny, 1.0)).mean(axis=1))
    # A float32 softmax sums to 1 within 1e-7 only.
    normalised = np.clip(probabilities / probabilities.sum(axis=1, keepdims=True), tiny, 1.0 - tiny)
    return np.asarray(-np.log((normalised * targets).sum(axis=1)))


def _ratio(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


_SCORES = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}
_METRICS: Mapping[str, Callable[[_Scored], float]] = {
    "matching_score": lambda s: float(matching_scores(s.probabilities, s.targets).mean()),
    **dict.fromkeys(
        ("accuracy", "text_match", "binary_accuracy", "multiclass_accuracy", "multilabel_exact_match"), _accuracy
    ),
    **{name: _positive(function) for name, function in _SCORES.items()},
    **{
        f"{name}_{average}": _averaged(function, average)
        for name, function in _SCORES.items()
        for average in ("macro", "micro", "weighted")
    },
    "roc_auc": _roc_auc,
    "average_precision": _average_precision,
    "mcc": _mcc,
    "log_loss": _log_loss,
    "brier": _brier,
    "ece": _ece,
    "hamming_loss": _hamming_loss,
}


def row_scores(probabilities: npt.ArrayLike, targets: npt.ArrayLike, schema: LabelSchema) -> dict[str, Floats]:
    """Of the metrics that are a mean over the rows: each row's own, (N,), by name."""
    s = _scored(probabilities, targets, schema)
    right = (s.targets == s.predicted).all(axis=1).astype(np.float64)
    wrong = (s.targets != s.predicted).mean(axis=1) if s.multilabel else 1.0 - right
    found = {
        "matching_score": matching_scores(s.probabilities, s.targets),
        **dict.fromkeys((name for name in _METRICS if _METRICS[name] is _accuracy), right),
        "log_loss": log_loss_of_rows(s.probabilities, s.targets, schema),
        "brier": brier_of_rows(s.probabilities, s.targets, schema),
        "hamming_loss": np.asarray(wrong, dtype=np.float64),
    }
    return {name: found[name] for name in names(schema.task_detail) if name in found}
