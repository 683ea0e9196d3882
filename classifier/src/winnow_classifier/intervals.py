"""How far a metric may be off by chance: 95 % intervals by the bootstrap over rows. Pure, seeded, of bounded cost.

Letters: N rows, C labels, R resamples, M rows of one resample. W (R, M) says how often each row is in each resample; every
metric is then a product with W, or a sum along rows in order of their scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from winnow_classifier import metrics
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.metrics import ECE_BINS, Floats, LabelMetrics, Ones

Interval = tuple[float, float]

EVERYWHERE = (-math.inf, math.inf)
LEVEL = 0.95
RESAMPLES = 400
ROWS = 20_000  # of more rows a part is resampled, and the interval scaled to all of them: its width goes with 1/sqrt(N)
AT_A_TIME = 50  # resamples in memory
# Metrics of an order (areas under curves) cost a sort and several passes a label: fewer of them, of fewer rows.
RANKED_RESAMPLES = 200
RANKED_CELLS = 40_000  # rows times labels
FEWEST_ROWS = 500


@dataclass(frozen=True, slots=True)
class Intervals:
    metrics: Mapping[str, Interval]
    labels: Sequence[Mapping[str, Interval]]  # precision, recall and f1 of each label


def intervals(
    probabilities: Floats,
    targets: Ones,
    schema: LabelSchema,
    seed: int,
    whole: Mapping[str, float | None],
    labels: Sequence[LabelMetrics],
) -> Intervals:
    """Of every metric that is defined on these rows. (N, C), (N, C); `whole` and `labels` are what metrics.evaluate and
    metrics.per_label say of them."""
    rows = len(targets)
    if rows < 2:
        return Intervals({}, [{} for _ in schema.labels])
    random = np.random.default_rng(seed)
    part = _part(random, rows, ROWS)
    counted, of_labels = _counted(random, probabilities[part], targets[part], schema)
    values = {name: _interval(found, whole[name], len(part) / rows, _bounds(name)) for name, found in counted.items()}
    part = _part(random, rows, max(FEWEST_ROWS, RANKED_CELLS // len(schema.labels)))
    ranked = _ranked(random, probabilities[part], targets[part], schema)
    values |= {name: _interval(found, whole[name], len(part) / rows, _bounds(name)) for name, found in ranked.items()}
    each = [
        {
            name: interval
            for name, found in of_labels.items()
            if (interval := _interval(found[:, c], getattr(known, name), ROWS / rows, _bounds(name))) is not None
        }
        for c, known in enumerate(labels)
    ]
    return Intervals({name: found for name in whole if (found := values.get(name)) is not None}, each)


def _bounds(name: str) -> Interval:
    """Between which a metric lies."""
    return -1.0 if name == "mcc" else 0.0, math.inf if name in ("log_loss", "brier") else 1.0


def mean_interval(scores: Floats, seed: int) -> Interval | None:
    """Of the mean of a score of each row, (N,)."""
    rows = len(scores)
    if rows < 2:
        return None
    random = np.random.default_rng(seed)
    part = _part(random, rows, ROWS)
    drawn = scores[part].astype(np.float64)
    means = np.concatenate([w @ drawn for w in _weights(random, len(part), RESAMPLES)]) / len(part)
    return _interval(means, float(scores.mean()), len(part) / rows)


def _part(random: np.random.Generator, rows: int, most: int) -> npt.NDArray[np.int64]:
    return np.arange(rows) if rows <= most else np.sort(random.choice(rows, most, replace=False))


def _weights(random: np.random.Generator, rows: int, resamples: int) -> Iterator[npt.NDArray[np.float32]]:
    """W, some resamples at a time."""
    for start in range(0, resamples, AT_A_TIME):
        count = min(AT_A_TIME, resamples - start)
        drawn = random.integers(0, rows, size=(count, rows)) + (np.arange(count) * rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows).astype(np.float32)


def _counted(
    random: np.random.Generator, probabilities: Floats, targets: Ones, schema: LabelSchema
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """(R,) by metric and (R, C) by metric of a label: what follows from counts and means."""
    predicted = schema.predicted_targets(probabilities)
    means = metrics.row_scores(probabilities, targets, schema)
    single = schema.task_detail is not TaskDetail.MULTILABEL
    bins = np.empty((len(targets), 0), dtype=np.float32)
    if single:
        confidence, right = metrics.confidences(probabilities, targets, schema)
        bins = np.zeros((len(targets), ECE_BINS), dtype=np.float32)
        bins[np.arange(len(targets)), metrics.ece_bins(confidence)] = right - confidence
    counts = [part.astype(np.float32) for part in (targets & predicted, targets, predicted)]
    columns = np.concatenate([*counts, np.stack(list(means.values()), axis=1).astype(np.float32), bins], axis=1)
    # One product for all: the weights are read once.
    sums = np.concatenate([w @ columns for w in _weights(random, len(targets), RESAMPLES)]).astype(np.float64)
    labels = len(schema.labels)
    hits, there, found = (sums[:, n * labels : (n + 1) * labels] for n in range(3))
    rows = len(targets)
    values = {name: sums[:, 3 * labels + n] / rows for n, name in enumerate(means)}
    if single:
        values["ece"] = np.abs(sums[:, 3 * labels + len(means) :]).sum(axis=1) / rows
    of_labels = {
        "precision": _divided(hits, found),
        "recall": _divided(hits, there),
        "f1": _divided(2 * hits, there + found),
    }
    values |= _averages(hits, there, found, of_labels, single)
    values["mcc"] = _matthews(hits, there, found, rows, single)
    if schema.task_detail is TaskDetail.BINARY:
        positive = there[:, 1] > 0
        values |= {name: np.where(positive, np.nan_to_num(each[:, 1]), np.nan) for name, each in of_labels.items()}
    return values, of_labels


def _averages(
    hits: Floats, there: Floats, found: Floats, of_labels: Mapping[str, Floats], single: bool
) -> dict[str, Floats]:
    """Macro, micro and weighted, with scikit-learn's rules: see winnow_classifier.metrics."""
    counts = (there + found > 0) if single else np.ones_like(there, dtype=np.bool_)
    values = {}
    for name, each in of_labels.items():
        filled = np.nan_to_num(each)
        values[f"{name}_macro"] = (filled * counts).sum(axis=1) / np.maximum(counts.sum(axis=1), 1)
        values[f"{name}_weighted"] = np.nan_to_num(_divided((filled * there).sum(axis=1), there.sum(axis=1)))
    sums = hits.sum(axis=1), there.sum(axis=1), found.sum(axis=1)
    values["precision_micro"] = np.nan_to_num(_divided(sums[0], sums[2]))
    values["recall_micro"] = np.nan_to_num(_divided(sums[0], sums[1]))
    values["f1_micro"] = np.nan_to_num(_divided(2 * sums[0], sums[1] + sums[2]))
    return values


