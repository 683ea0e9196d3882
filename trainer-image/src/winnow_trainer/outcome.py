"""What a training came to, from its published checkpoints: the best one, the history, the final word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from winnow_classifier.checkpoint import Published
from winnow_classifier.metrics import HIGHER_IS_BETTER

DIGITS = 6  # of metrics and losses in status; metrics.json has them unrounded


def best(published: Sequence[Published], primary: str | None) -> Published | None:
    """By the primary metric, ties to the earlier epoch; the last one where no test rows give a value."""
    if not published:
        return None
    scored = [(checkpoint.manifest.metrics.get(primary or ""), checkpoint) for checkpoint in published]
    values = [(value, checkpoint) for value, checkpoint in scored if value is not None]
    if primary is None or not values:
        return published[-1]
    sign = 1 if HIGHER_IS_BETTER[primary] else -1
    return max(values, key=lambda pair: (sign * pair[0], -pair[1].manifest.epoch))[1]


def history(published: Sequence[Published], primary: str | None) -> dict[str, Any]:
    """The fields that /progress and the termination message share."""
    chosen = best(published, primary)
    return {
        "primaryMetric": primary,
        "higherIsBetter": HIGHER_IS_BETTER[primary] if primary else None,
        "bestCheckpoint": chosen.manifest.name if chosen else None,
        "epochs": [epoch(checkpoint) for checkpoint in published],
        "checkpoints": [
            {
                "name": checkpoint.manifest.name,
                "epoch": checkpoint.manifest.epoch,
                "digest": checkpoint.digest,
                "sizeBytes": checkpoint.size_bytes,
            }
            for checkpoint in published
        ],
    }


def epoch(checkpoint: Published) -> dict[str, Any]:
    manifest = checkpoint.manifest
    return {
        "epoch": manifest.epoch,
        "checkpoint": manifest.name,
        "trainLoss": rounded(manifest.train_loss),
        "metrics": {name: rounded(value) for name, value in manifest.metrics.items()},
    }


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def message(published: Sequence[Published], primary: str | None, overlap: int, dropped: bool = False) -> str:
    """One sentence for people."""
    chosen = best(published, primary)
    assert chosen is not None
    value = chosen.manifest.metrics.get(primary or "")
    if primary is None:
        words = f"{chosen.manifest.name} counts as the best, being the last: there is no test dataset"
    elif value is None:
        words = f"{chosen.manifest.name} counts as the best, being the last: {primary} is undefined on these test rows"
    else:
        words = f"{chosen.manifest.name} is the best of {len(published)}: {primary} {value:.4f}"
    if not overlap:
        return words
    shared = f"{overlap} test rows also stand in the training rows"
    return f"{words}; {shared}" + (" and were left out" if dropped else " (onOverlap: Drop leaves them out)")
