"""Trains three epochs in two processes, where a resume point costs more than it may; says after which steps one was written.

By torchrun: points_of_a_run.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tiny_training import Trainer

from winnow_trainer import resume, resume_writer
from winnow_trainer.ranks import joined


def main(folder: Path) -> None:
    with joined(2) as ranks:
        with ranks.turn():
            trainer = Trainer(folder)
            job = trainer.job(numTrainEpochs=3)
        resume_writer.COST = 0.0
        saved, save = [], resume.save

        def keep(folder: Path, steps_done: int, *rest: Any) -> Path:
            saved.append(steps_done)
            return save(folder, steps_done, *rest)

        vars(resume)["save"] = keep
        spec = job.spec.model_copy(update={"processes_per_node": 2})
        trainer.run(job.model_copy(update={"spec": spec}), ranks=ranks)
        (folder / f"saved-{ranks.rank}").write_text(" ".join(map(str, saved)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
