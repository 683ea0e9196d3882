"""What curves.json holds and the pictures show: losses by epoch, precision and recall, ROC, reliability, histograms of scores.
Pure. Letters: N rows, C labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from winnow_classifier import metrics
from winnow_classifier.checkpoint import Manifest
from winnow_classifier.labels import LabelSchema, TaskDetail

POINTS = 200  # of a curve; fewer where there are many labels
ALL_POINTS = 20_000
FEWEST_POINTS = 20
SCORE_BINS = 20
DIGITS = 6

Floats = npt.NDArray[np.float64]
Ones = npt.NDArray[np.int8]


def losses(epochs: Sequence[Manifest]) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch.epoch,
            "trainLoss": epoch.train_loss,
            "testLogLoss": epoch.metrics.get("log_loss"),
            "validationLogLoss": epoch.validation_metrics.get("log_loss"),
        }
        for epoch in epochs
    ]


def curves(probabilities: Floats, targets: Ones, schema: LabelSchema) -> dict[str, Any]:
    """(N, C), (N, C)."""
    shown = [1] if schema.task_detail is TaskDetail.BINARY else list(range(len(schema.labels)))
    points = max(FEWEST_POINTS, min(POINTS, ALL_POINTS // len(shown)))
    return {
        "labels": [{"label": schema.labels[c], **_of_label(probabilities[:, c], targets[:, c], points)} for c in shown],
        "reliability": reliability(*metrics.confidences(probabilities, targets, schema)),
        "confidence": _confidence(probabilities, targets, schema),
    }


def _of_label(scores: Floats, targets: Ones, points: int) -> dict[str, Any]:
    """Each label against the rest; no curve where it has no rows, or nothing else has."""
    positives, rows = int(targets.sum()), len(targets)
    found: dict[str, Any] = {"rows": positives, "scores": _histogram(scores, targets == 1)}
    if not 0 < positives < rows:
        return found
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(targets[order], dtype=np.int64)
    ends = np.append(np.flatnonzero(np.diff(scores[order])), rows - 1)  # of rows that score the same
    tp, seen = hits[ends], ends + 1
    kept = np.unique(np.linspace(0, len(ends) - 1, points).round().astype(np.int64))
    tp, seen, thresholds = tp[kept], seen[kept], scores[order][ends][kept]
    return {
        **found,
        "thresholds": _rounded(thresholds),
        "precision": _rounded(tp / seen),
        "recall": _rounded(tp / positives),
        "falsePositiveRate": _rounded((seen - tp) / (rows - positives)),
        "averagePrecision": metrics.average_precision(targets, scores),
        "rocAuc": metrics.roc_auc(targets, scores),
    }


def reliability(confidence: Floats, right: Floats) -> list[dict[str, Any]]:
    """Bins of equal width: how sure the model was, and how often it was right. Empty ones are left out."""
    confidence, right = confidence.ravel(), right.ravel()
    bins = metrics.ece_bins(confidence)
    counts = np.bincount(bins, minlength=metrics.ECE_BINS)
    sure = np.bincount(bins, weights=confidence, minlength=metrics.ECE_BINS)
    true = np.bincount(bins, weights=right, minlength=metrics.ECE_BINS)
    return [
        {"answers": int(n), "confidence": round(float(sure[b] / n), DIGITS), "share": round(float(true[b] / n), DIGITS)}
        for b, n in enumerate(counts)
        if n
    ]


def _confidence(probabilities: Floats, targets: Ones, schema: LabelSchema) -> dict[str, list[int]]:
    """How sure the model was of answers that are right, and of those that are wrong; from 0 to 1 in bins of equal width."""
    predicted = schema.predicted_targets(probabilities)
    if schema.task_detail is TaskDetail.MULTILABEL:
        sure, right = np.maximum(probabilities, 1 - probabilities).ravel(), (predicted == targets).ravel()
    else:
        sure, right = probabilities.max(axis=1), (predicted == targets).all(axis=1)
    found = _histogram(sure, right)
    return {"right": found["with"], "wrong": found["without"]}


def _histogram(scores: Floats, chosen: npt.NDArray[np.bool_]) -> dict[str, list[int]]:
    bins = np.clip((scores * SCORE_BINS).astype(np.int64), 0, SCORE_BINS - 1)
    return {
        "with": np.bincount(bins[chosen], minlength=SCORE_BINS).tolist(),
        "without": np.bincount(bins[~chosen], minlength=SCORE_BINS).tolist(),
    }


def _rounded(values: Floats) -> list[float]:
    found: list[float] = np.round(values, DIGITS).tolist()
    return found
