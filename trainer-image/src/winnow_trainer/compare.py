"""A checkpoint's numbers for a gate, and how sure it is that it is not worse than another one on the same rows.

Nothing is run again: metrics.json and predictions.jsonl of both have all that is needed, so no model is loaded. Every file is held against its checkpoint's manifest,
and that against the digest that was asked for.

Letters: N rows, C labels.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from winnow_classifier import metrics
from winnow_classifier.checkpoint import MANIFEST, Manifest, digest_of
from winnow_classifier.errors import CheckpointError, ConfigError
from winnow_classifier.labels import LabelSchema
from winnow_classifier.mirror import VOLUME, Mirror

METRICS, PREDICTIONS = "metrics.json", "predictions.jsonl"
OF_A_LABEL = ("precision", "recall", "f1")
RESAMPLES = 1_000  # the 5th percentile of so many is off by less than a tenth of its standard error in most runs
CONFIDENCE = 0.95
# Of a part of the rows that is too small, nothing follows for the whole.
SHARED = 0.5
SEED = 0
VALUE = re.compile(r"(?P<metric>[A-Za-z_][A-Za-z0-9_]*)(\[(?P<label>.+)\])?", re.DOTALL)
WORDS = 160  # sixteen of them have to fit in a termination message


@dataclass(frozen=True, slots=True)
class Value:
    """A metric, over all labels or of one, that somebody wants to know."""

    metric: str
    label: str | None = None

    @staticmethod
    def of(text: str) -> Value:
        """`f1_macro` or `recall[spam]`. Raises ConfigError for anything else."""
        found = VALUE.fullmatch(text)
        if found is None:
            raise ConfigError(f"--value: {text!r} is no metric", hint="as f1_macro, or recall[spam] for one label")
        return Value(found["metric"], found["label"])

    def __str__(self) -> str:
        return self.metric if self.label is None else f"{self.metric} of {self.label}"


@dataclass(frozen=True, slots=True)
class Answers:
    """predictions.jsonl: what a checkpoint answered to its test rows."""

    keys: list[bytes]  # of each row: text and expected labels
    probabilities: npt.NDArray[np.float64]  # (N, C)
    targets: npt.NDArray[np.int8]  # (N, C)

    def of(self, rows: Sequence[int]) -> Answers:
        return Answers([self.keys[row] for row in rows], self.probabilities[rows], self.targets[rows])


@dataclass(frozen=True, slots=True)
class Measured:
    """A number, or why there is none."""

    value: float | None = None
    message: str = ""

    def told(self) -> dict[str, Any]:
        return {"value": self.value} if self.value is not None else {"message": _short(self.message)}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The lead is by how much the candidate is better, whichever way the metric goes."""

    metric: str
    rows: int = 0
    candidate_rows: int = 0
    candidate: float | None = None
    live: float | None = None
    lead: float | None = None
    lead_at_least: float | None = None  # with 95 % confidence
    message: str = ""  # why they cannot be compared

    def told(self) -> dict[str, Any]:
        if self.message:
            return {"metric": self.metric, "message": self.message}
        return {
            "metric": self.metric,
            "rows": self.rows,
            "candidateRows": self.candidate_rows,
            "candidate": self.candidate,
            "live": self.live,
            "lead": self.lead,
            "leadAtLeast": self.lead_at_least,
        }


@dataclass
class Result:
    wanted: list[Value]
    rows: int | None = None
    measured_on: str | None = None
    values: list[Measured] = field(default_factory=list)
    comparison: Comparison | None = None

    def message(self) -> dict[str, Any]:
        """For programs: the values in the order in which they were asked for."""
        return {
            "kind": "compare",
            "state": "Done",
            "rows": self.rows,
            "measuredOn": self.measured_on,
            "values": [measured.told() for measured in self.values],
            **({"comparison": self.comparison.told()} if self.comparison else {}),
        }

    def lines(self) -> list[str]:
        """For people."""
        found = [
            f"{wanted}  {measured.value:.6g}" if measured.value is not None else f"{wanted}  {measured.message}"
            for wanted, measured in zip(self.wanted, self.values, strict=True)
        ]
        pair = self.comparison
        if pair and pair.message:
            found.append(f"no comparison: {pair.message}")
        elif pair:
            found.append(
                f"{pair.metric} on {pair.rows} of {pair.candidate_rows} test rows  {pair.candidate:.6g}, the other {pair.live:.6g};"
                f" lead {pair.lead:+.4g}, with 95 % confidence at least {pair.lead_at_least:+.4g}"
            )
        return found


