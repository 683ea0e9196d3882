"""Writes the gradient of one step on twelve rows, as this process has it, to FOLDER/gradient-RANK.pt.

Run alone or by torchrun: gradient_of_a_step.py FOLDER METHOD PER_DEVICE ACCUMULATION PROCESSES [MODEL [cuts] [bfloat16]]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from tiny_learner import ALL, base_model, learner

from winnow_trainer import fsdp
from winnow_trainer.group import leave
from winnow_trainer.ranks import joined


def main(
    folder: Path, method: str, per_device: int, accumulation: int, processes: int, model: str = "bert", *how: str
) -> None:
    options: dict[str, Any] = {"lora_dropout": 0.0} if method == "LoRA" else {}
    with joined(processes) as ranks:
        with ranks.turn():
            base_model(folder, model)
        made = learner(
            folder,
            method,  # type: ignore[arg-type]
            model,
            ranks=ranks,
            cuts="cuts" in how,
            bfloat16="bfloat16" in how,
            per_device_train_batch_size=per_device,
            gradient_accumulation_steps=accumulation,
            **options,
        )
        assert made.parameters.batch_size * ranks.size == len(ALL)
        kept: dict[str, torch.Tensor] = {}

        def keep() -> None:
            kept.update({name: fsdp.number(p.grad).clone() for name, p in made.trainable.items() if p.grad is not None})

        made.optimizer.step = keep  # type: ignore[method-assign, assignment]
        made.learn()
        result = made.step(ALL, 0.1)
        torch.save({**kept, "losses": result.losses}, folder / f"gradient-{ranks.rank}.pt")


if __name__ == "__main__":
    per_device, accumulation, processes = map(int, sys.argv[3:6])
    main(Path(sys.argv[1]), sys.argv[2], per_device, accumulation, processes, *sys.argv[6:])
    leave(0)
