"""What the GPU of this machine can do."""

from __future__ import annotations

import warnings

import torch

from winnow_classifier.errors import GpuNotSeen

BFLOAT16_SINCE = (8, 0)  # compute capability: Ampere. Older ones emulate it, slower than float32


def gpu_computes_bfloat16() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= BFLOAT16_SINCE


def require_gpu() -> None:
    """Raises GpuNotSeen where torch sees none, in its words: that it says once in a process, so nothing may ask before."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return
    cuda = torch.version.cuda
    why = str(said[0].message) if said else f"it is made for CUDA {cuda}" if cuda else "it is made for CPUs only"
    raise GpuNotSeen(
        f"This is to run on a GPU, and torch sees none: {why}",
        hint="look at the node's driver and the image, or take the GPU out of resources.limits to work on CPUs",
    )