def compare(
    candidate: Path,
    candidate_digest: str | None,
    wanted: Sequence[Value],
    live: Path | None = None,
    live_digest: str | None = None,
    metric: str | None = None,
    mirror: Mirror = VOLUME,
) -> Result:
    """Raises CheckpointError for a checkpoint that is not there, or not as it was published."""
    manifest = _manifest(candidate, candidate_digest, mirror)
    report = _report(candidate, manifest, mirror)
    answers = _answers(candidate, manifest, mirror)
    part = report if answers is not None else report.get("validation", {})
    result = Result(list(wanted), part.get("rows"), "Test" if answers is not None else "Validation")
    result.values = [_measured(value, part, answers, manifest) for value in wanted]
    if live is not None:
        chosen = metric or manifest.primary_metric or metrics.default_primary(manifest.task_detail)
        result.comparison = _beside(manifest, answers, live, live_digest, chosen, mirror)
    return result


def _measured(wanted: Value, report: Mapping[str, Any], answers: Answers | None, manifest: Manifest) -> Measured:
    if not report:
        return Measured(message="the training had neither test nor validation rows")
    if wanted.label is not None:
        return _of_label(wanted, report)
    values: Mapping[str, float | None] = report.get("metrics", {})
    if values.get(wanted.metric) is not None:
        return Measured(values[wanted.metric])
    if wanted.metric in values:
        why = report.get("undefined", {}).get(wanted.metric)
        return Measured(message=why or "it is not defined on these rows")
    if wanted.metric in metrics.names(manifest.task_detail):
        if answers is None:
            return Measured(message="spec.metrics.functions of the training did not ask for it")
        value = metrics.one(wanted.metric, answers.probabilities, answers.targets, manifest.schema_)
        why = metrics.why_undefined(wanted.metric, answers.targets, manifest.schema_)
        return Measured(value, "" if value is not None else why or "it is not defined on these rows")
    return Measured(message=f"the checkpoint has no such metric; it has {', '.join(values)}")


def _of_label(wanted: Value, report: Mapping[str, Any]) -> Measured:
    entries: list[Mapping[str, Any]] = report.get("labels", [])
    entry = next((one for one in entries if one["label"] == wanted.label), None)
    if entry is None:
        return Measured(message=f"there is no such label; there are {', '.join(one['label'] for one in entries)}")
    if wanted.metric not in OF_A_LABEL:
        return Measured(message=f"a label has {', '.join(OF_A_LABEL)}")
    value: float | None = entry[wanted.metric]
    if value is None:
        return Measured(
            message="the label is never predicted" if wanted.metric == "precision" else "no row has the label"
        )
    return Measured(value)


def _beside(
    manifest: Manifest, answers: Answers | None, live: Path, digest: str | None, metric: str, mirror: Mirror
) -> Comparison:
    other = _manifest(live, digest, mirror)
    if metric not in metrics.names(manifest.task_detail):
        return Comparison(
            metric, message=f"{metric} is no built-in metric of this task, so it has no value for resampled rows"
        )
    if other.schema_ != manifest.schema_:
        return Comparison(metric, message=_labels_differ(manifest.schema_, other.schema_))
    others = _answers(live, other, mirror)
    if answers is None or others is None:
        which = "the checkpoint" if answers is None else "the live one"
        return Comparison(
            metric, message=f"the training of {which} had no test rows, so there are no answers to compare"
        )
    pairs = _pairs(answers, others)
    if len(pairs) < len(answers.keys) and len(pairs) < SHARED * len(answers.keys):
        return Comparison(
            metric,
            message=f"they were tested on other rows: of the checkpoint's {len(answers.keys)} test rows the live one has answered"
            f" {len(pairs)}, and at least half are needed; train with the live one's test rows",
        )
    mine, theirs = answers.of([row for row, _ in pairs]), others.of([row for _, row in pairs])
    return paired_bootstrap(metric, mine, theirs, manifest.schema_, len(answers.keys))


