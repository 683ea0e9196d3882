"""Canonical rows in storage: their digest, how they are stored once and for all, and how they are loaded again.

A dataset lies in `datasets/<64 hex>/`: `rows.parquet` (text, and the names of the labels that hold, sorted) and
`dataset.json` (schema, counts). Rows are written as they are read, a batch in memory at a time; the folder appears by
one rename, so a half-written one is never met. Shapes: N rows, C labels.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from winnow_classifier.errors import ConfigError, DamagedError, DataError, StorageError, WinnowError
from winnow_classifier.files import full, is_full, sha256_of_file, sync
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.words import some

FORMAT_VERSION = 2
DATASET_FILE = "dataset.json"
ROWS_FILE = "rows.parquet"
ROWS_PER_GROUP = 8_192
_HEXADECIMAL = re.compile(r"[0-9a-f]{64}")
STALE_SECONDS = 24 * 3_600  # a temporary folder this old belongs to an import that was killed

Targets = npt.NDArray[np.int8]
Labels = tuple[str, ...]  # the names that hold for a row, sorted
_PARQUET_SCHEMA = pa.schema([("text", pa.string()), ("labels", pa.list_(pa.string()))])


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows in their order."""

    texts: list[str]
    labels: list[Labels]


@dataclass(frozen=True)
class StoredDataset:
    schema: LabelSchema
    texts: list[str]
    targets: Targets  # (N, C) zeros and ones, columns in label order
    digest: str  # "sha256:…" of the canonical rows
    path: Path
    numbers: npt.NDArray[np.int64] | None = None  # (N,) of a part of them: which rows of `path` these are, from 0

    def numbered(self, rows: npt.NDArray[np.int64]) -> list[int]:
        """What people call these rows: their numbers in the stored dataset, from 1, ascending."""
        numbers = rows if self.numbers is None else self.numbers[rows]
        return sorted({int(number) + 1 for number in numbers})


class DatasetFile(BaseModel):
    """dataset.json."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    format_version: int = Field(alias="formatVersion")
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    task_detail: TaskDetail = Field(alias="taskDetail")
    labels: list[str] = Field(min_length=1)
    rows: int = Field(ge=1)
    positives: dict[str, int]
    # Of rows.parquet: bytes of it may change without changing a row. Not there in what earlier versions stored.
    rows_sha256: str | None = Field(default=None, alias="rowsSha256", pattern=r"^[0-9a-f]{64}$")


class CanonicalDigest:
    """The digest of rows, the same whatever file they came from. It is the SHA-256 of a compact JSON line for each row,
    `["text",["label"]]` with the names of the labels that hold, sorted; and of a last line with the labels in order and the
    task detail, which are known only at the end."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, batch: Batch) -> None:
        if not batch.texts:
            return
        # All rows are written as one array, and the commas between them replaced by line ends. In a text that ends in `]],[`
        # the comma is replaced too. That is harmless, since JSON writes a line end within a text as \n, so no other rows give the
        # same bytes; and it cannot be mended without changing the digests of such rows.
        rows = orjson.dumps(list(zip(batch.texts, batch.labels, strict=True)))
        self._sha256.update(rows[1:-1].replace(b']],["', b']]\n["'))
        self._sha256.update(b"\n")

    def of(self, schema: LabelSchema) -> str:
        last = {"labels": list(schema.labels), "taskDetail": schema.task_detail.value}
        whole = self._sha256.copy()
        whole.update(orjson.dumps(last, option=orjson.OPT_APPEND_NEWLINE))
        return f"sha256:{whole.hexdigest()}"


