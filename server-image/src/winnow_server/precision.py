"""How a CPU runs the model: what is fastest here among what gives the same answers, measured when the server starts.

Plain torch in float32 is the reference. Another form is taken only if it is faster, its probabilities on stored examples
are the reference's within a tolerance, and every decision on them is the same: as the server answers, calibrated, by
thresholds, with abstention.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from winnow_classifier.cpu import multiplies_bfloat16
from winnow_classifier.decision import calibrated
from winnow_classifier.labels import LabelSchema
from winnow_classifier.model import Classifier
from winnow_classifier.packing import pack, plan_batches
from winnow_server import fast_linear
from winnow_server.fused_layers import Undo
from winnow_server.settings import Precision
from winnow_server.thresholds import NO_RULES, Rules, abstained, predicted

log = logging.getLogger(__name__)

TOLERANCE = {"float32": 1e-5, "bfloat16": 0.01}  # of a probability
FASTER = 1.1  # times: less is within what a measurement errs
MEASURED_TOKENS = 256  # a batch whose time says how fast the full ones are, in a fraction of theirs
MEASURED_TIMES = 3
ALONE = 8  # a CPU multiplies one text by other means than a batch
# Fewer say too little of decisions to leave float32 for.
FEWEST_EXAMPLES = 16

Sequences = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Form:
    name: str  # as logs and /v1/model say it
    dtype: Literal["float32", "bfloat16"]
    switch: Callable[[Classifier], Undo]


FLOAT32 = Form("float32, oneDNN", "float32", fast_linear.to_float32)
BFLOAT16 = Form("bfloat16, oneDNN", "bfloat16", fast_linear.to_bfloat16)


@dataclass(frozen=True, slots=True)
class Run:
    """What a form of the model made of the examples."""

    probabilities: Tensor  # (N, C), in batches
    alone: Tensor  # of the first ALONE of them, each by itself
    decided: list[tuple[list[str], bool]]  # predicted labels, and whether it abstained
    seconds: float  # of a batch of MEASURED_TOKENS


def fastest(
    model: Classifier,
    schema: LabelSchema,
    examples: Sequences,
    filler: Sequence[int],
    asked: Precision,
    rules: Rules = NO_RULES,
) -> Literal["float32", "bfloat16"]:
    """Switches the model, which is on a CPU in float32, to the fastest form that holds; the type it computes in.

    examples: stored texts, as token ids; filler: any text, to measure with where there are none. rules: what answers follow
    that bring none of their own.
    """
    forms = [FLOAT32]
    if asked == "auto" and multiplies_bfloat16() and len(examples) >= FEWEST_EXAMPLES:
        forms.insert(0, BFLOAT16)
    judged = examples or [filler]
    reference = run(model, schema, judged, rules)
    for form in forms:
        undo = None
        try:
            undo = form.switch(model)
            found = run(model, schema, judged, rules)
            why = objection(reference, found, TOLERANCE[form.dtype])
        except (AttributeError, NotImplementedError, RuntimeError) as err:
            why = f"it cannot run: {err}".splitlines()[0]
        if why is None:
            facts = {"faster": round(speedup(reference, found), 2), "difference": difference_of(reference, found)}
            log.info("Precision chosen", extra={"precision": form.name, **facts})
            return form.dtype
        log.info("Precision passed over", extra={"precision": form.name, "why": why})
        if undo is not None:
            undo()
    return "float32"


def objection(reference: Run, found: Run, tolerance: float) -> str | None:
    """Why a form is not taken, in words; None if nothing speaks against it."""
    difference = difference_of(reference, found)
    if not difference <= tolerance:  # NaN is not
        return f"a probability differs by {difference:.2g}, at most {tolerance:g} is allowed"
    flipped = sum(one != other for one, other in zip(reference.decided, found.decided, strict=True))
    if flipped:
        return f"{flipped} of {len(found.decided)} decisions differ"
    if speedup(reference, found) < FASTER:
        return f"it is {speedup(reference, found):.2f} times as fast, at least {FASTER:g} is wanted"
    return None


def difference_of(reference: Run, found: Run) -> float:
    """The largest of a probability, in a batch or alone."""
    pairs = ((found.probabilities, reference.probabilities), (found.alone, reference.alone))
    return float(torch.cat([(one - other).abs().flatten() for one, other in pairs]).max())


def speedup(reference: Run, found: Run) -> float:
    return reference.seconds / found.seconds


def run(model: Classifier, schema: LabelSchema, sequences: Sequences, rules: Rules) -> Run:
    def probabilities(batch: Sequences) -> Tensor:
        logits = model(pack(batch, model.position_start))
        return schema.probabilities(calibrated(logits, rules.calibration, schema.labels))

    batches = plan_batches([len(one) for one in sequences], MEASURED_TOKENS * 4)
    with torch.inference_mode():
        together = torch.cat([probabilities([sequences[index] for index in batch]) for batch in batches])
        alone = torch.cat([probabilities([one]) for one in sequences[:ALONE]])
        return Run(together, alone, decided(together, rules, schema), measured(model, sequences))


def decided(probabilities: Tensor, rules: Rules, schema: LabelSchema) -> list[tuple[list[str], bool]]:
    values = probabilities.numpy()
    labels, unsure = predicted(values, rules.thresholds, schema), abstained(values, rules, schema)
    return list(zip(labels, unsure, strict=True))


def measured(model: Classifier, sequences: Sequences) -> float:
    """Seconds of a batch of about MEASURED_TOKENS, the best of a few: what disturbs a measurement only makes it longer."""
    batch = [*sequences[: plan_batches([len(one) for one in sequences], MEASURED_TOKENS)[0][-1] + 1]]
    batch *= max(1, MEASURED_TOKENS // sum(map(len, batch)))
    taken = []
    for _ in range(MEASURED_TIMES + 1):  # the first one pays for what is set up once
        started = time.perf_counter()
        model(pack(batch, model.position_start))
        taken.append(time.perf_counter() - started)
    return min(taken)
