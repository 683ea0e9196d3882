"""An exponential moving average of the weights that train: what is evaluated and saved in place of those of the last step.

Each step goes where its few rows point; an average over many steps keeps what they agree on (Polyak and Juditsky 1992;
Morales-Brotons et al. 2024, arXiv:2411.18704). After step n it moves by 1 - min(decay, (1 + n) / (10 + n)) towards the
weights, so that it covers about the last tenth of a run that is short for its decay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from winnow_trainer import fsdp


class WeightAverage:
    """Of weights that change in place. The training itself never sees it: its steps are the same without."""

    def __init__(self, trainable: Mapping[str, torch.nn.Parameter], decay: float) -> None:
        self.trainable = trainable
        self.decay = decay
        self.steps = 0
        self.averages: dict[str, Tensor] = {}  # none before the first step
        self.shown = False  # whether weights and averages have changed places

    def update(self) -> None:
        """Count in the weights as they are after a step."""
        self.steps += 1
        weights = {name: weight.detach() for name, weight in self.trainable.items()}
        if not self.averages:
            self.averages = {name: weight.clone() for name, weight in weights.items()}
            return
        part = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(
            [fsdp.own_part(average) for average in self.averages.values()],
            [*map(fsdp.own_part, weights.values())],
            part,
        )

    def show(self) -> None:
        """The model has the averages, until `hide`."""
        if self.averages and not self.shown:
            self._change_places()

    def hide(self) -> None:
        if self.shown:
            self._change_places()

    def _change_places(self) -> None:
        # Copied, one weight at a time: FSDP and the embedding table hold on to the weights' memory.
        for name, average in self.averages.items():
            weight, kept = fsdp.own_part(self.trainable[name].detach()), fsdp.own_part(average)
            last = weight.clone()
            weight.copy_(kept)
            kept.copy_(last)
        self.shown = not self.shown

    def apart(self, weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Of `weights`, those that the model has now: those of the last step, wherever they are, and what this keeps beside them."""
        last, averages = (self.averages, weights) if self.shown else (weights, self.averages)
        return last, {"steps": self.steps, "weights": averages}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """What `apart` gave beside the weights; the averages are hidden, and the weights loaded by whoever calls this."""
        self.steps, self.averages = state["steps"], {}
        for name, average in state["weights"].items():
            self.averages[name] = torch.empty_like(self.trainable[name].detach())
            fsdp.put(self.averages[name], average)
