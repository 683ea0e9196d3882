"""Calibration fitted on validation logits: a temperature for a softmax, a line for each sigmoid (Platt).

Rows that were fitted to hardly say how often the model is wrong when it is sure: among some hundred that it tells apart without
an error the likeliest temperature is 0, and other rows then get a sure wrong answer. So one row more of each kind is counted as
wrong, as Platt has it, beside a weak belief that nothing has to change. Shapes: N rows, C labels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logsumexp

from winnow_classifier.decision import Calibration, Line
from winnow_classifier.labels import LabelSchema, TaskDetail

Floats = npt.NDArray[np.float64]

# Standard deviations of what is believed beforehand: log(temperature) and slope around no change, the intercept in logits.
# Some dozens of rows outweigh them.
LOG_TEMPERATURE_SD, SLOPE_SD, INTERCEPT_SD = 1.0, 1.0, 3.0
MIN_SLOPE = 0.01  # the order of probabilities never turns round


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
    """What divides the logits before the softmax. Source: Guo et al. 2017, arXiv:1706.04599, 4.2."""
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

    # By the curvature: without it L-BFGS-B ended halfway where logits are large, with probabilities off by 0.1 and more.
    slope, intercept = minimize(loss, usual, jac=gradient, hess=curvature, method="trust-exact").x
    if slope < MIN_SLOPE:
        slope, intercept = MIN_SLOPE, minimize_scalar(lambda other: loss(np.array([MIN_SLOPE, other]))).x
    return Line(slope=float(slope), intercept=float(intercept))
