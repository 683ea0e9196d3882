"""What a training came to, from its published checkpoints: the best one, the history, whether it stops early, the final word.

All of it follows from what was published, so a run that was started again says the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from winnow_classifier.checkpoint import Published, SelectedOn
from winnow_classifier.metrics import HIGHER_IS_BETTER
from winnow_classifier.words import count
from winnow_trainer.early_stopping import EarlyStopping, stops_after

DIGITS = 6  # of metrics and losses in status; metrics.json has them unrounded


def best(published: Sequence[Published], primary: str | None, selected_on: SelectedOn | None) -> Published | None:
    """By the primary metric on these rows, ties to the earlier epoch; the last one where they give no value."""
    if not published:
        return None
    scored = [(metrics_on(checkpoint, selected_on).get(primary or ""), checkpoint) for checkpoint in published]
    values = [(value, checkpoint) for value, checkpoint in scored if value is not None]
    if primary is None or not values:
        return published[-1]
    sign = 1 if higher_is_better(published, primary) else -1
    return max(values, key=lambda pair: (sign * pair[0], -pair[1].manifest.epoch))[1]


def higher_is_better(published: Sequence[Published], primary: str) -> bool | None:
    """Of a function of the user's the checkpoints say it; None while there are none."""
    known = HIGHER_IS_BETTER.get(primary)
    return published[-1].manifest.higher_is_better if known is None and published else known


def metrics_on(checkpoint: Published, rows: SelectedOn | None) -> Mapping[str, float | None]:
    return checkpoint.manifest.validation_metrics if rows == "Validation" else checkpoint.manifest.metrics


def history(published: Sequence[Published], primary: str | None, selected_on: SelectedOn | None) -> dict[str, Any]:
    """The fields that /progress and the termination message share."""
    chosen = best(published, primary, selected_on)
    return {
        "primaryMetric": primary,
        "higherIsBetter": higher_is_better(published, primary) if primary else None,
        "selectedOn": selected_on,
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
    validation = {name: rounded(value) for name, value in manifest.validation_metrics.items()}
    return {
        "epoch": manifest.epoch,
        "checkpoint": manifest.name,
        "trainLoss": rounded(manifest.train_loss),
        "metrics": {name: rounded(value) for name, value in manifest.metrics.items()},
        **({"validationMetrics": validation} if validation else {}),
    }


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def message(published: Sequence[Published], primary: str | None, selected_on: SelectedOn | None) -> str:
    """One sentence for people."""
    chosen = best(published, primary, selected_on)
    assert chosen is not None
    name = chosen.manifest.name
    if primary is None or selected_on is None:
        return f"{name} counts as the best, being the last: there are no test or validation rows"
    rows = f"{selected_on.lower()} rows"
    value = metrics_on(chosen, selected_on).get(primary)
    if value is None:
        return f"{name} counts as the best, being the last: {primary} is undefined on these {rows}"
    told = f"{name} is the best of {len(published)}: {primary} {value:.4f} on the {rows}"
    tested = chosen.manifest.metrics.get(primary) if selected_on == "Validation" else None
    return told if tested is None else f"{told}, {tested:.4f} on the test rows"


def stopped_early(
    published: Sequence[Published], wanted: EarlyStopping | None, primary: str | None, selected_on: SelectedOn | None
) -> int | None:
    """The epoch that is the last one because of spec.earlyStopping; None: the training goes on."""
    if wanted is None or primary is None:
        return None
    measured = [(one.manifest.epoch, metrics_on(one, selected_on).get(primary)) for one in published]
    return stops_after(measured, wanted, higher_is_better=bool(higher_is_better(published, primary)))


def ending(
    published: Sequence[Published],
    wanted: EarlyStopping | None,
    primary: str | None,
    selected_on: SelectedOn | None,
    planned_epochs: int,
) -> dict[str, str]:
    """reason and message of a run that is complete."""
    told = message(published, primary, selected_on)
    last = stopped_early(published, wanted, primary, selected_on)
    if wanted is None or last is None or last >= planned_epochs:
        return {"reason": "Trained", "message": told}
    rows = "validation rows" if selected_on == "Validation" else "test rows, since there are no validation rows,"
    told = (
        f"Stopped early after epoch {last} of {planned_epochs}: {primary} on the {rows} did not get better by more than "
        f"{wanted.min_delta:g} for {count(wanted.patience, 'epoch')}. {told}"
    )
    return {"reason": "StoppedEarly", "message": told}
