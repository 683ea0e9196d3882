"""Linear layers in the form that this CPU multiplies fastest: weights laid out for oneDNN, in float32 or bfloat16.

torch multiplies float32 on a CPU with MKL, which leaves half of an AMD CPU's speed unused; oneDNN does not, and needs its
weights reordered once. Switching is in place, layer by layer, and can be taken back: the peak is 1.5 times the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from winnow_classifier.model import Classifier
from winnow_server import half
from winnow_server.fused_layers import FusedLayers, fuse
from winnow_server.half import Undo


class FastLinear(nn.Module):
    """An nn.Linear for inference. Takes what the layer took, (…, in) to (…, out)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.laid_out = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.laid_out, self.bias, "none", [], "")
        return out


def to_float32(classifier: Classifier) -> Undo:
    """Every linear layer of the body, with the numbers it has. What raises midway leaves the classifier as it was."""
    with ExitStack() as undone:
        undone.callback(fuse(classifier, torch.float32))
        for parent, name, layer in list(linear_layers(classifier)):
            fast = FastLinear(layer.weight, layer.bias)
            undone.callback(_give_back, layer, fast)
            layer.weight = nn.Parameter(torch.empty(0), requires_grad=False)  # kept once, not twice
            undone.callback(setattr, parent, name, layer)
            setattr(parent, name, fast)
        return undone.pop_all().close


def to_bfloat16(classifier: Classifier) -> Undo:
    """The body in bfloat16, the head as it is. From a float32 body without fast layers; what raises midway leaves that."""
    with ExitStack() as undone:
        undone.callback(fuse(classifier, torch.bfloat16))
        places = list(linear_layers(classifier))
        head = {id(parameter) for parameter in classifier.head_parameters()}
        linear = {id(parameter) for _, _, layer in places for parameter in layer.parameters()}
        undone.callback(half.cast(one for one in classifier.parameters() if id(one) not in head | linear))
        for parent, name, layer in places:
            bias = None if layer.bias is None else layer.bias.bfloat16()
            undone.callback(setattr, parent, name, layer)
            setattr(parent, name, FastLinear(layer.weight.bfloat16(), bias))
        return undone.pop_all().close


def by_onednn(classifier: Classifier) -> bool:
    """Whether its products are oneDNN's: it was switched."""
    return any(isinstance(module, FastLinear | FusedLayers) for module in classifier.modules())


def _give_back(layer: nn.Linear, fast: FastLinear) -> None:
    layer.weight = nn.Parameter(fast.laid_out.to_dense(), requires_grad=False)


def linear_layers(classifier: Classifier) -> Iterator[tuple[Any, str, nn.Linear]]:
    """(where it is, its name there, the layer) of each that is not of the head."""
    head = {id(parameter) for parameter in classifier.head_parameters()}
    for parent in list(classifier.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear and id(layer.weight) not in head:
                yield parent, name, layer
