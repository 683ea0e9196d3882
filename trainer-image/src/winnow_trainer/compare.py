"""A checkpoint's numbers for a gate, and how sure it is that it is not worse than another one on the same rows.

Both are judged as they are served, each by its own decision.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from winnow_classifier import metrics
from winnow_classifier.errors import ConfigError
from winnow_classifier.labels import LabelSchema
from winnow_classifier.mirror import VOLUME, Mirror
from winnow_trainer import answers
from winnow_trainer.answers import Answers, Evaluated

OF_A_LABEL = ("precision", "recall", "f1")
RESAMPLES = 1_000  # the 5th percentile of so many is off by less than a tenth of its standard error in most runs
CONFIDENCE = 0.95
# Rows that both checkpoints were measured on, as a share of all: of a smaller part nothing follows for the whole.
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
    mine = answers.read(candidate, candidate_digest, mirror)
    result = Result(list(wanted), mine.report.get("rows"), mine.measured_on)
    result.values = [_measured(value, mine) for value in wanted]
    if live is not None:
        theirs = answers.read(live, live_digest, mirror)
        chosen = metric or mine.manifest.primary_metric or metrics.default_primary(mine.manifest.task_detail)
        result.comparison = _beside(mine, theirs, chosen)
    return result


def _measured(wanted: Value, found: Evaluated) -> Measured:
    if not found.report:
        return Measured(message="the training had neither test nor validation rows")
    if wanted.label is not None:
        return _of_label(wanted, found)
    reported: Mapping[str, float | None] = found.report.get("metrics", {})
    built_in = wanted.metric in metrics.names(found.manifest.task_detail)
    if built_in and found.answers is not None:
        value = found.answers.value(wanted.metric)
    elif wanted.metric in reported:
        value = reported[wanted.metric]
    elif built_in:
        return Measured(message="spec.metrics.functions of the training did not ask for it")
    else:
        return Measured(message=f"the checkpoint has no such metric; it has {', '.join(reported)}")
    if value is None:
        why = found.report.get("undefined", {}).get(wanted.metric)
        if why is None and built_in and found.answers is not None:
            why = metrics.why_undefined(wanted.metric, found.answers.targets, found.answers.schema)
        return Measured(message=why or "it is not defined on these rows")
    if not built_in and found.refitted:
        return Measured(message=_refitted("the checkpoint", wanted.metric))
    return Measured(value)


def _of_label(wanted: Value, found: Evaluated) -> Measured:
    entries: list[Mapping[str, Any]] = found.report.get("labels", [])
    if (known := found.answers) is not None:
        entries = [asdict(one) for one in metrics.per_label(known.probabilities, known.targets, known.schema)]
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


def _beside(mine: Evaluated, theirs: Evaluated, metric: str) -> Comparison:
    if mine.manifest.schema_ != theirs.manifest.schema_:
        return Comparison(metric, message=_labels_differ(mine.manifest.schema_, theirs.manifest.schema_))
    ours, others = _tested(mine), _tested(theirs)
    if ours is None or others is None:
        which = "the checkpoint" if ours is None else "the live one"
        return Comparison(
            metric, message=f"the training of {which} had no test rows, so there are no answers to compare"
        )
    if metric not in metrics.names(mine.manifest.task_detail) and (why := _not_comparable(mine, theirs, metric)):
        return Comparison(metric, message=why)
    pairs = _pairs(ours, others)
    if len(pairs) < len(ours.keys) and len(pairs) < SHARED * len(ours.keys):
        return Comparison(
            metric,
            message=f"they were tested on other rows: of the checkpoint's {len(ours.keys)} test rows the live one has answered"
            f" {len(pairs)}, and at least half are needed; train with the live one's test rows",
        )
    both = ours.of([row for row, _ in pairs]), others.of([row for _, row in pairs])
    return paired_bootstrap(metric, *both, len(ours.keys), higher_is_better=bool(mine.higher_is_better(metric)))


def _tested(found: Evaluated) -> Answers | None:
    return found.answers if found.measured_on == "Test" else None


def _not_comparable(mine: Evaluated, theirs: Evaluated, metric: str) -> str | None:
    """Why the scores of a user's metric function cannot compare the two; None where they can."""
    for which, one in (("the checkpoint", mine), ("the live one", theirs)):
        if one.answers is None or metric not in one.answers.scores:
            why = one.report.get("undefined", {}).get(metric) or "its training had no such metric"
            return f"{which} has no scores of its rows by {metric}: {why}"
        if one.refitted:
            return _refitted(which, metric)
    sources = [one.function(metric).get("sha256") for one in (mine, theirs)]
    if None not in sources and sources[0] != sources[1]:
        return f"{metric} of the live one is another function: the two sources differ"
    if mine.higher_is_better(metric) is None:
        return f"{metric} has no direction in metrics.custom of the training, so it is not known which way is better"
    return None


def _refitted(which: str, metric: str) -> str:
    return (
        f"decision.json of {which} was fitted anew after {metric} ran, and it is not run again; use a built-in metric"
    )


def paired_bootstrap(
    metric: str, candidate: Answers, live: Answers, candidate_rows: int, *, higher_is_better: bool
) -> Comparison:
    """The candidate's lead over the live one on the same rows, and the least that it is with 95 % confidence.

    Rows are drawn with replacement, the same ones for both, so that what makes a row hard for both does not count as a
    difference. Percentile method: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13; paired for classifiers:
    Koehn 2004, W04-3250.
    """
    sign = 1 if higher_is_better else -1
    ours, theirs = candidate.value(metric), live.value(metric)
    if ours is None or theirs is None:
        why = metrics.why_undefined(metric, candidate.targets, candidate.schema)
        return Comparison(metric, message=f"{metric} is not defined on their test rows: {why}")
    random = np.random.default_rng(SEED)
    count = len(candidate.keys)
    leads = []
    if not candidate.same_as(live, metric):
        for _ in range(RESAMPLES):
            rows = random.integers(0, count, count)
            first, second = candidate.value(metric, rows), live.value(metric, rows)
            if first is not None and second is not None:  # a draw may have no row of a label
                leads.append(sign * (first - second))
    least = float(np.quantile(leads, 1 - CONFIDENCE)) if leads else 0.0
    return Comparison(metric, count, candidate_rows, ours, theirs, sign * (ours - theirs), least)


def _pairs(ours: Answers, others: Answers) -> list[tuple[int, int]]:
    """The rows that both have, as pairs of row numbers, each row once: with equal text and equal expected labels."""
    where: dict[bytes, list[int]] = {}
    for row in reversed(range(len(others.keys))):
        where.setdefault(others.keys[row], []).append(row)
    return [(row, where[key].pop()) for row, key in enumerate(ours.keys) if where.get(key)]


def _labels_differ(schema: LabelSchema, other: LabelSchema) -> str:
    if schema.task_detail != other.task_detail:
        return f"it is {schema.task_detail}, the live one is {other.task_detail}"
    new = [label for label in schema.labels if label not in other.labels]
    gone = [label for label in other.labels if label not in schema.labels]
    if not new and not gone:
        return "their labels stand in another order"
    found = [f"{words} {_short(', '.join(labels))}" for words, labels in (("new:", new), ("gone:", gone)) if labels]
    return f"they have other labels ({'; '.join(found)}), so the same metric means another thing"


def _short(words: str) -> str:
    return words if len(words) <= WORDS else words[: WORDS - 1] + "…"