class DatasetWriter:
    """Rows on their way into storage. Use it as a context, whose end removes what was not published.

    A batch is digested and written by a thread while the next one is read: compressing and writing release Python's lock.
    Raises
    StorageFull or StorageError, perhaps one batch later, and then leaves nothing behind.
    """

    def __init__(self, storage: Path) -> None:
        self._datasets = storage / "datasets"
        self._digest = CanonicalDigest()
        self._counts: dict[str, int] = {}
        self._rows = 0
        self._temporary: Path | None = None
        self._parquet: pq.ParquetWriter | None = None
        self._thread = ThreadPoolExecutor(1, "rows")
        self._written: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True)
        if self._parquet is not None:
            with contextlib.suppress(OSError, pa.ArrowException):
                self._parquet.close()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def add(self, batch: Batch) -> None:
        self._wait()
        self._written = self._thread.submit(self._write, batch)

    def _wait(self) -> None:
        if self._written is not None:
            self._written.result()

    def _write(self, batch: Batch) -> None:
        with storage_errors(self._datasets):
            if self._parquet is None:
                self._datasets.mkdir(parents=True, exist_ok=True)
                remove_stale(self._datasets, time.time())
                self._temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=self._datasets))
                (self._temporary / "new").mkdir(mode=0o755)
                rows_file = self._temporary / "new" / ROWS_FILE
                self._parquet = pq.ParquetWriter(rows_file, _PARQUET_SCHEMA, compression="zstd")
            self._parquet.write_batch(_record_batch(batch), row_group_size=ROWS_PER_GROUP)
        self._digest.add(batch)
        self._rows += len(batch.texts)
        _count(batch, self._counts)

    def folder(self, schema: LabelSchema) -> Path:
        """Where the rows will be published."""
        self._wait()
        return self._datasets / self._digest.of(schema).removeprefix("sha256:")

    def publish(self, schema: LabelSchema, beside: Mapping[str, bytes] | None = None) -> "PublishedDataset":
        """Two imports of the same rows at once are harmless: one rename wins, both end with the same folder.

        `beside` are files that appear with the rows; of rows that are stored already they replace the older ones.
        """
        self._wait()
        assert self._temporary is not None and self._parquet is not None, "no row was added"
        digest, folder = self._digest.of(schema), self.folder(schema)
        with storage_errors(self._datasets):
            self._parquet.close()
            kept = _found_again(folder)
            if kept:
                _replace_files(self._temporary, folder, beside or {})
            else:
                for name, content in (beside or {}).items():
                    (self._temporary / "new" / name).write_bytes(content)
                positives = {label: self._counts.get(label, 0) for label in schema.labels}
                _write_dataset_file(self._temporary / "new", schema, digest, self._rows, positives)
                # Another import may have published by now: what is there is moved away only if it is still damaged.
                if folder.exists() and not _is_intact(folder):
                    with contextlib.suppress(FileNotFoundError):  # another import was faster
                        folder.rename(self._temporary / "damaged")
                _publish(self._temporary / "new", folder)
        return PublishedDataset(schema, digest, folder, is_new=not kept)


@dataclass(frozen=True, slots=True)
class PublishedDataset:
    schema: LabelSchema
    digest: str
    path: Path
    is_new: bool  # False: the same rows were there already, whole


def targets_of(schema: LabelSchema, labels: Sequence[Labels]) -> Targets:
    """Names as (N, C) zeros and ones."""
    column = {label: index for index, label in enumerate(schema.labels)}
    targets = np.zeros((len(labels), len(schema.labels)), dtype=np.int8)
    rows = np.repeat(np.arange(len(labels)), [len(row) for row in labels])
    targets[rows, [column[label] for row in labels for label in row]] = 1
    return targets


def load_dataset(path: Path) -> StoredDataset:
    """Raises DamagedError if the rows are not those of the folder's name and dataset.json, ConfigError if it is none."""
    described = _read_dataset_file(path)
    if _HEXADECIMAL.fullmatch(path.name) and described.digest != f"sha256:{path.name}":
        raise DamagedError(
            f"{path}: the rows are not those of sha256:{path.name}; {DATASET_FILE} was changed, it names others",
            hint="import the rows again",
        )
    schema = LabelSchema(described.task_detail, tuple(described.labels))
    texts: list[str] = []
    parts: list[Targets] = []
    for batch in _verified(path, described):
        texts += batch.texts
        parts.append(targets_of(schema, batch.labels))
    return StoredDataset(schema, texts, np.concatenate(parts), described.digest, path)


def _verified(path: Path, described: "DatasetFile") -> Iterator[Batch]:
    """The rows; at their end, DamagedError if they are not those of the digest."""
    known = set(described.labels)
    digest = CanonicalDigest()
    rows, counts = 0, dict.fromkeys(described.labels, 0)
    try:
        if described.rows_sha256 not in (None, sha256_of_file(path / ROWS_FILE)):
            raise _changed(path, described, ROWS_FILE)
        with pq.ParquetFile(path / ROWS_FILE) as file:
            if file.schema_arrow.remove_metadata() != _PARQUET_SCHEMA:
                raise DamagedError(f"{path / ROWS_FILE} has other columns than text and labels", hint="import again")
            for part in file.iter_batches(ROWS_PER_GROUP):
                batch = Batch(part.column("text").to_pylist(), list(map(tuple, part.column("labels").to_pylist())))
                if not known.issuperset(label for labels in batch.labels for label in labels):
                    raise DamagedError(f"{path}: a row has a label that {DATASET_FILE} does not", hint="import again")
                digest.add(batch)
                rows += len(batch.texts)
                _count(batch, counts)
                yield batch
    except FileNotFoundError as err:
        raise DamagedError(f"{path}: {ROWS_FILE} is missing", hint="import the rows again") from err
    except (pa.ArrowException, OSError, TypeError, ValueError) as err:
        raise DamagedError(f"{path / ROWS_FILE} cannot be read: {err}", hint="import the rows again") from err
    if not rows or digest.of(LabelSchema(described.task_detail, tuple(described.labels))) != described.digest:
        raise _changed(path, described, f"{ROWS_FILE} or {DATASET_FILE}")
    if (rows, counts) != (described.rows, described.positives):
        raise _changed(path, described, DATASET_FILE)


def _changed(path: Path, described: "DatasetFile", files: str) -> DamagedError:
    return DamagedError(
        f"{path}: the rows are not those of {described.digest}; {files} was changed after the import",
        hint="import the rows again",
    )


