"""Everything a training needs to know before its first step: checked here, so that what is wrong fails in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from transformers import PreTrainedTokenizerFast

from winnow_classifier import base_model, metrics, objectives
from winnow_classifier.architectures import (
    Pooling,
    architecture_of,
    chosen_pooling,
    embeddings_of,
    own_pooling,
    pools_as_transformers,
)
from winnow_classifier.checkpoint import BaseModelEntry, DatasetEntry, SelectedOn, SplitEntry
from winnow_classifier.errors import ConfigError
from winnow_classifier.four_bit import check_installed
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.mirror import VOLUME, Mirror
from winnow_classifier.model import read_config
from winnow_classifier.profile import Warn
from winnow_classifier.tokens import Encoder, class_that_reads_otherwise, load_tokenizer, part_padding
from winnow_trainer import continuing, losses, sampling
from winnow_trainer.continuing import Parent
from winnow_trainer.data import Data, HeldOut, ImportRows, load_data
from winnow_trainer.job import GPU_OPTIMIZERS, Parameters, Part, Spec, TrainingJob
from winnow_trainer.metric_functions import source_of
from winnow_trainer.run_folder import DIRECTIONS
from winnow_trainer.steps import Rows

READS = {"cls": "the first token", "last": "the last token", "mean": "the mean of all tokens", "own": "its own way"}
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "winnow-trainer", "winnow-classifier")


@dataclass(frozen=True)
class Prepared:
    job: TrainingJob
    parameters: Parameters  # resolved
    base: Path
    base_model: BaseModelEntry
    data: Data
    rows: Rows  # of data.train that train, repeated where they repeat
    tokenizer: PreTrainedTokenizerFast
    encoder: Encoder
    primary: str | None  # None: there are no rows to measure on
    pooling: Pooling
    pools_as_transformers: bool
    packs: bool
    parent: Parent | None  # the checkpoint that this training goes on from
    warnings: list[Warn]  # about the model

    @property
    def schema(self) -> LabelSchema:
        return self.data.train.schema

    @property
    def selected_on(self) -> SelectedOn | None:
        """Which rows' primary metric picks the best checkpoint: test rows only where there are no others, since rows that
        chose a checkpoint make it look better than it is."""
        return "Validation" if self.data.validation else "Test" if self.data.test else None

    @property
    def higher_is_better(self) -> bool | None:
        """Of the primary metric."""
        if chosen := self.job.spec.metrics.custom_primary:
            return chosen.direction == "Maximize"
        return metrics.HIGHER_IS_BETTER[self.primary] if self.primary else None

    @property
    def reported(self) -> list[str] | None:
        """The metrics to report, None for all: the primary one is always among them."""
        functions = self.job.spec.metrics.functions
        return None if functions is None or self.primary is None else [*functions, self.primary]

    def identity(self) -> dict[str, Any]:
        """What a run folder belongs to: a training goes on from the files there only if this is the same."""
        spec, custom = self.job.spec, self.job.spec.metrics.custom or []
        directions = {metric.name: metric.direction for metric in custom}
        return {
            "name": self.job.name,
            "method": spec.method,
            "parameters": _given(self.parameters),
            "promptTemplate": spec.prompt_template,
            "metrics": {
                "primary": self.primary,
                "functions": spec.metrics.functions,
                # Functions by name only, so that a mended one goes on with the same files; metrics.json says which source
                # ran.
                **({"custom": list(directions), DIRECTIONS: directions} if custom else {}),
            },
            "baseModel": self.base_model.digest,
            **({"continuedFrom": self.parent.digest} if self.parent else {}),
            "trainingDataset": self.data.train.digest,
            "testDataset": self.data.test.rows.digest if self.data.test else None,
            **({"validationDataset": self.data.validation.rows.digest} if self.data.validation else {}),
            **({"testSplit": _given(spec.test_split)} if spec.test_split else {}),
            **({"validationSplit": _given(spec.validation_split)} if spec.validation_split else {}),
            **({"rebalance": self.rebalance} if self.rebalance else {}),
            **({"thresholds": _given(spec.thresholds)} if spec.thresholds else {}),
            **({"earlyStopping": _given(spec.early_stopping)} if spec.early_stopping else {}),
            **({"onOverlap": spec.on_overlap} if spec.on_overlap != "Keep" else {}),
            **({"processes": spec.processes} if spec.processes > 1 else {}),
        }

    @property
    def training_entry(self) -> DatasetEntry:
        spec = self.job.spec
        return DatasetEntry(
            digest=self.data.train.digest,
            rows=len(self.rows),
            split=_entry(spec.test_split),
            validation_split=_entry(spec.validation_split),
        )

    @property
    def rebalance(self) -> dict[str, Any] | None:
        wanted = self.job.spec.rebalance
        return _given(wanted) if wanted else None

    @property
    def test_entry(self) -> DatasetEntry | None:
        return _held_out(self.data.test, self.job.spec.test_split)

    @property
    def validation_entry(self) -> DatasetEntry | None:
        spec = self.job.spec
        wanted = spec.validation_split
        return _held_out(self.data.validation, spec.test_split if wanted else None, wanted)


def _held_out(part: HeldOut | None, split: Part | None, validation_split: Part | None = None) -> DatasetEntry | None:
    if part is None:
        return None
    return DatasetEntry(
        digest=part.rows.digest,
        rows=len(part.rows.texts),
        split=_entry(split),
        validation_split=_entry(validation_split),
        dropped=part.overlap if part.dropped else None,
    )


def _given(wanted: BaseModel) -> dict[str, Any]:
    return wanted.model_dump(by_alias=True, exclude_none=True)


def _entry(wanted: Part | None) -> SplitEntry | None:
    return SplitEntry(percent=wanted.percent, seed=wanted.seed) if wanted else None


def prepare(
    job: TrainingJob,
    storage: Path,
    import_rows: ImportRows,
    mirror: Mirror = VOLUME,
    resolve: base_model.Resolve = base_model.resolve,
) -> Prepared:
    """Raises ConfigError, BaseModelError, CheckpointError, DataError."""
    spec = job.spec
    check_machine(spec, torch.cuda.is_available())
    parent = continuing.find(spec.base_model, storage, mirror, resolve)
    if parent is None:
        assert isinstance(spec.base_model, str)
        base = resolve(spec.base_model, storage)
        entry = BaseModelEntry(reference=base_model.pinned(spec.base_model, base), digest=base_model.digest(base))
    else:
        base, entry = parent.body, parent.entry
    config = read_config(base)
    own = own_pooling(config)
    pooling = chosen_pooling(spec.parameters.pooling, config)
    if parent is not None and spec.parameters.pooling in (None, "Auto"):
        pooling = parent.manifest.pooling
    parameters = continuing.with_parent(spec.parameters, spec, parent).resolved(spec.method, own)
    packs = architecture_of(config).packs
    model_warnings = about_model(parameters, config, pooling)
    tokenizer = load_tokenizer(parent.folder if parent else base)
    encoder = Encoder(tokenizer, spec.prompt_template, parameters.max_seq_length, embeddings_of(config))
    pools_alike = pools_as_transformers(config, pooling)
    if pools_alike and own == "last" and not part_padding(encoder):
        pools_alike = False
        model_warnings.append(Warn("PoolingOfWinnow", ends_in_padding(tokenizer)))
    if reader := class_that_reads_otherwise(tokenizer, config.model_type):
        model_warnings.append(Warn("TokenizerOfWinnow", read_by(reader, config.model_type)))
    data = load_data(spec, storage, import_rows, mirror)
    data, rows = sampling.sample(data, parameters.downsample_percent, spec.rebalance, parameters.seed)
    losses.check_labels(parameters, data.train.schema, data.train.targets[rows])
    objectives.check(spec.thresholds, data.train.schema.task_detail)
    primary = primary_metric(spec, data.train.schema.task_detail)
    return Prepared(
        job,
        parameters,
        base,
        entry,
        data,
        rows,
        tokenizer,
        encoder,
        primary if data.test or data.validation else None,
        pooling,
        pools_alike,
        packs,
        parent,
        [*model_warnings, *continuing.about(parent, spec, data.train.schema)],
    )


def primary_metric(spec: Spec, task_detail: TaskDetail) -> str:
    """The one that picks the best checkpoint. Raises ConfigError for a metric, this one or another, that cannot be computed."""
    primary = spec.metrics.primary or metrics.default_primary(task_detail)
    built_in = [*([] if spec.metrics.custom_primary else [primary]), *(spec.metrics.functions or [])]
    metrics.check_names(built_in, task_detail)
    for metric in spec.metrics.custom or []:
        source_of(metric)
    return primary


def check_machine(spec: Spec, has_gpu: bool) -> None:
    """Raises ConfigError for what this machine cannot run."""
    optim = spec.parameters.optim
    if optim in GPU_OPTIMIZERS:
        if not has_gpu:
            raise ConfigError(
                f"parameters.optim is {optim}, which runs on a GPU only, and torch sees none here.",
                hint="use adamw or adafactor, or ask for a GPU",
            )
        check_installed(f"parameters.optim {optim}")
    if spec.method == "QLoRA":
        if not has_gpu:
            raise ConfigError(
                "method is QLoRA, whose four bits a GPU computes with, and torch sees none here.",
                hint="use method LoRA, or ask for a GPU",
            )
        check_installed("method QLoRA")


def about_model(parameters: Parameters, config: Any, pooling: Pooling) -> list[Warn]:
    """Raises ConfigError for what a padded model type cannot do."""
    warnings, model_type = [], config.model_type
    if not architecture_of(config).packs:
        if parameters.head_init == "Ridge":
            raise ConfigError(
                f"parameters.headInit is Ridge, and a model of type {model_type} gives no features that a head reads; leave it out."
            )
        message = f"models of type {model_type} run in float32 in padded batches of like length, which takes longer than without padding"
        warnings.append(Warn("PaddedBatches", message))
    if not pools_as_transformers(config, pooling):
        message = (
            f"pooling is {parameters.pooling or pooling}, and transformers' own classifier of a {model_type} reads {READS[own_pooling(config)]}: "
            "Winnow serves this checkpoint right, plain transformers would give other probabilities"
        )
        warnings.append(Warn("PoolingOfWinnow", message))
    return warnings


def ends_in_padding(tokenizer: PreTrainedTokenizerFast) -> str:
    return (
        f"promptTemplate ends in {tokenizer.pad_token}, the base model's padding token, and its vocabulary has no other to spare: Winnow serves "
        "this checkpoint right, plain transformers reads the token before it and would give other probabilities. Leave it out of promptTemplate"
    )


def read_by(reader: str, model_type: str) -> str:
    return (
        f"texts are read as the base model's tokenizer.json says; plain transformers takes {reader} for a model of type {model_type}, which reads them "
        "otherwise: Winnow serves this checkpoint right; elsewhere load its tokenizer by PreTrainedTokenizerFast"
    )


def versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}
