"""decision.json of a checkpoint fitted anew, from what the checkpoint answered to its validation rows. No model runs."""

from __future__ import annotations

import time
from pathlib import Path

from winnow_classifier import decision as decisions
from winnow_classifier.checkpoint import read_manifest
from winnow_classifier.dataset import remove_stale, storage_errors
from winnow_classifier.decision import Decision
from winnow_classifier.errors import CheckpointError
from winnow_classifier.files import DECISION, MANIFEST
from winnow_classifier.mirror import Mirror
from winnow_classifier.objectives import Thresholds, check
from winnow_classifier.refit_options import SAME
from winnow_trainer import deciding

SHOWN = ("ece", "brier", "log_loss", "accuracy", "f1", "f1_macro")


def refit_checkpoint(
    folder: Path, asked: Thresholds | str | None, mirror: Mirror, *, calibration: bool = True
) -> Decision:
    """The decision as it is stored now. Raises CheckpointError where there is nothing to fit on, ConfigError for what is
    not defined for these labels."""
    for name in (MANIFEST, deciding.LOGITS, DECISION):
        mirror.fetch(folder / name)
    manifest, _ = read_manifest(folder, shown=mirror.shown(folder))
    if deciding.LOGITS not in manifest.files or manifest.validation_dataset is None:
        raise CheckpointError(
            f"Checkpoint {manifest.name} of TrainingJob {manifest.training_job.name} has no answers to validation rows to "
            "fit on: the job had no validationDataset or validationSplit. Train with one."
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
    _store(folder, found, mirror)
    return found


def _store(folder: Path, decision: Decision, mirror: Mirror) -> None:
    """Whole or not at all. Retention may have removed the checkpoint meanwhile, and nothing of it is to come back."""
    gone = f"{mirror.shown(folder)} was removed while its decision was fitted"
    with storage_errors(folder):
        remove_stale(folder, time.time())
        try:
            path = decisions.replace_file(folder, decision)
        except FileNotFoundError as err:
            raise CheckpointError(gone) from err
    mirror.store(path)
    mirror.fetch(folder / MANIFEST)
    if not (folder / MANIFEST).is_file():
        mirror.remove(path)
        raise CheckpointError(gone)


def words(decision: Decision) -> list[str]:
    """For people: what was fitted, and what it changed."""
    fitted = decision.fitted_on.rows if decision.fitted_on else 0
    lines = [f"fitted on {fitted:,} validation rows"]
    if decision.calibration and decision.calibration.temperature is not None:
        lines.append(f"temperature {decision.calibration.temperature:.4f}")
    lines += [f"threshold of {label}: {value:.4f}" for label, value in decision.thresholds.items()]
    lines += [f"{label}: {why}" for label, why in decision.unfitted.items()]
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
