"""TrainingJob: one fine-tune, evaluated at each epoch."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from .common import (
    TEN_YEARS_SECONDS,
    AdapterBase,
    BaseModelSource,
    CheckpointName,
    Count,
    Digest,
    MetricValues,
    Object,
    ObservedStatus,
    OwnName,
    SecretRef,
    SeenName,
    Spec,
    Status,
    Time,
    TrainingBaseModel,
)
from .dataset import ConfigMapSource, Warning_
from .placement import PlacedPods

MetricName = Literal[
    "matching_score",
    "text_match",
    "accuracy",
    "binary_accuracy",
    "multiclass_accuracy",
    "multilabel_exact_match",
    "precision",
    "recall",
    "f1",
    "precision_macro",
    "recall_macro",
    "f1_macro",
    "precision_micro",
    "recall_micro",
    "f1_micro",
    "precision_weighted",
    "recall_weighted",
    "f1_weighted",
    "roc_auc",
    "average_precision",
    "mcc",
    "log_loss",
    "brier",
    "ece",
    "hamming_loss",
]
SelectedOn = Literal["Validation", "Test"]
SeenMetricName = Annotated[str, StringConstraints(max_length=64)]
BatchSize = Annotated[int, Field(ge=1, le=4096)]
NotNegative = Annotated[float, Field(ge=0)]
PartBelowOne = Annotated[float, Field(ge=0, lt=1)]
EpochNumber = Annotated[int, Field(ge=1)]


class ClassWeights(Spec):
    """How much the rows of each label count."""

    mode: Literal["None", "Balanced", "Custom"] = "None"
    weights: (
        Annotated[Mapping[str, Annotated[float, Field(gt=0, le=1_000_000)]], Field(min_length=1, max_length=1000)]
        | None
    ) = None


class Rebalance(Spec):
    """How many rows of each label train."""

    counts: (
        Annotated[Mapping[str, Annotated[int, Field(ge=1, le=10_000_000)]], Field(min_length=1, max_length=1000)] | None
    ) = None
    ratios: (
        Annotated[Mapping[str, Annotated[float, Field(gt=0, le=1_000_000)]], Field(min_length=1, max_length=1000)]
        | None
    ) = None


class Loss(Spec):
    """What is minimised."""

    type: Literal["CrossEntropy", "Focal"] = "CrossEntropy"
    gamma: Annotated[float, Field(ge=0, le=10)] | None = None


class Parameters(Spec):
    """How to train. What is None is resolved by the trainer, since it depends on method and model."""

    num_train_epochs: Annotated[int, Field(ge=1, le=1000)] = 5
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial"] = "linear"
    warmup_ratio: PartBelowOne = 0.03
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0, le=1_000_000)] = 0.3
    per_device_train_batch_size: BatchSize = 4
    gradient_accumulation_steps: BatchSize = 4
    per_device_eval_batch_size: BatchSize = 4
    max_seq_length: Annotated[int, Field(ge=8, le=131_072)] = 512
    lora_rank: Annotated[int, Field(ge=1, le=1024)] | None = None
    lora_alpha: BatchSize | None = None
    lora_dropout: PartBelowOne | None = None
    lora_target_modules: (
        Annotated[
            tuple[Annotated[str, StringConstraints(min_length=1, max_length=256)], ...],
            Field(min_length=1, max_length=64),
        ]
        | None
    ) = None
    optim: Literal["adamw", "adafactor", "adamw_8bit", "paged_adamw_8bit"] | None = None
    adam_beta1: PartBelowOne | None = None
    adam_beta2: PartBelowOne | None = None
    adam_epsilon: Annotated[float, Field(gt=0, le=1)] | None = None
    gradient_checkpointing: bool | None = None
    parallelism: Literal["DDP", "FSDP"] | None = None
    pooling: Literal["Auto", "LastToken", "Mean", "CLS"] | None = None
    head_init: Literal["Random", "Ridge"] | None = None
    class_weights: ClassWeights | None = None
    loss: Loss | None = None
    label_smoothing: PartBelowOne | None = None
    ema_decay: PartBelowOne | None = None
    downsample_percent: Annotated[float, Field(ge=1, le=100)] | None = None
    logging_steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0


class CustomMetric(Spec):
    """A function of the user's."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z][a-z0-9_]*$")]
    config_map: ConfigMapSource
    direction: Literal["Maximize", "Minimize"] | None = None


