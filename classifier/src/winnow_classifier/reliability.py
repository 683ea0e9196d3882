"""How far probabilities can be believed: expected calibration error and Brier score. Shapes: N rows, C labels."""

import numpy as np
import numpy.typing as npt

from winnow_classifier.labels import LabelSchema, TaskDetail

BINS = 15  # as most papers since Guo et al. 2017, arXiv:1706.04599; of equal mass, so that none is nearly empty

Floats = npt.NDArray[np.float64]


def ece(probabilities: npt.ArrayLike, targets: npt.ArrayLike, schema: LabelSchema) -> float | None:
    """The mean distance between what is said and what is so, over bins of equally many rows.

    Where one label holds: of the likeliest label's probability and whether it holds. Where several may: the mean over the
    labels of each one's own. None without rows.
    """
    values, holds = _arrays(probabilities, targets, schema)
    if not len(values):
        return None
    if schema.task_detail is TaskDetail.MULTILABEL:
        return float(np.mean([_binned(values[:, c], holds[:, c]) for c in range(values.shape[1])]))
    top = values.argmax(axis=1)
    rows = np.arange(len(values))
    return _binned(values[rows, top], holds[rows, top])


def brier(probabilities: npt.ArrayLike, targets: npt.ArrayLike, schema: LabelSchema) -> float | None:
    """Binary: the mean of (p - y)² of the positive label. Multiclass: summed over the labels. Multilabel: their mean."""
    values, holds = _arrays(probabilities, targets, schema)
    if not len(values):
        return None
    squares = (values - holds) ** 2
    if schema.task_detail is TaskDetail.BINARY:
        return float(squares[:, 1].mean())
    return float(squares.sum(axis=1).mean() if schema.task_detail is TaskDetail.MULTICLASS else squares.mean())


def _binned(said: Floats, so: Floats) -> float:
    order = np.argsort(said, kind="stable")
    gaps = [
        len(rows) * abs(said[rows].mean() - so[rows].mean())
        for rows in np.array_split(order, min(BINS, len(order)))
        if len(rows)
    ]
    return float(sum(gaps) / len(said))


def _arrays(probabilities: npt.ArrayLike, targets: npt.ArrayLike, schema: LabelSchema) -> tuple[Floats, Floats]:
    shape = (-1, len(schema.labels))
    return np.asarray(probabilities, np.float64).reshape(shape), np.asarray(targets, np.float64).reshape(shape)
