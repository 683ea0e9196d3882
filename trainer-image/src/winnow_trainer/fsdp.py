"""One model cut over the processes of a training by torch's fully_shard (FSDP2): each holds a part of every weight.

A unit, which is a layer of the body or its embedding table, is put together when it computes and let go afterwards; its
gradient is added up over the processes and cut again. So all processes make the same passes in the same order, also one that
has no rows. Where a model is not cut, each function here does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from winnow_classifier.architectures import BERT, ROBERTA
from winnow_classifier.errors import PeerLostError
from winnow_classifier.model import Classifier
from winnow_classifier.packing import PackedBatch
from winnow_trainer.job import FSDP_METHODS, FSDP_OPTIMIZERS, Method, Parameters


def can_cut(method: Method, parameters: Parameters) -> bool:
    return method in FSDP_METHODS and parameters.optim in FSDP_OPTIMIZERS


def is_cut(model: Classifier) -> bool:
    return isinstance(model, FSDPModule)


def units(model: Classifier) -> list[nn.Module]:
    """The modules that are put together one at a time. Weights outside of them, such as the head's and the last norm's, are
    whole for all of a pass."""
    if not model.architecture.packs:
        # One pass runs the layers once for each group of like length (padded.py), and processes differ in how many groups.
        return []
    layers: list[nn.Module] = []
    taken: set[int] = set()
    for module in model.body.modules():
        if isinstance(module, nn.ModuleList) and id(module) not in taken:
            layers += module
            taken.update(id(inner) for inner in module.modules())
    if model.family in (BERT, ROBERTA) and model.pooling == "cls":
        layers.pop()  # its parts are called one by one, not its forward (encoder.py)
    table = model.body.get_input_embeddings()
    return [*layers, table] if isinstance(table, nn.Embedding) else layers


def largest_unit(model: Classifier) -> int:
    """Bytes of its weights, as they lie in memory."""
    inside = [sum(map(size, unit.parameters())) for unit in units(model)]
    return max([*inside, sum(map(size, model.parameters())) - sum(inside)])


def size(weight: Tensor) -> int:
    return weight.numel() * weight.element_size()


def cut(model: Classifier, processes: int, device: torch.device, computes: torch.dtype | None = None) -> None:
    """`model`, the same in all `processes`, becomes this one's part of it, on its device.

    `computes`: of the layers' weights when they are put together; None for their own. What is added up and what the optimizer
    sees has always the weights' own precision, and so has the head.
    """
    mesh = init_device_mesh(device.type, (processes,))
    # Autocast alone would keep a copy in bfloat16 of every layer until the backward pass: the whole model after all. The states
    # between layers stay in float32, as without cuts.
    policy = MixedPrecisionPolicy(param_dtype=computes, reduce_dtype=torch.float32, cast_forward_inputs=False)
    table = model.body.get_input_embeddings()
    for unit in units(model):
        fully_shard(unit, mesh=mesh, mp_policy=MixedPrecisionPolicy() if unit is table else policy)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # The sum, as ranks.py adds up; gloo knows no other way.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


@contextmanager
def callable_features(model: Classifier) -> Iterator[Callable[[PackedBatch], Tensor]]:
    """`model.features`, to be called as forward is."""
    if not is_cut(model):
        yield model.features
        return
    register_fsdp_forward_method(model, "features")
    try:
        yield model.features
    finally:
        del model.features  # forward calls `features` too, and must find the plain method


@contextmanager
def whole_head(model: Classifier) -> Iterator[None]:
    """While this runs, weights outside the units are whole, and what is written to them is kept."""
    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    yield
    written = {
        name: weight.detach().clone() for name, weight in model.named_parameters() if not isinstance(weight, DTensor)
    }
    model.reshard()
    for name, weight in model.named_parameters():
        if name in written:
            put(weight, written[name])


def put(weight: Tensor, value: Tensor) -> None:
    """`value`, whole and the same in all processes, into a weight or this process's part of it."""
    with torch.no_grad():
        weight.copy_(like(weight, value))


def like(weight: Tensor, value: Tensor) -> Tensor:
    """`value` cut as `weight` is, in memory of its own."""
    if not isinstance(weight, DTensor):
        return value
    return distribute_tensor(value.detach(), weight.device_mesh, weight.placements, src_data_rank=None).clone()


def own_part(weight: Tensor) -> Tensor:
    """This process's part of a weight, in the same memory."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def whole(value: Any, keeps: bool) -> Any:
    """The same put together, on the CPU and in memory of its own. All processes take part; one that does not keep it gets the
    rest of the value only."""
    if isinstance(value, DTensor):
        complete = value.full_tensor()
        return complete.detach().cpu() if keeps else None
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {name: whole(each, keeps) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole(each, keeps) for each in value)
    return value


def number(value: Any) -> Tensor:
    """A number that torch computed over all parts, as a plain tensor."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load the state that an optimizer of whole weights had. Where they are cut, copies are taken, so that `state` can be freed."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    states = {
        index: {name: part(weights[index], value) for name, value in kept.items()}
        for index, kept in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": states})


def part(weight: Tensor, value: Any) -> Any:
    """Of what an optimizer keeps for a weight: AdamW's moments have its shape, its count of steps is one number."""
    if not (isinstance(weight, DTensor) and isinstance(value, Tensor)):
        return value
    return like(weight, value) if value.shape == weight.shape else value.clone()


@contextmanager
def together(model: Classifier) -> Iterator[None]:
    """Raises PeerLostError for what torch says in the middle of a pass when another process is gone."""
    try:
        yield
    except RuntimeError as error:
        if not is_cut(model) or not lost(error):
            raise
        raise PeerLostError("Another process of this training ended; this one cannot go on alone") from error


def lost(error: RuntimeError) -> bool:
    """gloo has no type of its own for it."""
    return isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL"))
