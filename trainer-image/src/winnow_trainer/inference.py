"""The model run over all rows without learning: packed, sorted by length, results back in the order of the rows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Event

import numpy as np
import torch
from torch import Tensor

from winnow_classifier.model import Classifier
from winnow_classifier.packing import PackedBatch, plan_batches
from winnow_trainer.examples import Examples
from winnow_trainer.fsdp import together
from winnow_trainer.ranks import Ranks
from winnow_trainer.sharing import shares
from winnow_trainer.stopping import check

Autocast = Callable[[], AbstractContextManager[None]]


def over_rows(
    model: Classifier,
    function: Callable[[PackedBatch], Tensor],
    examples: Examples,
    max_tokens: int,
    autocast: Autocast,
    stop: Event,
    ranks: Ranks,
    all_pass: bool,
    told: Callable[[int], None],
) -> Tensor:
    """`function` of each row, (N, …) float32 on the CPU. Raises Stopped between two batches. `told` hears how many rows are
    done.

    Each batch runs in one process, and all of them get all results. `all_pass`: each makes as many passes as the one with the
    most batches, since they take part in those of the others.
    """
    lengths = examples.lengths
    order = np.argsort(-lengths, kind="stable")  # longest first: what does not fit in memory fails at once
    results: Tensor | None = None
    model.eval()
    batches = plan_batches(lengths[order].tolist(), max_tokens)
    dealt = shares([int(lengths[order[batch]].sum()) for batch in batches], ranks.size)
    own = [order[batches[index]] for index in dealt[ranks.rank]]
    idle = max(map(len, dealt)) - len(own) if all_pass else 0
    done = 0
    for number, rows in enumerate([*own, *[order[-1:]] * idle]):
        check(stop)
        told(done)
        done += len(rows)
        packed = examples.pack(rows.tolist(), model.position_start).to(model.device)
        with together(model), torch.no_grad(), autocast():
            output = function(packed).float().cpu()
        if number >= len(own):
            continue
        if results is None:
            results = torch.zeros(len(examples), *output.shape[1:])
        results[torch.from_numpy(rows)] = output
    return everything(results, len(examples), ranks)


def everything(results: Tensor | None, count: int, ranks: Ranks) -> Tensor:
    """The results of all processes, from this one's: (N, …), zero where another one computed. None: it had no batch."""
    width = ranks.largest(0 if results is None else results.shape[1])
    if results is None:
        results = torch.zeros(count, width)
    ranks.add_up([results])  # a number and zeros: exact
    return results
