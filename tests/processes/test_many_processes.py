"""One training in several processes, by its front door: the result of one, one end for all of them, and it goes on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

SECONDS = 300  # a guard, not a measure: each process loads torch first
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "unit"), "OMP_NUM_THREADS": "1"}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


class Folder:
    """Rows, base models and storage, and the processes that were started there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.storage = path / "storage"
        for name, count, seed in (("rows", 37, 1), ("test", 13, 2)):  # nothing that two processes could halve
            texts, spam = tiny_models.texts(count, seed)
            rows = ({"prompt": text, "completion": is_spam} for text, is_spam in zip(texts, spam, strict=True))
            (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def job(
        self, name: str, *, model: str = "bert", dropout: bool = False, epochs: int = 2, parts: int = 1, **spec: Any
    ) -> Path:
        """Eight rows a step, whatever the number of processes: in `parts` parts for one."""
        base = self.path / (f"base-{dropout}" if model == "bert" else f"base-{model}-{dropout}")
        if not base.exists():
            tiny_models.base_model(base, model, **(NO_DROPOUT if model in tiny_models.ENCODERS and not dropout else {}))
        given = spec.pop("parameters", {})
        batch = {"perDeviceTrainBatchSize": 2, "gradientAccumulationSteps": parts}
        parameters = {"numTrainEpochs": epochs, "maxSeqLength": 16, "learningRate": 0.01, **batch, **given}
        rows = {"trainingDataset": "rows.jsonl", "testDataset": "test.jsonl", "baseModel": base.name}
        content = {"method": "Full", **rows, "parameters": parameters, **spec}
        file = self.path / f"{name}.yaml"
        file.write_text(json.dumps({"kind": "TrainingJob", "metadata": {"name": name}, "spec": content}))
        return file

    def start(self, job: Path, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "winnow_trainer", "train", "--job", str(job), "--storage", str(self.storage)]
        said = ["--termination-log", str(self.told_file(job, options))]
        return subprocess.Popen(
            [*command, *options, *said],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def told_file(self, job: Path, options: tuple[str, ...] = ()) -> Path:
        return self.path / f"told-{job.stem}{'-second' if '1' in options else ''}"

    def train(self, job: Path) -> tuple[int, dict[str, Any]]:
        """The exit code and the final word."""
        process = self.start(job)
        output, _ = process.communicate(timeout=SECONDS)
        assert process.returncode in (0, 10, 13), output
        return process.returncode, self.told(job)

    def told(self, job: Path, *options: str) -> dict[str, Any]:
        return dict(json.loads(self.told_file(job, options).read_bytes()))

    def run(self, job: Path) -> Path:
        return self.storage / "runs" / job.stem

    def checkpoint(self, job: Path, epoch: int) -> Path:
        return self.run(job) / "checkpoints" / f"epoch-{epoch}"

    def predictions(self, job: Path, epoch: int) -> list[dict[str, Any]]:
        lines = (self.checkpoint(job, epoch) / "predictions.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def expect_same_result(folder: Folder, ours: Path, theirs: Path, epochs: int = 2) -> None:
    """To rounding, of bfloat16 where this CPU has it; and each test row once, in its order."""
    for epoch in range(1, epochs + 1):
        found, expected = folder.predictions(ours, epoch), folder.predictions(theirs, epoch)
        assert [row["input"] for row in found] == [row["input"] for row in expected]
        for one, other in zip(found, expected, strict=True):
            assert list(one["probabilities"].values()) == pytest.approx(list(other["probabilities"].values()), abs=0.02)
    losses = [[epoch["trainLoss"] for epoch in folder.told(job)["epochs"]] for job in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], abs=5e-3, rel=1e-4)


def expect_same_bits(folder: Folder, ours: Path, theirs: Path, epoch: int) -> None:
    found, expected = (load_file(folder.checkpoint(job, epoch) / "model.safetensors") for job in (ours, theirs))
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("method", ["Full", "LoRA", "HeadOnly"])
def test_the_gradient_of_a_step_is_the_same_however_it_is_shared(tmp_path: Path, method: str) -> None:
    """One process with twelve rows, with four in three parts, two processes with two in three parts."""
    script = str(Path(__file__).parent / "gradient_of_a_step.py")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script]
    found = {}
    for name, launcher, sizes in (
        ("whole", [script], ("12", "1", "1")),
        ("parts", [script], ("4", "3", "1")),
        ("shared", torchrun, ("2", "3", "2")),
    ):
        place = tmp_path / name
        place.mkdir()
        command = [sys.executable, *launcher, str(place), method, *sizes]
        subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, timeout=SECONDS)
        found[name] = torch.load(place / "gradient-0.pt")
    for name in ("parts", "shared"):
        assert found[name].keys() == found["whole"].keys()
        for parameter, gradient in found["whole"].items():
            assert_close(found[name][parameter], gradient, rtol=1e-4, atol=1e-7)
    second = torch.load(tmp_path / "shared" / "gradient-1.pt")
    assert [name for name, gradient in found["shared"].items() if not torch.equal(gradient, second[name])] == []


