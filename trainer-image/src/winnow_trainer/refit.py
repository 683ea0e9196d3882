"""decision.json of a checkpoint fitted anew, from what the checkpoint answered to its validation rows. No model runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from winnow_classifier import decision as decisions
from winnow_classifier.checkpoint import MANIFEST, read_manifest
from winnow_classifier.decision import DECISION, Decision
from winnow_classifier.errors import CheckpointError, ConfigError
from winnow_classifier.manifest import describe
from winnow_classifier.mirror import VOLUME, Mirror
from winnow_trainer import deciding
from winnow_trainer.advice import about_band
from winnow_trainer.thresholds import Thresholds, check

SAME = "same"  # as the job or the last refit asked
SHOWN = ("ece", "brier", "log_loss", "accuracy", "f1", "f1_macro")


def asked_by(options: argparse.Namespace) -> Thresholds | str | None:
    """What the command line asks for. Raises ConfigError."""
    costs = {"falsePositive": options.false_positive_cost, "falseNegative": options.false_negative_cost}
    abstain = {"band": options.abstain_band, "minProbability": options.abstain_min_probability}
    given: dict[str, Any] = {
        "objective": options.objective,
        "value": options.value,
        "costs": _some(costs),
        "abstain": _some(abstain),
    }
    given = {name: value for name, value in given.items() if value is not None}
    if options.same and given:
        raise ConfigError("--same takes what the last fit was for, so it goes with none of the others")
    if options.same:
        return SAME
    if not given:
        return None
    try:
        return Thresholds.model_validate(given)
    except ValidationError as err:
        raise ConfigError(f"refit: {describe(err, Thresholds)}", hint="python -m winnow_trainer refit --help") from err


def _some(values: dict[str, float | None]) -> dict[str, float] | None:
    return {name: value for name, value in values.items() if value is not None} or None


def refit_checkpoint(
    folder: Path, asked: Thresholds | str | None, mirror: Mirror = VOLUME, *, calibration: bool = True
) -> Decision:
    """The decision as it is stored now. Raises CheckpointError where there is nothing to fit on, ConfigError for what is
    not defined for these labels."""
    for name in (MANIFEST, deciding.LOGITS, DECISION):
        mirror.fetch(folder / name)
    manifest, _ = read_manifest(folder, shown=mirror.shown(folder))
    if deciding.LOGITS not in manifest.files or manifest.validation_dataset is None:
        raise CheckpointError(
            f"{mirror.shown(folder)} has no answers to validation rows to fit on: its job had no validationDataset or "
            "validationSplit. Train with one."
        )
    schema = manifest.schema_
    if asked == SAME:
        before = decisions.read(folder, schema)
        asked = Thresholds.model_validate(before.asked) if before and before.asked else None
    assert not isinstance(asked, str)
    check(asked, schema.task_detail)
    rows = deciding.load(folder / deciding.LOGITS, manifest.files[deciding.LOGITS].sha256)
    found = deciding.fit(
        rows["validation"], rows.get("test"), schema, asked, manifest.validation_dataset.digest, calibration=calibration
    )
    mirror.store(decisions.replace_file(folder, found))
    return found


def words(decision: Decision) -> list[str]:
    """For people: what was fitted, and what it changed."""
    fitted = decision.fitted_on.rows if decision.fitted_on else 0
    lines = [f"fitted on {fitted:,} validation rows"]
    if decision.calibration and decision.calibration.temperature is not None:
        lines.append(f"temperature {decision.calibration.temperature:.4f}")
    lines += [f"threshold of {label}: {value:.4f}" for label, value in decision.thresholds.items()]
    lines += [f"{label}: {why}" for label, why in decision.unfitted.items()]
    lines += [warning.message for warning in about_band(decision)]
    if measured := decision.measured:
        changes = [
            f"{name} {before:.4f} to {after:.4f}"
            for name in SHOWN
            if (before := measured.before.get(name)) is not None and (after := measured.after.get(name)) is not None
        ]
        lines.append(f"on {measured.count:,} {measured.rows.lower()} rows: {', '.join(changes)}")
        if decision.abstain is not None:
            lines.append(f"abstains on {measured.abstained:.1%} of them")
    return lines
