"""What the server's own endpoints answer, as openapi.json describes it. Answers are not built from these: a test holds
them against it."""

from typing import Literal

from pydantic import BaseModel, Field

from winnow_classifier.checkpoint import SelectedOn
from winnow_server.examples import Example


class Ranked(BaseModel):
    label: str
    prob: float


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: None


class ClassifyItem(BaseModel):
    index: int
    id: str | None = Field(default=None, description="The item's, if it had one.")
    label: str = Field(description="The most probable label.")
    probs: list[float] = Field(
        description="Calibrated, in the order of labels, unrounded; logits with use_activation: false."
    )
    num_classes: int
    predicted_labels: list[str] = Field(description="The decision: one label, or with several at once perhaps none.")
    abstained: bool = Field(description="True: not sure enough, as decision.json says; take it for no decision.")
    tokens: int = Field(description="That the model read.")
    truncated: bool
    original_tokens: int = Field(description="Before a cut.")
    logits: list[float] | None = None
    top: list[Ranked] | None = None


class ClassifyAnswer(BaseModel):
    id: str
    object: Literal["list"]
    created: int
    model: str
    model_version: str
    problem_type: str
    labels: list[str]
    thresholds: dict[str, float] = Field(description="That held for this request; a label without one has no entry.")
    data: list[ClassifyItem]
    usage: Usage
    warnings: list[str]


class ClassificationItem(BaseModel):
    index: int
    logits: dict[str, float] | None = None
    probs: dict[str, float] | None = None


class ClassificationAnswer(BaseModel):
    id: str
    model: str
    data: list[ClassificationItem]
    created: int
    usage: Usage


class Live(BaseModel):
    live: bool


class Ready(BaseModel):
    ready: bool
    phase: Literal["loading", "ready", "draining", "failed"]


class ListedModel(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int = Field(description="Tokens of a text that are read, as vLLM names it.")


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ListedModel]
    models: list[str] = Field(description="Its name, where KServe V1 clients look for it.")


class BaseModelEntry(BaseModel):
    reference: str
    digest: str


class TrainingJobEntry(BaseModel):
    name: str
    uid: str | None
    output_model_name: str | None


class DatasetEntry(BaseModel):
    digest: str
    rows: int


class CalibrationLine(BaseModel):
    slope: float
    intercept: float


class Calibration(BaseModel):
    method: Literal["Temperature", "Platt"]
    temperature: float | None = Field(default=None, description="Divides the logits.")
    labels: dict[str, CalibrationLine] | None = Field(default=None, description="slope * logit + intercept.")


class Abstain(BaseModel):
    band: float | None = Field(default=None, description="A label is nearer to its threshold than this.")
    min_probability: float | None = Field(default=None, description="The likeliest label has less.")


class ModelCard(BaseModel):
    id: str
    model_version: str
    checkpoint: str
    digest: str
    labels: list[str]
    thresholds: dict[str, float] = Field(description="That hold where a request brings none.")
    calibration: Calibration | None = Field(description="How logits are changed before they become probabilities.")
    abstain: Abstain | None = Field(description="When an answer is abstained.")
    decision: str | None = Field(description="The digest of the decision.json in use.")
    task_detail: str
    problem_type: str
    max_tokens: int
    prompt_template: str
    metrics: dict[str, float | None]
    validation_metrics: dict[str, float | None] = Field(description="Empty where there were no validation rows.")
    primary_metric: str | None
    selected_on: SelectedOn | None = Field(description="The rows by which a training's best checkpoint is chosen.")
    method: str
    architecture: str
    base_model: BaseModelEntry
    training_job: TrainingJobEntry
    training_dataset: DatasetEntry
    test_dataset: DatasetEntry | None
    validation_dataset: DatasetEntry | None
    precision: str | None = Field(description="That the model computes in; null while it loads.")
    versions: dict[str, str]
    created_at: str
    serving_since: int


class Examples(BaseModel):
    examples: list[Example] = Field(description="None where the checkpoint has no test rows, or the server hides them.")


class ErrorBody(BaseModel):
    message: str = Field(description="For people.")
    type: str
    param: str | None = Field(description="The part of the request that is meant.")
    code: str = Field(description="For programs.")
    request_id: str


class ErrorAnswer(BaseModel):
    error: ErrorBody


class FlatErrorAnswer(BaseModel):
    """The same, as clients of other protocols read it."""

    error: str = Field(description="For people.")
    error_type: str
    code: str
    param: str | None
    request_id: str


class Alive(BaseModel):
    status: Literal["alive"]
