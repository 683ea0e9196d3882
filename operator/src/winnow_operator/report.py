"""What the pods tell: termination messages and /progress. Bounded and checked, since a pod runs a user's data. Pure."""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from winnow_operator.resources import Object

EPOCHS = 1_000  # as many as the CRD keeps
METRICS = 64
DIGITS = 6  # after the point, of what was measured
_MEASURED = ("metrics", "validationMetrics")  # of an epoch
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1, max_length=63)]
Count = Annotated[int, Field(ge=0)]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _defined(metrics: object) -> object:
    """A metric that is not defined for the rows comes as null; it is left out."""
    return (
        {name: value for name, value in metrics.items() if value is not None} if isinstance(metrics, dict) else metrics
    )


def _measured(value: float | None) -> float | None:
    finite = _finite(value)
    return None if finite is None else round(finite, DIGITS)


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    finite = {name: round(value, DIGITS) for name, value in metrics.items() if math.isfinite(value)}
    return dict(sorted(finite.items())[:METRICS])


Number = Annotated[float | None, AfterValidator(_finite)]
Measure = Annotated[float | None, AfterValidator(_measured)]
Metrics = Annotated[dict[str, float], BeforeValidator(_defined), AfterValidator(_rounded)]


def _named(epoch: object, names: list[object]) -> object:
    if not isinstance(epoch, dict):
        return epoch
    listed = {key: values for key in _MEASURED if isinstance(values := epoch.get(key), list)}
    return {**epoch, **{key: dict(zip(names, values, strict=False)) for key, values in listed.items()}}


class _Report(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    def as_status(self) -> Object:
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Epoch(_Report):
    epoch: int = Field(ge=1)
    checkpoint: Name | None = None
    train_loss: Number = None
    metrics: Metrics = {}
    validation_metrics: Metrics = {}

    def over(self, earlier: Epoch | None) -> Epoch:
        """With the metrics that were told before and are not told now."""
        if earlier is None:
            return self
        metrics = {"metrics": {**earlier.metrics, **self.metrics}}
        validation = {"validation_metrics": {**earlier.validation_metrics, **self.validation_metrics}}
        return self.model_copy(update={**metrics, **validation})


class Checkpoint(_Report):
    name: Name
    epoch: int | None = Field(default=None, ge=1)
    digest: Digest | None = None
    size_bytes: Count | None = None


class Advice(_Report):
    code: str = Field(pattern=r"^[A-Z][A-Za-z]*$", max_length=64)
    message: str


class Training(_Report):
    """Both the termination message of a training pod and its /progress: the latter has more of the moment."""

    state: Literal["Running", "Complete", "Failed", "Stopped"]
    reason: str = ""
    message: str = ""
    percent: Number = None
    epoch: Count | None = None
    total_epochs: Count | None = None
    step: Count | None = None
    total_steps: Count | None = None
    eta_seconds: Number = None
    tokens_per_second: Number = None
    loss: Number = None
    learning_rate: Number = None
    training_rows: Count | None = None
    test_rows: Count | None = None
    validation_rows: Count | None = None
    overlap: Count | None = None
    validation_overlap: Count | None = None
    warnings: list[Advice] = []
    primary_metric: str | None = Field(default=None, max_length=64)
    higher_is_better: bool | None = None
    selected_on: Literal["Validation", "Test"] | None = None
    best_checkpoint: Name | None = None
    epochs: list[Epoch] = Field(default=[], max_length=EPOCHS)
    checkpoints: list[Checkpoint] = Field(default=[], max_length=EPOCHS)

    @model_validator(mode="before")
    @classmethod
    def metrics_have_names(cls, told: object) -> object:
        """A final word of many metrics has their names once (`metricNames`), and of each epoch a list of values."""
        if not isinstance(told, dict) or not isinstance(told.get("epochs"), list):
            return told
        names = told.get("metricNames")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return told
        return {**told, "epochs": [_named(epoch, names) for epoch in told["epochs"]]}


class Problem(_Report):
    file: str | None = Field(default=None, max_length=256)
    line: Count | None = None
    column: Count | None = None
    message: str


class Tokens(_Report):
    mean: float = Field(ge=0)
    p50: float = Field(ge=0)
    p95: float = Field(ge=0)
    p99: float = Field(ge=0)
    max: float = Field(ge=0)


class SourcePins(_Report):
    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")


class Import(_Report):
    """The termination message of an import pod."""

    state: Literal["Ready", "Failed"]
    reason: str = ""
    message: str = ""
    digest: Digest | None = None
    format: str | None = Field(default=None, max_length=64)
    task_detail: Literal["Binary", "Multiclass", "Multilabel"] | None = None
    rows: Count = 0
    labels: list[tuple[str, Count]] = Field(default=[], max_length=1_000)
    label_count: Count | None = None
    tokens: Tokens | None = None
    duplicates: Count = 0
    conflicts: Count = 0
    near_duplicates: Count | None = None
    skipped_rows: Count = 0
    warnings: list[Advice] = []
    problems: list[Problem] = []
    problem_count: Count = 0
    source: SourcePins | None = None


class Collection(_Report):
    """The termination message of a collect pod."""

    state: Literal["Done", "Failed", "Stopped"]
    message: str = ""
    freed_bytes: Count | None = None
    kept: list[Digest] = Field(default=[], max_length=1_000)


class MeasuredValue(_Report):
    value: Measure = None
    message: str = ""


class PairedComparison(_Report):
    metric: str = Field(default="", max_length=64)
    rows: Count | None = None
    candidate_rows: Count | None = None
    candidate: Measure = None
    live: Measure = None
    lead: Measure = None
    lead_at_least: Measure = None
    message: str = ""


class Measured(_Report):
    """The termination message of a pod that measures for a gate."""

    state: Literal["Done", "Failed", "Stopped"]
    message: str = ""
    rows: Count | None = None
    measured_on: Literal["Validation", "Test"] | None = None
    values: list[MeasuredValue] = Field(default=[], max_length=16)  # in the order in which they were asked for
    comparison: PairedComparison | None = None


class Serving(_Report):
    """The termination message of a server that could not load its checkpoint."""

    state: Literal["Failed"]
    reason: str = ""
    message: str = ""


R = TypeVar("R", bound=_Report)


def parse(model: type[R], text: str | bytes) -> R | None:
    """None for what is not such a report, for example the last log lines of a program that crashed."""
    try:
        return model.model_validate_json(text)
    except ValidationError:
        return None
