"""BERT-type layers that compute their own gradients, for CPUs: around products this small, autograd's casts and calls take as long.

Each layer is one node of the graph: weights are cast once, queries, keys and values are one product, and what is added,
masked and dropped is so in place. The numbers are those of transformers' layer to rounding (ADR 94).
Letters: T tokens of a pack, P places in its buckets, B rows of a bucket, M its length, H heads, D head width, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from winnow_classifier.architectures import BERT, ROBERTA
from winnow_classifier.attention import additive, bucket_mask, from_places, to_places, to_real_places
from winnow_classifier.dropout import kept
from winnow_classifier.model import Classifier
from winnow_classifier.packing import Bucket, PackedBatch

# hidden_act of the config to the name that torch knows its approximation by.
ACTIVATIONS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
SAVED_OF_A_BUCKET = 6
aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Shape:
    """What a layer is, besides its weights."""

    heads: int
    scaling: float
    eps: tuple[float, float]  # of the norms after attention and after the feed-forward block
    approximate: str  # of the activation
    attention_dropout: float
    dropout: tuple[float, float]  # before each norm


def can_differentiate(model: Classifier) -> bool:
    """BERT and RoBERTa types on a CPU, whose linear layers are plain: LoRA's are not."""
    config = model.base.config
    if model.family not in (BERT, ROBERTA) or model.device.type != "cpu" or config.is_decoder:
        return False
    linears = [module for layer in layers_of(model) for module in layer.modules() if isinstance(module, nn.Linear)]
    plain = len(linears) == 6 * len(layers_of(model)) and all(type(linear) is nn.Linear for linear in linears)
    return plain and config.hidden_act in ACTIVATIONS


def layers_of(model: Classifier) -> Sequence[Any]:
    body: Any = model.body
    return body.encoder.layer  # type: ignore[no-any-return]


class OwnGradients:
    """Puts the layers' other way of running into a model, and takes it away."""

    def __init__(self, model: Classifier) -> None:
        self.layers = layers_of(model)
        self.approximate = ACTIVATIONS[model.base.config.hidden_act]

    def install(self) -> None:
        for layer in self.layers:
            # On the instance, below the call that decides on gradient checkpointing.
            layer.forward = _Forward(layer, self.approximate)

    def restore(self) -> None:
        for layer in self.layers:
            vars(layer).pop("forward", None)


class _Forward:
    """Called as transformers' layer is."""

    def __init__(self, layer: Any, approximate: str) -> None:
        attention, output = layer.attention.self, layer.attention.output
        mixing = (attention.query, attention.key, attention.value)
        self.linears = (*mixing, output.dense, layer.intermediate.dense, layer.output.dense)
        self.norms = (output.LayerNorm, layer.output.LayerNorm)
        self.dropouts = (attention.dropout, output.dropout, layer.output.dropout)
        self.layer = layer
        self.approximate = approximate

    def __call__(self, hidden: Tensor, mask: None = None, *, packed: PackedBatch) -> Tensor:
        """(1, T, d) to (1, T, d)."""
        attention = self.layer.attention.self
        rates = [dropout.p if self.layer.training else 0.0 for dropout in self.dropouts]
        shape = Shape(
            attention.num_attention_heads,
            attention.scaling,
            (self.norms[0].eps, self.norms[1].eps),
            self.approximate,
            rates[0],
            (rates[1], rates[2]),
        )
        weights = [part for module in (*self.linears, *self.norms) for part in (module.weight, module.bias)]
        return _Layer.apply(hidden[0], packed, shape, *weights)[None]  # type: ignore[no-any-return, no-untyped-call]


