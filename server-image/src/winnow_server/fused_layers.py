"""A layer of a BERT-type encoder in seven calls instead of forty: for one short text, calling costs more than computing.

Queries, keys and values are one product; activations and residuals ride on the products before them (oneDNN's post-ops).
Letters: B sequences, T tokens, H heads, D head width, d width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from winnow_classifier.architectures import BERT, ROBERTA
from winnow_classifier.attention import bucketed, one_query_attention
from winnow_classifier.model import Classifier
from winnow_classifier.packing import PackedBatch

Undo = Callable[[], None]

# hidden_act of the config to oneDNN's name and algorithm.
ACTIVATIONS = {
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
}


class Product:
    """Some linear layers with the same input as one, its weights laid out for oneDNN in `dtype`."""

    def __init__(self, layers: list[nn.Linear], dtype: torch.dtype) -> None:
        weight = (
            torch.cat([layer.weight.detach() for layer in layers]) if len(layers) > 1 else layers[0].weight.detach()
        )
        self.laid_out = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype), None)
        self.bias = torch.cat([layer.bias.detach() for layer in layers]).to(dtype)

    def __call__(self, x: Tensor, activation: tuple[str, str] = ("none", "")) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.laid_out, self.bias, activation[0], [], activation[1])
        return out

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """The product of `x`, and `other` added."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, self.laid_out, self.bias, "add")
        return out


class FusedLayer(nn.Module):
    """A BertLayer or RobertaLayer for inference, with the numbers it has."""

    def __init__(self, layer: Any, dtype: torch.dtype, activation: tuple[str, str]) -> None:
        super().__init__()
        attention = layer.attention.self
        self.heads = (attention.num_attention_heads, attention.attention_head_size)
        self.scaling: float = attention.scaling
        self.activation = activation
        self.query_key_value = Product([attention.query, attention.key, attention.value], dtype)
        self.attended = Product([layer.attention.output.dense], dtype)
        self.widened = Product([layer.intermediate.dense], dtype)
        self.narrowed = Product([layer.output.dense], dtype)
        self.norm_attended = layer.attention.output.LayerNorm
        self.norm = layer.output.LayerNorm

    def forward(self, hidden: Tensor, mask: None, *, packed: PackedBatch) -> Tensor:
        """(1, T, d) to (1, T, d), called as transformers' layer is."""
        states = hidden[0]
        query, key, value = self.states(states)
        context = bucketed(query, key, value, packed, self.scaling, 0.0, causal=False, window=None)
        return self.rest(context.flatten(1), states)[None]

    def at_first_tokens(self, states: Tensor, packed: PackedBatch) -> Tensor:
        """(T, d) to (B, d): what encoder.last_layer gives. The queries of all tokens are computed: they cost less than a call."""
        query, key, value = self.states(states)
        context = one_query_attention(query[packed.first], key, value, packed, self.scaling, 0.0)
        return self.rest(context.flatten(1), states[packed.first])

    def states(self, states: Tensor) -> tuple[Tensor, ...]:
        """(T, d) to queries, keys and values, each (T, H, D)."""
        return self.query_key_value(states).view(-1, 3, *self.heads).unbind(1)

    def rest(self, context: Tensor, states: Tensor) -> Tensor:
        """What follows attention, for any tokens: (N, d) and (N, d) to (N, d)."""
        attended = self.norm_attended(self.attended.plus(context, states))
        out: Tensor = self.norm(self.narrowed.plus(self.widened(attended, self.activation), attended))
        return out


def fuse(classifier: Classifier, dtype: torch.dtype) -> Undo:
    """Every layer that can be, in place. In float32 the weights are kept once, so that memory does not double."""
    activation = ACTIVATIONS.get(getattr(classifier.base.config, "hidden_act", ""))
    if classifier.family not in (BERT, ROBERTA) or activation is None or classifier.base.config.is_decoder:
        return lambda: None
    layers: Any = classifier.body.encoder.layer  # type: ignore[union-attr]
    before = list(layers)
    for place, layer in enumerate(before):
        layers[place] = FusedLayer(layer, dtype, activation)
        if dtype == torch.float32:
            for linear in linear_of(layer):
                linear.weight = nn.Parameter(torch.empty(0), requires_grad=False)

    def undo() -> None:
        for place, layer in enumerate(before):
            fused = layers[place]
            if dtype == torch.float32:
                products = (fused.query_key_value, fused.attended, fused.widened, fused.narrowed)
                weights = [part for one in products for part in parts(one.laid_out.to_dense(), one is products[0])]
                for linear, weight in zip(linear_of(layer), weights, strict=True):
                    linear.weight = nn.Parameter(weight, requires_grad=False)
            layers[place] = layer

    return undo


def linear_of(layer: Any) -> tuple[nn.Linear, ...]:
    """In the order of a fused layer's products."""
    attention = layer.attention.self
    inner = (attention.query, attention.key, attention.value)
    return (*inner, layer.attention.output.dense, layer.intermediate.dense, layer.output.dense)


def parts(weight: Tensor, three: bool) -> tuple[Tensor, ...]:
    return tuple(part.clone() for part in weight.chunk(3)) if three else (weight,)
