"""What a step minimises: cross entropy or focal loss, weighted by label, with smoothed targets where asked for.

Letters: B rows of a batch, N rows that train, C labels. Sources: Lin et al. 2017 (arXiv:1708.02002) for the focal loss,
Szegedy et al. 2016 (arXiv:1512.00567, section 7) for smoothing; torch's own functions wherever they have what is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from winnow_classifier.errors import ConfigError
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_trainer.job import ClassWeights, Parameters

DEFAULT_GAMMA = 2.0  # of the paper


@dataclass(frozen=True)
class Objective:
    """A call turns (B, C) logits and targets into (B,) losses in nats."""

    multilabel: bool
    weights: Tensor | None  # (C,): of the classes, mean 1 over the rows; or of the positives of each label
    gamma: float
    smoothing: float

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self._of_labels(logits, targets) if self.multilabel else self._of_class(logits, targets)

    def _of_class(self, logits: Tensor, targets: Tensor) -> Tensor:
        held = targets.argmax(dim=1)
        each = functional.cross_entropy(logits, held, self.weights, reduction="none", label_smoothing=self.smoothing)
        if not self.gamma:
            return each
        chance = logits.log_softmax(dim=1).gather(1, held[:, None])[:, 0].exp()
        return focus(1.0 - chance, self.gamma) * each

    def _of_labels(self, logits: Tensor, targets: Tensor) -> Tensor:
        smooth = targets * (1.0 - self.smoothing) + self.smoothing / 2
        each = functional.binary_cross_entropy_with_logits(logits, smooth, reduction="none", pos_weight=self.weights)
        if self.gamma:
            missed = torch.where(targets > 0.5, -logits, logits).sigmoid()  # one minus the chance of what is true
            each = focus(missed, self.gamma) * each
        return each.mean(dim=1)


def focus(missed: Tensor, gamma: float) -> Tensor:
    """Kept off zero, where the slope of a power below one is infinite and would make the gradient NaN."""
    return missed.clamp(min=1e-12) ** gamma


def objective(
    parameters: Parameters, schema: LabelSchema, targets: npt.NDArray[np.int8], device: torch.device | str = "cpu"
) -> Objective:
    """For the rows that train, `targets` (N, C), repeated rows counted again."""
    weights = label_weights(parameters.class_weights, schema, targets)
    return Objective(
        multilabel=schema.task_detail is TaskDetail.MULTILABEL,
        weights=None if weights is None else torch.from_numpy(weights).float().to(device),
        gamma=focal_gamma(parameters),
        smoothing=parameters.label_smoothing or 0.0,
    )


def focal_gamma(parameters: Parameters) -> float:
    loss = parameters.loss
    if loss is None or loss.type != "Focal":
        return 0.0
    return DEFAULT_GAMMA if loss.gamma is None else loss.gamma


def label_weights(
    wanted: ClassWeights | None, schema: LabelSchema, targets: npt.NDArray[np.int8]
) -> npt.NDArray[np.float64] | None:
    """(C,) float64, None for no weights. Balanced is scikit-learn's for classes, negatives / positives for labels."""
    if wanted is None or wanted.mode == "None":
        return None
    multilabel = schema.task_detail is TaskDetail.MULTILABEL
    positives = targets.sum(axis=0, dtype=np.int64)
    if wanted.mode == "Custom":
        given = wanted.weights or {}
        weights = np.array([given.get(label, 1.0) for label in schema.labels], dtype=np.float64)
    elif multilabel:
        negatives = len(targets) - positives
        both = (positives > 0) & (negatives > 0)  # a label that is always or never there has nothing to balance
        weights = np.where(both, negatives / np.maximum(positives, 1), 1.0)
    else:
        weights = len(targets) / (np.count_nonzero(positives) * np.maximum(positives, 1))
    # torch divides a batch's sum by its weights, which lets the same row count for more in one batch than in another.
    # Divided once, by the mean over all rows, it is the same in every batch, and the loss keeps its scale.
    return weights if multilabel else weights * len(targets) / float(weights @ positives)


def check_labels(parameters: Parameters, schema: LabelSchema, targets: npt.NDArray[np.int8]) -> None:
    """Raises ConfigError for a weight of a label that there is not, or that none of the rows that train has: `targets` (N, C)."""
    weights = (parameters.class_weights and parameters.class_weights.weights) or {}
    unknown = [label for label in weights if label not in schema.labels]
    if unknown:
        shown = ", ".join(schema.labels[:20]) + (", …" if len(schema.labels) > 20 else "")
        raise ConfigError(
            f"parameters.classWeights.weights: {', '.join(unknown)} is no label of the training rows. They have: {shown}."
        )
    held = dict(zip(schema.labels, np.any(targets, axis=0), strict=True))
    if missing := [label for label in weights if not held[label]]:
        raise ConfigError(
            f"parameters.classWeights.weights: none of the rows that train has the label {', '.join(missing)}, so its weight "
            "would do nothing; leave it out, or bring such rows."
        )
