"""What a resume point costs a training on this machine's CPUs: written beside it, and, for comparison, in its way.

    python benchmarks/resume_points.py [--rounds 5] [--steps 40] [--folder DIR]

MiniLM on the subject lines of the demo's e-mails, all of it (weights and both moments of AdamW) and by LoRA. In each round the same
number of steps is taken without a point, with one that begins with the first step and is written beside them, and with one that is written
before the first. The medians over the rounds of the CPU seconds that the others take more are what a point costs; the writer's own account
stands beside, for a machine that does other work. `--folder` says where
they are written, for disks that are slower than the temporary folder's. The bar: one a ten minutes costs under 2 % of the time, by either
account. More of them do by the rule of resume_writer.py itself, which is told, and not measured.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event
from typing import Literal

from bars import verdict
from training import PARAMETERS, Task, assembled, load
from winnow_classifier.model import quiet_transformers
from winnow_trainer import resume
from winnow_trainer.learner import Learner
from winnow_trainer.resume import Position
from winnow_trainer.resume_writer import COST, ResumeWriter
from winnow_trainer.steps import steps_of_epoch
from winnow_trainer.train import RESUME_POINT_SECONDS, make_accelerator

Way = Literal["none", "beside", "before"]
WAYS: tuple[Way, ...] = ("none", "beside", "before")


def learner(task: Task, method: Literal["Full", "LoRA"]) -> Learner:
    parameters = PARAMETERS.model_copy(update={"learning_rate": 1e-5}).resolved(method, "cls")
    accelerator = make_accelerator()
    model = assembled(task, method, parameters, accelerator.device)
    return Learner(model, task.train, task.schema, method, parameters, accelerator, Event())


def seconds(learns: Learner, folder: Path, way: Way, count: int, writer: ResumeWriter) -> float:
    """CPU seconds of all threads, of so many steps and of the point that goes with them: other work on the machine does not count."""
    steps = steps_of_epoch(len(learns.examples), PARAMETERS.batch_size, 0, 1)[:count]
    began = time.process_time()
    if way == "before":
        resume.save(folder, 1, Position(), learns.state())
    elif way == "beside":
        writer.save(1, Position(), learns.state())
    for step in steps:
        learns.step(step, 1e-5)
    writer.wait()
    return time.process_time() - began


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, default=40)
    options.add_argument("--folder", type=Path)
    given = options.parse_args()
    quiet_transformers()
    task = load(None)
    missed = []
    for method in ("Full", "LoRA"):
        learns = learner(task, method)
        learns.learn()
        with TemporaryDirectory(dir=given.folder) as temporary:
            folder = Path(temporary)
            writer = ResumeWriter(folder)
            seconds(learns, folder, "beside", 3, writer)  # warm
            took: dict[Way, list[float]] = {way: [] for way in WAYS}
            for _ in range(given.rounds):
                for way in WAYS:
                    took[way].append(seconds(learns, folder, way, given.steps, writer))
            size = sum(path.stat().st_size for path in folder.glob("step-*/*")) / 2**20
        plain = median(took["none"])
        beside, before = (
            median(b - a for a, b in zip(took["none"], took[way], strict=True)) for way in ("beside", "before")
        )
        print(f"{method}: {size:.0f} MiB, {plain / given.steps:.3f} CPU s a step")
        print(
            f"  beside the steps {beside:.2f} s, by the writer's own account {writer.seconds:.2f} s; before them {before:.2f} s"
        )
        print(
            f"  one in {RESUME_POINT_SECONDS:.0f} s: {beside / RESUME_POINT_SECONDS:.2%}; at most one in {writer.seconds / COST:.0f} s"
        )
        share = max(beside, writer.seconds) / RESUME_POINT_SECONDS
        missed += [f"{method}: {share:.2%} of the time, of {COST:.0%}"] if share > COST else []
    return verdict(missed)


if __name__ == "__main__":
    sys.exit(main())
