"""Places a model in processes that share a container too small for whole ones; each says whether it got a part of it.

By torchrun: short_of_memory.py FOLDER DDP|FSDP|unset
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from tiny_learner import SCHEMA, base_model

from winnow_classifier.tokens import load_tokenizer
from winnow_trainer import memory
from winnow_trainer.fsdp import is_cut
from winnow_trainer.group import leave
from winnow_trainer.job import Parameters
from winnow_trainer.methods import assemble
from winnow_trainer.ranks import joined


def main(folder: Path, asked: str) -> None:
    given = {"maxSeqLength": 16} | ({} if asked == "unset" else {"parallelism": asked})
    parameters = Parameters.model_validate(given).resolved("Full", "cls")
    with joined(2) as ranks:
        with ranks.turn():
            base = base_model(folder)
        model = assemble(base, load_tokenizer(base), SCHEMA, "Full", parameters, torch.device("cpu"))
        if ranks.rank == 1:  # one that has too little is enough
            memory.cgroup_limit = lambda folder=Path(): memory.resident_bytes()
        warnings = memory.place(model, "Full", parameters, Accelerator(cpu=True), ranks)
        (folder / f"said-{ranks.rank}").write_text(f"{is_cut(model)} {' '.join(one.message for one in warnings)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
    leave(0)
