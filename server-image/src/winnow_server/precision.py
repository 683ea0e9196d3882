"""How this machine runs the model: what is fastest here among what gives the same answers, measured when the server starts.

Plain torch in float32 is the reference. Another form is taken only if it is faster, its probabilities on stored examples
are the reference's within a tolerance, and, on a CPU, every decision on them is the same: as the server answers, calibrated,
by thresholds, with abstention. On a GPU the checkpoint was evaluated in bfloat16 itself (ADR 92).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean
from typing import Literal

import torch
from torch import Tensor

from winnow_classifier.cpu import multiplies_bfloat16
from winnow_classifier.decision import calibrated
from winnow_classifier.gpu import gpu_computes_bfloat16
from winnow_classifier.labels import LabelSchema
from winnow_classifier.model import Classifier
from winnow_classifier.packing import pack, plan_batches
from winnow_server import fast_linear, half
from winnow_server.half import Undo
from winnow_server.settings import Precision
from winnow_server.thresholds import NO_RULES, Rules, abstained, predicted

log = logging.getLogger(__name__)

TOLERANCE = {"float32": 1e-5, "bfloat16": 0.01}  # of a probability
GPU_TOLERANCE = 0.05  # the same: larger bodies, more of them
FASTER = 1.1  # times: less is within what a measurement errs
# Tokens of a batch whose time tells how fast full batches are: a GPU needs a full one, a CPU only a part.
MEASURED_TOKENS = {"cpu": 256, "cuda": 4096}
JUDGED_TOKENS = 1024  # that stored examples run together in
MEASURED_TIMES = 3
ALONE = 8  # a CPU multiplies one text by other means than a batch
# With fewer examples float32 stays: they say too little about decisions.
FEWEST_EXAMPLES = 16

Sequences = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Form:
    name: str  # as logs and /v1/model say it
    dtype: Literal["float32", "bfloat16"]
    switch: Callable[[Classifier], Undo]
    same_decisions: bool = True  # on all stored examples, or it is not taken
    tolerance: float | None = None  # of a probability; None: by dtype


FLOAT32 = Form("float32, oneDNN", "float32", fast_linear.to_float32)
BFLOAT16 = Form("bfloat16, oneDNN", "bfloat16", fast_linear.to_bfloat16)
ON_A_GPU = Form("bfloat16", "bfloat16", half.to_bfloat16, same_decisions=False, tolerance=GPU_TOLERANCE)


@dataclass(frozen=True, slots=True)
class Run:
    """What a form of the model made of the examples."""

    probabilities: Tensor  # (N, C), in batches
    alone: Tensor  # of the first ALONE of them, each by itself
    decided: list[tuple[list[str], bool]]  # predicted labels, and whether it abstained
    seconds: tuple[float, float]  # of a text alone, and of a batch of MEASURED_TOKENS


def fastest(
    model: Classifier,
    schema: LabelSchema,
    examples: Sequences,
    filler: Sequence[int],
    asked: Precision,
    rules: Rules = NO_RULES,
) -> Literal["float32", "bfloat16"]:
    """Switches the model, which is on its device in float32, to the fastest form that gives the same answers. Returns the
    type that it then computes in.

    examples: stored texts, as token ids; filler: any text, to measure with where there are none. rules: what answers follow
    that bring none of their own.
    """
    forms = to_try(model, asked, len(examples))
    if not forms:
        return "float32"
    judged = examples or [filler]
    try:
        reference = run(model, schema, judged, rules)
    except Exception as err:  # mostly out of memory, for which the warm-up then takes smaller batches
        log.warning("Precision not measured", extra={"why": f"it cannot run: {err}".splitlines()[0]})
        return "float32"
    for form in forms:
        undo = None
        try:
            undo = form.switch(model)
            found = run(model, schema, judged, rules)
            allowed = form.tolerance or TOLERANCE[form.dtype]
            why = objection(reference, found, allowed, same_decisions=form.same_decisions)
        except Exception as err:  # whatever a kernel may raise: the reference form still runs
            why = f"it cannot run: {err}".splitlines()[0]
        if why is None:
            facts = {
                "faster": round(speedup(reference, found), 2),
                "difference": difference_of(reference, found),
                "otherDecisions": flipped(reference, found),
                "examples": len(found.decided),
            }
            log.info("Precision chosen", extra={"precision": form.name, **facts})
            return form.dtype
        log.info("Precision passed over", extra={"precision": form.name, "why": why})
        if undo is not None:
            undo()
    return "float32"


def to_try(model: Classifier, asked: Precision, examples: int) -> list[Form]:
    """In this order."""
    if model.device.type == "cuda":
        return [ON_A_GPU] if may_be_half(model, asked) else []
    half_too = asked == "auto" and multiplies_bfloat16() and examples >= FEWEST_EXAMPLES
    return [BFLOAT16, FLOAT32] if half_too else [FLOAT32]


def may_be_half(model: Classifier, asked: Precision) -> bool:
    """Whether a GPU may run it in bfloat16: padded types stay in float32 everywhere (ADR 81)."""
    return asked == "auto" and model.architecture.packs and gpu_computes_bfloat16()


def only_half_fits(model: Classifier, free_bytes: int) -> bool:
    """Whether the GPU's memory is too small for the weights in float32 and bfloat16 side by side: then the two cannot be
    compared, and float32 could hardly be served."""
    return sum(parameter.numel() for parameter in model.parameters()) * (4 + 2) * 1.1 > free_bytes


def objection(reference: Run, found: Run, tolerance: float, *, same_decisions: bool = True) -> str | None:
    """Why a form is not taken, in words; None if nothing speaks against it."""
    difference = difference_of(reference, found)
    if not difference <= tolerance:  # NaN is not
        return f"a probability differs by {difference:.2g}, at most {tolerance:g} is allowed"
    if same_decisions and (others := flipped(reference, found)):
        return f"{others} of {len(found.decided)} decisions differ"
    if speedup(reference, found) < FASTER:
        return f"it is {speedup(reference, found):.2f} times as fast, at least {FASTER:g} is wanted"
    return None


def flipped(reference: Run, found: Run) -> int:
    """How many decisions differ."""
    return sum(one != other for one, other in zip(reference.decided, found.decided, strict=True))


def difference_of(reference: Run, found: Run) -> float:
    """The largest of a probability, in a batch or alone."""
    pairs = ((found.probabilities, reference.probabilities), (found.alone, reference.alone))
    return float(torch.cat([(one - other).abs().flatten() for one, other in pairs]).max())


def speedup(reference: Run, found: Run) -> float:
    """How much faster a form is, of a text alone and of a batch in equal parts: a server meets both."""
    return geometric_mean(one / other for one, other in zip(reference.seconds, found.seconds, strict=True))


def run(model: Classifier, schema: LabelSchema, sequences: Sequences, rules: Rules) -> Run:
    def probabilities(batch: Sequences) -> Tensor:
        logits = model(pack(batch, model.position_start).to(model.device)).cpu()
        return schema.probabilities(calibrated(logits, rules.calibration, schema.labels))

    batches = plan_batches([len(one) for one in sequences], JUDGED_TOKENS)
    with torch.inference_mode():
        together = torch.cat([probabilities([sequences[index] for index in batch]) for batch in batches])
        alone = torch.cat([probabilities([one]) for one in sequences[:ALONE]])
        return Run(
            together,
            alone,
            decided(together, rules, schema),
            (measured(model, sequences[:1], 1), measured(model, sequences, MEASURED_TOKENS[model.device.type])),
        )


def decided(probabilities: Tensor, rules: Rules, schema: LabelSchema) -> list[tuple[list[str], bool]]:
    values = probabilities.numpy()
    labels, unsure = predicted(values, rules.thresholds, schema), abstained(values, rules, schema)
    return list(zip(labels, unsure, strict=True))


def measured(model: Classifier, sequences: Sequences, tokens: int) -> float:
    """Seconds of a batch of about so many tokens: the least of a few tries, since a disturbance only makes one longer."""
    batch = [*sequences[: plan_batches([len(one) for one in sequences], tokens)[0][-1] + 1]]
    batch *= max(1, tokens // sum(map(len, batch)))
    taken = []
    for _ in range(MEASURED_TIMES + 1):  # the first one pays for what is set up once
        started = time.perf_counter()
        model(pack(batch, model.position_start).to(model.device)).cpu()
        taken.append(time.perf_counter() - started)
    return min(taken)
