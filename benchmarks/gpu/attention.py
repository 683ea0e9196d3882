"""Packed attention on the device against softmax in float32, text by text: forward and backward."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from winnow_classifier.attention import can_use_varlen, packed_attention
from winnow_classifier.packing import pack

# As far as torch's own bfloat16 attention of each text alone is off, twice over: rounding in another order.
SLACK, FLOOR = 2.0, 1e-5


class Layer(nn.Module):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.is_causal = causal


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int | None) -> Tensor:
    """One text, (H, T, D) and (K, T, D) to (H, T, D), in the precision of its arguments."""
    k, v = (x.repeat_interleave(q.shape[0] // k.shape[0], dim=0) for x in (k, v))
    place = torch.arange(q.shape[1], device=q.device)
    distance = place[:, None] - place[None]
    hidden = distance < 0 if causal else torch.zeros_like(distance, dtype=torch.bool)
    if window is not None:
        hidden = hidden | (distance.abs() >= window)
    scores = (q @ k.mT) * q.shape[-1] ** -0.5
    out: Tensor = scores.masked_fill(hidden, -torch.inf).softmax(dim=-1) @ v
    return out


def gradients(out: Tensor, inputs: list[Tensor], weights: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad((out.float() * weights).sum(), inputs))


def off(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest error, relative to the largest value of its tensor."""
    pairs = zip(found, expected, strict=True)
    return max(float((ours.detach().float() - theirs).abs().max() / theirs.abs().max()) for ours, theirs in pairs)


def check(
    device: torch.device, dtype: torch.dtype, lengths: list[int], heads: int, kv: int, size: int, **how: Any
) -> dict[str, Any]:
    causal, window = how["causal"], how["window"]
    generator = torch.Generator(device).manual_seed(0)
    tokens = sum(lengths)
    full = [torch.randn(1, h, tokens, size, generator=generator, device=device) for h in (heads, kv, kv)]
    half = [x.to(dtype).requires_grad_() for x in full]
    exact = [x.detach().float().requires_grad_() for x in half]
    weights = torch.randn(1, tokens, heads, size, generator=generator, device=device)
    packed = pack([[1] * length for length in lengths]).to(device)

    def alone(states: list[Tensor]) -> Tensor:
        texts = zip(*(x[0].split(lengths, dim=1) for x in states), strict=True)  # type: ignore[no-untyped-call]
        outs = [softmax_attention(q, k, v, causal, window) for q, k, v in texts]
        return torch.cat(outs, dim=1).transpose(0, 1)[None]

    query, key, value = half
    ours, _ = packed_attention(
        Layer(causal), query, key, value, None, packed=packed, scaling=size**-0.5, sliding_window=window
    )
    theirs, rounded = alone(exact), alone(half)
    expected = [theirs.detach(), *gradients(theirs, exact, weights)]
    error = off([ours, *gradients(ours, half, weights)], expected)
    bound = SLACK * off([rounded, *gradients(rounded, half, weights)], expected) + FLOOR
    flash = can_use_varlen(half[0][0], 0.0)
    return {"heads": heads, "kv": kv, "size": size, **how, "flash": flash, "error": error, "bound": bound}


def run(device: torch.device, tiny: bool) -> dict[str, Any]:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    lengths = [3, 17, 1, 30, 9] if tiny else [3, 512, 1, 130, 64, 2048, 77]
    sizes = (8, 16) if tiny else (64, 128, 256)
    results = []
    for size, (heads, kv), causal, window in itertools.product(sizes, ((4, 4), (8, 2)), (True, False), (None, 5, 65)):
        found = check(device, dtype, lengths, heads, kv, size, causal=causal, window=window)
        found["passed"] = found["error"] <= found["bound"]
        results.append(found)
        if not found["passed"]:
            print(f"  {found}")
    worst = max(found["error"] for found in results)
    flash = sum(found["flash"] for found in results)
    print(f"  {len(results)} cases, {flash} of them by flash kernels, largest error {worst:.2e}")
    return {"passed": all(found["passed"] for found in results), "cases": results}
