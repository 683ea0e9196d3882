"""A TrainingJob as the plugin finds it, the batch Job that the operator made for it, and a checkpoint of it in storage."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tiny_checkpoint import manifest

from winnow_classifier.checkpoint import DatasetEntry, FileEntry, JobEntry, manifest_bytes
from winnow_classifier.labels import LabelSchema
from winnow_plugin.cluster import Place
from winnow_plugin.storage_access import StoragePod

GOLDEN = Path(__file__).parent / "operator" / "golden"
JOB: dict[str, Any] = {
    "apiVersion": "winnow.dev/v1alpha1",
    "kind": "TrainingJob",
    "metadata": {"name": "v1", "namespace": "ml", "uid": "0a1b2c3d-0000"},
    "spec": {"modelService": "mail"},
    "status": {"bestCheckpoint": "epoch-2", "checkpoints": [{"name": "epoch-1"}, {"name": "epoch-2"}]},
}


def batch_job(golden: str) -> dict[str, Any]:
    return next(each for each in yaml.safe_load_all((GOLDEN / f"{golden}.yaml").read_text()) if each["kind"] == "Job")


def store_checkpoint(
    storage: Path, files: Mapping[str, bytes], schema: LabelSchema, validation: DatasetEntry | None = None
) -> Path:
    """epoch-2 of JOB, as far as these files go; its folder."""
    folder = storage / "runs" / "v1-0a1b2c3d" / "checkpoints" / "epoch-2"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    written = manifest(
        schema,
        validation_dataset=validation,
        training_job=JobEntry(name="v1"),
        files={
            name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
            for name, content in files.items()
        },
    )
    (folder / "checkpoint.json").write_bytes(manifest_bytes(written))
    return folder


def kubectl_exec(folder: Path, script: str | None = None) -> StoragePod:
    """Without a pod: the trainer's program runs here, on folder/storage, and how it ends is told as kubectl does; or `script`."""
    own = (
        'while [ "$1" != -- ]; do shift; done\nshift 4\n'
        f'{sys.executable} -m winnow_trainer "$@" --storage {folder / "storage"} && exit\n'
        "code=$?; echo command terminated with exit code $code >&2; exit $code"
    )
    program = folder / "kubectl"
    program.write_text(f"#!/bin/sh\n{script or own}\n")
    program.chmod(0o755)
    job = batch_job("training")
    job["spec"]["template"]["spec"]["containers"][0]["command"] = []
    return StoragePod(program, Place(), JOB, job, {"metadata": {"name": "v1-storage-x", "namespace": "ml"}})
