"""Which rows make which optimizer step: a pure function of seed and epoch, so that a resumed run goes on exactly."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def steps_of_epoch(rows: int, batch_size: int, seed: int, epoch: int) -> list[Rows]:
    """All `rows` row numbers in a new order each epoch (from 1), cut into steps; the last may be smaller."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return np.split(order, range(batch_size, rows, batch_size))


def count_steps(rows: int, batch_size: int) -> int:
    return math.ceil(rows / batch_size)
