"""Which labels are predicted where thresholds are set, by the Deployment or by a request. Pure.

Shapes: N texts, C labels.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from winnow_classifier.labels import MULTILABEL_THRESHOLD, LabelSchema, TaskDetail
from winnow_server.errors import Unprocessable

Thresholds = Mapping[str, float]  # by label; a label that is not named has none of its own

NONE: Thresholds = {}


def asked_for(wanted: float | Mapping[str, float] | None, standing: Thresholds, schema: LabelSchema) -> Thresholds:
    """What holds for a request: its own thresholds before the standing ones. Raises Unprocessable.

    One number means every label where each is judged by itself, and the positive label where there are two.
    """
    if wanted is None:
        return standing
    if isinstance(wanted, Mapping):
        unknown = [name for name in wanted if name not in schema.labels]
        if unknown:
            raise Unprocessable(
                f"thresholds: the checkpoint has no label {unknown[0]!r}; it has {in_words(schema.labels)}.",
                code="label_unknown",
                param="thresholds",
            )
        return {**standing, **wanted}
    if schema.task_detail is TaskDetail.MULTILABEL:
        return dict.fromkeys(schema.labels, wanted)
    if schema.task_detail is TaskDetail.BINARY:
        return {schema.labels[1]: wanted}
    raise Unprocessable(
        'thresholds: with one of several labels a number says too little; name the labels, as in {"urgent": 0.3}.',
        code="thresholds_need_labels",
        param="thresholds",
    )


def predicted(probabilities: NDArray[np.float32], thresholds: Thresholds, schema: LabelSchema) -> list[list[str]]:
    """(N, C) probabilities to the labels that hold for each text.

    Several labels at once: each from its threshold on, or from 0.5 on without one. One label: a label with a threshold
    holds when it reaches it (of several, the one that is furthest above); if none does, the likeliest of the others.
    """
    # In float32, as probabilities leave: 0.7 in an answer reaches a threshold of 0.7.
    limits = np.array([thresholds.get(label, np.nan) for label in schema.labels], dtype=np.float32)
    if schema.task_detail is TaskDetail.MULTILABEL:
        limits = np.where(np.isnan(limits), np.float32(MULTILABEL_THRESHOLD), limits)
        return [[schema.labels[i] for i in np.flatnonzero(row)] for row in probabilities >= limits]
    return [[schema.labels[_one(row, limits)]] for row in probabilities]


def _one(row: NDArray[np.float32], limits: NDArray[np.float32]) -> int:
    with_threshold = ~np.isnan(limits)
    above = np.where(with_threshold, row - limits, np.float32(-1))
    if (above >= 0).any():
        return int(above.argmax())
    if with_threshold.all():
        return int(row.argmax())
    return int(np.where(with_threshold, np.float32(-1), row).argmax())


def in_words(labels: tuple[str, ...], most: int = 10) -> str:
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more
