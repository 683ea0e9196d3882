"""What each method trains: everything (Full), LoRA matrices and the head (LoRA, QLoRA), the head alone (HeadOnly)."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from winnow_classifier.architectures import Pooling, architecture_of, embeddings_of, longest_text
from winnow_classifier.dropout import replace_dropout
from winnow_classifier.errors import ConfigError
from winnow_classifier.four_bit import check_head, round_body
from winnow_classifier.gpu import gpu_computes_bfloat16
from winnow_classifier.labels import LabelSchema
from winnow_classifier.model import (
    Classifier,
    Lora,
    add_lora,
    classifier_config,
    freeze_body,
    load_network,
    merge_lora,
)
from winnow_classifier.padded import check_company
from winnow_classifier.tokens import no_embedding
from winnow_trainer.continuing import Parent, adapter_shape, start_output, take_adapter, take_head
from winnow_trainer.job import ADAPTERS, Method, Parameters


def assemble(
    base: Path,
    tokenizer: PreTrainedTokenizerFast,
    schema: LabelSchema,
    method: Method,
    parameters: Parameters,
    device: torch.device,
    pooling: Pooling | None = None,
    parent: Parent | None = None,
) -> Classifier:
    """The model before its first step, not yet on its device: the same for the same seed. Raises ConfigError, BaseModelError,
    CheckpointError.

    `base` is the parent's body where there is a parent; `pooling` None is transformers' own.
    """
    config = classifier_config(base, schema, tokenizer.pad_token_id, pooling)
    longest = longest_text(config)
    if longest is not None and parameters.max_seq_length > longest:
        raise ConfigError(
            f"parameters.maxSeqLength is {parameters.max_seq_length}, and the base model has positions for "
            f"{longest} tokens.",
            hint=f"set it to {longest} or less",
        )
    known, padding = embeddings_of(config), config.get_text_config().pad_token_id
    if known is not None and padding is not None and padding >= known:
        raise no_embedding(tokenizer, f"its padding token {tokenizer.pad_token}", known)
    merges = parent is not None and parent.adapts and method not in ADAPTERS
    # Weights that never change may stay in half precision; those that train need float32, or small updates are lost.
    half = device.type == "cuda" and gpu_computes_bfloat16()
    frozen_body = half and method != "Full" and architecture_of(config).packs and not merges
    torch.manual_seed(parameters.seed)
    quantised = method == "QLoRA"
    network = load_network(base, config, torch.bfloat16 if frozen_body else torch.float32, four_bit=quantised)
    model = Classifier(network, pooling)
    if quantised:
        check_head([model.base.get_submodule(name) for name in model.architecture.head])
    if not model.architecture.packs and not quantised:
        check_company(model.network, config.get_text_config().vocab_size, padding)
    for name in model.no_text:
        model.base.get_submodule(name).requires_grad_(False)
    if parent is not None:
        take_head(model, parent, schema)
    elif any("ForSequenceClassification" in name for name in config.architectures or ()):
        start_output(model)  # its rows stand for labels of its own, in an order of its own
    if parent is not None and parent.adapts:
        if merges and parent.manifest.method == "QLoRA":  # the adapter was trained over these
            round_body(model.base, model.architecture.head)
        model = add_lora(model, adapter_shape(parent, parameters.lora_dropout or 0.0))
        take_adapter(model, parent)
        model = Classifier(merge_lora(model.network), pooling) if merges else model
    elif method in ADAPTERS:
        model = add_lora(model, lora(parameters))
    if method == "HeadOnly":
        freeze_body(model)
    for parameter in model.head_parameters():
        parameter.data = parameter.data.float()
    replace_dropout(model)
    return model


def can_keep_less(model: Classifier) -> bool:
    return bool(model.body.supports_gradient_checkpointing)


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
