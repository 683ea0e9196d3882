"""LongRoPE's factors chosen for each text by its own length, as if it ran alone (arXiv:2402.13753; Phi-3 and Phi-4 have it).

transformers chooses short or long ones by the longest text of a batch and keeps the choice in the module: a text's logits would
depend on its company, and on what another thread runs. Its `dynamic` factors change only beyond max_position_embeddings, which no
text here reaches. Letters: B rows of a batch, T tokens of a row, D head width.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig


def longest_short_text(config: PreTrainedConfig) -> int | None:
    """In tokens: a longer text is read with the long factors. None: the model has no two sets of them."""
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    # Some types have others for some of their layers.
    sets = [rope, *(each for each in rope.values() if isinstance(each, dict))]
    return next((one["original_max_position_embeddings"] for one in sets if one.get("rope_type") == "longrope"), None)


def choose_by_text(network: nn.Module, config: PreTrainedConfig) -> None:
    """In place. Nothing of it is saved with the network."""
    limit = longest_short_text(config)
    if limit is None:
        return
    for parent in list(network.modules()):
        for name, rotary in list(parent.named_children()):
            if "longrope" in str(getattr(rotary, "rope_type", "")):
                setattr(parent, name, PerText(rotary, limit))


class PerText(nn.Module):
    """Stands in for a rotary embedding. Each of its two copies only ever chooses the one set."""

    def __init__(self, rotary: nn.Module, limit: int) -> None:
        super().__init__()
        self.short, self.long = rotary, copy.deepcopy(rotary)
        self.limit = limit

    def forward(self, states: Tensor, position_ids: Tensor, *others: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """(B, T) positions to cosines and sines, each (B, T, D)."""
        is_long = lengths_of_texts(position_ids) > self.limit
        short = self.short(states, position_ids.masked_fill(is_long, 0), *others, **named)
        # One more position than short texts have, where there is no long text either.
        long = self.long(states, functional.pad(position_ids, (0, 1), value=self.limit), *others, **named)
        cos, sin = (
            torch.where(is_long[..., None], ours[:, :-1], theirs) for ours, theirs in zip(long, short, strict=True)
        )
        return cos, sin


def lengths_of_texts(position_ids: Tensor) -> Tensor:
    """(B, T) to (B, T): of the text that each token belongs to. Each begins at position 0."""
    text = (position_ids == 0).cumsum(dim=-1)
    last = torch.zeros_like(functional.pad(text, (0, 1))).scatter_reduce(-1, text, position_ids, "amax")
    return last.gather(-1, text) + 1
