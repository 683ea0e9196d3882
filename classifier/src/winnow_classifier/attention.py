"""One attention function for packed batches, registered with transformers under one name.

Letters: T tokens of a pack, H query heads, K key and value heads, D head width, B sequences, M longest of a bucket.
transformers builds no mask for an attention name that has no mask function, so memory stays proportional to T; the
boundaries of the sequences arrive as the keyword `packed` that the model's forward passes through to each layer.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from winnow_classifier.dropout import dropout as drop
from winnow_classifier.packing import Bucket, Buckets, PackedBatch

PACKED_ATTENTION = "winnow_packed"
FLASH_WIDTH = 256  # of a head, at most


def register() -> None:
    """Make the name known to transformers; to call it again is harmless."""
    AttentionInterface.register(PACKED_ATTENTION, packed_attention)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed: PackedBatch | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """query (1, H, T, D), key and value (1, K, T, D) to (1, T, H, D); each token sees its own sequence only.

    `sliding_window` W lets a token see W tokens, itself included (transformers' meaning); `softcap` bends scores to that
    size at most (Gemma 2), which no fused kernel does.
    """
    if packed is None or query.shape[0] != 1:
        raise ValueError(f"{PACKED_ATTENTION} takes one packed row of tokens with packed=…; use Classifier to run it.")
    causal = bool(getattr(module, "is_causal", True)) if is_causal is None else is_causal
    window = sliding_window if sliding_window is not None and sliding_window < packed.max_length else None
    # Rotary positions come in float32 where weights do, as autocast leaves them; torch's own attention would cast alike.
    query, key, value = (to_autocast(states) for states in (query, key, value))
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))  # (T, heads, D)
    if softcap is None and can_use_varlen(q, dropout):
        return varlen(q, k, v, packed, scaling, causal, window)[None], None
    return bucketed(q, k, v, packed, scaling, dropout, causal, window, softcap)[None], None


def can_use_varlen(query: Tensor, dropout: float) -> bool:
    """Flash kernels run on CUDA, in half precision only, on heads whose width is a multiple of 8 (torch's other entries fill it
    up), and torch's variable-length entry has no dropout."""
    width = query.shape[-1]
    half = query.dtype in (torch.bfloat16, torch.float16)
    return query.is_cuda and half and width % 8 == 0 and width <= FLASH_WIDTH and dropout == 0.0


def to_autocast(states: Tensor) -> Tensor:
    """On a GPU, in the precision that autocast asks for, if it is on."""
    casts = states.is_cuda and torch.is_autocast_enabled("cuda")
    return states.to(torch.get_autocast_dtype("cuda")) if casts else states


def flash_window(causal: bool, window: int | None) -> tuple[int, int]:
    """Tokens seen to the left and to the right beside itself, -1 for all: the meaning of varlen_attn's window_size."""
    reach = -1 if window is None else window - 1
    return (reach, 0) if causal else (reach, reach)


def varlen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    packed: PackedBatch,
    scale: float | None,
    causal: bool,
    window: int | None,
) -> Tensor:
    """torch's variable-length flash attention. num_splits=1 keeps a text's result the same in any company."""
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(
        q,
        k,
        v,
        packed.cu_seqlens,
        packed.cu_seqlens,
        packed.max_length,
        packed.max_length,
        scale=scale,
        window_size=flash_window(causal, window),
        enable_gqa=q.shape[1] != k.shape[1],
        num_splits=1,
    )
    assert isinstance(out, Tensor)
    return out


def bucketed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    packed: PackedBatch,
    scale: float | None,
    dropout: float,
    causal: bool,
    window: int | None,
    softcap: float | None = None,
) -> Tensor:
    """Scaled dot-product attention over sequences of like length, padded inside attention only."""
    buckets = packed.buckets
    sizes = [bucket.rows * bucket.length for bucket in buckets.members]
    split = [to_places(states, buckets).split(sizes) for states in (q, k, v)]  # type: ignore[no-untyped-call]
    outputs = []
    for bucket, *states in zip(buckets.members, *split, strict=True):
        mask = bucket_mask(bucket, causal, window, q.device)
        query, key, value = (x.view(bucket.rows, bucket.length, *x.shape[1:]).transpose(1, 2) for x in states)
        out = dot_product_attention(query, key, value, mask, scale, dropout, causal and mask is None, softcap)
        outputs.append(out.transpose(1, 2).flatten(0, 1))  # (rows * M, H, D)
    return from_places(outputs[0] if len(outputs) == 1 else torch.cat(outputs), buckets)


