"""Which Dataset an upload needs, and what one that is there already means for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from winnow_classifier.errors import ConfigError
from winnow_plugin.objects import API_VERSION, Object, condition, is_true, name_of, namespace_of

# As the CRD fills them in; a field that has no default is absent.
DEFAULTS: Mapping[str, Any] = {"format": "Auto", "taskDetail": "Auto", "onInvalidRows": "Fail"}
ROW_FIELDS = ("format", "taskDetail", "labels", "columns", "onInvalidRows")
AWAITING_UPLOAD = "AwaitingUpload"
# Failures that say nothing about the rows: the same file may be sent again. The operator offers the same ones.
WORTH_ANOTHER_TRY = {
    "UploadAbandoned",
    "StorageFull",
    "StorageUnavailable",
    "SourceUnreachable",
    "OutOfMemory",
    "ImportFailed",
}
EXIT_CODES = {  # as the trainer's; any other failure is the cluster's, 1
    "InvalidRows": 11,
    "EmptyDataset": 11,
    "OutOfMemory": 12,
    "InvalidConfiguration": 10,
    "BaseModelInvalid": 10,
    "SourceUnreachable": 20,
    "StorageFull": 20,
    "StorageUnavailable": 20,
    "UploadAbandoned": 20,
}


@dataclass(frozen=True, slots=True)
class LocalFile:
    path: Path
    size_bytes: int
    sha256: str

    def source(self) -> Object:
        name = "".join(char if char.isprintable() else "_" for char in self.path.name)[-255:]
        return {"upload": {"sha256": self.sha256, "sizeBytes": self.size_bytes, "fileName": name}}


@dataclass(frozen=True, slots=True)
class Wanted:
    name: str
    model_service: str
    rows: Mapping[str, Any]  # of ROW_FIELDS those that were asked for; None asks for the default

    def manifest(self, file: LocalFile) -> Object:
        rows = {field: value for field, value in self.rows.items() if value is not None}
        spec = {"modelService": self.model_service, **rows, "source": file.source()}
        return {"apiVersion": API_VERSION, "kind": "Dataset", "metadata": {"name": self.name}, "spec": spec}


class Stage(Enum):
    READY = "ready"
    FAILED = "failed"
    AWAITING = "awaiting"  # its pod receives, or will
    WORKING = "working"


def stage(dataset: Object) -> Stage:
    if is_true(dataset, "Ready"):
        return Stage.READY
    # The operator tries again after some refusals, such as a full quota, so these may pass.
    if is_true(dataset, "Stalled") and condition(dataset, "Ready").get("reason") != "ApiRefused":
        return Stage.FAILED
    return Stage.AWAITING if condition(dataset, "Ready").get("reason") == AWAITING_UPLOAD else Stage.WORKING


def agree(dataset: Object, wanted: Wanted, file: LocalFile) -> None:
    """Raises ConfigError where the Dataset of that name is another one. How its rows are read may go unsaid."""
    spec = dataset["spec"]
    upload = (spec.get("source") or {}).get("upload")
    if upload is None:
        said = f"takes its rows from {next(iter(spec.get('source') or {}), 'elsewhere')}"
    elif (upload["sha256"], upload["sizeBytes"]) != (file.sha256, file.size_bytes):
        said = (
            f"is for another file, of {upload['sizeBytes']:,} bytes with the SHA-256 {upload['sha256'][:12]}…; this one "
            f"has {file.size_bytes:,} bytes and {file.sha256[:12]}…"
        )
    elif spec["modelService"] != wanted.model_service:
        said = f"belongs to the ModelService {spec['modelService']}"
    elif other := [field for field in ROW_FIELDS if field in wanted.rows and not _same(spec, wanted.rows, field)]:
        said = f"has {other[0]}: {_shown(spec.get(other[0]))}, and {_shown(wanted.rows[other[0]])} is asked for"
    else:
        return
    where = f"{name_of(dataset)} -n {namespace_of(dataset)}"
    hint = f"a Dataset cannot be changed: choose another --name, or delete this one: kubectl delete wds {where}"
    raise ConfigError(f"the Dataset {name_of(dataset)} exists and {said}", hint)


def _same(spec: Object, asked: Mapping[str, Any], field: str) -> bool:
    default = DEFAULTS.get(field)
    wanted = asked[field] if asked[field] is not None else default
    return bool(spec.get(field, default) == wanted)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return "none" if value is None else str(value)
