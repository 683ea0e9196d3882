"""Canonical rows in storage: their digest, how they are stored once and for all, and how they are loaded again.

A dataset lies in `datasets/<64 hex>/`: `rows.parquet` (text, target) and `dataset.json` (schema, counts). The folder
appears by one rename, so a half-written one is never met. Shapes: N rows, C labels.
"""

import contextlib
import errno
import hashlib
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from winnow_classifier.errors import ConfigError, DataError, StorageError, StorageFull, WinnowError
from winnow_classifier.labels import LabelSchema, TaskDetail

FORMAT_VERSION = 1
DATASET_FILE = "dataset.json"
ROWS_FILE = "rows.parquet"
ROWS_PER_GROUP = 8_192
STALE_SECONDS = 24 * 3_600  # a temporary folder this old belongs to an import that was killed

Targets = npt.NDArray[np.int8]
_PARQUET_SCHEMA = pa.schema([("text", pa.string()), ("target", pa.list_(pa.int8()))])


@dataclass(frozen=True)
class StoredDataset:
    schema: LabelSchema
    texts: list[str]
    targets: Targets  # (N, C) zeros and ones, columns in label order
    digest: str  # "sha256:…" of the canonical rows
    path: Path


class DatasetFile(BaseModel):
    """dataset.json."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    format_version: int = Field(alias="formatVersion")
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    task_detail: TaskDetail = Field(alias="taskDetail")
    labels: list[str] = Field(min_length=1)
    rows: int = Field(ge=1)
    positives: dict[str, int]


def canonical_digest(schema: LabelSchema, texts: Sequence[str], targets: Targets) -> str:
    """The same for the same rows, whatever file they came from: a header line, then a compact JSON line for each row."""
    header = {"labels": list(schema.labels), "taskDetail": schema.task_detail.value}
    digest = hashlib.sha256(orjson.dumps(header) + b"\n")
    for text, target in zip(texts, targets.tolist(), strict=True):
        digest.update(orjson.dumps([text.replace("\r\n", "\n"), target]) + b"\n")
    return f"sha256:{digest.hexdigest()}"


def store_dataset(storage: Path, schema: LabelSchema, texts: Sequence[str], targets: Targets) -> StoredDataset:
    """Writes the rows below `storage` unless they stand there already; returns them as stored.

    Two imports of the same rows at once are harmless: one rename wins, both end with the same folder.
    Raises StorageFull or StorageError, and then leaves nothing behind.
    """
    texts = [text.replace("\r\n", "\n") for text in texts]
    digest = canonical_digest(schema, texts, targets)
    folder = storage / "datasets" / digest.removeprefix("sha256:")
    stored = StoredDataset(schema, texts, targets, digest, folder)
    with _storage_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder.parent, time.time())
        if _is_intact(folder):
            return stored
        temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent))
        try:
            _write(temporary / "new", stored)
            # Another import may have published meanwhile: only what is damaged still is moved out of the way.
            if folder.exists() and not _is_intact(folder):
                with contextlib.suppress(FileNotFoundError):  # another import was faster
                    folder.rename(temporary / "damaged")
            _publish(temporary / "new", folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return stored


def load_dataset(path: Path) -> StoredDataset:
    """Raises DataError if the rows are not those of the digest in dataset.json, ConfigError if `path` is no dataset."""
    described = _read_dataset_file(path)
    try:
        table = pq.read_table(path / ROWS_FILE, schema=_PARQUET_SCHEMA)
    except FileNotFoundError as err:
        raise DataError(f"{path}: {ROWS_FILE} is missing", hint="import the rows again") from err
    except (pa.ArrowException, OSError) as err:
        raise DataError(f"{path / ROWS_FILE} cannot be read: {err}", hint="import the rows again") from err
    schema = LabelSchema(described.task_detail, tuple(described.labels))
    texts: list[str] = table.column("text").to_pylist()
    targets = _targets_of(table, len(schema.labels), path)
    if None in texts or (digest := canonical_digest(schema, texts, targets)) != described.digest:
        raise DataError(
            f"{path}: the rows are not those of {described.digest}; {ROWS_FILE} or {DATASET_FILE} was changed",
            hint="import the rows again",
        )
    return StoredDataset(schema, texts, targets, digest, path)


def targets_in_schema(dataset: StoredDataset, schema: LabelSchema) -> Targets:
    """The dataset's targets with the columns of `schema`: a test set takes its job's labels from the training set.

    Labels are matched by name; 0 and 1 of a Binary set without names fit any Binary schema by place. Labels of the
    schema that the set does not have are 0 in each row. Raises DataError naming what does not fit.
    """
    own = dataset.schema
    if own.labels == schema.labels and own.task_detail is schema.task_detail:
        return dataset.targets
    if own.task_detail is TaskDetail.BINARY and schema.task_detail is TaskDetail.BINARY and own.labels == ("0", "1"):
        return dataset.targets
    known = {label: column for column, label in enumerate(schema.labels)}
    if unknown := [label for label in own.labels if label not in known]:
        raise DataError(
            f"the test set has the label {_names(unknown)}, which the training set does not have; "
            f"that has {_names(schema.labels)}",
            hint="use the same label names in both sets, or fix them in spec.labels",
        )
    fitted = np.zeros((len(dataset.texts), len(schema.labels)), dtype=np.int8)
    fitted[:, [known[label] for label in own.labels]] = dataset.targets
    if schema.task_detail is not TaskDetail.MULTILABEL and (wrong := np.flatnonzero(fitted.sum(axis=1) != 1)).size:
        raise DataError(
            f"row {wrong[0] + 1} of the test set has {fitted[wrong[0]].sum()} labels; the training set is "
            f"{schema.task_detail}: exactly one label in each row",
            hint="give both sets the same taskDetail",
        )
    return fitted


def overlap(train: StoredDataset, test: StoredDataset) -> int:
    """Rows of the test set whose text also stands in the training set."""
    seen = set(train.texts)
    return sum(text in seen for text in test.texts)


def positives(schema: LabelSchema, targets: Targets) -> Mapping[str, int]:
    """Rows in which each label holds, in label order."""
    return dict(zip(schema.labels, targets.sum(axis=0, dtype=np.int64).tolist(), strict=True))


def _read_dataset_file(path: Path) -> DatasetFile:
    try:
        raw = (path / DATASET_FILE).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as err:
        raise ConfigError(
            f"{path} is not a stored dataset: it has no {DATASET_FILE}",
            hint="`python -m winnow_trainer import --file ROWS --storage DIR` prints the path of one",
        ) from err
    except OSError as err:
        raise StorageError(f"{path / DATASET_FILE} cannot be read: {err.strerror}") from err
    try:
        described = DatasetFile.model_validate_json(raw)
    except ValidationError as err:
        raise DataError(f"{path / DATASET_FILE} is damaged: {err.errors()[0]['msg']}", hint="import again") from err
    if described.format_version != FORMAT_VERSION:
        raise DataError(
            f"{path}: format version {described.format_version} is not known; this version reads {FORMAT_VERSION}",
            hint="import the rows again",
        )
    return described


def _targets_of(table: pa.Table, columns: int, path: Path) -> Targets:
    target = table.column("target").combine_chunks()
    values = target.flatten().to_numpy(zero_copy_only=False)
    if len(values) != len(target) * columns or target.null_count or values.dtype != np.int8:
        raise DataError(f"{path / ROWS_FILE}: each row must have {columns} targets", hint="import the rows again")
    return np.asarray(values, dtype=np.int8).reshape(-1, columns)


def _write(folder: Path, stored: StoredDataset) -> None:
    folder.mkdir(mode=0o755)
    with pq.ParquetWriter(folder / ROWS_FILE, _PARQUET_SCHEMA, compression="zstd") as writer:
        for batch in _batches(stored):
            writer.write_batch(batch)
    described = DatasetFile(
        format_version=FORMAT_VERSION,
        digest=stored.digest,
        task_detail=stored.schema.task_detail,
        labels=list(stored.schema.labels),
        rows=len(stored.texts),
        positives=dict(positives(stored.schema, stored.targets)),
    )
    content: dict[str, Any] = described.model_dump(by_alias=True, mode="json")
    (folder / DATASET_FILE).write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
    for path in (folder / ROWS_FILE, folder / DATASET_FILE, folder):
        _fsync(path)


def _batches(stored: StoredDataset) -> Iterator[pa.RecordBatch]:
    width = len(stored.schema.labels)
    for start in itertools.takewhile(lambda s: s < len(stored.texts), itertools.count(0, ROWS_PER_GROUP)):
        texts = pa.array(stored.texts[start : start + ROWS_PER_GROUP], pa.string())
        flat = np.ascontiguousarray(stored.targets[start : start + ROWS_PER_GROUP], dtype=np.int8).reshape(-1)
        offsets = pa.array(np.arange(0, len(flat) + 1, width, dtype=np.int32))
        target = pa.ListArray.from_arrays(offsets, pa.array(flat, pa.int8()))
        yield pa.RecordBatch.from_arrays([texts, target], schema=_PARQUET_SCHEMA)


def _publish(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError as err:
        if err.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        # Another import of the same rows was faster; its folder is named by the same content.
    _fsync(folder.parent)


def _is_intact(folder: Path) -> bool:
    try:
        return f"sha256:{folder.name}" == load_dataset(folder).digest
    except WinnowError:
        return False


def _remove_stale(datasets: Path, now: float) -> None:
    for left in datasets.glob(".tmp-*"):
        with contextlib.suppress(FileNotFoundError):
            if now - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _storage_errors(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"{where}: no space is left", hint="enlarge the volume or delete old runs") from err
        raise StorageError(f"{where}: {err.strerror or err}") from err


def _names(labels: Sequence[str]) -> str:
    shown = ", ".join(f'"{label}"' for label in labels[:5])
    return shown if len(labels) <= 5 else f"{shown} and {len(labels) - 5} more"