def paired_bootstrap(
    metric: str, candidate: Answers, live: Answers, schema: LabelSchema, candidate_rows: int
) -> Comparison:
    """The candidate's lead over the live one on the same rows, and the least that it is with 95 % confidence.

    Rows are drawn with replacement, the same ones for both, so that what makes a row hard for both does not count as a difference. Percentile method:
    Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13; paired for classifiers: Koehn 2004, W04-3250.
    """

    def both(rows: npt.NDArray[np.intp] | slice) -> tuple[float | None, float | None]:
        return (
            metrics.one(metric, candidate.probabilities[rows], candidate.targets[rows], schema),
            metrics.one(metric, live.probabilities[rows], live.targets[rows], schema),
        )

    sign = 1 if metrics.HIGHER_IS_BETTER[metric] else -1
    ours, theirs = both(slice(None))
    if ours is None or theirs is None:
        why = metrics.why_undefined(metric, candidate.targets, schema)
        return Comparison(metric, message=f"{metric} is not defined on their test rows: {why}")
    random = np.random.default_rng(SEED)
    count = len(candidate.keys)
    leads = []
    if not np.array_equal(candidate.probabilities, live.probabilities):
        for _ in range(RESAMPLES):
            first, second = both(random.integers(0, count, count))
            if first is not None and second is not None:  # a draw may have no row of a label
                leads.append(sign * (first - second))
    least = float(np.quantile(leads, 1 - CONFIDENCE)) if leads else 0.0
    return Comparison(metric, count, candidate_rows, ours, theirs, sign * (ours - theirs), least)


def _pairs(answers: Answers, others: Answers) -> list[tuple[int, int]]:
    """Rows that both have, each once: equal text, equal expected labels."""
    where: dict[bytes, list[int]] = {}
    for row in reversed(range(len(others.keys))):
        where.setdefault(others.keys[row], []).append(row)
    return [(row, where[key].pop()) for row, key in enumerate(answers.keys) if where.get(key)]


def _labels_differ(schema: LabelSchema, other: LabelSchema) -> str:
    if schema.task_detail != other.task_detail:
        return f"it is {schema.task_detail}, the live one is {other.task_detail}"
    new = [label for label in schema.labels if label not in other.labels]
    gone = [label for label in other.labels if label not in schema.labels]
    if not new and not gone:
        return "their labels stand in another order"
    found = [f"{words} {_short(', '.join(labels))}" for words, labels in (("new:", new), ("gone:", gone)) if labels]
    return f"they have other labels ({'; '.join(found)}), so the same metric means another thing"


def _manifest(folder: Path, digest: str | None, mirror: Mirror) -> Manifest:
    mirror.fetch(folder / MANIFEST)
    try:
        content = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"There is no checkpoint in {mirror.shown(folder)}: {MANIFEST} is missing") from None
    if digest is not None and digest_of(content) != digest:
        raise CheckpointError(
            f"{mirror.shown(folder / MANIFEST)} was changed: its digest is {digest_of(content)}, expected {digest}"
        )
    try:
        return Manifest.model_validate_json(content)
    except ValueError as err:
        raise CheckpointError(f"{mirror.shown(folder / MANIFEST)} is not a checkpoint of format 1: {err}") from err


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


def _report(folder: Path, manifest: Manifest, mirror: Mirror) -> Mapping[str, Any]:
    content = _file(folder, METRICS, manifest, mirror)
    report: Mapping[str, Any] = orjson.loads(content) if content else {}
    return report


def _answers(folder: Path, manifest: Manifest, mirror: Mirror) -> Answers | None:
    content = _file(folder, PREDICTIONS, manifest, mirror)
    return _read(content.splitlines(), manifest.labels) if content else None


def _read(lines: Iterable[bytes], labels: Sequence[str]) -> Answers:
    keys, probabilities, targets = [], [], []
    for line in lines:
        row = orjson.loads(line)
        expected = [int(row["expected"][label]) for label in labels]
        keys.append(hashlib.sha256(orjson.dumps([row["input"], expected])).digest())
        probabilities.append([row["probabilities"][label] for label in labels])
        targets.append(expected)
    return Answers(keys, np.asarray(probabilities, dtype=np.float64), np.asarray(targets, dtype=np.int8))


def _short(words: str) -> str:
    return words if len(words) <= WORDS else words[: WORDS - 1] + "…"
