"""Losses as they come in: seen at once on a CPU, about once a second on a GPU, where looking means waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from winnow_classifier.errors import DivergedError
from winnow_trainer.examples import named
from winnow_trainer.learner import StepResult
from winnow_trainer.steps import Rows

LOOK_SECONDS = 1.0
HINT = "lower parameters.learningRate, or raise warmupRatio"


@dataclass(frozen=True, slots=True)
class SeenStep:
    epoch: int
    loss_sum: float  # over its rows, nats
    rows: int
    gradient_norm: float
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Seen:
    loss_sum: float  # over all rows of the steps that were looked at, nats
    rows: int
    steps: tuple[SeenStep, ...]

    @property
    def mean(self) -> float:
        return self.loss_sum / self.rows


class LossWatch:
    def __init__(self, on_cpu: bool, clock: Callable[[], float], numbered: Callable[[Rows], list[int]]) -> None:
        """`numbered`: what people call the rows of a step."""
        self._numbered = numbered
        self._on_cpu = on_cpu
        self._clock = clock
        self._looked = clock()
        self._pending: list[tuple[int, int, Rows, StepResult, float]] = []

    def add(self, epoch: int, step: int, rows: Rows, result: StepResult, learning_rate: float) -> None:
        self._pending.append((epoch, step, rows, result, learning_rate))

    def due(self) -> bool:
        return self._on_cpu or self._clock() - self._looked >= LOOK_SECONDS

    def look(self) -> Seen:
        """What came since the last look. Raises DivergedError naming the first step whose loss is not finite."""
        pending, self._pending, self._looked = self._pending, [], self._clock()
        steps = []
        for epoch, step, rows, result, learning_rate in pending:
            losses = result.losses.cpu().double()
            finite = torch.isfinite(losses)
            if not bool(finite.all()):
                raise diverged("loss", epoch, step, self._numbered(rows[~finite.numpy()]))
            if not bool(torch.isfinite(result.gradient_norm)):
                raise diverged("gradient", epoch, step, self._numbered(rows))
            steps.append(SeenStep(epoch, float(losses.sum()), len(rows), float(result.gradient_norm), learning_rate))
        return Seen(sum(step.loss_sum for step in steps), sum(step.rows for step in steps), tuple(steps))


def diverged(what: str, epoch: int, step: int, numbers: Sequence[int]) -> DivergedError:
    return DivergedError(
        f"the {what} is not a finite number at epoch {epoch}, step {step}, on the training rows {named(numbers)}", HINT
    )


def check_answers(logits: Tensor, epoch: int, which: str, numbered: Callable[[Rows], list[int]]) -> None:
    """Raises DivergedError for logits (N, C) to the `which` rows that are not all finite."""
    wrong = (~torch.isfinite(logits).all(dim=1)).nonzero().flatten().numpy()
    if len(wrong):
        raise DivergedError(
            f"the model's answers are not finite numbers after epoch {epoch}, on the {which} rows {named(numbered(wrong))}",
            HINT,
        )
