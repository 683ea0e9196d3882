"""Whole models: packed batches against each text alone through transformers' own attention, logits and gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    ModernBertConfig,
    Qwen3Config,
)

from winnow_classifier.attention import PACKED_ATTENTION, register
from winnow_classifier.model import Classifier
from winnow_classifier.packing import pack

# bfloat16 keeps eight bits; the sums of a few layers in another order differ in the last ones.
BOUND = {torch.bfloat16: 6e-2, torch.float32: 1e-4}
VOCABULARY = 1_000

Config = Callable[..., Any]
GROUPED = {"num_key_value_heads": 2}
MODELS: dict[str, tuple[Config, dict[str, Any]]] = {
    "bert": (BertConfig, {}),
    "modernbert": (ModernBertConfig, {"local_attention": 16}),
    "llama": (LlamaConfig, GROUPED),
    "qwen3": (Qwen3Config, {**GROUPED, "head_dim": 64}),
    "mistral, window": (MistralConfig, {**GROUPED, "head_dim": 64, "sliding_window": 16}),
    "gemma2, softcap": (Gemma2Config, {**GROUPED, "head_dim": 256, "sliding_window": 16}),
    "gemma3, head size 256": (Gemma3TextConfig, {**GROUPED, "head_dim": 256, "sliding_window": 16}),
}


def networks(make: Config, more: dict[str, Any], device: torch.device, dtype: torch.dtype) -> tuple[Classifier, Any]:
    """The same random weights packed and plain, without dropout."""
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "max_position_embeddings": 1_024,
    }
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    config = make(**sizes, **more, **ids)
    config.num_labels = 3
    torch.manual_seed(0)
    register()
    plain = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").to(device, dtype).eval()
    # A copy: both networks would read the attention's name in one config.
    ours = AutoModelForSequenceClassification.from_config(copy.deepcopy(config), attn_implementation=PACKED_ATTENTION)
    ours.load_state_dict(plain.state_dict())
    classifier = Classifier(ours).to(device, dtype).eval()
    for parameter in classifier.head_parameters():
        parameter.data = parameter.data.float()
    return classifier, plain


def off(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).abs().max() / expected.float().abs().max().clamp(min=1e-6))


def compare(name: str, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    packed, plain = networks(*MODELS[name], device, dtype)
    generator = torch.Generator().manual_seed(1)
    lengths = (3, 17, 64, 1, 40, 9)
    texts = [torch.randint(4, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
    ours = packed(pack(texts, packed.position_start).to(device))
    alone = torch.cat([plain(torch.tensor([text], device=device)).logits for text in texts])
    weights = torch.linspace(-1, 1, ours.numel(), device=device).view_as(ours)
    (ours * weights).sum().backward()
    (alone.float() * weights).sum().backward()  # type: ignore[no-untyped-call]
    theirs = {key: weight.grad for key, weight in plain.named_parameters() if weight.grad is not None}
    found = {key: weight.grad for key, weight in packed.base.named_parameters() if weight.grad is not None}
    norm = torch.stack([gradient.float().norm() for gradient in theirs.values()]).norm()
    differences = [(found[key].float() - gradient.float()).norm() for key, gradient in theirs.items()]
    gradient_error = float(torch.stack(differences).norm() / norm)
    error = off(ours, alone)
    return {
        "model": name,
        "logits": error,
        "gradients": gradient_error,
        "passed": max(error, gradient_error) <= BOUND[dtype],
    }


def run(device: torch.device, tiny: bool) -> dict[str, Any]:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    results = [compare(name, device, dtype) for name in MODELS]
    for found in results:
        print(f"  {found['model']}: logits off by {found['logits']:.1e}, gradients by {found['gradients']:.1e}")
    return {"passed": all(found["passed"] for found in results), "dtype": str(dtype), "models": results}
