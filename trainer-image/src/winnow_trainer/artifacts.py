"""The files of an evaluation beside the weights: metrics, predictions, curves, pictures, mistakes, and the page that shows
all of it. In and out by value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from winnow_classifier.checkpoint import Manifest
from winnow_classifier.files import METRICS, PREDICTIONS
from winnow_classifier.labels import LabelSchema
from winnow_trainer import curves, mistakes, plots, report
from winnow_trainer.evaluate import Evaluation, predictions


def artifacts(
    test: Evaluation | None,
    validation: Evaluation | None,
    schema: LabelSchema,
    epochs: Sequence[Manifest],
    *,
    steps: Mapping[str, Any],
    best: str | None = None,
    warnings: Sequence[str] = (),
    decision: bytes | None = None,
) -> dict[str, bytes]:
    """By file name; nothing where nothing was measured. `epochs` are those up to this one, the last of them this one;
    `steps` is the training loss over the steps (step_losses.py), `decision` what the checkpoint's decision.json holds."""
    shown = test or validation
    if shown is None:
        return {}
    manifest = epochs[-1]
    decided: Mapping[str, Any] | None = orjson.loads(decision) if decision else None
    told: dict[str, Any] = {
        "selectedOn": manifest.selected_on,
        "decisionDigest": decided["digest"] if decided else None,
        **(test.report if test else {}),
        **({"validation": validation.report} if validation else {}),
    }
    drawn = {
        "rows": "test" if test else "validation",
        "loss": curves.losses(epochs),
        "stepLoss": steps,
        **curves.curves(shown.probabilities, shown.examples.targets, schema),
    }
    wrong = [
        each
        for name, part in (("test", test), ("validation", validation))
        if part
        for each in mistakes.mistakes(name, part.examples.texts, part.probabilities, part.examples.targets, schema)
    ]
    pictures = plots.pictures(drawn, shown.report["confusion"], schema)
    # Plain values from here on: dataclasses become what metrics.json says.
    metrics_json = orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n"
    found = {
        METRICS: metrics_json,
        "curves.json": orjson.dumps(drawn) + b"\n",
        "errors.jsonl": mistakes.lines(wrong),
        **pictures,
    }
    if test:
        found[PREDICTIONS] = predictions(test, schema)
    page = report.Report(
        manifest=manifest,
        metrics=orjson.loads(metrics_json),
        pictures=pictures,
        pictured=drawn["rows"],
        mistakes=sorted(wrong, key=lambda each: -float(each["margin"])),
        best=best,
        warnings=warnings,
        decision=decided,
    )
    found["report.html"] = report.page(page)
    return found
