"""errors.jsonl: what the model got wrong, surest first, and rows whose expected label is probably wrong. Pure.

Likely mislabelled rows are those of confident learning (Northcutt et al. 2021, arXiv:1911.00068): another label is at least
as probable as it is on average where it is expected. Letters: N rows, C labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from winnow_classifier.labels import LabelSchema, TaskDetail

MOST = 1_000  # of a dataset's rows, surest first

Floats = npt.NDArray[np.float64]
Ones = npt.NDArray[np.int8]
Mistake = dict[str, Any]


def mistakes(
    rows: str, texts: Sequence[str], probabilities: Floats, targets: Ones, schema: LabelSchema
) -> list[Mistake]:
    """`rows` says which they are: test or validation. (N, C), (N, C)."""
    predicted = schema.predicted_targets(probabilities)
    wrong = np.asarray((predicted != targets).any(axis=1))
    # How far the answer is on the wrong side: for one label that holds the likeliest against the expected one, for
    # Multilabel the worst of the labels.
    if schema.task_detail is TaskDetail.MULTILABEL:
        sure = np.abs(probabilities - targets).max(axis=1)
        suspect = np.asarray(_suspects_of_each_label(probabilities, targets).any(axis=1))
    else:
        sure = probabilities.max(axis=1) - (probabilities * targets).sum(axis=1)
        suspect = _suspects(probabilities, targets)
    listed = np.flatnonzero(wrong | suspect)
    chosen = listed[np.argsort(-sure[listed], kind="stable")][:MOST]
    names = schema.labels
    return [
        {
            "rows": rows,
            "row": int(row) + 1,
            "input": texts[row],
            "expected": [names[c] for c in np.flatnonzero(targets[row])],
            "predicted": [names[c] for c in np.flatnonzero(predicted[row])],
            "probabilities": {
                names[c]: float(probabilities[row, c]) for c in _told(probabilities[row], targets[row], predicted[row])
            },
            "margin": float(sure[row]),
            "wrong": bool(wrong[row]),
            "likelyMislabelled": bool(suspect[row]),
        }
        for row in chosen
    ]


def lines(found: Iterable[Mistake]) -> bytes:
    return b"".join(orjson.dumps(each, option=orjson.OPT_APPEND_NEWLINE) for each in found)


def _suspects(probabilities: Floats, targets: Ones) -> npt.NDArray[np.bool_]:
    """(N,): some other label is as probable as it is, on average, in the rows that are expected to have it."""
    rows = targets.sum(axis=0)
    usual = np.where(rows > 0, (probabilities * targets).sum(axis=0) / np.maximum(rows, 1), np.inf)
    confident = probabilities >= usual
    likeliest = np.where(confident, probabilities, -1.0).argmax(axis=1)
    # And more probable than the expected one: of labels that the model never believes in, every row would be suspect.
    more = probabilities.max(axis=1) > (probabilities * targets).sum(axis=1)
    return np.asarray(confident.any(axis=1) & more & (targets[np.arange(len(targets)), likeliest] == 0))


def _suspects_of_each_label(probabilities: Floats, targets: Ones) -> npt.NDArray[np.bool_]:
    """(N, C): each label against its absence."""
    both = np.stack([1 - probabilities, probabilities], axis=2)
    return np.stack(
        [_suspects(both[:, c], np.stack([1 - targets[:, c], targets[:, c]], axis=1)) for c in range(targets.shape[1])],
        axis=1,
    )


def _told(probabilities: Floats, targets: Ones, predicted: Ones) -> list[int]:
    """The labels that matter: expected, predicted, and the likeliest three."""
    likeliest = np.argsort(-probabilities, kind="stable")[:3]
    matter = {*np.flatnonzero(targets).tolist(), *np.flatnonzero(predicted).tolist(), *likeliest.tolist()}
    return sorted(matter, key=lambda c: (-probabilities[c], c))
