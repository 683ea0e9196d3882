"""A model cut over processes (FSDP2), by the front door: what whole models learn, the same files, the same bits after a stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_many_processes import ENVIRONMENT, SECONDS, Folder, expect_same_bits, expect_same_result, wait_for, workers
from torch.testing import assert_close

FSDP = {"parallelism": "FSDP"}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def run(script: str, processes: int, *arguments: str) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    path = str(Path(__file__).parent / script)
    command = [sys.executable, *(torchrun if processes > 1 else []), path, *arguments]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, timeout=SECONDS)


def gradient(place: Path, *arguments: str, processes: int = 1) -> dict[str, torch.Tensor]:
    place.mkdir()
    run("gradient_of_a_step.py", processes, str(place), *arguments)
    return dict(torch.load(place / "gradient-0.pt"))


@pytest.mark.parametrize(("method", "model"), [("Full", "bert"), ("LoRA", "llama"), ("Full", "gemma3_text")])
def test_the_gradient_of_a_step_is_that_of_a_whole_model(tmp_path: Path, method: str, model: str) -> None:
    """Of twelve rows in one process, and of two processes with two rows in three parts."""
    whole = gradient(tmp_path / "whole", method, "12", "1", "1", model)
    cut = gradient(tmp_path / "cut", method, "2", "3", "2", model, "cuts", processes=2)
    assert all("embed" in name for name in cut.keys() ^ whole.keys())  # a table that trains in part where it is whole
    for name in cut.keys() & whole.keys():
        assert_close(cut[name], whole[name], rtol=1e-4, atol=1e-7)


def test_layers_put_together_in_bfloat16_leave_gradients_in_float32(tmp_path: Path) -> None:
    """As on a GPU: to the rounding of bfloat16."""
    whole = gradient(tmp_path / "whole", "Full", "12", "1", "1", "llama")
    cut = gradient(tmp_path / "cut", "Full", "2", "3", "2", "llama", "cuts", "bfloat16", processes=2)
    for name in cut.keys() & whole.keys():
        assert cut[name].dtype == torch.float32
        assert (cut[name] - whole[name]).norm() <= 0.05 * whole[name].norm()


@pytest.mark.parametrize(("asked", "cut"), [("unset", True), ("DDP", False)])
def test_all_cut_the_model_where_one_has_too_little_memory_for_it(tmp_path: Path, asked: str, cut: bool) -> None:
    run("short_of_memory.py", 2, str(tmp_path), asked)
    said = [(tmp_path / f"said-{rank}").read_text() for rank in (0, 1)]
    assert [each.split()[0] for each in said] == [str(cut), str(cut)]
    assert "each of the 2 processes in this container" in said[1]


def is_cut(log: str) -> bool:
    return '"parallelism":"FSDP"' in log.replace(" ", "")


def weights(place: Path) -> dict[str, torch.Tensor]:
    files = [place / name for name in ("model.safetensors", "adapter_model.safetensors")]
    return load_file(next(file for file in files if file.exists()))


@pytest.mark.parametrize(
    ("method", "model", "extra"),
    [
        pytest.param("Full", "llama", {"headInit": "Ridge", "gradientCheckpointing": True}, id="a decoder"),
        pytest.param("LoRA", "llama", {"loraDropout": 0.0}, id="an adapter"),
        pytest.param("Full", "llama", {"emaDecay": 0.9}, id="averaged weights"),
        pytest.param("Full", "deberta-v2", {}, id="a type that does not pack"),
    ],
)
def test_it_learns_what_whole_models_learn_and_writes_the_same_files(
    folder: Folder, method: str, model: str, extra: dict[str, Any]
) -> None:
    """37 rows in steps of 12 leave one row for three processes, and all have to make the passes of the one that has it."""
    many: dict[str, Any] = {"model": model, "method": method, "parts": 2, "processesPerNode": 3}
    given = {"adamEpsilon": 1e-4, **extra}  # a rounding of a gradient that is next to nothing stays next to nothing
    whole = folder.job("whole", parameters=given, **many)
    cut = folder.job("cut", parameters=given | FSDP, **many)
    assert folder.train(whole)[0] == 0
    output, _ = (process := folder.start(cut)).communicate(timeout=SECONDS)
    assert process.returncode == 0 and is_cut(output), output
    expect_same_result(folder, cut, whole)
    found, expected = (folder.checkpoint(job, 2) for job in (cut, whole))
    assert sorted(file.name for file in found.iterdir()) == sorted(file.name for file in expected.iterdir())
    assert (found / "config.json").read_bytes() == (expected / "config.json").read_bytes()
    assert list(weights(found)) == list(weights(expected))
    for name, tensor in weights(expected).items():
        assert weights(found)[name].dtype == tensor.dtype
        assert_close(weights(found)[name], tensor, atol=2e-3, rtol=1e-2)


def test_a_run_that_was_stopped_and_killed_ends_with_the_same_bits(folder: Folder) -> None:
    """It began cut, for want of memory, and goes on so though there seems to be enough now."""
    given = {"emaDecay": 0.9}
    many: dict[str, Any] = {"dropout": True, "epochs": 9, "parts": 2, "processesPerNode": 2, "parameters": given}
    straight, broken = folder.job("straight", **many), folder.job("broken", **many)
    for job in (straight, broken):
        folder.run(job).mkdir(parents=True)
        (folder.run(job) / "parallelism.json").write_text(json.dumps(FSDP))
    for epoch, number, code in ((2, signal.SIGTERM, 143), (5, signal.SIGKILL, 137)):
        process = folder.start(broken)
        wait_for(folder.checkpoint(broken, epoch), process)
        os.kill(workers(process)[1], number)
        output, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == code and is_cut(output), output
    assert not folder.checkpoint(broken, 9).exists()
    assert folder.train(broken)[0] == folder.train(straight)[0] == 0
    for epoch in (1, 9):
        expect_same_bits(folder, broken, straight, epoch)
    assert not (folder.run(broken) / "parallelism.json").exists()