def test_two_processes_train_to_the_result_of_one(folder: Folder) -> None:
    one, two = folder.job("one", parts=4), folder.job("two", parts=2, processesPerNode=2)
    assert folder.train(one)[0] == 0
    code, told = folder.train(two)
    assert (code, told["state"], told["trainingRows"]) == (0, "Complete", 37)
    expect_same_result(folder, two, one)
    assert [entry["name"] for entry in told["checkpoints"]] == ["epoch-1", "epoch-2"]
    assert sorted(path.name for path in folder.run(two).iterdir()) == [
        *("checkpoints", "result.json", "run.json", "tensorboard")
    ]
    again, told = folder.train(two)
    assert (again, told["message"].startswith("This run finished before")) == (0, True)


@pytest.mark.parametrize(
    ("method", "extra"), [("HeadOnly", {"headInit": "Ridge"}), ("LoRA", {"loraDropout": 0.0, "emaDecay": 0.9})]
)
def test_so_do_the_small_methods_with_more_processes_than_rows_in_the_last_step(
    folder: Folder, method: str, extra: dict[str, Any]
) -> None:
    """37 rows in steps of 12 leave one row for three processes."""
    one = folder.job("one", method=method, parts=6, parameters=extra)
    three = folder.job("three", method=method, parts=2, parameters=extra, processesPerNode=3)
    assert folder.train(one)[0] == folder.train(three)[0] == 0
    expect_same_result(folder, three, one)


def test_two_machines_meet_and_train_to_the_result_of_one(folder: Folder) -> None:
    one, two = folder.job("one", parts=4), folder.job("two", parts=2, nodes=2)
    assert folder.train(one)[0] == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = ("--rendezvous", f"127.0.0.1:{free.getsockname()[1]}")
    second = folder.start(two, *meeting, "--node-rank", "1")
    first = folder.start(two, *meeting, "--node-rank", "0")
    outputs = [process.communicate(timeout=SECONDS)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    expect_same_result(folder, two, one)
    assert folder.told(two)["epochs"] == folder.told(two, "1")["epochs"]


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The processes that an agent started, by rank."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ranks = {}
    for child in children:
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        ranks.update({int(entry[5:]): int(child) for entry in environment if entry.startswith(b"RANK=")})
    return [ranks[rank] for rank in sorted(ranks)]


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + SECONDS
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.01)


