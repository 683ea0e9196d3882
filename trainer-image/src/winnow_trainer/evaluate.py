"""How good the model is on rows that it did not learn from: metrics, and what it answered to each row. Letters: N rows, C
labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import torch
from torch import Tensor

from winnow_classifier import metrics
from winnow_classifier.decision import DecidedSchema, Measured
from winnow_classifier.intervals import intervals, mean_interval
from winnow_classifier.labels import LabelSchema
from winnow_trainer.examples import Examples
from winnow_trainer.metric_functions import MetricFunctions, Scored


@dataclass(frozen=True, slots=True)
class Evaluation:
    metrics: dict[str, float | None]
    report: dict[str, Any]  # these rows' part of metrics.json
    probabilities: npt.NDArray[np.float64]  # (N, C)
    examples: Examples
    scored: Sequence[Scored]  # by the user's functions


def evaluate(
    logits: Tensor,
    examples: Examples,
    schema: LabelSchema,
    reported: Sequence[str] | None,
    functions: MetricFunctions | None = None,
    seed: int = 0,
    measured: Measured | None = None,
) -> Evaluation:
    """logits (N, C) in the order of the examples. `reported` picks built-in metrics by name, None takes all of the task;
    the user's functions are always told. `seed` draws the resamples of the intervals. `measured` is what the decision says
    of these very rows, if it was measured on them: the same metrics are not computed twice."""
    probabilities = schema.probabilities(logits).double().numpy()
    targets = examples.targets
    scores = measured.after if measured else metrics.evaluate(probabilities, targets, schema)
    labels = metrics.per_label(probabilities, targets, schema)
    chosen = scores if reported is None else {name: scores[name] for name in scores if name in reported}
    scored = functions.score(examples.texts, targets, probabilities, schema) if functions else []
    found = intervals(probabilities, targets, schema, seed, scores, labels)
    told = {**chosen, **{each.name: each.value for each in scored}}
    report = {
        "rows": len(examples),
        "truncatedTexts": examples.truncated,
        "metrics": told,
        "undefined": why_undefined(chosen, targets, schema) | {each.name: each.error for each in scored if each.error},
        **plain_metrics(logits, examples, schema, measured),
        "intervals": {name: found.metrics[name] for name in chosen if name in found.metrics}
        | {each.name: mean_interval(each.scores, seed) for each in scored if each.scores is not None},
        "functions": [
            {
                "name": each.name,
                "sha256": functions.digests[each.name] if functions else None,
                **_direction(functions, each.name),
                **({"error": each.error, "row": each.row} if each.error else {}),
            }
            for each in scored
        ],
        "labels": [
            {**asdict(label), "intervals": interval} for label, interval in zip(labels, found.labels, strict=True)
        ],
        "confusion": metrics.confusion(probabilities, targets, schema),
    }
    return Evaluation(told, report, probabilities, examples, scored)


def scored_before(report: Mapping[str, Any]) -> list[Scored]:
    """How the user's functions fared, as far as metrics.json tells it of these rows."""
    return [Scored(each["name"], None, each.get("error"), each.get("row")) for each in report.get("functions", [])]


def _direction(functions: MetricFunctions | None, name: str) -> dict[str, str]:
    """Kept with the scores, so that two checkpoints can be compared by them."""
    direction = functions.directions.get(name) if functions else None
    return {"direction": direction} if direction else {}


def plain_metrics(logits: Tensor, examples: Examples, schema: LabelSchema, measured: Measured | None) -> dict[str, Any]:
    """The same metrics as they were without decision.json: raw probabilities, decided at 0.5 or by the likeliest label."""
    if not isinstance(schema, DecidedSchema):
        return {}
    if measured:
        return {"withoutDecision": measured.before}
    plain = LabelSchema(schema.task_detail, schema.labels)
    return {"withoutDecision": metrics.evaluate(plain.probabilities(logits).double().numpy(), examples.targets, plain)}


def why_undefined(
    scores: Mapping[str, float | None], targets: npt.NDArray[np.int8], schema: LabelSchema
) -> dict[str, str]:
    names = (name for name, value in scores.items() if value is None)
    return {name: reason for name in names if (reason := metrics.why_undefined(name, targets, schema))}


def predictions(found: Evaluation, schema: LabelSchema) -> bytes:
    """predictions.jsonl: one line a row, in the order of the rows. Each score of a metric that is a mean over rows is the
    row's own."""
    examples, probabilities = found.examples, found.probabilities
    predicted = schema.predicted(torch.from_numpy(probabilities))
    of_rows = metrics.row_scores(probabilities, examples.targets, schema)
    told = {name: of_rows[name] for name in of_rows if name in found.metrics or name == "matching_score"}
    told |= {each.name: each.scores for each in found.scored if each.scores is not None}
    scores = np.stack(list(told.values()), axis=1).tolist()
    unsure = abstentions(probabilities, schema)
    rows = zip(
        examples.texts, examples.targets.tolist(), probabilities.tolist(), predicted, scores, unsure, strict=True
    )
    return b"".join(
        orjson.dumps(
            {
                "input": text,
                "expected": dict(zip(schema.labels, expected, strict=True)),
                "probabilities": dict(zip(schema.labels, row, strict=True)),
                "predicted": labels,
                **abstained,
                "scores": dict(zip(told, score, strict=True)),
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        for text, expected, row, labels, score, abstained in rows
    )


def abstentions(probabilities: npt.NDArray[np.float64], schema: LabelSchema) -> list[dict[str, bool]]:
    """`abstained` of each row, where the classifier can abstain."""
    if not isinstance(schema, DecidedSchema) or schema.decision is None or schema.decision.abstain is None:
        return [{}] * len(probabilities)
    return [{"abstained": bool(one)} for one in schema.abstained(probabilities)]