def _count(batch: Batch, counts: dict[str, int]) -> None:
    for labels, count in Counter(batch.labels).items():
        for label in labels:
            counts[label] = counts.get(label, 0) + count


def targets_in_schema(dataset: StoredDataset, schema: LabelSchema, name: str = "the test set") -> Targets:
    """The dataset's targets with the columns of `schema`: a test set takes its job's labels from the training set.

    Labels are matched by name; 0 and 1 of a Binary set without names fit any other Binary names by place. Labels of the
    schema that the set does not have are 0 in each row. Raises DataError naming what does not fit.
    """
    own = dataset.schema
    if own.labels == schema.labels and own.task_detail is schema.task_detail:
        return dataset.targets
    both_binary = own.task_detail is TaskDetail.BINARY and schema.task_detail is TaskDetail.BINARY
    if both_binary and own.labels == ("0", "1") and schema.labels != ("1", "0"):
        return dataset.targets
    known = {label: column for column, label in enumerate(schema.labels)}
    if unknown := [label for label in own.labels if label not in known]:
        raise DataError(
            f"{name} has the label {_names(unknown)}, which the training set does not have; "
            f"that has {_names(schema.labels)}",
            hint="use the same label names in both sets, or fix them in spec.labels",
        )
    fitted = np.zeros((len(dataset.texts), len(schema.labels)), dtype=np.int8)
    fitted[:, [known[label] for label in own.labels]] = dataset.targets
    if schema.task_detail is not TaskDetail.MULTILABEL and (wrong := np.flatnonzero(fitted.sum(axis=1) != 1)).size:
        raise DataError(
            f"row {wrong[0] + 1} of {name} has {fitted[wrong[0]].sum()} labels; the training set is "
            f"{schema.task_detail}: exactly one label in each row",
            hint="give both sets the same taskDetail",
        )
    return fitted


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
        raise DamagedError(f"{path / DATASET_FILE} is damaged: {err.errors()[0]['msg']}", hint="import again") from err
    if described.format_version != FORMAT_VERSION:
        raise DamagedError(
            f"{path}: format version {described.format_version} is not known; this version reads {FORMAT_VERSION}",
            hint="import the rows again",
        )
    if _encoded(described) != raw:
        raise _changed(path, described, DATASET_FILE)
    return described


def _encoded(described: DatasetFile) -> bytes:
    content = described.model_dump(by_alias=True, mode="json", exclude_none=True)
    return orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n"


def _write_dataset_file(folder: Path, schema: LabelSchema, digest: str, rows: int, positives: dict[str, int]) -> None:
    described = DatasetFile(
        format_version=FORMAT_VERSION,
        digest=digest,
        task_detail=schema.task_detail,
        labels=list(schema.labels),
        rows=rows,
        positives=positives,
        rows_sha256=sha256_of_file(folder / ROWS_FILE),
    )
    (folder / DATASET_FILE).write_bytes(_encoded(described))
    for path in (*folder.iterdir(), folder):
        sync(path)


def _record_batch(batch: Batch) -> pa.RecordBatch:
    ends = np.cumsum([0, *map(len, batch.labels)], dtype=np.int32)
    names = pa.array(list(chain.from_iterable(batch.labels)), pa.string())
    offsets = pa.Array.from_buffers(pa.int32(), len(ends), [None, pa.py_buffer(ends)])  # pa.array() imports pandas
    labels = pa.ListArray.from_arrays(offsets, names)
    return pa.RecordBatch.from_arrays([pa.array(batch.texts, pa.string()), labels], schema=_PARQUET_SCHEMA)


def _publish(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError as err:
        if err.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        # Another import of the same rows was faster; its folder is named by the same content.
    sync(folder.parent)


def _replace_files(temporary: Path, folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (temporary / name).write_bytes(content)
        (temporary / name).replace(folder / name)


def _found_again(folder: Path) -> bool:
    """Whether the rows are stored. If so, the time of their dataset.json becomes now, by which the collector sees that they
    are wanted."""
    if not _is_intact(folder):
        return False
    try:
        os.utime(folder / DATASET_FILE)
    except FileNotFoundError:
        return False  # it was cleared away at this moment
    except PermissionError:
        pass  # stored by another user
    return True


def _is_intact(folder: Path) -> bool:
    try:
        described = _read_dataset_file(folder)
        for _ in _verified(folder, described):
            pass
    except WinnowError:
        return False
    return described.digest == f"sha256:{folder.name}"


def remove_stale(folder: Path, now: float) -> int:
    """How many temporary files and folders of killed imports or refits were removed."""
    count = 0
    for left in folder.glob(".tmp-*"):
        with contextlib.suppress(FileNotFoundError):
            if now - max(path.stat().st_mtime for path in (left, *left.rglob("*"))) <= STALE_SECONDS:
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()
            count += 1
    return count


@contextlib.contextmanager
def storage_errors(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        if is_full(err):
            raise full(where) from err
        raise StorageError(f"{where}: {err.strerror or err}") from err


def _names(labels: Sequence[str]) -> str:
    return some([f'"{label}"' for label in labels], 5)
