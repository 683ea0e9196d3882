"""Does a training fit into memory, told before its first step, and what would make it fit. Pure but for reading capacities.

An estimate, not a promise: weights, gradients, the optimizer's moments and averaged weights are counted exactly,
activations by the formula of Korthikanti et al. 2022 (arXiv:2205.05198) without its dropout masks and attention scores,
which packed attention and flash kernels do not keep. What it says is too much gets as far as the allocator lets it: only the warning is certain.
Letters: T tokens computed at a time, d width, L layers.
"""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from winnow_classifier.architectures import DECODER, MODERNBERT
from winnow_classifier.errors import ConfigError
from winnow_classifier.model import Classifier
from winnow_classifier.profile import Warn
from winnow_trainer import fsdp
from winnow_trainer.job import Method, Parameters
from winnow_trainer.methods import can_keep_less, keep_less
from winnow_trainer.ranks import ALONE, Ranks

log = logging.getLogger(__name__)

GIB = 2**30
FLOAT = 4
# Bytes the optimizer keeps for each trained number. Adafactor's row and column of a matrix are next to nothing.
MOMENTS = {"adamw": 8.0, "adamw_8bit": 2.0, "paged_adamw_8bit": 0.0, "adafactor": 0.1}
# Kept for the gradient, in numbers of a layer's width a token: two norms, queries to output, residual sums (arXiv:2205.05198, 4.1, in
# its letters 34 bytes of which 8 are dropout masks and the feed-forward block's part is counted on its own below).
WIDTHS_KEPT = 8
# Of the inner width. Gated: gate, its activation, and up; else what the activation reads.
GATED_KEPT, PLAIN_KEPT = 3, 1
MOST_ACCUMULATED = 4_096  # the bound of gradientAccumulationSteps
SPARE = 0.92  # of the capacity: the CUDA context, fragments of the allocator, the programs beside


@dataclass(frozen=True, slots=True)
class Demand:
    """Bytes, by what they are for."""

    weights: int
    gradients: int
    moments: int
    average: int  # of the weights that train, where emaDecay asks for it
    activations: int  # kept by all layers
    kept_between: int  # with gradientCheckpointing: the states between layers, and one layer's own
    features: int  # of all rows, that HeadOnly keeps in the machine's memory
    read_once: bool  # the body runs in batches of evaluation only, and steps have the head alone

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.average + self.activations + self.features

    @property
    def checkpointed(self) -> Demand:
        return replace(self, activations=min(self.activations, self.kept_between))

    def cut(self, processes: int, unit: int) -> Demand:
        """The demand of one of several processes that each hold a part of the model. `unit`: bytes of the largest layer,
        which is put together when it computes."""
        gathered = 2 * unit  # two units: the one that computes, and the next one that is being put together
        return replace(
            self,
            weights=self.weights // processes + gathered,
            gradients=self.gradients // processes + min(unit, self.gradients),
            moments=self.moments // processes,
            average=self.average // processes,
        )

    def in_words(self) -> str:
        parts = {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.moments,
            "averaged weights": self.average,
            "activations": self.activations,
            "features of the rows": self.features,
        }
        return ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items() if size)


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a body the estimate needs."""

    width: int
    layers: int
    inner_width: int
    weight_bytes: int  # of all weights, as they lie in memory
    trained: int  # numbers that change
    # How many numbers the linear layers that learn, LoRA's too, read of a token, in all layers together: each keeps them for its
    # gradient, in the copy that autocast or dropout made.
    numbers_read: int = 0
    gated: bool = True  # the feed-forward block
    unit_bytes: int = 0  # of the largest layer or table: what is whole at a time where the model is cut over processes


def shape_of(model: Classifier) -> Shape:
    config: Any = model.base.config.get_text_config()
    width = int(config.hidden_size)
    inner = getattr(config, "intermediate_size", None) or 4 * width
    weights = sum(map(fsdp.size, model.parameters()))
    learning = [m for m in model.body.modules() if isinstance(m, nn.Linear) and m.weight.requires_grad]
    return Shape(
        width,
        int(config.num_hidden_layers),
        int(inner),
        weights,
        sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        sum(linear.in_features for linear in learning),
        model.family in (DECODER, MODERNBERT),
        fsdp.largest_unit(model),
    )


def demand(
    shape: Shape, method: Method, parameters: Parameters, computed_bytes: int, kept_rows: int | None = None
) -> Demand:
    """`computed_bytes`: of one activation, 2 under bfloat16. `kept_rows`: how many rows have their features kept, so that the body
    reads each once; None where it runs in each step."""
    tokens = parameters.max_train_tokens if kept_rows is None else parameters.max_eval_tokens
    if method == "HeadOnly":  # the body keeps nothing
        all_layers = between = tokens * shape.width * computed_bytes * 4
    else:
        feed_forward = (GATED_KEPT if shape.gated else PLAIN_KEPT) * shape.inner_width
        kept = shape.layers * (WIDTHS_KEPT * shape.width + feed_forward) + shape.numbers_read
        masks = shape.numbers_read if parameters.lora_dropout else 0  # of a byte each
        all_layers = tokens * (kept * computed_bytes + masks)
        between = tokens * shape.width * computed_bytes * shape.layers + all_layers // shape.layers
    moments = MOMENTS[parameters.optim or "adamw"]
    return Demand(
        weights=shape.weight_bytes,
        gradients=shape.trained * FLOAT,
        moments=int(shape.trained * moments),
        average=shape.trained * FLOAT if parameters.ema_decay else 0,
        activations=all_layers,
        kept_between=between,
        features=(kept_rows or 0) * shape.width * FLOAT,
        read_once=kept_rows is not None,
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether layers are computed again, and what is to be said."""

    gradient_checkpointing: bool
    warning: Warn | None
    needed: int


