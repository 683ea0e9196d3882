"""Calibration fitted on validation logits: a temperature for a softmax, a line for each sigmoid (Platt).

Where the model makes no error on the validation rows, as it often does on some hundred, the best fit is a temperature of 0: every
probability becomes 0 or 1, and so do those of wrong answers to new rows. Two things keep the fit from that (ADR 68). The targets
are smoothed as in Platt's paper, as if one row more had been answered wrongly. And a weak prior pulls towards no change.
Shapes: N rows, C labels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logsumexp

from winnow_classifier.decision import Calibration, Line
from winnow_classifier.labels import LabelSchema, TaskDetail

Floats = npt.NDArray[np.float64]

# Standard deviations of the prior, a Gaussian around no change: temperature 1, slope 1, intercept 0 (in logits). A few dozen rows
# outweigh it.
LOG_TEMPERATURE_SD, SLOPE_SD, INTERCEPT_SD = 1.0, 1.0, 3.0
MIN_SLOPE = 0.01  # above 0: calibration never reverses the order of probabilities


def fit(logits: npt.ArrayLike, targets: npt.ArrayLike, schema: LabelSchema) -> Calibration | None:
    """logits (N, C), targets (N, C) zeros and ones; None without rows."""
    values, holds = np.asarray(logits, np.float64), np.asarray(targets, np.float64)
    if not len(values):
        return None
    if schema.task_detail is not TaskDetail.MULTILABEL:
        return Calibration(method="Temperature", temperature=temperature(values, holds))
    lines = {label: line(values[:, c], holds[:, c]) for c, label in enumerate(schema.labels)}
    return Calibration(method="Platt", labels=lines)


def temperature(logits: Floats, targets: Floats) -> float:
    """What the logits are divided by before the softmax. Source: Guo et al. 2017, arXiv:1706.04599, 4.2."""
    rows, labels = targets.shape
    wrong = 1 / (rows + 2)
    believed = targets * (1 - wrong) + (1 - targets) * wrong / max(labels - 1, 1)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        nats = (logsumexp(scaled, axis=1) - (scaled * believed).sum(axis=1)).sum()
        return float(nats + (log_temperature / LOG_TEMPERATURE_SD) ** 2 / 2)

    found = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def line(logits: Floats, targets: Floats) -> Line:
    """Slope and intercept of one label's logit before its sigmoid. Source: Platt 1999; logits (N,), targets (N,)."""
    holds = targets.sum()
    believed = np.where(targets > 0, (holds + 1) / (holds + 2), 1 / (len(targets) - holds + 2))
    inputs = np.stack([logits, np.ones_like(logits)])
    usual, precision = np.array([1.0, 0.0]), np.array([SLOPE_SD, INTERCEPT_SD]) ** -2

    def loss(at: Floats) -> float:
        z = at @ inputs
        return float((np.logaddexp(0, z) - believed * z).sum() + precision @ (at - usual) ** 2 / 2)

    def gradient(at: Floats) -> Floats:
        return np.asarray(inputs @ (expit(at @ inputs) - believed) + precision * (at - usual))

    def curvature(at: Floats) -> Floats:
        z = at @ inputs
        return np.asarray(inputs * (expit(z) * expit(-z)) @ inputs.T + np.diag(precision))

    # A method that uses the curvature: L-BFGS-B, which does not, stopped early where logits are large, and probabilities were off
    # by 0.1 and more.
    slope, intercept = minimize(loss, usual, jac=gradient, hess=curvature, method="trust-exact").x
    if slope < MIN_SLOPE:
        slope, intercept = MIN_SLOPE, minimize_scalar(lambda other: loss(np.array([MIN_SLOPE, other]))).x
    return Line(slope=float(slope), intercept=float(intercept))
