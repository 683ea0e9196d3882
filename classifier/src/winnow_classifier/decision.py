"""decision.json: how a checkpoint's logits become calibrated probabilities, predicted labels, or an abstention.

It lies in the checkpoint's folder beside checkpoint.json and is no part of it: a refit replaces the file whole, and the
weights stay what they are. Shapes: N rows, C labels.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from torch import Tensor

from winnow_classifier.errors import CheckpointError
from winnow_classifier.files import DECISION, sync
from winnow_classifier.labels import MULTILABEL_THRESHOLD, LabelSchema, TaskDetail


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class Line(_Model):
    """A label's logit x becomes slope * x + intercept."""

    slope: float = Field(gt=0)
    intercept: float


class Calibration(_Model):
    method: Literal["Temperature", "Platt"]
    temperature: float | None = Field(None, gt=0)  # logits are divided by it before the softmax
    labels: dict[str, Line] | None = None  # Platt, by label


class Abstain(_Model):
    band: float | None = Field(None, ge=0, le=0.5)  # a probability nearer to a threshold than this abstains
    min_probability: float | None = Field(None, ge=0, le=1)  # the likeliest label's probability below this abstains


class FittedOn(_Model):
    rows: int
    dataset_digest: str | None = None


class Measured(_Model):
    """before: raw probabilities, decided at 0.5 or by the likeliest label. after: calibrated, decided by this file."""

    rows: Literal["Test", "Validation"]
    count: int
    before: dict[str, float | None]
    after: dict[str, float | None]
    abstained: float = 0.0  # part of the rows


class Decision(_Model):
    format_version: Literal[1] = 1
    labels: tuple[str, ...]
    task_detail: TaskDetail
    calibration: Calibration | None = None
    thresholds: dict[str, float] = Field(default_factory=dict)  # by label, for calibrated probabilities
    abstain: Abstain | None = None
    asked: dict[str, Any] | None = None  # spec.thresholds, as the job or the refit gave it
    unfitted: dict[str, str] = Field(default_factory=dict)  # label: why its threshold is not what was asked for
    fitted_on: FittedOn | None = None
    measured: Measured | None = None


def content(decision: Decision) -> bytes:
    """The file: the decision and the SHA-256 of all the rest of it."""
    found = decision.model_dump(mode="json", by_alias=True, exclude_none=True)
    return (json.dumps({**found, "digest": _digest(found)}, ensure_ascii=False, indent=2) + "\n").encode()


def parse(data: bytes, path: Path, schema: LabelSchema) -> tuple[Decision, str]:
    """The decision and its digest. Raises CheckpointError if it was changed by hand, or is of another checkpoint."""
    try:
        found = json.loads(data)
        if not isinstance(found, dict):
            raise TypeError("it holds no object")
        digest = found.pop("digest", None)
        decision = Decision.model_validate(found)
        true = _digest(found)
    except ValidationError as err:
        first = err.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path} is not a decision of format 1: {where}: {first['msg']}.") from err
    except (ValueError, TypeError, RecursionError) as err:
        raise CheckpointError(f"{path} is not a decision of format 1: {err}.") from err
    if digest != true:
        raise CheckpointError(f"{path} was changed: it does not have the digest that it names. Fit it again (refit).")
    if decision.labels != schema.labels or decision.task_detail is not schema.task_detail:
        raise CheckpointError(f"{path} is of another checkpoint: its labels are {', '.join(decision.labels[:10])}.")
    return decision, digest


def read(directory: Path, schema: LabelSchema) -> Decision | None:
    """The decision of a checkpoint's folder; None if it has none."""
    return read_digested(directory, schema)[0]


def read_digested(directory: Path, schema: LabelSchema) -> tuple[Decision | None, str | None]:
    """With its digest."""
    path = directory / DECISION
    try:
        return parse(path.read_bytes(), path, schema)
    except FileNotFoundError:
        return None, None


