"""Thresholds fitted to an objective on validation rows, a label at a time. Pure. Letters: N rows, C labels.

For one label the rows are sorted by its probability; to cut after the k likeliest ones is one of N + 1 choices, and counts
of hits give precision, recall, F1 and cost of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.objectives import Thresholds

Floats32 = npt.NDArray[np.float32]

# The threshold that is best on some rows is partly luck, even with hundreds of them. So it is averaged with the one that would be
# best if the calibrated probabilities were right (`_expected`), which weighs as much as this many rows that have the label. Chosen
# on e-mails and on a data set of 28 labels (ADR 68); 50 and 200 gave the same F1 to a thousandth.
PRIOR_POSITIVES = 100


@dataclass(frozen=True, slots=True)
class Cutoffs:
    thresholds: dict[str, float]
    min_probability: float | None  # Multiclass: below it the likeliest label is not told
    unfitted: dict[str, str]  # label: why its threshold is not what was asked for


def fit(probabilities: npt.ArrayLike, targets: npt.ArrayLike, schema: LabelSchema, asked: Thresholds) -> Cutoffs:
    """probabilities (N, C), calibrated, targets (N, C); `asked` fits the task (objectives.check)."""
    values = np.asarray(probabilities, dtype=np.float32)
    holds = np.asarray(targets, dtype=np.bool_)
    if asked.objective is None:
        return Cutoffs({}, None, {})
    if schema.task_detail is TaskDetail.MULTICLASS:
        return _of_the_likeliest(values, holds, asked)
    columns = [1] if schema.task_detail is TaskDetail.BINARY else list(range(len(schema.labels)))
    found, unfitted = {}, {}
    for column in columns:
        label, positives = schema.labels[column], int(holds[:, column].sum())
        if not positives:
            unfitted[label] = "no validation row has it"
            continue
        threshold = _one(values[:, column], holds[:, column], asked)
        if threshold is None:
            unfitted[label] = f"no threshold gives it a precision of {asked.value:g}; it is predicted from 1 on only"
            threshold = 1.0
        found[label] = threshold
    return Cutoffs(found, None, unfitted)


def _of_the_likeliest(values: Floats32, holds: npt.NDArray[np.bool_], asked: Thresholds) -> Cutoffs:
    rows, top = np.arange(len(values)), values.argmax(axis=1)
    found = _at_least(_Sorted(values[rows, top], holds[rows, top]), asked)
    if found is not None:
        return Cutoffs({}, found, {})
    why = f"however likely a label is, it is right in less than {asked.value:g} of the validation rows"
    return Cutoffs({}, 1.0, {"*": why})


def _one(values: Floats32, holds: npt.NDArray[np.bool_], asked: Thresholds) -> float | None:
    rows = _Sorted(values, holds)
    if asked.objective in ("PrecisionAtLeast", "RecallAtLeast"):
        return _at_least(rows, asked)
    expected = _expected(rows, asked)
    if asked.objective == "F1":
        own = rows.best(rows.f1(), expected)
    else:
        assert asked.costs is not None
        own = rows.best(-rows.cost(asked.costs.false_positive, asked.costs.false_negative), expected)
    weight = rows.positives / (rows.positives + PRIOR_POSITIVES)
    return float(np.float32(weight * own + (1 - weight) * expected))


def _at_least(rows: _Sorted, asked: Thresholds) -> float | None:
    """Precision: the lowest threshold that has it. Recall: the highest one. None if there is none."""
    assert asked.value is not None
    if asked.objective == "RecallAtLeast":
        reached = rows.hits >= asked.value * rows.positives - 1e-9
        return rows.threshold(int(np.flatnonzero(reached & rows.possible)[0]))
    reached = rows.hits[1:] >= asked.value * np.arange(1, len(rows.hits)) - 1e-9
    found = np.flatnonzero(reached & rows.possible[1:])
    return rows.threshold(int(found[-1]) + 1) if len(found) else None


def _expected(rows: _Sorted, asked: Thresholds) -> float:
    """The best threshold if the calibrated probabilities are right, whichever rows have the label. For F1 the cut with the best F1
    of expected counts; for costs the share of a false positive in the sum of both costs."""
    if asked.objective == "Cost":
        assert asked.costs is not None
        return asked.costs.false_positive / (asked.costs.false_positive + asked.costs.false_negative)
    hits = np.concatenate([[0.0], np.cumsum(rows.values, dtype=np.float64)])
    scores = 2 * hits / np.maximum(np.arange(len(hits)) + hits[-1], 1e-12)
    return rows.threshold(int(np.where(rows.possible, scores, -1).argmax()))


class _Sorted:
    """The rows of one label, likeliest first, and all cuts: k = 0 predicts none of them, k = N all."""

    def __init__(self, values: Floats32, holds: npt.NDArray[np.bool_]) -> None:
        order = np.argsort(-values, kind="stable")
        self.values = values[order]
        self.hits = np.concatenate([[0], np.cumsum(holds[order])])  # (N + 1,)
        self.positives = int(self.hits[-1])
        # No threshold cuts between equal probabilities.
        self.possible = np.concatenate([[True], self.values[1:] < self.values[:-1], [True]])

    def f1(self) -> npt.NDArray[np.float64]:
        return np.asarray(2 * self.hits / (np.arange(len(self.hits)) + self.positives), dtype=np.float64)

    def cost(self, false_positive: float, false_negative: float) -> npt.NDArray[np.float64]:
        misses = self.positives - self.hits
        return np.asarray(false_positive * (np.arange(len(self.hits)) - self.hits) + false_negative * misses)

    def best(self, scores: npt.NDArray[np.float64], near: float) -> float:
        """The threshold with the highest score, of equal ones the nearest to `near`."""
        allowed = np.where(self.possible, scores, -np.inf)
        equal = np.flatnonzero(allowed >= allowed.max() - 1e-12)
        return min((self.threshold(int(k)) for k in equal), key=lambda threshold: abs(threshold - near))

    def threshold(self, k: int) -> float:
        """In the middle between the last row that is in and the first that is out; float32, as it is compared."""
        above = float(self.values[k - 1]) if k else 1.0
        below = float(self.values[k]) if k < len(self.values) else 0.0
        middle = np.float32((above + below) / 2)
        return float(middle if middle > np.float32(below) or k == len(self.values) else np.float32(above))
