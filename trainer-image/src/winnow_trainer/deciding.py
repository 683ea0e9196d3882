"""decision.json made: calibration, then thresholds on calibrated probabilities, both from validation rows; then measured,
on test rows if there are any. Letters: N rows, C labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from winnow_classifier import metrics
from winnow_classifier.decision import Abstain, DecidedSchema, Decision, FittedOn, Measured, decided
from winnow_classifier.errors import CheckpointError
from winnow_classifier.files import sha256_of_file
from winnow_classifier.labels import LabelSchema
from winnow_classifier.objectives import Thresholds
from winnow_trainer import calibrate, cutoffs

LOGITS = "logits.safetensors"  # of the evaluation, kept so that a decision can be fitted again without the model


@dataclass(frozen=True, slots=True)
class Judged:
    """What the model said of rows, and what is so."""

    logits: Tensor  # (N, C) float32
    targets: npt.NDArray[np.int8]  # (N, C)


def fit(
    validation: Judged,
    test: Judged | None,
    schema: LabelSchema,
    asked: Thresholds | None,
    dataset_digest: str | None = None,
    *,
    calibration: bool = True,
) -> Decision:
    """Nothing of the test rows enters but into `measured`."""
    line = calibrate.fit(validation.logits.numpy(), validation.targets, schema) if calibration else None
    plain = Decision(
        labels=schema.labels,
        task_detail=schema.task_detail,
        calibration=line,
        fitted_on=FittedOn(rows=len(validation.targets), dataset_digest=dataset_digest),
    )
    if asked is not None:
        probabilities = decided(schema, plain).probabilities(validation.logits).numpy()
        found = cutoffs.fit(probabilities, validation.targets, schema, asked)
        abstain = None
        if asked.abstain is not None:
            abstain = Abstain(band=asked.abstain.band, min_probability=asked.abstain.min_probability)
        elif found.min_probability is not None:
            abstain = Abstain(min_probability=found.min_probability)
        plain = plain.model_copy(
            update={
                "thresholds": found.thresholds,
                "abstain": abstain,
                "unfitted": found.unfitted,
                "asked": asked.model_dump(by_alias=True, exclude_none=True),
            }
        )
    measured = measure(test, "Test", plain, schema) if test else measure(validation, "Validation", plain, schema)
    return plain.model_copy(update={"measured": measured})


def measure(rows: Judged, which: Literal["Test", "Validation"], decision: Decision, schema: LabelSchema) -> Measured:
    with_it = DecidedSchema(schema.task_detail, schema.labels, decision)
    abstained = with_it.abstained(with_it.probabilities(rows.logits).numpy())
    return Measured(
        rows=which,
        count=len(rows.targets),
        before=figures(rows, schema),
        after=figures(rows, with_it),
        abstained=float(abstained.mean()) if len(abstained) else 0.0,
    )


def figures(rows: Judged, schema: LabelSchema) -> dict[str, float | None]:
    """The metrics of the task; among them ece, brier and log_loss, which tell of calibration."""
    probabilities = schema.probabilities(rows.logits).double().numpy()
    return metrics.evaluate(probabilities, rows.targets, schema)


def kept(validation: Judged | None, test: Judged | None) -> dict[str, bytes]:
    """logits.safetensors, by file name; nothing where nothing was measured."""
    tensors: dict[str, Tensor] = {}
    for name, rows in (("validation", validation), ("test", test)):
        if rows is not None:
            tensors[f"{name}.logits"] = rows.logits.contiguous()
            tensors[f"{name}.targets"] = torch.from_numpy(np.ascontiguousarray(rows.targets))
    return {LOGITS: save(tensors)} if tensors else {}


def load(path: Path, sha256: str) -> Mapping[str, Judged]:
    """`validation` and `test`, as far as they are there. Raises CheckpointError."""
    try:
        if (found := sha256_of_file(path)) != sha256:
            raise CheckpointError(f"{path} was changed: its SHA-256 is {found}, expected {sha256}.")
        tensors = load_file(path)
    except (OSError, SafetensorError) as err:
        raise CheckpointError(f"{path} cannot be read: {err}") from err
    return {
        name: Judged(tensors[f"{name}.logits"], tensors[f"{name}.targets"].numpy())
        for name in ("validation", "test")
        if f"{name}.logits" in tensors
    }
