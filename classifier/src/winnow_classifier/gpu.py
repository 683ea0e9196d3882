"""What the GPU of this machine can do."""

from __future__ import annotations

import torch

BFLOAT16_SINCE = (8, 0)  # compute capability: Ampere. Older ones emulate it, slower than float32


def gpu_computes_bfloat16() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= BFLOAT16_SINCE
