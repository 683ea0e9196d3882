"""The optimizer of a run: AdamW, also with moments in 8 bits, or Adafactor as transformers' Trainer sets it up.

The learning rate comes with each step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from winnow_classifier.four_bit import check_installed
from winnow_trainer.job import ADAMW_ONLY, GPU_OPTIMIZERS, Parameters


def make_optimizer(trainable: Mapping[str, torch.nn.Parameter], parameters: Parameters) -> torch.optim.Optimizer:
    groups = parameter_groups(trainable, parameters)
    if parameters.optim == "adafactor":
        from transformers import Adafactor  # brings peft and bitsandbytes: seconds of every other training's start

        # Its own rates, which ignore the learning rate, are off: the schedule decides, as with the Trainer's adafactor.
        return Adafactor(groups, lr=0.0, scale_parameter=False, relative_step=False)
    beta1, beta2, eps = (
        default if (given := getattr(parameters, name)) is None else given for name, default in ADAMW_ONLY.items()
    )
    betas = (beta1, beta2)
    if parameters.optim in GPU_OPTIMIZERS:
        return eight_bit(groups, parameters.optim == "paged_adamw_8bit", betas, eps)
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=eps, fused=True)


def eight_bit(
    groups: list[dict[str, Any]], paged: bool, betas: tuple[float, float], eps: float
) -> torch.optim.Optimizer:
    check_installed("parameters.optim adamw_8bit")
    from bitsandbytes.optim.adamw import AdamW8bit, PagedAdamW8bit

    made: torch.optim.Optimizer = (PagedAdamW8bit if paged else AdamW8bit)(groups, lr=0.0, betas=betas, eps=eps)
    return made


def parameter_groups(trainable: Mapping[str, torch.nn.Parameter], parameters: Parameters) -> list[dict[str, Any]]:
    """Weight decay for matrices, none for biases and norms, as transformers' Trainer does."""
    decayed = [parameter for parameter in trainable.values() if parameter.ndim > 1]
    plain = [parameter for parameter in trainable.values() if parameter.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": parameters.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