def one_query_attention(
    q: Tensor, k: Tensor, v: Tensor, packed: PackedBatch, scale: float | None, dropout: float
) -> Tensor:
    """One query for each sequence, q (B, H, D), over all of its tokens, k and v (T, H, D): to (B, H, D)."""
    if can_use_varlen(q, dropout):
        return one_query_varlen(q, k, v, packed, scale)
    buckets = packed.buckets
    sizes = [bucket.rows * bucket.length for bucket in buckets.members]
    keys, values = (to_places(states, buckets).split(sizes) for states in (k, v))  # type: ignore[no-untyped-call]
    queries = q[buckets.order].split([bucket.rows for bucket in buckets.members])  # type: ignore[no-untyped-call]
    outputs = []
    for bucket, query, *states in zip(buckets.members, queries, keys, values, strict=True):
        key, value = (x.view(bucket.rows, bucket.length, *x.shape[1:]).transpose(1, 2) for x in states)
        mask = bucket_mask(bucket, False, None, q.device)
        out = dot_product_attention(query[:, :, None], key, value, mask, scale, dropout, False)
        outputs.append(out[:, :, 0])
    return torch.cat(outputs)[buckets.rank]


def one_query_varlen(q: Tensor, k: Tensor, v: Tensor, packed: PackedBatch, scale: float | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    each = torch.arange(len(packed.lengths) + 1, dtype=torch.int32, device=q.device)
    out = varlen_attn(
        q, k, v, each, packed.cu_seqlens, 1, packed.max_length, scale=scale, window_size=(-1, -1), num_splits=1
    )
    assert isinstance(out, Tensor)
    return out


def dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float | None,
    dropout: float,
    causal: bool,
    softcap: float | None = None,
) -> Tensor:
    """query (B, H, Q, D), key and value (B, K, M, D), mask as of bucket_mask, to (B, H, Q, D).

    torch's own, but for dropout on a CPU, where it has no fused kernel and draws its mask one by one, and for softcap.
    """
    grouped = query.shape[1] != key.shape[1]
    if softcap is None and (dropout == 0.0 or query.is_cuda):
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=grouped
        )
    if grouped:
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    if causal:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.mT
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    if mask is not None:
        scores = scores + additive(mask, scores.dtype)
    return drop(scores.softmax(dim=-1), dropout) @ value


def bucket_mask(bucket: Bucket, causal: bool, window: int | None, device: torch.device) -> Tensor | None:
    """(B or 1, 1, M or 1, M) bool, True where a query may look; None where nothing has to be hidden.

    A causal query never reaches the padding on its right, so causal layers without a window need no mask at all.
    """
    mask = None
    if not causal and bucket.real is not None:
        mask = bucket.real[:, None, None]
    if window is not None and window < bucket.length:
        position = torch.arange(bucket.length, device=device)
        distance = position[:, None] - position[None]
        near = (distance >= 0) & (distance < window) if causal else distance.abs() < window
        # Padding that no window reaches from a token still sees itself: a row without any key would be NaN, also in the
        # gradients.
        mask = near[None, None] if mask is None else (mask & near) | (distance == 0)
    return mask


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Of a mask that is true where a query may look, what is added to the scores."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -math.inf)


def to_places(states: Tensor, buckets: Buckets) -> Tensor:
    """(T, …) to (P, …)."""
    if buckets.gather is None:
        return states.contiguous()
    return _ToPlaces.apply(states, buckets.gather, buckets.restore)  # type: ignore[no-any-return, no-untyped-call]


def from_places(states: Tensor, buckets: Buckets) -> Tensor:
    """(P, …) to (T, …)."""
    if buckets.gather is None:
        return states
    return _FromPlaces.apply(states, buckets.gather, buckets.restore, buckets.padding)  # type: ignore[no-any-return, no-untyped-call]


def to_real_places(states: Tensor, gather: Tensor, padding: Tensor | None) -> Tensor:
    """The gradient of from_places: (T, …) to (P, …), zero where padding stands."""
    placed = states.index_select(0, gather)
    if padding is not None:
        placed.index_fill_(0, padding, 0)
    return placed


class _ToPlaces(torch.autograd.Function):
    """A gather whose gradient is a gather too: index_select's own adds row by row, one small call each.

    Exact, because padded places never receive a gradient: padded keys weigh nothing, padded queries are dropped.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, gather: Tensor, restore: Tensor) -> Tensor:
        ctx.save_for_backward(restore)
        return states.index_select(0, gather)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (restore,) = ctx.saved_tensors
        return grads[0].index_select(0, restore), None, None


class _FromPlaces(torch.autograd.Function):
    """The way back. Places of padding get a gradient of zero, which is what makes the above exact."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, gather: Tensor, restore: Tensor, padding: Tensor | None) -> Tensor:
        ctx.save_for_backward(gather, padding)
        return states.index_select(0, restore)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        gather, padding = ctx.saved_tensors
        return to_real_places(grads[0], gather, padding), None, None, None
