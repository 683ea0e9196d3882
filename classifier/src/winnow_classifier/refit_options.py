"""What a refit is asked for by its options, the trainer's and `kubectl winnow refit`'s, in the same words. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from winnow_classifier.errors import ConfigError
from winnow_classifier.manifest import describe
from winnow_classifier.objectives import Thresholds

SAME = "same"  # as the job or the last refit asked


@dataclass(frozen=True, slots=True)
class RefitOptions:
    """Named as they are written, but for the dashes."""

    objective: str | None = None
    value: float | None = None
    false_positive_cost: float | None = None
    false_negative_cost: float | None = None
    abstain_band: float | None = None
    abstain_min_probability: float | None = None
    same: bool = False
    no_thresholds: bool = False
    uncalibrated: bool = False

    def asked(self, help_command: str) -> Thresholds | str | None:
        """Thresholds, SAME, or None for no thresholds. Raises ConfigError; `help_command` is named in its hint."""
        costs = {"falsePositive": self.false_positive_cost, "falseNegative": self.false_negative_cost}
        abstain = {"band": self.abstain_band, "minProbability": self.abstain_min_probability}
        given = _some(
            {"objective": self.objective, "value": self.value, "costs": _some(costs), "abstain": _some(abstain)}
        )
        for name, alone, does in (
            ("--same", self.same, "takes what the last fit was for"),
            ("--no-thresholds", self.no_thresholds, "fits calibration alone"),
        ):
            if alone and (given or (self.same and self.no_thresholds)):
                raise ConfigError(f"{name} {does}, so it goes with none of the others", hint=help_command)
        if self.same:
            return SAME
        if self.no_thresholds:
            return None
        if not given:
            raise ConfigError(
                "refit: it is not said what thresholds are for, and those that were fitted would be lost",
                hint="--objective F1, for example; --same for what the last fit was for; --no-thresholds for "
                "calibration alone",
            )
        try:
            return Thresholds.model_validate(given)
        except ValidationError as err:
            wrong = describe(err, Thresholds).removeprefix("manifest: ")
            raise ConfigError(f"refit: {wrong}", hint=help_command) from err

    def arguments(self) -> list[str]:
        """The command line that asks for the same."""
        found = []
        for name, value in asdict(self).items():
            option = f"--{name.replace('_', '-')}"
            if value is True:
                found.append(option)
            elif value is not None and value is not False:
                found += [option, str(value)]
        return found


def _some(values: dict[str, Any]) -> dict[str, Any] | None:
    return {name: value for name, value in values.items() if value is not None} or None
