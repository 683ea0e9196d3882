"""Rows taken out of a dataset for another use, such as testing: stratified, and never two rows of one text apart.

Groups of rows with one text are walked along in the order of their labels, the rarest label first, and at random among
equals; whenever the part that was taken falls behind the part that was asked for, the next group is taken. So each label,
and where there are enough rows each combination of labels, keeps its share within a group of rows (systematic sampling
over implicit strata: Cochran, Sampling Techniques, 1977, chapter 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from winnow_classifier.dataset import Targets
from winnow_classifier.errors import DataError

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    rest: Rows  # row numbers, ascending
    taken: Rows


def split(texts: Sequence[str], targets: Targets, percent: float, seed: int) -> Split:
    """`targets` (N, C). The same rows, percent and seed give the same split.

    A label's last text is never taken: what is tested must have been learned. Raises DataError if nothing can be taken.
    """
    numbers: dict[str, int] = {}
    group = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int64, len(texts))
    sizes = np.bincount(group)
    holds = np.zeros((len(sizes), targets.shape[1]), dtype=bool)
    rows, columns = np.nonzero(targets)
    holds[group[rows], columns] = True
    by_rarity = np.argsort(holds.sum(axis=0), kind="stable")
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    keys = np.packbits(holds[shuffled][:, by_rarity], axis=1)
    ordered = shuffled[np.lexsort(keys.T[::-1])[::-1]]

    left = holds.sum(axis=0)  # texts of each label that are not taken
    share = percent / 100
    is_taken = np.zeros(len(sizes), dtype=bool)
    met = taken = 0
    for number in ordered.tolist():
        size = int(sizes[number])
        met += size
        if taken + size / 2 > share * met:
            continue
        own = np.flatnonzero(holds[number])
        if (left[own] <= 1).any():
            continue
        left[own] -= 1
        is_taken[number] = True
        taken += size
    if not taken:
        raise DataError(
            f"{percent:g} % of {len(texts):,} rows ({len(sizes):,} different texts) leaves no row to be taken",
            hint="bring more rows, or take a larger part",
        )
    chosen = is_taken[group]
    return Split(np.flatnonzero(~chosen), np.flatnonzero(chosen))
