"""From the options of `upload` to what is asked of the cluster. Pure but for the manifest that is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from winnow_classifier.dataset_manifest import GivenOptions, read_dataset, row_options
from winnow_classifier.errors import ConfigError
from winnow_classifier.rows import RowOptions
from winnow_plugin.objects import Object
from winnow_plugin.upload import Request
from winnow_plugin.upload_spec import ROW_FIELDS, Wanted

_FIELD = {  # of the manifest, by option
    "format": "format",
    "task_detail": "taskDetail",
    "labels": "labels",
    "text_column": "columns",
    "target_column": "columns",
    "on_invalid_rows": "onInvalidRows",
}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?")


def upload_request(
    file: Path,
    model_service: str | None,
    name: str | None,
    given: GivenOptions,
    manifest: Path | None,
    check: bool | None,
) -> Request:
    """Raises ConfigError naming the option."""
    options, manifest_name = row_options(given, manifest)
    rows = _rows(options)
    upload: Object | None = None
    if manifest is None:
        asked = {_FIELD[option] for option, value in given.items() if value is not None}
        rows = {field: value for field, value in rows.items() if field in asked}
    else:
        spec = read_dataset(manifest).spec
        if spec.source and spec.source.keys() != {"upload"}:
            message = f"{manifest}: spec.source is {', '.join(spec.source)}, and an upload is a source itself"
            raise ConfigError(message, hint="leave spec.source out")
        upload = (spec.source or {}).get("upload")
        model_service = _one("--model-service", model_service, spec.model_service)
        name = _one("--name", name, manifest_name)
    if model_service is None:
        raise ConfigError("--model-service is needed", hint="kubectl get modelservices lists those that exist")
    if name is None:
        raise ConfigError("--name is needed: what the Dataset is to be called")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--name: {name!r} must be small letters, digits and hyphens, 52 at most")
    return Request(file, Wanted(name, model_service, rows), options, check, upload)


def _rows(options: RowOptions) -> dict[str, Any]:
    columns = {"text": options.text_column, "target": options.target_column}
    values = (
        str(options.file_format),
        str(options.task_detail or "Auto"),
        list(options.labels) or None,
        {key: value for key, value in columns.items() if value is not None} or None,
        str(options.on_invalid_rows),
    )
    return dict(zip(ROW_FIELDS, values, strict=True))


def _one(option: str, given: str | None, in_manifest: str | None) -> str | None:
    if given and in_manifest and given != in_manifest:
        raise ConfigError(f"{option} is {given}, and the manifest says {in_manifest}", hint="give one of both")
    return given or in_manifest
