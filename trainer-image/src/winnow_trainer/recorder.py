"""What a run tells while it trains: a log line each few steps, and the same numbers to trackers.

Trackers are a courtesy: one that fails is said once as a warning, and the training goes on without it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from winnow_classifier.errors import StorageError
from winnow_classifier.profile import Warn
from winnow_trainer.watch import SeenStep

log = logging.getLogger(__name__)

EVERY_STEPS = 10  # as in transformers' newer examples; parameters.loggingSteps says otherwise


class Tracker(Protocol):
    def log(self, step: int, values: Mapping[str, float]) -> None: ...
    def flush(self) -> None: ...
    def close(self, state: str) -> str | None: ...  # what is missing there, in words


class Recorder:
    def __init__(self, every_steps: int | None, total_steps: int, trackers: Sequence[Tracker]) -> None:
        self._every = every_steps or EVERY_STEPS
        self._total = total_steps
        self._trackers = list(trackers)
        self._loss_sum, self._rows = 0.0, 0

    def steps(self, seen: Sequence[SeenStep], done: int, tokens_per_second: float | None, eta: int | None) -> None:
        """`seen`: steps that follow each other, the last of them number `done` of the training, from 1."""
        for step, one in enumerate(seen, start=done - len(seen) + 1):
            self._loss_sum += one.loss_sum
            self._rows += one.rows
            if step % self._every == 0 or step == self._total:
                self._tell(step, one, tokens_per_second, eta)

    def _tell(self, step: int, one: SeenStep, tokens_per_second: float | None, eta: int | None) -> None:
        loss = self._loss_sum / self._rows  # over the rows since the last line
        self._loss_sum, self._rows = 0.0, 0
        facts = {
            "epoch": one.epoch,
            "step": step,
            "totalSteps": self._total,
            "loss": round(loss, 6),
            "learningRate": one.learning_rate,
            "gradientNorm": round(one.gradient_norm, 6),
            "tokensPerSecond": round(tokens_per_second or 0),
            "etaSeconds": eta,
        }
        log.info("Step", extra=facts)
        values = {
            "train/loss": loss,
            "train/learning_rate": one.learning_rate,
            "train/gradient_norm": one.gradient_norm,
            "train/tokens_per_second": tokens_per_second or 0.0,
        }
        self._track(step, values)

    def epoch(self, step: int, train_loss: float, metrics: Mapping[str, Mapping[str, float | None]]) -> None:
        """`metrics` by the rows that they were measured on: test, validation."""
        values = {"epoch/train_loss": train_loss}
        for rows, scores in metrics.items():
            values |= {f"{rows}/{name}": score for name, score in scores.items() if score is not None}
        self._track(step, values)
        self._each(lambda tracker: tracker.flush())

    def close(self, state: str) -> list[Warn]:
        """`state`: how the run ended, Complete, Stopped or Failed. Returns a warning for each tracker that lacks a part of
        the run."""
        found: list[Warn] = []

        def close(tracker: Tracker) -> None:
            if lack := tracker.close(state):
                found.append(Warn("NotTracked", lack))

        self._each(close)
        return found

    def _track(self, step: int, values: Mapping[str, float]) -> None:
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        self._each(lambda tracker: tracker.log(step, finite))

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                do(tracker)
            except StorageError as error:  # the file is here still, and goes whole at the next epoch's end
                log.warning("Curves are not stored for now, training goes on", extra={"error": str(error)})
            except Exception as error:
                self._trackers.remove(tracker)
                what = type(tracker).__name__
                log.warning("Tracking ended, training goes on", extra={"tracker": what, "error": str(error)})
