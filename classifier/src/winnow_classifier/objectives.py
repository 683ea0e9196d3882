"""spec.thresholds of a TrainingJob: what thresholds are fitted for, and when the classifier abstains. Pure; a refit asks for
the same by its options (refit_options.py)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from winnow_classifier.errors import ConfigError
from winnow_classifier.labels import TWO_NAMES, TaskDetail
from winnow_classifier.manifest import Manifest

Objective = Literal["F1", "PrecisionAtLeast", "RecallAtLeast", "Cost"]


class Costs(Manifest):
    false_positive: float = Field(gt=0, le=1_000_000)
    false_negative: float = Field(gt=0, le=1_000_000)


class AbstainWhen(Manifest):
    band: float | None = Field(None, gt=0, le=0.5)
    min_probability: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def says_one_thing(self) -> AbstainWhen:
        if (self.band is None) == (self.min_probability is None):
            raise ValueError("abstain needs exactly one of: band, minProbability")
        return self


class Thresholds(Manifest):
    objective: Objective | None = None
    value: float | None = Field(None, gt=0, le=1)
    costs: Costs | None = None
    abstain: AbstainWhen | None = None

    @model_validator(mode="after")
    def says_something_whole(self) -> Thresholds:
        if self.objective is None and self.abstain is None:
            raise ValueError("thresholds needs an objective, abstain, or both")
        if (self.value is not None) != (self.objective in ("PrecisionAtLeast", "RecallAtLeast")):
            raise ValueError("value belongs to objective PrecisionAtLeast or RecallAtLeast, which need it")
        if (self.costs is not None) != (self.objective == "Cost"):
            raise ValueError("costs belongs to objective Cost, which needs it")
        return self


def check(asked: Thresholds | None, task: TaskDetail) -> None:
    """Raises ConfigError for what is not defined for this kind of labels."""
    if asked is None:
        return
    abstain = asked.abstain
    if task is TaskDetail.MULTICLASS:
        if asked.objective not in (None, "PrecisionAtLeast"):
            message = (
                f"thresholds.objective: {asked.objective} is not defined where exactly one of several labels holds"
            )
            hint = f"use PrecisionAtLeast, which abstains below the probability that it needs; or {TWO_NAMES}"
            raise ConfigError(message, hint=hint)
        if abstain is not None and abstain.band is not None:
            message = (
                "thresholds.abstain.band needs labels with thresholds of their own, and exactly one of several holds"
            )
            raise ConfigError(message, hint="use abstain.minProbability")
        if abstain is not None and asked.objective is not None:
            message = (
                "thresholds: PrecisionAtLeast finds abstain.minProbability itself where one of several labels holds"
            )
            raise ConfigError(message, hint="give one of them")
    if task is TaskDetail.MULTILABEL and abstain is not None and abstain.min_probability is not None:
        message = "thresholds.abstain.minProbability needs one label that holds, and several may hold at once"
        raise ConfigError(message, hint="use abstain.band")