class _Layer(torch.autograd.Function):
    """states (T, d) and the layer's weights and biases, as they run, to (T, d). Products are in the precision of autocast."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, packed: PackedBatch, shape: Shape, *weights: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else states.dtype
        with torch.autocast("cpu", enabled=False):
            return forward(ctx, states, packed, shape, dtype, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        return tuple(backward(ctx, grads[0]))


def forward(
    ctx: Any, states: Tensor, packed: PackedBatch, shape: Shape, dtype: torch.dtype, weights: Sequence[Tensor]
) -> Tensor:
    query, query_bias, key, key_bias, value, value_bias, *others = weights
    *linears, norm1, norm_bias1, norm2, norm_bias2 = others
    size, width = states.shape
    mixing = torch.cat([query.to(dtype), key.to(dtype), value.to(dtype)])  # (3d, d)
    mixing_bias = torch.cat([query_bias, key_bias, value_bias]).to(dtype)
    out, out_bias, widen, widen_bias, narrow, narrow_bias = (linear.to(dtype) for linear in linears)
    buckets = packed.buckets

    cast = states.to(dtype)
    mixed = torch.addmm(mixing_bias, cast, mixing.t())  # (T, 3d)
    placed = to_places(mixed, buckets)  # (P, 3d)
    contexts = torch.empty(len(placed), width, dtype=dtype)
    saved: list[Tensor | None] = []
    start = 0
    for bucket in buckets.members:
        end = start + bucket.rows * bucket.length
        saved += attend(placed[start:end], contexts[start:end], bucket, shape)
        start = end
    context = from_places(contexts, buckets)

    keeps = [kept((size, width), rate, dtype) for rate in shape.dropout]
    attended = drop(torch.addmm(out_bias, context, out.t()), keeps[0])
    sum1 = states + attended
    middle, mean1, rstd1 = torch.native_layer_norm(sum1, [width], norm1, norm_bias1, shape.eps[0])
    middle_cast = middle.to(dtype)
    widened = torch.addmm(widen_bias, middle_cast, widen.t())
    active = functional.gelu(widened, approximate=shape.approximate)
    sum2 = middle + drop(torch.addmm(narrow_bias, active, narrow.t()), keeps[1])
    result, mean2, rstd2 = torch.native_layer_norm(sum2, [width], norm2, norm_bias2, shape.eps[1])

    ctx.packed, ctx.shape = packed, shape
    ctx.save_for_backward(
        *(cast, mixing, context, out, keeps[0], sum1, mean1, rstd1, norm1, norm_bias1),
        *(middle_cast, widen, widened, active, narrow, keeps[1], sum2, mean2, rstd2, norm2, norm_bias2),
        *saved,
    )
    return result


def backward(ctx: Any, grad: Tensor) -> list[Tensor | None]:
    """One gradient for each input of _Layer."""
    cast, mixing, context, out, keep1, sum1, mean1, rstd1, norm1, norm_bias1, *others = ctx.saved_tensors
    middle, widen, widened, active, narrow, keep2, sum2, mean2, rstd2, norm2, norm_bias2, *saved = others
    shape: Shape = ctx.shape
    buckets = ctx.packed.buckets
    width, dtype = grad.shape[1], cast.dtype
    every = [True, True, True]

    sums, grad_norm2, grad_norm_bias2 = aten.native_layer_norm_backward(
        grad, sum2, [width], mean2, rstd2, norm2, norm_bias2, every
    )
    grad_narrowed = dropped(sums, keep2, dtype)
    of_narrow = of_linear(grad_narrowed, active, grad.dtype)
    grad_widened = aten.gelu_backward(grad_narrowed @ narrow, widened, approximate=shape.approximate)
    of_widen = of_linear(grad_widened, middle, grad.dtype)
    sums, grad_norm1, grad_norm_bias1 = aten.native_layer_norm_backward(
        sums.add_(grad_widened @ widen), sum1, [width], mean1, rstd1, norm1, norm_bias1, every
    )
    grad_attended = dropped(sums, keep1, dtype)
    of_out = of_linear(grad_attended, context, grad.dtype)
    grad_context = grad_attended @ out
    if buckets.gather is not None:
        grad_context = to_real_places(grad_context, buckets.gather, buckets.padding)
    placed = torch.empty(len(grad_context), 3 * width, dtype=dtype)
    start = 0
    for number, bucket in enumerate(buckets.members):
        end = start + bucket.rows * bucket.length
        own = saved[number * SAVED_OF_A_BUCKET : (number + 1) * SAVED_OF_A_BUCKET]
        attend_backward(grad_context[start:end], placed[start:end], bucket, shape, own)
        start = end
    grad_mixed = from_places(placed, buckets)
    of_mixing, of_mixing_bias = (part.chunk(3) for part in of_linear(grad_mixed, cast, grad.dtype))
    linears = [part for pair in zip(of_mixing, of_mixing_bias, strict=True) for part in pair]
    norms = [grad_norm1, grad_norm_bias1, grad_norm2, grad_norm_bias2]
    return [sums.add_(grad_mixed @ mixing), None, None, *linears, *of_out, *of_widen, *of_narrow, *norms]


def attend(placed: Tensor, context: Tensor, bucket: Bucket, shape: Shape) -> list[Tensor | None]:
    """Fill `context` (B * M, d) from queries, keys and values (B * M, 3d); what the gradient needs comes back."""
    rows, length, heads = bucket.rows, bucket.length, shape.heads
    query, key, value = placed.view(rows, length, 3, heads, -1).permute(2, 0, 3, 1, 4).flatten(1, 2)  # (B * H, M, D)
    scores = torch.bmm(query.mul_(shape.scaling), key.mT)
    mask = bucket_mask(bucket, False, None, scores.device)
    if mask is not None:
        scores.view(rows, heads, length, length).add_(additive(mask, scores.dtype))
    weights = scores.softmax(dim=-1)
    keep = kept(weights.shape, shape.attention_dropout, weights.dtype)
    used = weights if keep is None else weights * keep
    seen = torch.bmm(used, value).view(rows, heads, length, -1)
    context.view(rows, length, heads, -1).copy_(seen.transpose(1, 2))
    return [query, key, value, weights, used, keep]


def attend_backward(grad: Tensor, placed: Tensor, bucket: Bucket, shape: Shape, saved: Sequence[Tensor | None]) -> None:
    """From the gradient of the context (B * M, d), fill that of queries, keys and values (B * M, 3d)."""
    query, key, value, weights, used, keep = saved
    assert query is not None and key is not None and value is not None and weights is not None and used is not None
    rows, length, heads = bucket.rows, bucket.length, shape.heads
    seen = grad.view(rows, length, heads, -1).transpose(1, 2).reshape(query.shape)
    parts = torch.empty(3, *query.shape, dtype=grad.dtype)
    torch.bmm(used.mT, seen, out=parts[2])
    scores = aten._softmax_backward_data(drop(torch.bmm(seen, value.mT), keep), weights, -1, weights.dtype)
    torch.bmm(scores, key, out=parts[0]).mul_(shape.scaling)
    torch.bmm(scores.mT, query, out=parts[1])  # the query is scaled already
    placed.view(rows, length, 3, heads, -1).copy_(parts.view(3, rows, heads, length, -1).permute(1, 3, 0, 2, 4))


def drop(states: Tensor, keep: Tensor | None) -> Tensor:
    """In place."""
    return states if keep is None else states.mul_(keep)


def dropped(grad: Tensor, keep: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The gradient before dropout, `grad` left as it is."""
    cast = grad.to(dtype)
    return cast if keep is None else cast * keep


def of_linear(grad: Tensor, states: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Of a linear layer's weight and bias."""
    return (grad.t() @ states).to(dtype), grad.sum(0).to(dtype)
