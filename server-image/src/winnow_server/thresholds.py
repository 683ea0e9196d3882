"""Which labels are predicted: by the checkpoint's decision.json, the Deployment's thresholds, the request's. Pure.

Shapes: N texts, C labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from winnow_classifier.decision import Abstain, Calibration, abstains, predicted_targets
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.words import some
from winnow_server.errors import Unprocessable

Thresholds = Mapping[str, float]  # by label; a label that is not named has none of its own

NONE: Thresholds = {}
NAMED_LABELS = 10  # in a message


@dataclass(frozen=True, slots=True)
class Rules:
    """How logits become an answer. One value for a whole request: a file that changes meanwhile is for the next."""

    calibration: Calibration | None = None
    thresholds: Thresholds = field(default_factory=dict)
    abstain: Abstain | None = None


NO_RULES = Rules()


def asked_for(wanted: float | Mapping[str, float] | None, standing: Rules, schema: LabelSchema) -> Rules:
    """What holds for a request: its own thresholds before the standing ones. Raises Unprocessable.

    One number means every label where each is judged by itself, and the positive label of a Binary model.
    """
    if wanted is None:
        return standing
    if isinstance(wanted, Mapping):
        unknown = [name for name in wanted if name not in schema.labels]
        if unknown:
            raise Unprocessable(
                f"thresholds: the checkpoint has no label {unknown[0]!r}; it has {some(schema.labels, NAMED_LABELS)}.",
                code="label_unknown",
                param="thresholds",
            )
        return replace(standing, thresholds={**standing.thresholds, **wanted})
    if schema.task_detail is TaskDetail.MULTILABEL:
        return replace(standing, thresholds=dict.fromkeys(schema.labels, wanted))
    if schema.task_detail is TaskDetail.BINARY:
        return replace(standing, thresholds={**standing.thresholds, schema.labels[1]: wanted})
    raise Unprocessable(
        'thresholds: with one of several labels a number says too little; name the labels, as in {"urgent": 0.3}.',
        code="thresholds_need_labels",
        param="thresholds",
    )


def predicted(probabilities: NDArray[np.float32], thresholds: Thresholds, schema: LabelSchema) -> list[list[str]]:
    """(N, C) probabilities to the labels that hold for each text."""
    found = predicted_targets(probabilities, thresholds, schema)
    return [[schema.labels[i] for i in np.flatnonzero(row)] for row in found]


def abstained(probabilities: NDArray[np.float32], rules: Rules, schema: LabelSchema) -> list[bool]:
    return [bool(one) for one in abstains(probabilities, rules.thresholds, rules.abstain, schema)]
