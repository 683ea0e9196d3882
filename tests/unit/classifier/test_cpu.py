"""How many CPUs a process takes itself to have, and how its threads wait for each other."""

import os
import subprocess
import sys

import pytest

from winnow_classifier.cpu import spin_briefly, usable_cpus


@pytest.mark.parametrize(
    ("cpu_max", "cpus"),
    [
        pytest.param("200000 100000", 2, id="a limit of two"),
        pytest.param("110000 100000", 2, id="a tenth more than one is two"),
        pytest.param("50000 100000", 1, id="half a core is one"),
        pytest.param("40000 20000", 2, id="another period"),
        pytest.param("1600000 100000", 8, id="more than there are"),
        pytest.param("max 100000", 8, id="no limit"),
        pytest.param(None, 8, id="no cgroup"),
    ],
)
def test_a_process_has_as_many_cpus_as_its_container_is_allowed(tmp_path, monkeypatch, cpu_max, cpus):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    file = tmp_path / "cpu.max"
    if cpu_max is not None:
        file.write_text(cpu_max + "\n")
    assert usable_cpus(file) == cpus


def test_a_process_has_no_more_cpus_than_it_may_run_on(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    (tmp_path / "cpu.max").write_text("400000 100000\n")
    assert usable_cpus(tmp_path / "cpu.max") == 1


def test_threads_wait_briefly_unless_something_else_was_said():
    environ = {"PATH": "/bin"}
    assert spin_briefly(environ)
    assert environ == {"PATH": "/bin", "GOMP_SPINCOUNT": "5000"}
    for said in ({"GOMP_SPINCOUNT": "1"}, {"OMP_WAIT_POLICY": "PASSIVE"}):
        assert not spin_briefly(environ := dict(said))
        assert environ == said


@pytest.mark.parametrize("program", ["winnow_server", "winnow_trainer"])
def test_that_is_said_before_torch_is_imported(program):
    """Which is when it is read."""
    code = f"import sys, {program}.__main__; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
