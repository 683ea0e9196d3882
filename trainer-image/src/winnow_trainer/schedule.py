"""The learning rate of each step, as a factor of its peak: the field's usual schedules, without any state."""

from __future__ import annotations

import math

from winnow_trainer.job import Scheduler

# transformers' polynomial schedule ends at 1e-7, not at a share of the peak; power 1 makes it a line to there.
POLYNOMIAL_END = 1e-7


def learning_rate(kind: Scheduler, peak: float, warmup_ratio: float, step: int, total_steps: int) -> float:
    """The rate of step `step` (from 0) of `total_steps`; the same as transformers' schedule of that name.

    A single step has no warm-up: its rate would be 0, and the run would learn nothing.
    """
    warmup = 0 if kind == "constant" or total_steps == 1 else math.ceil(warmup_ratio * total_steps)
    if step < warmup:
        return peak * step / max(1, warmup)
    progress = (step - warmup) / max(1, total_steps - warmup)
    match kind:
        case "linear":
            return peak * max(0.0, 1.0 - progress)
        case "cosine":
            return peak * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
        case "polynomial":
            end = min(POLYNOMIAL_END, peak)
            return (peak - end) * (1.0 - progress) + end
        case "constant" | "constant_with_warmup":
            return peak
