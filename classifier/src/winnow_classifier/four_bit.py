"""QLoRA's body: weights of linear layers in 4 bits (NF4), as bitsandbytes computes with them and as the server reads them.

bitsandbytes is needed for training only. What its 4 bits stand for is a rounding of each weight, so a server without it, or
without a GPU, rounds the base model's weights the same way and adds the adapter to that: it answers as the model that was
trained and measured. Source: Dettmers et al. 2023, arXiv:2305.14314.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig, PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from winnow_classifier.errors import BaseModelError, ConfigError
from winnow_classifier.gpu import gpu_computes_bfloat16
from winnow_classifier.padded import head_of

BLOCK = 64  # weights that share a scale: bitsandbytes' default
# The quantiles of a normal distribution that NF4 is made of, as bitsandbytes has them.
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


def quantisation(config: PreTrainedConfig) -> Any:
    """For from_pretrained: all linear layers but those of the head. Raises ConfigError where bitsandbytes is not installed.

    The head's names are told outright: for encoders transformers' own guess leaves out nothing but a bias, and would round
    the head. Scales are not rounded again ("double quantisation"): it would save 0.4 bits a weight.
    """
    check_installed("method QLoRA")
    with torch.device("meta"):
        network = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=False,
        bnb_4bit_compute_dtype=torch.bfloat16 if gpu_computes_bfloat16() else torch.float32,
        llm_int8_skip_modules=list(head_of(network)),
    )


def check_installed(what: str) -> None:
    """Raises ConfigError: the package brings kernels for one kind of GPU, and belongs to an image for it."""
    try:
        import bitsandbytes  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError(
            f"{what} needs the package bitsandbytes, which is not in this image ({type(error).__name__}: {error}).",
            hint="use method LoRA and optim adamw, or an image of the trainer with bitsandbytes (docs/gpu-cluster.md)",
        ) from error


def check_head(head: list[nn.Module]) -> None:
    """Raises BaseModelError if a layer of the head was rounded."""
    for module in head:
        for layer in module.modules():
            if isinstance(layer, nn.Linear) and type(layer) is not nn.Linear:
                raise BaseModelError(
                    f"The head has a {type(layer).__name__}: its weights were quantised. This is a bug."
                )


@torch.no_grad()
def round_body(network: nn.Module, head: tuple[str, ...]) -> None:
    """Each linear layer that QLoRA holds in 4 bits gets the weights that these stand for."""
    for name, layer in network.named_modules():
        if name.startswith(head):
            continue
        if isinstance(layer, nn.Linear):
            layer.weight.copy_(rounded(layer.weight))
        elif isinstance(layer, Conv1D):  # transposed before it is cut into blocks
            layer.weight.copy_(rounded(layer.weight.T).T)


def rounded(weight: Tensor) -> Tensor:
    """Any shape to the same: in blocks of 64, the nearest of sixteen values times the block's largest."""
    flat = weight.detach().float().flatten()
    blocks = nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scale = blocks.abs().amax(dim=1, keepdim=True)
    values = torch.tensor(NF4, device=weight.device)
    middles = (values[1:] + values[:-1]) / 2
    # Multiplied by the inverse, as the kernels do: a quotient may fall on the other side of a middle.
    nearest = values[torch.bucketize(blocks * torch.where(scale > 0, 1 / scale, 0.0), middles)]
    return (nearest * scale).flatten()[: len(flat)].view_as(weight).to(weight.dtype)
