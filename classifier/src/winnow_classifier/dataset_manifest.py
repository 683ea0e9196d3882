"""How the rows of a file are to be read: from a Dataset manifest, or from options of a command line. The import and
`kubectl winnow validate` take the same ones and refuse them in the same words."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field, model_validator

from winnow_classifier.errors import ConfigError
from winnow_classifier.labels import TaskDetail
from winnow_classifier.manifest import Manifest, read_manifest
from winnow_classifier.row_files import FileFormat
from winnow_classifier.rows import OnInvalidRows, RowOptions

AUTO = "Auto"
TASK_DETAILS = (AUTO, *TaskDetail)


class _Columns(Manifest):
    text: str | None = None
    target: str | None = None


class _Spec(Manifest):
    format: FileFormat = FileFormat.AUTO
    task_detail: TaskDetail | Literal["Auto"] = "Auto"
    labels: list[str] = Field(default=[], max_length=1_000)
    columns: _Columns = _Columns()
    on_invalid_rows: OnInvalidRows = OnInvalidRows.FAIL

    # Whose rows these are is the operator's business; here so that the same manifest can be read.
    model_service: str | None = None
    source: dict[str, Any] | None = None  # looked into by whoever fetches it

    @model_validator(mode="after")
    def columns_are_named_once(self) -> "_Spec":
        if self.columns != _Columns() and self.hub_columns != _Columns():
            raise ValueError("columns and source.huggingFace both name the columns; give one of both")
        return self

    @property
    def hub_columns(self) -> _Columns:
        """textColumn and labelColumn of a huggingFace source."""
        hub = (self.source or {}).get("huggingFace")
        return (
            _Columns(text=hub.get("textColumn"), target=hub.get("labelColumn")) if isinstance(hub, dict) else _Columns()
        )


class _Metadata(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str | None = Field(default=None, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=52)


class Dataset(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    kind: Literal["Dataset"]
    metadata: _Metadata = _Metadata()
    spec: _Spec


class GivenOptions(TypedDict):
    """As they stand on a command line; None where an option is not given. Keys are the options' own names."""

    format: str | None
    task_detail: str | None
    labels: str | None
    text_column: str | None
    target_column: str | None
    on_invalid_rows: str | None


def read_dataset(path: Path) -> Dataset:
    """A Dataset manifest. Raises ConfigError naming the field."""
    return read_manifest(path, Dataset)


def options_of(dataset: Dataset) -> RowOptions:
    """How to read the rows."""
    spec = dataset.spec
    columns = spec.columns if spec.columns != _Columns() else spec.hub_columns
    return RowOptions(
        file_format=spec.format,
        task_detail=_task_detail(spec.task_detail),
        labels=tuple(spec.labels),
        text_column=columns.text,
        target_column=columns.target,
        on_invalid_rows=spec.on_invalid_rows,
    )


def row_options(given: GivenOptions, manifest: Path | None) -> tuple[RowOptions, str | None]:
    """From the manifest if there is one, else from what is given; and the dataset's name where the manifest has it.

    Raises ConfigError naming the option or the field.
    """
    if manifest is not None:
        if both := [name for name, value in given.items() if value is not None]:
            raise ConfigError(f"{_option(both[0])} stands in the manifest of --dataset already", "give one of both")
        dataset = read_dataset(manifest)
        return options_of(dataset), dataset.metadata.name
    labels = given["labels"]
    options = RowOptions(
        file_format=FileFormat(_chosen(given, "format", FileFormat, FileFormat.AUTO)),
        task_detail=_task_detail(_chosen(given, "task_detail", TASK_DETAILS, AUTO)),
        labels=tuple(name.strip() for name in labels.split(",")) if labels is not None else (),
        text_column=given["text_column"],
        target_column=given["target_column"],
        on_invalid_rows=OnInvalidRows(_chosen(given, "on_invalid_rows", OnInvalidRows, OnInvalidRows.FAIL)),
    )
    return options, None


def _task_detail(name: str) -> TaskDetail | None:
    return None if name == AUTO else TaskDetail(name)


def _chosen(given: Mapping[str, Any], name: str, values: Iterable[str], default: str) -> str:
    """One of the values, in whatever case it was typed."""
    if given[name] is None:
        return default
    known = {value.lower(): value for value in map(str, values)}
    if (chosen := known.get(given[name].lower())) is None:
        raise ConfigError(f"{_option(name)}: {given[name]!r} is none of {', '.join(known.values())}")
    return chosen


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
