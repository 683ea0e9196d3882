"""Imports that are killed, that meet a full disk, or each other: `python -m winnow_trainer import` as a real process."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from small_disks import can_mount, small_disk

from winnow_classifier.dataset import load_dataset

KILLS = 20
IMPORT = (sys.executable, "-m", "winnow_trainer", "import", "--on-invalid-rows", "Skip")
PAGE = 4_096
FILES = {"rows.parquet", "dataset.json", "profile.json", "profile.png"}


def rows_file(folder: Path, count: int) -> Path:
    """Rows that do not compress well, every hundredth of them wrong."""
    chance = random.Random(1)
    lines = (
        "{broken" if n % 100 == 7 else json.dumps({"prompt": chance.randbytes(30).hex(), "completion": n % 2})
        for n in range(count)
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return folder / "rows.jsonl"


def start(rows: Path, storage: Path) -> "subprocess.Popen[str]":
    command = [*IMPORT, "--file", str(rows), "--storage", str(storage), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def imported(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def everything(storage: Path) -> set[str]:
    return {str(path.relative_to(storage)) for path in storage.rglob("*") if path.is_file()}


def whole(digest: str) -> set[str]:
    folder = f"datasets/{digest.removeprefix('sha256:')}"
    return {*(f"{folder}/{name}" for name in FILES), "imports/rows/problems.jsonl"}


def test_an_import_that_is_killed_leaves_nothing_half_and_starts_again(tmp_path: Path) -> None:
    rows = rows_file(tmp_path, 20_000)
    began = time.monotonic()
    expected = imported(start(rows, tmp_path / "undisturbed"))["digest"]
    took = time.monotonic() - began
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # shown with a failure
    chance, storage = random.Random(seed), tmp_path / "storage"
    published = 0
    for number in range(KILLS):
        process = start(rows, storage)
        if number % 4 == 0:
            time.sleep(chance.uniform(0, took))
        else:
            # From its first write on: most of the time before that goes into starting Python.
            left = set(storage.glob("*/.tmp-*")) | set(storage.glob("imports/*/.tmp-*"))
            while process.poll() is None and not (
                (set(storage.glob("*/.tmp-*")) | set(storage.glob("imports/*/.tmp-*"))) - left
            ):
                time.sleep(0.002)
            time.sleep(chance.uniform(0, took / 3))
        process.kill()
        process.communicate()
        for folder in storage.glob("datasets/[!.]*"):
            assert load_dataset(folder).digest == expected
            assert {path.name for path in folder.iterdir()} == FILES
            published += 1
            if chance.random() < 0.7:
                shutil.rmtree(folder)  # so that the next one has something to publish
        for problems in storage.glob("imports/rows/problems.jsonl"):
            assert len(problems.read_text().splitlines()) == 200
    print(f"{published} of {KILLS} came after the rows had been published")
    assert imported(start(rows, storage))["digest"] == expected
    for path in storage.rglob("*"):
        os.utime(path, (0, 0))  # a day later
    collect = [sys.executable, "-m", "winnow_trainer", "collect", "--storage", str(storage)]
    subprocess.run(collect, check=True, capture_output=True)
    assert everything(storage) == whole(expected)


def test_sigterm_in_the_middle_of_its_rows_unwinds_and_leaves_nothing(tmp_path: Path) -> None:
    fifo, log = tmp_path / "rows", tmp_path / "termination"
    os.mkfifo(fifo)
    command = [*IMPORT, "--file", str(fifo), "--storage", str(tmp_path / "storage"), "--termination-log", str(log)]
    process = subprocess.Popen(command)
    with fifo.open("wb"):  # opens once the program reads: it is in the middle of its rows
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143
    assert json.loads(log.read_bytes())["reason"] == "Stopped"
    assert not (tmp_path / "storage").exists()


@pytest.mark.parametrize("count", [2, 5])
def test_imports_of_the_same_rows_at_once_end_well_with_one_folder(tmp_path: Path, count: int) -> None:
    rows = [rows_file(tmp_path / str(number), 2_000) for number in range(count)]
    found = [imported(process) for process in [start(file, tmp_path / "storage") for file in rows]]
    (digest,) = {one["digest"] for one in found}
    assert everything(tmp_path / "storage") == whole(digest)
    assert load_dataset(Path(found[0]["path"])).digest == digest


@pytest.mark.skipif(not can_mount(), reason="a small disk can be mounted by root only")
@pytest.mark.parametrize(
    "share",
    [
        pytest.param(0.005, id="full with the first problems"),
        pytest.param(0.3, id="full with the first rows"),
        pytest.param(0.8, id="full with the last rows"),
        pytest.param(-3, id="full with the description"),
        pytest.param(-1, id="full with the last page"),
    ],
)
def test_a_full_disk_is_told_and_nothing_stays_behind(tmp_path: Path, share: float) -> None:
    rows = rows_file(tmp_path, 10_000)
    imported(start(rows, tmp_path / "large"))
    paths = list((tmp_path / "large").rglob("*"))
    needed = sum(-(-path.stat().st_size // PAGE) * PAGE for path in paths if path.is_file())
    size = needed + int(share) * PAGE if share < 0 else int(needed * share)
    with small_disk(tmp_path / "small", size) as storage:
        log = tmp_path / "told"
        command = [*IMPORT, "--file", str(rows), "--storage", str(storage), "--termination-log", str(log)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 20, done.stderr
        assert "no space" in done.stderr.lower()
        assert json.loads(log.read_bytes())["reason"] == "StorageFull"
        assert everything(storage) == set()
        assert not list(storage.rglob(".tmp-*"))


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_on_a_full_disk_is_told_in_words(tmp_path: Path, unbuffered: str) -> None:
    command = [*IMPORT, "--file", str(rows_file(tmp_path, 10)), "--storage", str(tmp_path / "storage")]
    with Path("/dev/full").open("w") as full:
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    said = "error: the output or a temporary file cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (20, said)
