"""`kubectl winnow artifacts`: the pod it makes, and files handed out by the real trainer, whole or broken."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from trained_job import JOB, batch_job, kubectl_exec, store_checkpoint

from winnow_classifier.errors import ConfigError, StorageError
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_plugin import artifacts, storage_access, storage_pod
from winnow_plugin.cluster import Place
from winnow_plugin.errors import ClusterError, Unreachable
from winnow_plugin.meter import Meter
from winnow_plugin.storage_access import Training

FILES = {"report.html": b"<p>", "loss.png": b"png" * 1_000, "model.safetensors": os.urandom(300_000)}


@pytest.mark.parametrize("golden", ["training", "training-in-bucket"])
def test_the_pod_reads_only_and_is_as_restricted_as_the_one_that_trained(golden: str) -> None:
    made = storage_pod.pod(JOB, batch_job(golden), "artifacts")
    spec, (container,) = made["spec"], made["spec"]["containers"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert spec["automountServiceAccountToken"] is False
    storage = next(volume for volume in spec["volumes"] if volume["name"] == "storage")
    variables = {each["name"] for each in container["env"]}
    command = storage_pod.command(JOB, batch_job(golden), "artifacts", "epoch-2", ["--file", "a.png"])
    if golden == "training":
        assert storage["persistentVolumeClaim"]["readOnly"]
        assert container["volumeMounts"][0]["readOnly"]
        assert variables == {"HOME"}
        assert command[4:6] == ["--storage", "/storage"]
    else:
        assert "emptyDir" in storage
        assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} < variables
        assert command[4:6] == ["--storage", "s3://winnow/mail"]
        assert "--mirror" in command
    assert command[-6:] == ["--run", "v1-0a1b2c3d", "--checkpoint", "epoch-2", "--file", "a.png"]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return store_checkpoint(tmp_path / "storage", FILES, LabelSchema(TaskDetail.BINARY, ("ham", "spam")))


def test_files_are_listed_fetched_and_gone_on_with(tmp_path: Path, stored: Path, capfd: Any) -> None:
    here, out = kubectl_exec(tmp_path), tmp_path / "out"
    files = artifacts._files(here, {"name": "epoch-2"})
    assert [file.name for file in files] == ["checkpoint.json", *sorted(FILES)]
    out.mkdir()
    (out / "loss.png").write_bytes(FILES["loss.png"])  # there since the last time
    (out / "report.html").write_bytes(b"<q>")  # and this one is not as it was
    (stored / "loss.png").unlink()  # so that it cannot be fetched
    artifacts._fetch(here, "epoch-2", files, out)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.name in FILES} == FILES
    assert json.loads((out / "checkpoint.json").read_text())["epoch"] == 2
    (stored / "decision.json").write_text("{}")
    capfd.readouterr()
    artifacts._list_files(files, here.beside("epoch-2"))
    listed = capfd.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in listed] == ["checkpoint.json", "decision.json", *sorted(FILES)]


@pytest.fixture
def fetch(tmp_path: Path, stored: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`artifacts v1 epoch-2 --download` with these --file, where a program on this machine is the pod."""
    checkpoints = [
        {name: value for name, value in each.items() if name != "digest"} for each in JOB["status"]["checkpoints"]
    ]
    job = {**JOB, "status": {**JOB["status"], "checkpoints": checkpoints}}

    async def look(*_: Any) -> Training:
        return Training(job, [batch_job("training")])

    monkeypatch.setattr(artifacts, "_look", look)
    monkeypatch.setattr(storage_access, "opened", lambda *_: nullcontext(kubectl_exec(tmp_path)))

    def run(*files: str) -> Path:
        artifacts.artifacts(artifacts.Wanted("v1", "epoch-2", tmp_path / "out", files), Place())
        return tmp_path / "out" / "epoch-2"

    return run


def test_what_was_fitted_is_fetched_beside_the_files(fetch: Callable[..., Path], stored: Path) -> None:
    assert not (fetch() / "decision.json").exists()  # nothing was fitted
    (stored / "decision.json").write_text("{}")
    assert (fetch() / "decision.json").read_text() == "{}"
    assert {path.name for path in fetch().iterdir()} == {"checkpoint.json", "decision.json", *FILES}


