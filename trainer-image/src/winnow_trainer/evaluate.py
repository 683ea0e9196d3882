"""How good the model is on rows that it did not learn from: metrics, and what it answered to each row. Letters: N rows, C
labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import torch
from torch import Tensor

from winnow_classifier import metrics
from winnow_classifier.checkpoint import SelectedOn
from winnow_classifier.decision import DecidedSchema
from winnow_classifier.labels import LabelSchema
from winnow_trainer.examples import Examples


@dataclass(frozen=True, slots=True)
class Evaluation:
    metrics: dict[str, float | None]
    report: dict[str, Any]  # these rows' part of metrics.json
    probabilities: npt.NDArray[np.float64]  # (N, C)
    examples: Examples


def evaluate(logits: Tensor, examples: Examples, schema: LabelSchema, reported: Sequence[str] | None) -> Evaluation:
    """logits (N, C) in the order of the examples. `reported` picks metrics by name, None takes all of the task."""
    probabilities = schema.probabilities(logits).double().numpy()
    scores = metrics.evaluate(probabilities, examples.targets, schema)
    chosen = scores if reported is None else {name: scores[name] for name in scores if name in reported}
    report = {
        "rows": len(examples),
        "truncatedTexts": examples.truncated,
        "metrics": chosen,
        "undefined": why_undefined(chosen, examples.targets, schema),
        **plain_metrics(logits, examples, schema),
        "labels": metrics.per_label(probabilities, examples.targets, schema),
        "confusion": metrics.confusion(probabilities, examples.targets, schema),
    }
    return Evaluation(chosen, report, probabilities, examples)


def plain_metrics(logits: Tensor, examples: Examples, schema: LabelSchema) -> dict[str, Any]:
    """The same metrics as they were without decision.json: raw probabilities, decided at 0.5 or by the likeliest label."""
    if not isinstance(schema, DecidedSchema):
        return {}
    plain = LabelSchema(schema.task_detail, schema.labels)
    return {"withoutDecision": metrics.evaluate(plain.probabilities(logits).double().numpy(), examples.targets, plain)}


def artifacts(
    test: Evaluation | None, validation: Evaluation | None, schema: LabelSchema, selected_on: SelectedOn | None
) -> dict[str, bytes]:
    """metrics.json, and predictions.jsonl where there are test rows; nothing where nothing was measured."""
    if selected_on is None:
        return {}
    report = {
        "selectedOn": selected_on,
        **(test.report if test else {}),
        **({"validation": validation.report} if validation else {}),
    }
    found = {"metrics.json": orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n"}
    if test:
        found["predictions.jsonl"] = predictions(test.probabilities, test.examples, schema)
    return found


def why_undefined(
    scores: Mapping[str, float | None], targets: npt.NDArray[np.int8], schema: LabelSchema
) -> dict[str, str]:
    names = (name for name, value in scores.items() if value is None)
    return {name: reason for name in names if (reason := metrics.why_undefined(name, targets, schema))}


def predictions(probabilities: npt.NDArray[np.float64], examples: Examples, schema: LabelSchema) -> bytes:
    """predictions.jsonl: one line a row, in the order of the rows."""
    predicted = schema.predicted(torch.from_numpy(probabilities))
    matching = metrics.matching_scores(probabilities, examples.targets).tolist()
    abstained = abstentions(probabilities, schema)
    rows = zip(
        examples.texts, examples.targets.tolist(), probabilities.tolist(), predicted, matching, abstained, strict=True
    )
    return b"".join(
        orjson.dumps(
            {
                "input": text,
                "expected": dict(zip(schema.labels, expected, strict=True)),
                "probabilities": dict(zip(schema.labels, row, strict=True)),
                "predicted": labels,
                **unsure,
                "scores": {"matching_score": score},
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        for text, expected, row, labels, score, unsure in rows
    )


def abstentions(probabilities: npt.NDArray[np.float64], schema: LabelSchema) -> list[dict[str, bool]]:
    """`abstained` of each row, where the classifier can abstain."""
    if not isinstance(schema, DecidedSchema) or schema.decision is None or schema.decision.abstain is None:
        return [{}] * len(probabilities)
    return [{"abstained": bool(one)} for one in schema.abstained(probabilities)]