def _matthews(hits: Floats, there: Floats, found: Floats, rows: int, single: bool) -> Floats:
    if single:  # Gorodkin's R_K
        covariance = hits.sum(axis=1) * rows - (there * found).sum(axis=1)
        spread = (rows**2 - np.square(found).sum(axis=1)) * (rows**2 - np.square(there).sum(axis=1))
        return np.nan_to_num(_divided(covariance, np.sqrt(spread)))
    each = _divided(hits * rows - there * found, np.sqrt(there * (rows - there) * found * (rows - found)))
    return np.asarray(np.nan_to_num(each).mean(axis=1))


def _ranked(
    random: np.random.Generator, probabilities: Floats, targets: Ones, schema: LabelSchema
) -> dict[str, Floats]:
    """(R,) by metric: what follows from the order of the scores, or from each label's own bins."""
    binary, multilabel = schema.task_detail is TaskDetail.BINARY, schema.task_detail is TaskDetail.MULTILABEL
    columns = [1] if binary else list(range(len(schema.labels)))
    found: dict[str, list[Floats]] = {"roc_auc": [], "average_precision": [], **({"ece": []} if multilabel else {})}
    weights = np.concatenate(list(_weights(random, len(targets), RANKED_RESAMPLES)))
    for c in columns:
        areas = _areas(weights, targets[:, c], probabilities[:, c])
        for name, area in zip(("roc_auc", "average_precision"), areas, strict=True):
            found[name].append(area)
        if multilabel:
            bins = np.zeros((len(targets), ECE_BINS), dtype=np.float32)
            gaps = targets[:, c] - probabilities[:, c]
            bins[np.arange(len(targets)), metrics.ece_bins(probabilities[:, c])] = gaps
            found["ece"].append(np.abs((weights @ bins).astype(np.float64)).sum(axis=1) / len(targets))
    return {name: _mean_of_defined(np.stack(each, axis=1)) for name, each in found.items()}


def _areas(weights: npt.NDArray[np.float32], targets: Ones, scores: Floats) -> tuple[Floats, Floats]:
    """ROC AUC and average precision of each resample, NaN where it lacks the rows for it. W (R, M), (M,), (M,)."""
    order = np.argsort(-scores, kind="stable")
    drawn = weights[:, order]
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of rows that score the same
    hits = np.cumsum(drawn * targets[order].astype(np.float32), axis=1, dtype=np.float64)[:, ends]
    seen = np.cumsum(drawn, axis=1, dtype=np.float64)[:, ends]
    misses = seen - hits
    gained = np.diff(hits, axis=1, prepend=0.0)
    positives, negatives = hits[:, -1], misses[:, -1]
    # Trapezes: a positive beats the negatives that come later, and half of those that score the same.
    beaten = negatives[:, None] - misses + 0.5 * np.diff(misses, axis=1, prepend=0.0)
    auc = _divided((gained * beaten).sum(axis=1), positives * negatives)
    precision = np.nan_to_num(_divided(hits, seen))
    return auc, _divided((gained * precision).sum(axis=1), positives)


def _mean_of_defined(values: Floats) -> Floats:
    """Over the labels of each resample; NaN where it is defined for none. (R, C) to (R,)."""
    defined = np.isfinite(values)
    return _divided(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1).astype(np.float64))


def _interval(resampled: Floats, value: float | None, part: float, bounds: Interval = EVERYWHERE) -> Interval | None:
    """The central 95 % of the resampled values, shifted so that their median is the value, and narrowed where only a part of
    the rows was resampled. Resampling itself adds to some metrics: to sums of distances (ece), and to means over the labels that a
    resample has, where rare labels are often left out. How much it adds is told by the median."""
    defined = resampled[np.isfinite(resampled)]
    if value is None or len(defined) < len(resampled) / 2:
        return None
    low, median, high = np.quantile(defined, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    low, high = (value + (edge - median) * min(part, 1.0) ** 0.5 for edge in (low, high))
    return max(float(low), bounds[0]), min(float(high), bounds[1])


def _divided(a: Floats, b: Floats) -> Floats:
    """NaN where b is 0."""
    return np.asarray(np.divide(a, b, out=np.full(np.broadcast_shapes(a.shape, b.shape), np.nan), where=b > 0))
