"""Trains three epochs in two processes, where a resume point costs more than it may, and is stopped within the last evaluation;
says after which steps a point was written, and its last words.

By torchrun: points_of_a_run.py FOLDER
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

from tiny_training import Trainer
from torch import Tensor

from winnow_classifier.errors import PeerLostError
from winnow_trainer import resume, resume_writer
from winnow_trainer.group import leave
from winnow_trainer.learner import Learner
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
        stop, evaluations, predict = Event(), [], Learner.predict

        def stop_in_the_third(*given: Any) -> Tensor:
            evaluations.append(given)
            if len(evaluations) == 3 and ranks.leads:
                stop.set()
            return predict(*given)

        Learner.predict = stop_in_the_third  # type: ignore[method-assign, assignment]
        spec = job.spec.model_copy(update={"processes_per_node": 2})
        with suppress(PeerLostError):  # the other one left before
            told = trainer.run(job.model_copy(update={"spec": spec}), stop, ranks=ranks)
            (folder / f"told-{ranks.rank}").write_text(told["message"])
        (folder / f"saved-{ranks.rank}").write_text(" ".join(map(str, saved)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave(0)
