"""Programs that outlive us: started once, found again, ended by exactly their pid."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from winnow_cluster.errors import ClusterError
from winnow_cluster.processes import Process
from winnow_cluster.waiting import wait_until

SLEEP = ["sleep", "600"]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process("sleeper", pids=tmp_path / "pids", logs=tmp_path / "log")
    yield process
    process.stop(grace_seconds=0)


def test_a_program_is_started_once_and_found_by_whoever_comes_next(process: Process) -> None:
    assert process.start(SLEEP)
    found = Process(process.name, process.pids, process.logs)
    assert found.pid() == process.pid()
    assert not found.start(SLEEP)


def test_a_program_asked_for_with_other_settings_is_started_anew(process: Process) -> None:
    process.start(SLEEP)
    first = process.pid()
    assert process.start(["sleep", "601"])
    assert process.pid() not in (None, first)
    assert not Path(f"/proc/{first}").exists()


def test_a_killed_program_counts_as_gone_though_its_pid_file_stays(process: Process) -> None:
    process.start(SLEEP)
    subprocess.run(["kill", "-KILL", str(process.pid())], check=True)
    wait_until(lambda: process.pid() is None, "killed", seconds=5)
    assert process.pid_file.exists()
    assert process.start(SLEEP)


def test_a_stranger_who_got_the_pid_is_neither_counted_nor_ended(process: Process) -> None:
    stranger = subprocess.Popen(SLEEP)
    try:
        process.pid_file.parent.mkdir()
        process.pid_file.write_text(f"{stranger.pid} 1")  # the same pid, but of a process that began at the first tick
        assert process.pid() is None
        process.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_program_that_ignores_the_request_to_end_is_killed(process: Process) -> None:
    process.start(["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 600; done"])
    wait_until(lambda: "deaf\n" in process.log.read_text(), "deaf", seconds=5, process=process)
    process.stop(grace_seconds=0.1)
    assert process.pid() is None
    assert not process.pid_file.exists()


def test_a_program_that_ends_at_once_is_reported_with_the_end_of_its_log(process: Process) -> None:
    process.start(["sh", "-c", "echo address already in use; exit 1"])
    with pytest.raises(ClusterError, match="sleeper ended right after its start") as problem:
        wait_until(lambda: False, "ready", seconds=5, process=process)
    assert "address already in use" in str(problem.value)
    assert str(process.log) in str(problem.value)


def test_waiting_ends_in_words_when_nothing_comes(process: Process) -> None:
    process.start(SLEEP)
    with pytest.raises(ClusterError, match="node ready: not so after 0 s"):
        wait_until(lambda: False, "node ready", seconds=0, process=process)
