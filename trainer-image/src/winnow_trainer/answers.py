"""What a checkpoint answered to the rows that it was measured on, decided as a server decides now: by its decision.json.

No model is loaded. metrics.json and predictions.jsonl stay as the training left them, also when the decision is fitted anew;
so probabilities come from the logits that are kept beside. Every file is held against its checkpoint's manifest, and that
against the digest that was asked for.

Letters: N rows, C labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson

from winnow_classifier import decision as decisions
from winnow_classifier import metrics
from winnow_classifier.checkpoint import Manifest, read_manifest
from winnow_classifier.errors import CheckpointError
from winnow_classifier.files import DECISION, MANIFEST, METRICS, PREDICTIONS
from winnow_classifier.labels import LabelSchema
from winnow_classifier.mirror import Mirror
from winnow_trainer import deciding
from winnow_trainer.deciding import LOGITS

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answers:
    schema: LabelSchema  # with the decision
    probabilities: Floats  # (N, C)
    targets: npt.NDArray[np.int8]  # (N, C)
    keys: list[bytes] = field(default_factory=list)  # of each test row: text and expected labels
    scores: Mapping[str, Floats] = field(
        default_factory=dict
    )  # (N,) by the user's metric functions, as the training ran them

    def of(self, rows: Sequence[int]) -> Answers:
        scores = {name: values[rows] for name, values in self.scores.items()}
        keys = [self.keys[row] for row in rows]
        return Answers(self.schema, self.probabilities[rows], self.targets[rows], keys, scores)

    def value(self, metric: str, rows: npt.NDArray[np.intp] | slice = slice(None)) -> float | None:
        """A built-in metric, or the mean of the rows' own scores."""
        if metric in self.scores:
            return float(self.scores[metric][rows].mean())
        return metrics.one(metric, self.probabilities[rows], self.targets[rows], self.schema)

    def same_as(self, other: Answers, metric: str) -> bool:
        """Whether both answered alike, so that no resample can tell them apart."""
        if metric in self.scores:
            return np.array_equal(self.scores[metric], other.scores[metric])
        mine, theirs = (one.schema.predicted_targets(one.probabilities) for one in (self, other))
        return np.array_equal(self.probabilities, other.probabilities) and np.array_equal(mine, theirs)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A checkpoint with what is known of it: on its test rows, or on its validation rows where it has no others."""

    manifest: Manifest
    measured_on: Literal["Test", "Validation"]
    report: Mapping[str, Any]  # these rows' part of metrics.json
    answers: Answers | None
    refitted: bool  # whether decision.json was fitted anew after metrics.json was written

    def function(self, metric: str) -> Mapping[str, Any]:
        """What metrics.json says of a metric function of the user's."""
        return next((one for one in self.report.get("functions", []) if one["name"] == metric), {})

    def higher_is_better(self, metric: str) -> bool | None:
        """None where nobody has said it."""
        if (known := metrics.HIGHER_IS_BETTER.get(metric)) is not None:
            return known
        if direction := self.function(metric).get("direction"):
            return bool(direction == "Maximize")
        return self.manifest.higher_is_better if self.manifest.primary_metric == metric else None


def read(folder: Path, digest: str | None, mirror: Mirror) -> Evaluated:
    """Raises CheckpointError for a checkpoint that is not there, or not as it was published."""
    mirror.fetch(folder / MANIFEST)
    manifest, _ = read_manifest(folder, digest, mirror.shown(folder))
    content = _file(folder, METRICS, manifest, mirror)
    report: Mapping[str, Any] = orjson.loads(content) if content else {}
    mirror.fetch(folder / DECISION)
    decision, decision_digest = decisions.read_digested(folder, manifest.schema_)
    schema = decisions.decided(manifest.schema_, decision)
    refitted = report.get("decisionDigest") != decision_digest
    kept: Mapping[str, deciding.Judged] = {}
    if LOGITS in manifest.files:
        mirror.fetch(folder / LOGITS)
        kept = deciding.load(folder / LOGITS, manifest.files[LOGITS].sha256)
    lines = _file(folder, PREDICTIONS, manifest, mirror)
    if lines:
        rows = _rows(lines.splitlines(), schema)
        return Evaluated(manifest, "Test", report, _decided(rows, kept["test"]) if "test" in kept else rows, refitted)
    part = report.get("validation", {})
    judged = kept.get("validation")
    answers = Answers(schema, _probabilities(judged, schema), judged.targets) if part and judged else None
    return Evaluated(manifest, "Validation", part, answers, refitted)


def _decided(rows: Answers, judged: deciding.Judged) -> Answers:
    if not np.array_equal(rows.targets, judged.targets):
        raise CheckpointError(f"{PREDICTIONS} and {LOGITS} of the checkpoint are of other rows")
    return Answers(rows.schema, _probabilities(judged, rows.schema), rows.targets, rows.keys, rows.scores)


def _probabilities(judged: deciding.Judged, schema: LabelSchema) -> Floats:
    found: Floats = schema.probabilities(judged.logits).double().numpy()
    return found


def _rows(lines: Iterable[bytes], schema: LabelSchema) -> Answers:
    keys, probabilities, targets, scores = [], [], [], []
    for line in lines:
        row = orjson.loads(line)
        expected = [int(row["expected"][label]) for label in schema.labels]
        keys.append(hashlib.sha256(orjson.dumps([row["input"], expected])).digest())
        probabilities.append([row["probabilities"][label] for label in schema.labels])
        targets.append(expected)
        scores.append(row.get("scores", {}))
    own = [name for name in scores[0] if name not in metrics.HIGHER_IS_BETTER] if scores else []
    return Answers(
        schema,
        np.asarray(probabilities, dtype=np.float64),
        np.asarray(targets, dtype=np.int8),
        keys,
        {name: np.asarray([row[name] for row in scores], dtype=np.float64) for name in own},
    )


def _file(folder: Path, name: str, manifest: Manifest, mirror: Mirror) -> bytes | None:
    """None where the checkpoint was published without it. Raises CheckpointError where it is gone or changed."""
    entry = manifest.files.get(name)
    if entry is None:
        return None
    mirror.fetch(folder / name)
    try:
        content = (folder / name).read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"Checkpoint {mirror.shown(folder)} has lost {name}") from None
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise CheckpointError(f"{mirror.shown(folder / name)} was changed since the checkpoint was published")
    return content
