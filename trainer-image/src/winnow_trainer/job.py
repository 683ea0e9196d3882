"""The TrainingJob manifest as the trainer reads it, and the parameters that follow from it.

The fields are those of crds/trainingjobs.yaml, but for trainingDataset, testDataset, validationDataset and baseModel, which
are paths here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from winnow_classifier.architectures import Pooling, PoolingChoice
from winnow_classifier.base_model import is_remote
from winnow_classifier.manifest import Manifest, read_manifest
from winnow_classifier.metrics import HIGHER_IS_BETTER
from winnow_classifier.objectives import Thresholds
from winnow_classifier.tokens import PLACEHOLDER
from winnow_trainer.early_stopping import EarlyStopping
from winnow_trainer.names_elsewhere import ELSEWHERE

Method = Literal["LoRA", "QLoRA", "Full", "HeadOnly"]
ADAPTERS: tuple[Method, ...] = ("LoRA", "QLoRA")
Optimizer = Literal["adamw", "adafactor", "adamw_8bit", "paged_adamw_8bit"]
GPU_OPTIMIZERS = ("adamw_8bit", "paged_adamw_8bit")
# bitsandbytes' four bits cannot be cut, and a body that is only read once need not; other optimizers keep more than a number or
# two for each weight.
FSDP_METHODS: tuple[Method, ...] = ("Full", "LoRA")
FSDP_OPTIMIZERS = (None, "adamw")
Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial"]
DEFAULT_WARMUP_RATIO = 0.03
NAME_CHARACTERS = 63  # of an object whose name becomes part of a host's
Name = Annotated[str, Field(min_length=1)]
URL = r'^https?://[!-"$->A-~]+$'
URL_WORDS = "an address such as https://host/path, without a password, ? or #"
WANDB_NAME = r"^[^/\\#?%:]+$"
WANDB_WORDS = "a name without / \\ # ? % :"
# With torch's defaults, which are transformers' too.
ADAMW_ONLY = {"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8}
LORA_ONLY = ("lora_rank", "lora_alpha", "lora_dropout", "lora_target_modules")


Weight = Annotated[float, Field(gt=0, le=1_000_000)]


class ClassWeights(Manifest):
    mode: Literal["None", "Balanced", "Custom"] = "None"
    weights: dict[Name, Weight] | None = Field(None, min_length=1, max_length=1_000)

    @model_validator(mode="after")
    def weights_are_used(self) -> ClassWeights:
        if (self.mode == "Custom") != (self.weights is not None):
            raise ValueError("mode Custom needs weights, and weights need mode Custom")
        return self


class Loss(Manifest):
    type: Literal["CrossEntropy", "Focal"] = "CrossEntropy"
    gamma: float | None = Field(None, ge=0, le=10)

    @model_validator(mode="after")
    def gamma_is_used(self) -> Loss:
        if self.gamma is not None and self.type != "Focal":
            raise ValueError("gamma needs type Focal")
        return self


class Parameters(Manifest):
    ELSEWHERE: ClassVar[Mapping[str, str]] = ELSEWHERE

    num_train_epochs: int = Field(5, ge=1, le=1_000)
    learning_rate: float | None = Field(None, gt=0, le=1)
    lr_scheduler_type: Scheduler = "linear"
    warmup_ratio: float = Field(DEFAULT_WARMUP_RATIO, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, le=1)
    max_grad_norm: float = Field(0.3, gt=0, le=1_000_000)
    per_device_train_batch_size: int = Field(4, ge=1, le=4_096)
    gradient_accumulation_steps: int = Field(4, ge=1, le=4_096)
    per_device_eval_batch_size: int = Field(4, ge=1, le=4_096)
    max_seq_length: int = Field(512, ge=8, le=131_072)
    lora_rank: int | None = Field(None, ge=1, le=1_024)
    lora_alpha: int | None = Field(None, ge=1, le=4_096)
    lora_dropout: float | None = Field(None, ge=0, lt=1)
    lora_target_modules: list[Name] | None = Field(None, min_length=1, max_length=64)
    optim: Optimizer | None = None
    adam_beta1: float | None = Field(None, ge=0, lt=1)
    adam_beta2: float | None = Field(None, ge=0, lt=1)
    adam_epsilon: float | None = Field(None, gt=0, le=1)
    gradient_checkpointing: bool | None = None
    parallelism: Literal["DDP", "FSDP"] | None = None
    pooling: PoolingChoice | None = None
    head_init: Literal["Random", "Ridge"] | None = None
    class_weights: ClassWeights | None = None
    loss: Loss | None = None
    label_smoothing: float | None = Field(None, ge=0, lt=1)
    ema_decay: float | None = Field(None, ge=0, lt=1)
    downsample_percent: float | None = Field(None, ge=1, le=100)
    logging_steps: int | None = Field(None, ge=1, le=1_000_000)
    seed: int = Field(0, ge=0, le=2**31 - 1)

    @model_validator(mode="after")
    def the_loss_is_defined(self) -> Parameters:
        if self.label_smoothing and self.loss is not None and self.loss.type == "Focal":
            raise ValueError("labelSmoothing is not defined for the Focal loss; use one of them")
        return self

    @model_validator(mode="after")
    def the_schedule_has_what_is_given(self) -> Parameters:
        # The default is taken for unset: the API server fills it in.
        if self.lr_scheduler_type == "constant" and self.warmup_ratio not in (0, DEFAULT_WARMUP_RATIO):
            raise ValueError(
                f"warmupRatio is {self.warmup_ratio:g}, and lrSchedulerType constant has no warm-up; use constant_with_warmup"
            )
        return self

    @model_validator(mode="after")
    def the_optimizer_has_what_is_given(self) -> Parameters:
        given = [to_camel(name) for name in ADAMW_ONLY if getattr(self, name) is not None]
        if given and self.optim == "adafactor":
            raise ValueError(f"{', '.join(given)} need an optim of AdamW, and optim is adafactor")
        return self

    @field_validator("lora_target_modules")
    @classmethod
    def all_of_them_need_no_others(cls, given: list[str] | None) -> list[str] | None:
        if given is not None and "all-linear" in given and len(given) > 1:
            raise ValueError("all-linear stands for all modules, so it stands alone")
        return given

    @property
    def batch_size(self) -> int:
        """Rows of one optimizer step, of each process."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    @property
    def max_train_tokens(self) -> int:
        """Tokens computed at a time while training: no more than a padded batch of the user's size could hold."""
        return self.per_device_train_batch_size * self.max_seq_length

    @property
    def max_eval_tokens(self) -> int:
        return self.per_device_eval_batch_size * self.max_seq_length

    def resolved(self, method: Method, own_pooling: Pooling) -> Parameters:
        """With the defaults that depend on the method and the kind of model, told by where its own classifier pools."""
        defaults: dict[str, Any] = {"learning_rate": default_learning_rate(method, decoder=own_pooling == "last")}
        if method in ADAPTERS:
            defaults |= {"lora_rank": 16, "lora_alpha": 32, "lora_dropout": 0.05, "lora_target_modules": ["all-linear"]}
        return self._or(defaults)

    def spelled_out(self) -> Parameters:
        """With what unset fields stand for, for whoever reads it later: of resolved ones."""
        return self._or(
            {
                "loss": Loss(),
                "label_smoothing": 0.0,
                "ema_decay": 0.0,
                "downsample_percent": 100.0,
                "head_init": "Random",
                "pooling": "Auto",
                "optim": "adamw",
                **({} if self.optim == "adafactor" else ADAMW_ONLY),
            }
        )

    def _or(self, defaults: Mapping[str, Any]) -> Parameters:
        return self.model_copy(update={name: value for name, value in defaults.items() if getattr(self, name) is None})


