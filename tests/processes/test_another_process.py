"""A training that a signal ends goes on in another process, and to the same bits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import Trainer

PROGRAM = """
import signal, sys, tiny_training, winnow_trainer.train
from winnow_trainer import cli
winnow_trainer.train.usable_cpus = lambda: 1
class Told(tiny_training.Progress):
    def update(self, **fields):
        super().update(**fields)
        if fields.get("step") == 7:
            signal.raise_signal(signal.SIGTERM)
cli.Progress = Told
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_process_ended_by_sigterm_goes_on_in_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("winnow_trainer.train.usable_cpus", lambda: 1)  # as in the other process: threads change bits
    straight, broken = Trainer(tmp_path / "straight"), Trainer(tmp_path / "broken")
    straight.run(straight.job())
    job = broken.job().model_dump(mode="json", by_alias=True, exclude_none=True)
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    command = ["train", "--job", str(tmp_path / "job.yaml"), "--storage", str(tmp_path / "broken")]
    python = [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{PROGRAM}"]
    ended = subprocess.run([*python, *command], capture_output=True, text=True, check=False)
    assert ended.returncode == 128 + signal.SIGTERM, ended.stderr
    assert broken.run(broken.job())["state"] == "Complete"
    found, expected = (load_file(trainer.checkpoint(2) / "model.safetensors") for trainer in (broken, straight))
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []
