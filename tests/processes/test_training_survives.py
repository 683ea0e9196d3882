"""Trainings that are killed, stopped, or meet a full disk, at any moment: they go on, and end with the same bits.

`python -m winnow_trainer train` in processes of its own. They are forked from one that has imported torch already, or starting them
would take most of the time.
"""

import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import tiny_training
from small_disks import can_mount, enlarge, small_disk

KILLS = 12
EPOCHS = 3
PATIENCE_SECONDS = 300.0  # a bound, not a guess: torch is imported before the first run, on a busy machine
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["winnow_trainer.cli", "winnow_trainer.train", "tiny_training"])


def run(arguments: list[str], log: str, patience_seconds: float) -> None:
    """What a process does: the command, with a resume point about every third step instead of every ten minutes, and with
    less patience where storage is full."""
    from winnow_trainer import cli, resume_writer, train
    from winnow_trainer.room import Patience

    vars(train)["train"] = partial(train.train, patience=Patience(patience_seconds, every=0.05))

    train.RESUME_POINT_SECONDS = 0.05
    resume_writer.COST = 1.0
    vars(train)["usable_cpus"] = lambda: 1  # threads that wait for each other on a busy machine make a run last minutes
    sys.stderr = sys.stdout = Path(log).open("a")  # noqa: SIM115 - until the process ends
    os._exit(cli.main(arguments))


@dataclass(frozen=True)
class Run:
    """One run on one storage folder."""

    storage: Path
    job: Path
    log: Path

    @property
    def folder(self) -> Path:
        return self.storage / "runs" / "spam-v1"

    def start(self, patience_seconds: float = 0.2) -> ForkServerProcess:
        arguments = ["train", "--job", str(self.job), "--storage", str(self.storage)]
        arguments += ["--termination-log", str(self.log.with_suffix(".told"))]
        process = FORK.Process(target=run, args=(arguments, str(self.log), patience_seconds))
        process.start()
        return process

    def end(self) -> int:
        """The exit code."""
        process = self.start()
        process.join(timeout=PATIENCE_SECONDS)
        assert process.exitcode is not None, self.log.read_text()
        return process.exitcode

    def size(self) -> int:
        """Bytes that its storage holds."""
        return sum(path.stat().st_size for path in self.storage.rglob("*") if path.is_file())

    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.log.with_suffix(".told").read_bytes())
        return found

    def results(self) -> dict[str, bytes]:
        """All files of the checkpoints, but for the times in them."""
        found = {}
        for path in sorted(self.folder.glob("checkpoints/*/*")):
            content = path.read_bytes()
            if path.name == "checkpoint.json":
                manifest = json.loads(content)
                del manifest["createdAt"]
                content = json.dumps(manifest).encode()
            found[str(path.relative_to(self.folder))] = content
        return found


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, base model and manifest, on a disk that is not part of the trial."""
    folder = tmp_path_factory.mktemp("job")
    trainer = tiny_training.Trainer(folder)
    wanted = trainer.job(rows=80, numTrainEpochs=EPOCHS).model_dump(mode="json", by_alias=True, exclude_none=True)
    path = folder / "job.yaml"
    path.write_text(json.dumps(wanted))
    return path


@pytest.fixture(scope="module")
def undisturbed(job: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, float]:
    """The run as it should be, and the seconds that it takes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    Run(folder / "warm", job, folder / "warm.log").end()
    straight = Run(folder / "storage", job, folder / "log")
    began = time.monotonic()
    assert straight.end() == 0, straight.log.read_text()
    assert {name.split("/")[1] for name in straight.results()} == {f"epoch-{n}" for n in range(1, EPOCHS + 1)}
    return straight, time.monotonic() - began


def appears(process: ForkServerProcess, storage: Path, pattern: str) -> None:
    """Return as soon as a file or folder of the pattern comes, or the process ends."""
    before = set(storage.glob(pattern))
    while process.is_alive() and not set(storage.glob(pattern)) - before:
        time.sleep(0.0005)


WHEN = (
    "runs/*/resume/.tmp-*",
    "runs/*/checkpoints/.tmp-*",
    "runs/*/checkpoints/.tmp-*/model.safetensors",
    "runs/*/resume/step-*",
    "",
)


def test_a_run_that_is_killed_at_any_moment_ends_with_the_same_bits(
    job: Path, undisturbed: tuple[Run, float], tmp_path: Path
) -> None:
    straight, took = undisturbed
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # shown with a failure
    chance = random.Random(seed)
    numbers = itertools.count()
    broken = Run(tmp_path / "0", job, tmp_path / "log")
    interrupted = 0
    for number, pattern in zip(range(KILLS), itertools.cycle(WHEN), strict=False):
        process = broken.start()
        if pattern:
            appears(process, broken.storage, pattern)
            time.sleep(chance.uniform(0, 0.01))
        else:
            time.sleep(chance.uniform(0, took))
        sent = signal.SIGTERM if number % 4 == 3 else signal.SIGKILL
        if process.is_alive():
            os.kill(process.pid or 0, sent)
        process.join(timeout=PATIENCE_SECONDS)
        assert process.exitcode in (0, -signal.SIGKILL, -signal.SIGTERM, 143), broken.log.read_text()
        interrupted += process.exitcode != 0
        if (broken.folder / "result.json").exists():
            assert broken.results() == straight.results()
            broken = Run(tmp_path / str(next(numbers) + 1), job, tmp_path / "log")
    assert broken.end() == 0, broken.log.read_text()
    assert broken.results() == straight.results()
    assert not list(broken.folder.glob("**/.tmp-*"))
    assert not (broken.folder / "resume").exists()
    print(f"{interrupted} of {KILLS} were interrupted")


@pytest.mark.skipif(not can_mount(), reason="a small disk can be mounted by root only")
@pytest.mark.parametrize("share", [0.1, 0.35, 0.6, 0.9])
def test_a_full_disk_is_told_and_with_more_room_the_run_goes_on(
    job: Path, undisturbed: tuple[Run, float], tmp_path: Path, share: float
) -> None:
    straight, _ = undisturbed
    needed = straight.size()
    with small_disk(tmp_path / "small", int(needed * share)) as storage:
        run = Run(storage, job, tmp_path / "log")
        assert run.end() == 20, run.log.read_text()
        assert run.told()["reason"] == "StorageFull"
        assert "no space" in run.told()["message"]
        enlarge(storage, 4 * needed)
        assert run.end() == 0, run.log.read_text()
        assert run.results() == straight.results()


@pytest.mark.skipif(not can_mount(), reason="a small disk can be mounted by root only")
@pytest.mark.parametrize("share", [0.35, 0.9])
def test_a_full_disk_is_survived_where_somebody_makes_room_in_time(
    job: Path, undisturbed: tuple[Run, float], tmp_path: Path, share: float
) -> None:
    straight, _ = undisturbed
    needed = straight.size()
    with small_disk(tmp_path / "small", int(needed * share)) as storage:
        run = Run(storage, job, tmp_path / "log")
        process = run.start(patience_seconds=PATIENCE_SECONDS)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "Waiting for room in storage" not in (run.log.read_text() if run.log.exists() else ""):
            assert process.is_alive() and time.monotonic() < deadline, run.log.read_text()
            time.sleep(0.01)
        enlarge(storage, 4 * needed)
        process.join(timeout=PATIENCE_SECONDS)
        assert process.exitcode == 0, run.log.read_text()
        assert "StorageFull" not in {warning["code"] for warning in run.told()["warnings"]}
        assert run.results() == straight.results()
        assert not list(run.folder.glob("**/.tmp-*"))