def replace_file(directory: Path, decision: Decision) -> Path:
    """Replace the file: at every moment the old one or the new one is there, whole. Of several at once the last one's
    stays."""
    path = directory / DECISION
    temporary = path.with_name(f".tmp-{path.name}-{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(content(decision))
        sync(temporary)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(directory)
    return path


def calibrated(logits: Tensor, calibration: Calibration | None, labels: tuple[str, ...]) -> Tensor:
    """(N, C) logits to (N, C) float32 logits."""
    logits = logits.float()
    if calibration is None:
        return logits
    if calibration.temperature is not None:
        return logits / calibration.temperature
    lines = calibration.labels or {}
    found = [lines.get(label, Line(slope=1, intercept=0)) for label in labels]
    slopes = torch.tensor([line.slope for line in found], dtype=torch.float32)
    return logits * slopes + torch.tensor([line.intercept for line in found], dtype=torch.float32)


def predicted_targets(
    probabilities: npt.ArrayLike, thresholds: Mapping[str, float], schema: LabelSchema
) -> npt.NDArray[np.int8]:
    """(N, C) probabilities to (N, C) zeros and ones.

    Several labels at once: each from its threshold on, or from 0.5 on without one. One label: a label with a threshold
    holds when it reaches it (of several, the one that is furthest above); if none does, the likeliest of the others.
    """
    # In float32, as probabilities leave the server: 0.7 in an answer reaches a threshold of 0.7.
    values = np.asarray(probabilities, dtype=np.float32).reshape(-1, len(schema.labels))
    limits = _limits(thresholds, schema).astype(np.float32)
    if schema.task_detail is TaskDetail.MULTILABEL:
        return (values >= np.where(np.isnan(limits), np.float32(MULTILABEL_THRESHOLD), limits)).astype(np.int8)
    given = ~np.isnan(limits)
    above = np.where(given, values - np.where(given, limits, 0), np.float32(-1))
    others = values if given.all() else np.where(given, np.float32(-1), values)
    chosen = np.where((above >= 0).any(axis=1), above.argmax(axis=1), others.argmax(axis=1))
    found = np.zeros(values.shape, dtype=np.int8)
    found[np.arange(len(values)), chosen] = 1
    return found


def abstains(
    probabilities: npt.ArrayLike, thresholds: Mapping[str, float], abstain: Abstain | None, schema: LabelSchema
) -> npt.NDArray[np.bool_]:
    """(N, C) probabilities to (N,): whether the classifier abstains, since its labels are too unsure.

    band: a label that is judged by itself, or a label with a threshold, is nearer to its threshold than that.
    min_probability: the likeliest label has less.
    """
    values = np.asarray(probabilities, dtype=np.float32).reshape(-1, len(schema.labels))
    unsure = np.zeros(len(values), dtype=np.bool_)
    if abstain is None:
        return unsure
    if abstain.min_probability is not None:
        unsure |= values.max(axis=1) < np.float32(abstain.min_probability)
    if abstain.band is not None:
        limits = _limits(thresholds, schema)
        if schema.task_detail is TaskDetail.MULTILABEL:
            limits = np.where(np.isnan(limits), MULTILABEL_THRESHOLD, limits)
        elif np.isnan(limits).all() and schema.task_detail is TaskDetail.BINARY:
            limits = np.array([np.nan, 0.5])
        # Only the edges are rounded to float32: of differences, 1 would be nearer to 0.8 than 0.2.
        low, high = (limits - abstain.band).astype(np.float32), (limits + abstain.band).astype(np.float32)
        unsure |= ((values > low) & (values < high)).any(axis=1)
    return unsure


@dataclass(frozen=True)
class DecidedSchema(LabelSchema):
    """The labels with a decision: probabilities are calibrated, predicted labels follow the thresholds."""

    decision: Decision

    def probabilities(self, logits: Tensor) -> Tensor:
        return LabelSchema.probabilities(self, calibrated(logits, self.decision.calibration, self.labels))

    def predicted(self, probabilities: Any) -> list[list[str]]:
        targets = self.predicted_targets(probabilities)
        return [[self.labels[column] for column in np.flatnonzero(row)] for row in targets]

    def predicted_targets(self, probabilities: Any) -> npt.NDArray[np.int8]:
        return predicted_targets(probabilities, self.decision.thresholds, self)

    def abstained(self, probabilities: Any) -> npt.NDArray[np.bool_]:
        return abstains(probabilities, self.decision.thresholds, self.decision.abstain, self)


def decided(schema: LabelSchema, decision: Decision | None) -> LabelSchema:
    return schema if decision is None else DecidedSchema(schema.task_detail, schema.labels, decision)


def _limits(thresholds: Mapping[str, float], schema: LabelSchema) -> npt.NDArray[np.float64]:
    return np.array([thresholds.get(label, np.nan) for label in schema.labels], dtype=np.float64)


def _digest(found: Mapping[str, Any]) -> str:
    text = json.dumps(found, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