def default_learning_rate(method: Method, decoder: bool) -> float:
    """LoRA wants about ten times the rate of full fine-tuning; decoders are large, and want less than encoders."""
    if method == "Full":
        return 1e-5 if decoder else 5e-5
    return 1e-3 if method == "HeadOnly" else 2e-4


MetricName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=63,
        pattern=r"^[a-z][a-z0-9_]*$",
        description="lower-case letters, digits and _, a letter at the beginning",
    ),
]


class ConfigMapKey(Manifest):
    name: Name
    key: Name


class CustomMetric(Manifest):
    """A Python file with `def score(input_text, expected, predicted) -> float`."""

    name: MetricName
    file: Name | None = None  # where there is no cluster
    config_map: ConfigMapKey | None = None  # in a cluster; the operator mounts it and says the file
    direction: Literal["Maximize", "Minimize"] | None = None

    @model_validator(mode="after")
    def has_a_file(self) -> CustomMetric:
        if self.file is None:
            raise ValueError(f"{self.name} needs file, the path of its Python source; a configMap is for clusters")
        if self.name in HIGHER_IS_BETTER:
            raise ValueError(f"{self.name} is the name of a built-in metric; choose another one")
        return self


class Metrics(Manifest):
    primary: Name | None = None
    functions: list[Name] | None = Field(None, min_length=1, max_length=64)
    custom: list[CustomMetric] | None = Field(None, min_length=1, max_length=16)

    @model_validator(mode="after")
    def names_are_clear(self) -> Metrics:
        names = [metric.name for metric in self.custom or []]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"custom has two metrics of the name {repeated[0]}")
        chosen = self.custom_primary
        if chosen and chosen.direction is None:
            raise ValueError(f"primary: {chosen.name} needs direction: Maximize or Minimize, since it picks the best")
        return self

    @property
    def custom_primary(self) -> CustomMetric | None:
        return next((metric for metric in self.custom or [] if metric.name == self.primary), None)


