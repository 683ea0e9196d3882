"""Dropout that does not hold up a CPU: torch's own draws one number after the other there, a seventh of a training step.

One draw of 64 random bits serves four elements, from torch's own generator: what a resume point holds is enough to go on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

LEVELS = 2**16  # 16 bits for each element: the chance of a drop is exact to 1 in 65,536


def dropout(states: Tensor, p: float) -> Tensor:
    """Any shape to the same: each element is zero with the chance `p`, otherwise scaled so that the mean stays."""
    if p == 0.0:
        return states
    if states.device.type != "cpu":
        return nn.functional.dropout(states, p)
    return _Dropout.apply(states, p)  # type: ignore[no-any-return, no-untyped-call]


class Dropout(nn.Dropout):
    """nn.Dropout by the function above."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p) if self.training else input


def replace_dropout(network: nn.Module) -> None:
    """Put Dropout where `network` has nn.Dropout; nothing that is saved changes."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p))


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, p: float) -> Tensor:
        factor = kept(states.shape, p, states.dtype)
        ctx.save_for_backward(factor)
        return states if factor is None else states * factor

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (factor,) = ctx.saved_tensors
        return grads[0] if factor is None else grads[0] * factor, None


def kept(shape: Sequence[int], p: float, dtype: torch.dtype) -> Tensor | None:
    """What to multiply states of that shape with: 0, or a little more than 1; None where nothing is dropped. For a CPU."""
    dropped = round(p * LEVELS)
    if dropped == 0:
        return None
    if dropped == LEVELS:
        return torch.zeros(shape, dtype=dtype)
    size = math.prod(shape)
    draws = torch.empty(math.ceil(size / 4), dtype=torch.int64).random_(-(2**63), None)
    levels = draws.view(torch.int16)[:size].view(shape)
    # Zeros and ones in the type of the states at once: through bool, multiplying costs three times as much.
    factor = torch.ge(levels, dropped - LEVELS // 2, out=torch.empty(shape, dtype=dtype))
    return factor.mul_(LEVELS / (LEVELS - dropped))