def test_processes_that_are_done_end_without_taking_python_down(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a thread of Gloo aborts one of them now and then; here each would be, every time."""
    abort = "import atexit, os\nif 'RANK' in os.environ:\n    atexit.register(os.abort)\n"
    (tmp_path / "sitecustomize.py").write_text(abort)
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", f"{tmp_path}:{ENVIRONMENT['PYTHONPATH']}")
    code, told = folder.train(folder.job("two", epochs=1, processesPerNode=2))
    assert (code, told["state"]) == (0, "Complete")


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [
        pytest.param(signal.SIGTERM, 143, "Stopped", id="one is asked to stop"),
        pytest.param(signal.SIGKILL, 137, "OutOfMemory", id="one is killed"),
    ],
)
def test_what_happens_to_one_process_ends_all_and_they_go_on_to_the_same_bits(
    folder: Folder, number: signal.Signals, code: int, reason: str
) -> None:
    """With dropout: each process goes on with its own random numbers."""
    many: dict[str, Any] = {"dropout": True, "epochs": 8, "parts": 2, "processesPerNode": 2}
    straight, broken = folder.job("straight", **many), folder.job("broken", **many)
    process = folder.start(broken)
    wait_for(folder.checkpoint(broken, 2), process)
    os.kill(workers(process)[1], number)
    output, _ = process.communicate(timeout=SECONDS)
    told = folder.told(broken)
    assert (process.returncode, told["reason"]) == (code, reason), output
    assert not folder.checkpoint(broken, 8).exists()
    assert len(list((folder.run(broken) / "resume").iterdir())) == 1
    assert folder.train(broken)[0] == folder.train(straight)[0] == 0
    for epoch in (1, 8):
        expect_same_bits(folder, broken, straight, epoch)


def test_the_failure_of_a_process_is_told_as_its_own(folder: Folder) -> None:
    code, told = folder.train(folder.job("long", processesPerNode=2, parameters={"maxSeqLength": 4096}))
    assert (code, told["reason"]) == (10, "InvalidConfiguration")
    assert "parameters.maxSeqLength is 4096" in told["message"]
    broken = folder.job("broken", processesPerNode=2)
    weights = folder.path / "base-False" / "model.safetensors"
    state = load_file(weights)
    state["embeddings.word_embeddings.weight"][:] = float("nan")
    save_file(state, weights, metadata={"format": "pt"})
    code, told = folder.train(broken)
    assert (code, told["state"], told["reason"]) == (13, "Failed", "Diverged")
    assert "the loss is not a finite number at epoch 1, step 1" in told["message"]


@pytest.mark.parametrize(
    ("spec", "options", "says"),
    [
        pytest.param({"nodes": 2}, [], "start this command on 2 machines", id="machines without a meeting place"),
        pytest.param({"nodes": 2}, ["--rendezvous", "here"], "must be HOST:PORT", id="no port"),
        pytest.param({"nodes": 2}, ["--rendezvous", "a:1", "--node-rank", "2"], "from 0 to 1", id="a machine too many"),
        pytest.param({"processesPerNode": 2}, ["--rendezvous", "a:1"], "nodes above 1", id="one machine meets nobody"),
    ],
)
def test_what_does_not_fit_together_is_said_before_anything_starts(
    folder: Folder, spec: dict[str, Any], options: list[str], says: str
) -> None:
    process = folder.start(folder.job("wrong", **spec), *options)
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 10
    assert says in output


def test_resume_points_are_as_rare_as_they_are_dear_at_the_ends_of_epochs_too(tmp_path: Path) -> None:
    """What the first one costs is not known before; after it none is cheap enough."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *torchrun, str(Path(__file__).parent / "points_of_a_run.py"), str(tmp_path)]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, timeout=SECONDS)
    steps_of_an_epoch = -(-22 // 8)
    assert [(tmp_path / f"saved-{rank}").read_text() for rank in (0, 1)] == [str(steps_of_an_epoch), ""]
    said = "Stopped at epoch 3 after 3 of its steps; goes on from the resume point before"
    assert (tmp_path / "told-0").read_text() == said


def test_a_run_of_two_processes_does_not_go_on_in_one(folder: Folder) -> None:
    assert folder.train(folder.job("v1", processesPerNode=2, epochs=1))[0] == 0
    code, told = folder.train(folder.job("v1", epochs=1))
    assert (code, "processes was 2, now null" in told["message"]) == (10, True)