class Part(Manifest):
    """Rows to be taken out of others."""

    percent: float = Field(ge=1, le=50)
    seed: int = Field(0, ge=0, le=2**31 - 1)


class Rebalance(Manifest):
    counts: dict[Name, Annotated[int, Field(ge=1, le=10_000_000)]] | None = Field(None, min_length=1, max_length=1_000)
    ratios: dict[Name, Weight] | None = Field(None, min_length=1, max_length=1_000)

    @model_validator(mode="after")
    def says_one_thing(self) -> Rebalance:
        if (self.counts is None) == (self.ratios is None):
            raise ValueError("rebalance needs exactly one of: counts, ratios")
        if self.ratios is not None and len(self.ratios) < 2:
            raise ValueError("rebalance.ratios needs two labels or more, since it compares them")
        return self


def a_folders_name(name: str) -> str:
    """The name. Raises ValueError for one that cannot be that of a folder below runs/. A cluster asks for more."""
    if not re.fullmatch(r"[A-Za-z0-9][-._A-Za-z0-9]*", name) or len(name) > NAME_CHARACTERS:
        raise ValueError(
            f"a name has up to {NAME_CHARACTERS} letters, digits, hyphens, dots and underscores, a letter or digit at the beginning"
        )
    return name


class Metadata(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Annotated[str, AfterValidator(a_folders_name)]
    namespace: str | None = None
    uid: Annotated[str, Field(pattern=r"^[-0-9A-Za-z]+$")] | None = None


class Mlflow(Manifest):
    tracking_uri: str = Field(pattern=URL, description=URL_WORDS, max_length=2_048)
    experiment: str = Field(min_length=1, max_length=250)
    secret_ref: dict[str, str] | None = None  # the operator's: here the keys are in the environment


class Wandb(Manifest):
    project: str = Field(min_length=1, max_length=128, pattern=WANDB_NAME, description=WANDB_WORDS)
    entity: str | None = Field(None, min_length=1, max_length=128, pattern=WANDB_NAME, description=WANDB_WORDS)
    base_url: str = Field("https://api.wandb.ai", pattern=URL, description=URL_WORDS, max_length=2_048)
    secret_ref: dict[str, str] | None = None  # the operator's: here the key is in the environment


class Tracking(Manifest):
    mlflow: Mlflow | None = None
    wandb: Wandb | None = None


class CheckpointSource(Manifest):
    """A checkpoint in the same storage; `run`, `digest` and `baseModel` are what the operator knows of it."""

    training_job: Name
    name: Annotated[str, Field(pattern=r"^(best|epoch-[1-9][0-9]{0,3})$", description="best, or such as epoch-1")] = (
        "best"
    )
    run: Annotated[str, Field(pattern=r"^[a-z0-9][-a-z0-9]*$")] | None = None
    digest: str | None = None
    base_model: Name | None = None  # where the model is now that its adapter stands on, if it moved


class CheckpointBase(Manifest):
    checkpoint: CheckpointSource


class Spec(Manifest):
    training_dataset: Name
    test_dataset: Name | None = None
    test_split: Part | None = None
    validation_dataset: Name | None = None
    validation_split: Part | None = None
    on_overlap: Literal["Keep", "Drop"] = "Keep"
    rebalance: Rebalance | None = None
    base_model: Name | CheckpointBase
    task_type: Literal["Classification"] = "Classification"
    output_model_name: Name | None = None
    method: Method = "LoRA"
    parameters: Parameters = Field(default_factory=Parameters)
    prompt_template: str = Field(PLACEHOLDER, max_length=16_384)
    metrics: Metrics = Field(default_factory=Metrics)
    early_stopping: EarlyStopping | None = None
    thresholds: Thresholds | None = None
    tracking: Tracking | None = None
    nodes: int = Field(1, ge=1, le=64)
    processes_per_node: int = Field(1, ge=1, le=16)

    # What the operator and Kubernetes act on; here only so that one manifest serves both.
    model_service: str | None = None
    resources: dict[str, Any] | None = None
    suspend: bool = False
    active_deadline_seconds: int | None = None
    ttl_seconds_after_finished: int | None = None
    max_restarts: int | None = None
    node_selector: dict[str, str] | None = None
    tolerations: list[dict[str, Any]] | None = None
    priority_class_name: str | None = None
    runtime_class_name: str | None = None
    queue_name: str | None = None
    env: list[dict[str, Any]] | None = None
    affinity: dict[str, Any] | None = None
    service_account_name: str | None = None

    @field_validator("base_model", mode="before")
    @classmethod
    def a_base_is_one_of_these(cls, given: Any) -> Any:
        if (
            isinstance(given, str)
            or (isinstance(given, dict) and "checkpoint" in given)
            or isinstance(given, CheckpointBase)
        ):
            return given
        theirs = isinstance(given, dict) and "huggingFace" in given
        raise ValueError(
            "write a folder, hf://owner/name@revision, s3://bucket/folder, or {checkpoint: {trainingJob: …}}"
            + ("; {huggingFace: …} stands in a ModelService" if theirs else "")
        )

    @property
    def processes(self) -> int:
        return self.nodes * self.processes_per_node

    @model_validator(mode="after")
    def fields_fit_together(self) -> Spec:
        given = [to_camel(name) for name in LORA_ONLY if getattr(self.parameters, name) is not None]
        if given and self.method not in ADAPTERS:
            raise ValueError(f"parameters.{', '.join(given)} need method LoRA or QLoRA, and method is {self.method}")
        if self.method == "HeadOnly" and self.parameters.gradient_checkpointing:
            raise ValueError("parameters.gradientCheckpointing needs a body that trains: method LoRA, QLoRA or Full")
        if self.parameters.parallelism == "FSDP":
            if self.processes == 1:
                raise ValueError("parameters.parallelism FSDP needs several processes: set processesPerNode or nodes")
            if self.method not in FSDP_METHODS:
                raise ValueError(f"parameters.parallelism FSDP needs method Full or LoRA, and method is {self.method}")
            if self.parameters.optim not in FSDP_OPTIMIZERS:
                raise ValueError(f"parameters.parallelism FSDP needs optim adamw, and optim is {self.parameters.optim}")
        if self.test_dataset is not None and self.test_split is not None:
            raise ValueError("testDataset and testSplit are both given; the test rows come from one of them")
        if self.validation_dataset is not None and self.validation_split is not None:
            raise ValueError(
                "validationDataset and validationSplit are both given; the validation rows come from one of them"
            )
        if self.thresholds is not None and self.validation_dataset is None and self.validation_split is None:
            raise ValueError("thresholds are fitted on validation rows: give validationDataset or validationSplit")
        measured = (self.test_dataset, self.test_split, self.validation_dataset, self.validation_split)
        if self.early_stopping is not None and all(rows is None for rows in measured):
            raise ValueError(
                "earlyStopping needs validation or test rows to measure on: give validationSplit, for example"
            )
        given = [name for name in ("primary", "functions", "custom") if getattr(self.metrics, name) is not None]
        if given and all(rows is None for rows in measured):
            raise ValueError(
                f"metrics.{', '.join(given)} need validation or test rows to measure on: give validationSplit, for example"
            )
        if PLACEHOLDER not in self.prompt_template:
            raise ValueError(f"promptTemplate must contain {PLACEHOLDER}, found {self.prompt_template!r}")
        return self


class TrainingJob(Manifest):
    api_version: Literal["winnow.dev/v1alpha1"] | None = None
    kind: Literal["TrainingJob"]
    metadata: Metadata
    spec: Spec
    status: Any = None  # of a manifest that comes from a cluster

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def run(self) -> str:
        """The folder under runs/: with the start of the uid, so that a re-created job never meets another's files."""
        return f"{self.name}-{self.metadata.uid[:8]}" if self.metadata.uid else self.name


def load_job(path: Path) -> TrainingJob:
    """Read a manifest; its relative paths start at its own folder. Raises ConfigError naming field and value."""
    job = read_manifest(path, TrainingJob)
    names = ["training_dataset", "test_dataset", "validation_dataset"]
    names += ["base_model"] if isinstance(job.spec.base_model, str) else []
    found: dict[str, Any] = {name: from_folder(getattr(job.spec, name), path.parent) for name in names}
    custom = [
        metric.model_copy(update={"file": from_folder(metric.file, path.parent)})
        for metric in job.spec.metrics.custom or []
    ]
    if custom:
        found["metrics"] = job.spec.metrics.model_copy(update={"custom": custom})
    return job.model_copy(update={"spec": job.spec.model_copy(update=found)})


def from_folder(reference: str | None, folder: Path) -> str | None:
    """A path beside the manifest where there is one, else what was given: a path from here, hf://… or s3://…"""
    if reference is None or is_remote(reference) or not (folder / reference).exists():
        return reference
    return str((folder / reference).resolve())
