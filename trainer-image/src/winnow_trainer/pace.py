"""How fast a training goes, and when it will be done."""

from __future__ import annotations

from dataclasses import dataclass, field

SMOOTHING = 0.1  # weight of the newest step: about the last ten count


@dataclass
class Pace:
    steps_left: int
    evaluations_left: int
    seconds_per_step: float | None = field(default=None, init=False)
    tokens_per_second: float | None = field(default=None, init=False)
    seconds_per_evaluation: float = field(default=0.0, init=False)

    def step(self, seconds: float, tokens: int) -> None:
        self.steps_left -= 1
        self.seconds_per_step = smooth(self.seconds_per_step, seconds)
        self.tokens_per_second = smooth(self.tokens_per_second, tokens / max(seconds, 1e-9))

    def evaluation(self, seconds: float) -> None:
        self.evaluations_left -= 1
        self.seconds_per_evaluation = seconds

    @property
    def eta_seconds(self) -> int | None:
        if self.seconds_per_step is None:
            return None
        left = self.steps_left * self.seconds_per_step + self.evaluations_left * self.seconds_per_evaluation
        return round(left)


def smooth(before: float | None, now: float) -> float:
    return now if before is None else before + SMOOTHING * (now - before)