@pytest.mark.parametrize(
    ("files", "says", "hint"),
    [
        (["report.html", "los.png"], "epoch-2 has no file los.png", "it has: checkpoint.json, "),
        (["*.png", "*.svg"], r"epoch-2 has no file \*.svg", "report.html"),
        (["decision.json"], "epoch-2 has no decision.json: nothing was fitted", "kubectl winnow refit"),
    ],
)
def test_a_file_that_is_not_there_is_refused(
    fetch: Callable[..., Path], tmp_path: Path, files: list[str], says: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        fetch(*files)
    assert hint in str(refused.value.hint)
    assert not (tmp_path / "out").exists()


def test_a_decision_that_cannot_be_written_is_said(fetch: Callable[..., Path], stored: Path, tmp_path: Path) -> None:
    (stored / "decision.json").write_text("{}")
    (tmp_path / "out" / "epoch-2" / "decision.json").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"decision\.json cannot be written: Is a directory"):
        fetch("decision.json")


def test_bytes_that_changed_in_storage_are_not_kept(tmp_path: Path, stored: Path) -> None:
    here, out = kubectl_exec(tmp_path), tmp_path / "out"
    files = artifacts._files(here, {"name": "epoch-2"})
    (stored / "report.html").write_bytes(b"<b>")
    with pytest.raises(StorageError, match=r"report\.html was changed in storage"):
        artifacts._fetch(here, "epoch-2", [file for file in files if file.name == "report.html"], out)
    assert list(out.iterdir()) == []
    with pytest.raises(StorageError, match=r"checkpoint\.json of epoch-2 was changed"):
        artifacts._files(here, {"name": "epoch-2", "digest": "sha256:0"})


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("echo 'pods \"x\" is forbidden: no exec' >&2; exit 1", ClusterError, "may not run programs in pods"),
        ("echo 'error: lost the connection' >&2; exit 1", Unreachable, "lost the connection"),
        ("printf garbage", Unreachable, "header"),
    ],
)
def test_what_kubectl_says_is_told(tmp_path: Path, script: str, error: type[Exception], words: str) -> None:
    file = artifacts._File("report.html", 3, "0" * 64)
    with pytest.raises(error, match=words):
        artifacts._fetch(kubectl_exec(tmp_path, script), "epoch-2", [file], tmp_path / "out")


def test_a_fetch_that_ends_within_a_file_leaves_no_part_of_it(tmp_path: Path, stored: Path) -> None:
    def interrupted(done: int) -> None:
        raise KeyboardInterrupt

    here, out = kubectl_exec(tmp_path), tmp_path / "out"
    out.mkdir()
    files = {file.name: file for file in artifacts._files(here, {"name": "epoch-2"})}
    meter = Meter("fetching epoch-2", 1)
    meter.at = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt), here.running("artifacts", "epoch-2", ["--file", "report.html"]) as stream:
        artifacts._unpack(stream, files, out, meter, 0)
    assert list(out.iterdir()) == []


def test_a_checkpoint_is_named_or_the_best() -> None:
    training = Training(JOB, [])
    assert training.checkpoint("best")["name"] == "epoch-2"
    assert training.checkpoint("epoch-1")["name"] == "epoch-1"
    with pytest.raises(ClusterError, match="has no checkpoint epoch-9") as refused:
        training.checkpoint("epoch-9")
    assert refused.value.hint == "it has: epoch-1, epoch-2"


def test_one_that_retention_removed_is_listed_as_such(capfd: Any) -> None:
    entries = [{"name": "epoch-1", "sizeBytes": 900, "removed": True}, {"name": "epoch-2", "sizeBytes": 800}]
    artifacts._list_checkpoints(Training({**JOB, "status": {**JOB["status"], "checkpoints": entries}}, []))
    assert [line.split() for line in capfd.readouterr().out.splitlines()[1:]] == [
        ["epoch-1", "removed"],
        ["epoch-2", "800", "bytes"],
    ]


def test_one_that_retention_removed_is_not_looked_for_in_storage() -> None:
    status = {**JOB["status"], "checkpoints": [{"name": "epoch-1", "removed": True}, {"name": "epoch-2"}]}
    with pytest.raises(ClusterError, match=r"removed from storage by spec.retention of ModelService mail") as refused:
        Training({**JOB, "status": status}, []).checkpoint("epoch-1")
    assert refused.value.hint == "it has: epoch-2"
