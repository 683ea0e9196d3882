"""Probabilities and targets as a middling classifier would give them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow_classifier.labels import LabelSchema, TaskDetail

Answers = tuple[LabelSchema, npt.NDArray[np.float64], npt.NDArray[np.int8]]


def rows_of(detail: TaskDetail, labels: int, rows: int = 200, seed: int = 0) -> Answers:
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