class Metrics(Spec):
    """What is computed on test and validation rows, and what picks the best checkpoint."""

    primary: Annotated[str, StringConstraints(min_length=1, max_length=63)] | None = None
    functions: Annotated[tuple[MetricName, ...], Field(min_length=1, max_length=64)] | None = None
    custom: Annotated[tuple[CustomMetric, ...], Field(min_length=1, max_length=16)] | None = None


class EarlyStopping(Spec):
    """When further epochs are not worth their time."""

    patience: Annotated[int, Field(ge=1, le=1000)]
    min_delta: Annotated[float, Field(ge=0, le=1_000_000)] = 0.0


class Costs(Spec):
    """Of wrong answers; only the proportion matters."""

    false_positive: Annotated[float, Field(gt=0, le=1_000_000)]
    false_negative: Annotated[float, Field(gt=0, le=1_000_000)]


class Abstain(Spec):
    """When an answer is not sure enough; a CEL rule allows exactly one."""

    band: Annotated[float, Field(gt=0, le=0.5)] | None = None
    min_probability: Annotated[float, Field(gt=0, le=1)] | None = None


class Thresholds(Spec):
    """What thresholds are fitted for."""

    objective: Literal["F1", "PrecisionAtLeast", "RecallAtLeast", "Cost"] | None = None
    value: Annotated[float, Field(gt=0, le=1)] | None = None
    costs: Costs | None = None
    abstain: Abstain | None = None


class Part(Spec):
    """Rows taken out of the training dataset."""

    percent: Annotated[float, Field(ge=1, le=50)]
    seed: Annotated[int, Field(ge=0, le=2147483647)] = 0


# ASCII without #, ? and @.
TrackingUrl = Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=r'^https?://[!-"$->A-~]+$')]


class Mlflow(Spec):
    """A run in an MLflow server."""

    tracking_uri: TrackingUrl
    experiment: Annotated[str, StringConstraints(min_length=1, max_length=250)]
    secret_ref: SecretRef | None = None


WandbName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^/\\#?%:]+$")]


class Wandb(Spec):
    """A run in Weights & Biases."""

    project: WandbName
    entity: WandbName | None = None
    base_url: TrackingUrl = "https://api.wandb.ai"
    secret_ref: SecretRef


class Tracking(Spec):
    """Where else losses and metrics are told."""

    mlflow: Mlflow | None = None
    wandb: Wandb | None = None


class TrainingJobSpec(PlacedPods):
    """What to train, on which rows, and how; immutable but for suspend, the deadline and the time to live."""

    model_service: OwnName
    task_type: Literal["Classification"] = "Classification"
    output_model_name: (
        Annotated[
            str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$")
        ]
        | None
    ) = None
    base_model: TrainingBaseModel | None = None
    training_dataset: OwnName
    test_dataset: OwnName | None = None
    test_split: Part | None = None
    validation_dataset: OwnName | None = None
    validation_split: Part | None = None
    on_overlap: Literal["Keep", "Drop"] = "Keep"
    rebalance: Rebalance | None = None
    method: Literal["LoRA", "QLoRA", "Full", "HeadOnly"] = "LoRA"
    parameters: Parameters = Parameters()
    prompt_template: Annotated[str, StringConstraints(min_length=6, max_length=16384)] = "{text}"
    metrics: Metrics | None = None
    early_stopping: EarlyStopping | None = None
    thresholds: Thresholds | None = None
    tracking: Tracking | None = None
    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    processes_per_node: Annotated[int, Field(ge=1, le=16)] = 1
    suspend: bool = False
    active_deadline_seconds: Annotated[int, Field(ge=1, le=TEN_YEARS_SECONDS)] | None = None
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=TEN_YEARS_SECONDS)] | None = None
    max_restarts: Annotated[int, Field(ge=0, le=100)] = 3
    queue_name: (
        Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
        | None
    ) = None


