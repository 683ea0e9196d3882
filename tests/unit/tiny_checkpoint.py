"""Checkpoints of tiny models as they might stand after some training, and what the model itself answers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from winnow_classifier import base_model, checkpoint
from winnow_classifier.checkpoint import BaseModelEntry, DatasetEntry, JobEntry, Manifest, Published
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.model import Classifier, Lora, add_lora, classifier_config, load_network
from winnow_classifier.packing import pack
from winnow_classifier.tokens import Encoder, load_tokenizer

TEXTS = ["win free money", "meeting", "see you at the project review for lunch", "claim a prize now " * 20]
LABELS = {
    2: LabelSchema(TaskDetail.BINARY, ("ham", "spam")),
    3: LabelSchema(TaskDetail.MULTILABEL, ("z", "y", "x")),
    77: LabelSchema(TaskDetail.MULTICLASS, tuple(f"label {number}" for number in range(77))),
}


def manifest(schema: LabelSchema = LABELS[2], **fields: Any) -> Manifest:
    """As a training may have written it; `fields` are those that matter to the test."""
    usual = {
        "name": "epoch-2",
        "epoch": 2,
        "task_detail": schema.task_detail,
        "labels": schema.labels,
        "problem_type": schema.problem_type,
        "method": "Full",
        "architecture": "BertForSequenceClassification",
        "pooling": "cls",
        "prompt_template": "{text}",
        "max_seq_length": 16,
        "base_model": BaseModelEntry(reference="base", digest="sha256:0"),
        "training_dataset": DatasetEntry(digest="sha256:0", rows=4),
        "training_job": JobEntry(name="spam-v1"),
        "created_at": datetime(2026, 1, 2, tzinfo=UTC),
    }
    return Manifest(**usual | fields)


def publish(
    folder: Path, base: Path, schema: LabelSchema = LABELS[2], method: str = "Full"
) -> tuple[Published, Classifier]:
    """A checkpoint of a model as it might stand after some training, and that model."""
    tokenizer = load_tokenizer(base)
    torch.manual_seed(len(schema.labels))
    model = Classifier(load_network(base, classifier_config(base, schema, tokenizer.pad_token_id)))
    if method == "LoRA":
        model = add_lora(model, Lora(4, 8, 0.1, ["all-linear"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or any(f".{head}" in name for head in ("classifier", "score", "pooler")):
                parameter.normal_(std=0.3)
    written = manifest(
        schema,
        method=method,
        architecture=type(model.base).__name__,
        pooling=model.architecture.pooling,
        base_model=BaseModelEntry(reference=str(base), digest=base_model.digest(base)),
        metrics={"f1": 0.75, "roc_auc": None},
        training_job=JobEntry(name="spam-v1", uid=None, output_model_name="spam"),
    )
    return checkpoint.publish(folder, written, model.eval(), tokenizer, {"metrics.json": b"{}\n"}), model


def probabilities(model: Classifier, encoder: Encoder, schema: LabelSchema) -> Tensor:
    with torch.no_grad():
        ids = [encoded.input_ids for encoded in encoder.encode(TEXTS)]
        return schema.probabilities(model(pack(ids, model.position_start)))
