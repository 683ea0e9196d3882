"""A benchmark that misses its bar says so and fails, in front of a cluster that is played; those after it run all the same."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


class Cluster:
    """Does at once what is applied; each look at the load finds `a_look` more of its thousand requests answered."""

    def __init__(self, failed: int, a_look: int) -> None:
        self.failed, self.a_look, self.requests = failed, a_look, 0
        self.spec: dict[str, Any] = {}
        self.live = ""

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        if args[0] == "apply":
            applied = json.loads(stdin or "")["items"][-1]
            self.spec = applied["spec"] if applied["kind"] == "Deployment" else self.spec
            self.live = self.live if self.spec["env"] else self.spec["checkpoint"]["name"]
        if args[0] == "logs":
            self.requests = min(self.requests + self.a_look, 1_000)
            return json.dumps({"requests": self.requests, "failed": self.failed, "failures": ["0.1 s: reset"]})
        if args[:2] != ("get", "wdep"):
            return ""
        ready, promoted = ("RollingOut", "RolledBack") if self.spec["env"] else ("Live", "Promoted")
        conditions = [{"type": "Ready", "reason": ready}, {"type": "Promoted", "reason": promoted}]
        counts = {"replicas": self.spec["replicas"], "readyReplicas": self.spec["replicas"]}
        status = {"observedGeneration": 1, "conditions": conditions, "live": {"checkpoint": self.live}, **counts}
        return json.dumps({"metadata": {"generation": 1}, "status": status})


@pytest.mark.parametrize(
    ("failed", "a_look", "said"),
    [
        pytest.param(0, 100, "", id="all are answered through all steps"),
        pytest.param(2, 100, "below the bar: 2 of 1000 requests failed, such as ['0.1 s: reset']\n", id="two fail"),
        pytest.param(
            0, 160, "below the bar: the requests ended before these steps: taken back, two; one replica\n", id="too few"
        ),
    ],
)
def test_rollovers_under_load_fail_by_a_single_request_and_say_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failed: int, a_look: int, said: str
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    rollover = importlib.import_module("rollover")
    monkeypatch.setattr(rollover, "kubectl", Cluster(failed, a_look).kubectl)
    monkeypatch.setattr(sys, "argv", ["rollover.py", "--requests", "1000"])
    assert rollover.main() == (1 if said else 0)
    assert capsys.readouterr().err == said


def test_a_benchmark_that_misses_its_bar_keeps_no_other_from_running(tmp_path: Path) -> None:
    python, ran = tmp_path / "python", tmp_path / "ran"
    python.write_text(f'#!/bin/sh\necho "$1" >> {ran}\n[ "$1" != benchmarks/training.py ]\n')
    python.chmod(0o755)
    for there in ("venv", "deps"):
        (tmp_path / there).touch()
    command = ["make", "-C", str(ROOT), "bench", f"BIN={tmp_path}", f"LOCAL={tmp_path}", f"UV={python}", "CLUSTER=true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "below a bar, or failed: training\n" in done.stderr
    assert ran.read_text().splitlines()[1:3] == ["benchmarks/training.py", "benchmarks/serving_peers.py"]
    assert ran.read_text().splitlines()[-1] == "benchmarks/operator_speed.py"
