"""The training loss over the steps, as at most a hundred means over equal spans of steps. Pure.

Sums are added up step by step, so that they are the same to the last bit however often a training stopped and went on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SPANS = 100

Sums = tuple[tuple[float, int], ...]  # of each span so far: losses of its rows, nats, and how many rows


def span(step: int, total_steps: int) -> int:
    """Of a step, counted from 1; spans are counted from 0."""
    return (step - 1) * min(SPANS, total_steps) // total_steps


def added(sums: Sums, step: int, total_steps: int, loss_sum: float, rows: int) -> Sums:
    found, place = list(sums), span(step, total_steps)
    found += [(0.0, 0)] * (place + 1 - len(found))
    found[place] = (found[place][0] + loss_sum, found[place][1] + rows)
    return tuple(found)


def told(sums: Sums, steps_done: int, total_steps: int, steps_per_epoch: int) -> dict[str, Any]:
    """The means as in curves.json, each at the last step of its span that was done. Spans without a known loss, from steps of
    an older version, are left out."""
    spans = min(SPANS, total_steps)
    ends = [min(-(-(place + 1) * total_steps // spans), steps_done) for place in range(len(sums))]
    points = [{"step": end, "trainLoss": losses / rows} for end, (losses, rows) in zip(ends, sums, strict=True) if rows]
    return {"stepsPerEpoch": steps_per_epoch, "points": points}


def read(given: Sequence[Sequence[float]]) -> Sums:
    """The sums in a resume point, where JSON has made lists of tuples."""
    return tuple((float(losses), int(rows)) for losses, rows in given)
