"""Which of the training rows train, and how often: a part of them (downsamplePercent), or so many of each label (rebalance).

A pure function of the rows and the seed, so that a resumed run meets the same rows. Rows taken for testing are gone before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from winnow_classifier.dataset import Targets
from winnow_classifier.errors import ConfigError, DataError
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.split import split
from winnow_trainer.data import Data, subset
from winnow_trainer.job import Rebalance
from winnow_trainer.steps import Rows


def sample(data: Data, percent: float | None, rebalance: Rebalance | None, seed: int) -> tuple[Data, Rows]:
    """The data with only those training rows that train; and the row numbers to train on, which may repeat."""
    train = data.train
    numbers = np.arange(len(train.texts), dtype=np.int64)
    if percent is not None and percent < 100:
        numbers = part(train.texts, train.targets, percent, seed)
    if rebalance is not None:
        wanted = wanted_rows(rebalance, train.schema, train.targets[numbers].sum(axis=0, dtype=np.int64))
        numbers = numbers[balanced(train.targets[numbers], wanted, seed)]
    used, rows = np.unique(numbers, return_inverse=True)
    if len(used) < len(train.texts):
        data = replace(data, train=subset(train, used))
    return data, rows.astype(np.int64)


def part(texts: list[str], targets: Targets, percent: float, seed: int) -> Rows:
    """Row numbers, ascending, taken as a test split takes them: stratified, equal texts together, no label without its last
    text."""
    try:
        return split(texts, targets, 100 - percent, seed).rest
    except DataError:  # there is no row that could be left out
        return np.arange(len(texts), dtype=np.int64)


def wanted_rows(rebalance: Rebalance, schema: LabelSchema, there: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(C,) how many rows of each label train, where `there` (C,) are given. Raises ConfigError."""
    if schema.task_detail is TaskDetail.MULTILABEL:
        raise ConfigError(
            "rebalance needs rows with one label each, and these are Multilabel: a row that is repeated for one label "
            "brings its others along. Use parameters.classWeights instead."
        )
    named: Mapping[str, float] = rebalance.counts or rebalance.ratios or {}
    unknown = [label for label in named if label not in schema.labels]
    if unknown:
        shown = ", ".join(schema.labels[:20]) + (", …" if len(schema.labels) > 20 else "")
        raise ConfigError(f"rebalance: {', '.join(unknown)} is no label of the training rows. They have: {shown}.")
    places = np.array([schema.labels.index(label) for label in named])
    if missing := [label for label, place in zip(named, places, strict=True) if not there[place]]:
        raise ConfigError(f"rebalance: there are no rows of {', '.join(missing)} that could be repeated.")
    wanted = there.copy()
    wanted[places] = list(rebalance.counts.values()) if rebalance.counts else shares(named, int(there[places].sum()))
    return wanted


def shares(ratios: Mapping[str, float], rows: int) -> npt.NDArray[np.int64]:
    """`rows` cut in these ratios, by largest remainders; at least one each."""
    parts = np.array(list(ratios.values())) / sum(ratios.values()) * rows
    whole = np.floor(parts).astype(np.int64)
    rest = np.argsort(whole - parts, kind="stable")[: rows - int(whole.sum())]
    whole[rest] += 1
    return np.maximum(whole, 1)


def balanced(targets: Targets, wanted: npt.NDArray[np.int64], seed: int) -> Rows:
    """Row numbers, ascending, `wanted` (C,) of each label: all of them as often as they fit, then some at random."""
    held = targets.argmax(axis=1)
    chosen = []
    for label, count in enumerate(wanted.tolist()):
        own = np.flatnonzero(held == label)
        if not len(own):
            continue
        times, some = divmod(count, len(own))
        drawn = np.random.default_rng([seed, label]).permutation(own)[:some]
        chosen += [np.tile(own, times), drawn]
    return np.sort(np.concatenate(chosen))
