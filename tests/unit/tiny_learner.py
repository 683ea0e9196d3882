"""A learner on a few rows of three labels, in float32: for tests of exactness."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import numpy.typing as npt
import tiny_models
import torch
from accelerate import Accelerator

from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.tokens import Encoder, load_tokenizer
from winnow_trainer import fsdp
from winnow_trainer.examples import encode
from winnow_trainer.job import Method, Parameters
from winnow_trainer.learner import Learner
from winnow_trainer.methods import assemble, keep_less
from winnow_trainer.ranks import ALONE, Ranks
from winnow_trainer.steps import Rows

SCHEMA = LabelSchema(TaskDetail.MULTICLASS, ("a", "b", "c"))
ALL = np.arange(12)
TARGETS = np.eye(3, dtype=np.int8)[ALL % 3]


def base_model(folder: Path, model_type: str = "bert", dropout: bool = False) -> Path:
    base = folder / f"{model_type}-{dropout}"
    if base.exists():
        return base
    changes = (
        {} if dropout or model_type != "bert" else {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    )
    return tiny_models.base_model(base, model_type, **changes)


def learner(
    folder: Path,
    method: Method = "Full",
    model_type: str = "bert",
    dropout: bool = False,
    ranks: Ranks = ALONE,
    cuts: bool = False,
    bfloat16: bool = False,
    schema: LabelSchema = SCHEMA,
    targets: npt.NDArray[np.int8] = TARGETS,
    rows: Rows | None = None,
    **parameters: Any,
) -> Learner:
    """Of as many texts as there are `targets`, spam in turn with ham; `rows` of them train, None for all."""
    base = base_model(folder, model_type, dropout)
    tokenizer = load_tokenizer(base)
    given = Parameters(**{"max_seq_length": 16, "max_grad_norm": 1e6, **parameters})
    resolved = given.resolved(method, "cls")
    texts, _ = tiny_models.texts(len(targets), seed=3)
    examples = encode(texts, targets, Encoder(tokenizer, "{text}", 16))
    accelerator = Accelerator(cpu=True, mixed_precision="bf16" if bfloat16 else "no")
    model = assemble(base, tokenizer, schema, method, resolved, accelerator.device).to(accelerator.device)
    if resolved.gradient_checkpointing:
        keep_less(model)
    if cuts:
        fsdp.cut(model, ranks.size, torch.device("cpu"), torch.bfloat16 if bfloat16 else None)
    return Learner(model, examples, schema, method, resolved, accelerator, Event(), rows, ranks)
