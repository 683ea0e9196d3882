"""spec.earlyStopping of a TrainingJob: when further epochs are not worth their time. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from winnow_classifier.manifest import Manifest


class EarlyStopping(Manifest):
    patience: int = Field(ge=1, le=1_000)
    min_delta: float = Field(0.0, ge=0, le=1_000_000)


def stops_after(
    measured: Iterable[tuple[int, float | None]], wanted: EarlyStopping, *, higher_is_better: bool
) -> int | None:
    """The epoch that ends a run: the last of `patience` in a row that were not better than the best before them by more
    than min_delta. None: it goes on. `measured` are epochs in order with their primary metric; None tells nothing."""
    sign = 1 if higher_is_better else -1
    best: float | None = None
    waited = 0
    for epoch, value in measured:
        if value is None:
            continue
        if best is None or sign * (value - best) > wanted.min_delta:
            best, waited = value, 0
            continue
        waited += 1
        if waited >= wanted.patience:
            return epoch
    return None