class Progress(Status):
    """How far the training is, as its pod told last."""

    percent: Annotated[float, Field(ge=0, le=100)] | None = None
    epoch: Count | None = None
    total_epochs: Count | None = None
    step: Count | None = None
    total_steps: Count | None = None
    eta_seconds: NotNegative | None = None
    eta: Annotated[str, StringConstraints(max_length=32)] | None = None
    tokens_per_second: NotNegative | None = None
    loss: float | None = None
    learning_rate: NotNegative | None = None
    updated_at: Time | None = None


class Epoch(Status):
    """What a finished epoch gave."""

    epoch: EpochNumber
    checkpoint: CheckpointName | None = None
    train_loss: float | None = None
    metrics: MetricValues | None = None
    validation_metrics: MetricValues | None = None


class Checkpoint(Status):
    """A checkpoint in storage, or gone from there."""

    name: CheckpointName
    epoch: EpochNumber | None = None
    digest: Digest | None = None
    size_bytes: Count | None = None
    metrics: MetricValues | None = None
    validation_metrics: MetricValues | None = None
    best: bool | None = None
    unneeded_since: Time | None = None
    removed: bool | None = None
    continued_by: Annotated[tuple[SeenName, ...], Field(max_length=100)] | None = None
    deployed_by: Annotated[tuple[SeenName, ...], Field(max_length=100)] | None = None


class ContinuedFrom(Status):
    """The checkpoint that a training goes on from, fixed with its first start."""

    training_job: SeenName
    checkpoint: CheckpointName
    digest: Digest
    run: SeenName
    adapter_base: AdapterBase | None = None


class DatasetUse(Status):
    """Rows that a training used."""

    name: SeenName
    digest: Digest | None = None


class UsedDatasets(Status):
    """Which rows, how many after splits, what they share, and what is odd about them."""

    training: DatasetUse | None = None
    test: DatasetUse | None = None
    validation: DatasetUse | None = None
    training_rows: Count | None = None
    test_rows: Count | None = None
    validation_rows: Count | None = None
    overlap: Count | None = None
    validation_overlap: Count | None = None
    warnings: Annotated[tuple[Warning_, ...], Field(max_length=20)] | None = None


class Failure(Status):
    """Why a training failed."""

    reason: Annotated[str, StringConstraints(max_length=64)]
    message: Annotated[str, StringConstraints(max_length=4096)] | None = None
    exit_code: int | None = None


class TrainingJobStatus(ObservedStatus):
    """Progress, the history of epochs, checkpoints and, where it failed, why."""

    start_time: Time | None = None
    completion_time: Time | None = None
    progress: Progress | None = None
    epochs: Annotated[tuple[Epoch, ...], Field(max_length=1000)] | None = None
    checkpoints: Annotated[tuple[Checkpoint, ...], Field(max_length=1000)] | None = None
    best_checkpoint: CheckpointName | None = None
    best_metric: Annotated[str, StringConstraints(max_length=128)] | None = None
    primary_metric: SeenMetricName | None = None
    higher_is_better: bool | None = None
    selected_on: SelectedOn | None = None
    base_model: BaseModelSource | None = None
    continued_from: ContinuedFrom | None = None
    datasets: UsedDatasets | None = None
    failure: Failure | None = None


class TrainingJob(Object):
    """See crds/trainingjobs.yaml."""

    kind: Literal["TrainingJob"] = "TrainingJob"
    spec: TrainingJobSpec
    status: TrainingJobStatus = TrainingJobStatus()