def judge(
    needs: Demand,
    capacity: int | None,
    method: Method,
    parameters: Parameters,
    *,
    chooses: bool,
    where: str,
    cut: bool = False,
    part: Demand | None = None,
) -> Verdict:
    """`chooses`: where gradientCheckpointing is unset, take it if it makes the job fit. `capacity` None: not known. `cut`: `needs`
    are those of a part. `part`: those that FSDP would leave, where it is possible and not chosen."""
    asked = parameters.gradient_checkpointing
    body_trains = method != "HeadOnly"
    if capacity is None:
        return Verdict(bool(asked), None, (needs.checkpointed if asked else needs).total)
    room = int(capacity * SPARE)
    checkpointing = bool(asked) or (asked is None and chooses and body_trains and needs.total > room)
    chosen = needs.checkpointed if checkpointing else needs
    if chosen.total <= room:
        return Verdict(checkpointing, None, chosen.total)
    message = (
        f"this training needs about {chosen.total / GIB:.1f} GiB ({chosen.in_words()}), and {where} has {capacity / GIB:.1f} GiB; "
        f"{'; '.join(remedies(needs, capacity, method, parameters, checkpointing, cut, part)) or 'a device with more memory would help'}"
    )
    return Verdict(checkpointing, Warn("MemoryShort", message), chosen.total)


