"""What each method trains: everything (Full), LoRA matrices and the head (LoRA), the head alone (HeadOnly)."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from winnow_classifier.dropout import replace_dropout
from winnow_classifier.errors import ConfigError
from winnow_classifier.labels import LabelSchema
from winnow_classifier.model import (
    Classifier,
    Lora,
    add_lora,
    classifier_config,
    freeze_body,
    load_network,
    longest_text,
)
from winnow_trainer.job import Method, Parameters


def build(
    base: Path,
    tokenizer: PreTrainedTokenizerFast,
    schema: LabelSchema,
    method: Method,
    parameters: Parameters,
    device: torch.device,
) -> Classifier:
    """The model before its first step: the same for the same seed. Raises ConfigError, BaseModelError."""
    config = classifier_config(base, schema, tokenizer.pad_token_id)
    if parameters.max_seq_length > longest_text(config):
        raise ConfigError(
            f"parameters.maxSeqLength is {parameters.max_seq_length}, and the base model has positions for "
            f"{longest_text(config)} tokens."
        )
    # Weights that never change may stay in half precision; those that train need float32, or small updates are lost.
    frozen_body = method != "Full" and device.type == "cuda"
    torch.manual_seed(parameters.seed)
    model = Classifier(load_network(base, config, torch.bfloat16 if frozen_body else torch.float32))
    if method == "LoRA":
        model = add_lora(model, lora(parameters))
    elif method == "HeadOnly":
        freeze_body(model)
    for parameter in model.head_parameters():
        parameter.data = parameter.data.float()
    replace_dropout(model)
    if parameters.gradient_checkpointing:
        keep_less(model)
    return model.to(device)


def keep_less(model: Classifier) -> None:
    """Layers compute their states again for the gradient instead of keeping them; dropout draws the same again."""
    model.body.gradient_checkpointing_enable({"use_reentrant": False})


def lora(parameters: Parameters) -> Lora:
    """From resolved parameters."""
    assert parameters.lora_rank is not None and parameters.lora_alpha is not None
    assert parameters.lora_dropout is not None and parameters.lora_target_modules is not None
    return Lora(parameters.lora_rank, parameters.lora_alpha, parameters.lora_dropout, parameters.lora_target_modules)


def set_training(model: Classifier, method: Method) -> None:
    """Dropout where something learns: a body that is only read from gives the same features each time."""
    model.train()
    if method == "HeadOnly":
        model.body.eval()
        for name in model.architecture.head:
            model.base.get_submodule(name).train()