def remedies(
    needs: Demand,
    capacity: int,
    method: Method,
    parameters: Parameters,
    checkpointing: bool,
    cut: bool,
    part: Demand | None,
) -> list[str]:
    """What would make it fit, the least intrusive first: the first that does alone, else all that help."""
    body_trains, room = method != "HeadOnly", int(capacity * SPARE)
    base = needs.checkpointed if checkpointing else needs
    fits, helps = [], []

    def offer(words: str, saved: Demand) -> None:
        if saved.total <= room:
            fits.append(f"{words} makes it fit (about {saved.total / GIB:.1f} GiB)")
        elif saved.total < base.total * 0.95:
            helps.append(words)

    if body_trains and not checkpointing:
        offer("gradientCheckpointing: true", needs.checkpointed)
    if part is not None:
        offer("parallelism: FSDP", part.checkpointed if checkpointing else part)
    size = parameters.per_device_eval_batch_size if base.read_once else parameters.per_device_train_batch_size
    each = base.activations / size
    if sizes := smaller_batches(parameters, base.read_once):
        most = (room - base.total + base.activations) / each if each else 0
        smaller = max((one for one in sizes if one <= most), default=min(sizes))
        offer(sizes[smaller], replace(base, activations=int(each * smaller)))
    if base.features:
        more = math.ceil((base.total / SPARE - capacity) / GIB * 10) / 10
        fits.append(
            f"{more:.1f} GiB more for it (resources.limits.memory) makes it fit, and fewer training rows "
            "(parameters.downsamplePercent) need less"
        )
    if parameters.optim in (None, "adamw") and method == "Full" and not cut:
        offer("optim: adafactor", replace(base, moments=int(base.moments * MOMENTS["adafactor"] / MOMENTS["adamw"])))
    if base.average:
        offer("no emaDecay", replace(base, average=0))
    if method == "Full":
        frozen = replace(
            base,
            weights=base.weights // 2,
            gradients=base.gradients // 50,
            moments=base.moments // 50,
            average=base.average // 50,
        )
        offer("method: LoRA", frozen)
    if method == "LoRA" and not cut:
        offer("method: QLoRA", replace(base, weights=base.weights // 3))
    return fits[:2] or ([f"{', '.join(helps)} would help, but not be enough"] if helps else [])


def smaller_batches(parameters: Parameters, read_once: bool) -> dict[int, str]:
    """Sizes that need less memory, in words, and change nothing of what is learned: a step keeps its rows."""
    if read_once:
        return {size: f"perDeviceEvalBatchSize: {size}" for size in range(1, parameters.per_device_eval_batch_size)}
    rows = parameters.batch_size
    return {
        size: f"perDeviceTrainBatchSize: {size} with gradientAccumulationSteps: {rows // size}"
        for size in range(1, parameters.per_device_train_batch_size)
        if rows % size == 0 and rows // size <= MOST_ACCUMULATED
    }


def place(
    model: Classifier,
    method: Method,
    parameters: Parameters,
    accelerator: Accelerator,
    ranks: Ranks = ALONE,
    rows: int = 0,
) -> list[Warn]:
    """Moves the model to its device. Where that is asked for or needed, it is cut over the processes, and its layers are
    computed again for the gradient. Returns what is short of memory.

    `rows`: how many train or are judged. All processes call this, and do what one of them needs. Raises ConfigError.
    """
    device = accelerator.device
    cuda = device.type == "cuda"
    computed = 2 if accelerator.mixed_precision == "bf16" and model.architecture.packs else FLOAT
    shape = shape_of(model)
    parameters, needs = demand_of(model, shape, method, parameters, computed, rows)
    capacity, where = capacity_of(device, shape.weight_bytes, ranks.local_size)
    warnings: list[Warn | None] = []
    if cuda and needs.features:  # features are kept in the machine's memory, not the GPU's
        beside, here = container(shape.weight_bytes, ranks.local_size)
        kept = Demand(0, 0, 0, 0, 0, 0, needs.features, read_once=True)
        warnings.append(judge(kept, beside, method, parameters, chooses=False, where=here).warning)
        needs = replace(needs, features=0)
    part = needs.cut(ranks.size, shape.unit_bytes) if ranks.size > 1 and fsdp.can_cut(method, parameters) else None
    verdict = judge(needs, capacity, method, parameters, chooses=cuda, where=where, part=part)
    (short,) = ranks.any(verdict.warning is not None)
    cuts = part is not None and (short if parameters.parallelism is None else parameters.parallelism == "FSDP")
    if cuts:
        assert part is not None
        verdict = judge(part, capacity, method, parameters, chooses=cuda, where=where, cut=True)
    # Layers that are computed again are put together again, for which all processes are needed: so all do it or none.
    (keeps_less,) = ranks.any(verdict.gradient_checkpointing)
    log.info(
        "Memory",
        extra={
            "neededBytes": verdict.needed,
            "capacityBytes": capacity,
            "gradientCheckpointing": keeps_less,
            **({"parallelism": "FSDP" if cuts else "DDP"} if ranks.size > 1 else {}),
        },
    )
    found = [warning for warning in (verdict.warning, *warnings) if warning]
    for warning in found:
        log.warning(warning.message, extra={"code": warning.code})
    if keeps_less:
        keep_less(model)
    if cuts:
        # On a CPU rows are evaluated in float32 (learner.py), so the layers' weights stay in it.
        fsdp.cut(model, ranks.size, device, torch.bfloat16 if cuda and computed == 2 else None)
    else:
        model.to(device)
    return found


def demand_of(
    model: Classifier, shape: Shape, method: Method, parameters: Parameters, computed_bytes: int, rows: int
) -> tuple[Parameters, Demand]:
    """The demand, and the parameters without gradientCheckpointing where the model cannot have it. Raises ConfigError where
    such a model is asked for it."""
    # As learner.py keeps their features.
    kept_rows = rows if method == "HeadOnly" and model.architecture.packs else None
    needs = demand(shape, method, parameters, computed_bytes, kept_rows)
    if can_keep_less(model):
        return parameters, needs
    if parameters.gradient_checkpointing:
        raise ConfigError(
            f"parameters.gradientCheckpointing is true, and transformers' {model.base.config.model_type} keeps all states "
            "of its layers; leave it out.",
            hint="a smaller perDeviceTrainBatchSize with more gradientAccumulationSteps needs less memory too",
        )
    without = parameters.model_copy(update={"gradient_checkpointing": False})
    return without, replace(needs, kept_between=needs.activations)


def capacity_of(device: torch.device, weight_bytes: int, local_processes: int) -> tuple[int | None, str]:
    """How many bytes one process may take, and in words where: on its GPU, or in its container. None: not known."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # Memory that this process has taken already holds weights, which are in the demand: QLoRA loads them there to round
        # them.
        return free + torch.cuda.memory_reserved(device), torch.cuda.get_device_name(device)
    return container(weight_bytes, local_processes)


def container(weight_bytes: int, local_processes: int) -> tuple[int | None, str]:
    """The same of this container: a process's part of its limit, less what the process holds beside the model. The model's
    weights are in the demand, or will move to a GPU."""
    limit = cgroup_limit()
    if limit is None:
        return None, "this container"
    where = "this container" if local_processes == 1 else f"each of the {local_processes} processes in this container"
    return limit // local_processes - max(resident_bytes() - weight_bytes, 0), where


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cgroup_limit(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The container's memory limit. None: there is none, or it is not told."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limit = int((folder / name).read_text())
        except (OSError, ValueError):
            continue
        return limit if limit < 2**60 else None
    return None
