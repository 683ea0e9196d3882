"""From a row file to a stored dataset: read, judge, profile, store; and the final word about it."""

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from tokenizers import Tokenizer

from winnow_classifier import base_model
from winnow_classifier.dataset import DatasetWriter, PublishedDataset
from winnow_classifier.errors import BaseModelError, StorageError, StorageFull, WinnowError
from winnow_classifier.labels import TaskDetail
from winnow_classifier.profile import Profile, Profiler, Warn
from winnow_classifier.row_files import FileFormat, Problem
from winnow_classifier.rows import InvalidRowsError, Judge, OnInvalidRows, RowOptions
from winnow_trainer.manifest import read_manifest

PROFILE_FILE = "profile.json"
PROBLEMS_FILE = "problems.jsonl"


@dataclass(frozen=True, slots=True)
class Imported:
    dataset: PublishedDataset
    origin: str  # the files' format, or the service that they were written for
    profile: Profile
    skipped_rows: int
    problems: list[Problem]  # the first of the skipped rows


class _Manifest(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class _Columns(_Manifest):
    text: str | None = None
    target: str | None = None


class _Spec(_Manifest):
    format: FileFormat = FileFormat.AUTO
    task_detail: TaskDetail | Literal["Auto"] = "Auto"
    labels: list[str] = Field(default=[], max_length=1_000)
    columns: _Columns = _Columns()
    on_invalid_rows: OnInvalidRows = OnInvalidRows.FAIL

    # Whose rows these are and where they lie is the operator's business; here so that the same manifest can be read.
    model_service: str | None = None
    source: dict[str, Any] | None = None


class _Metadata(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str | None = Field(default=None, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=52)


class Dataset(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    kind: Literal["Dataset"]
    metadata: _Metadata = _Metadata()
    spec: _Spec


def read_dataset(path: Path) -> Dataset:
    """A Dataset manifest. Raises ConfigError naming the field."""
    return read_manifest(path, Dataset)


def options_of(dataset: Dataset) -> RowOptions:
    """How to read the rows."""
    spec = dataset.spec
    return RowOptions(
        file_format=spec.format,
        task_detail=task_detail_of(spec.task_detail),
        labels=tuple(spec.labels),
        text_column=spec.columns.text,
        target_column=spec.columns.target,
        on_invalid_rows=spec.on_invalid_rows,
    )


def task_detail_of(name: str) -> TaskDetail | None:
    return None if name == "Auto" else TaskDetail(name)


def import_files(
    files: Sequence[Path],
    storage: Path,
    options: RowOptions,
    base_model_reference: str | None = None,
    name: str | None = None,
) -> Imported:
    """Reads, judges, profiles and stores in one pass. Raises a WinnowError; then no row is stored.

    All problems, not only the first, go to imports/<name>/problems.jsonl in storage, where a name is given.
    """
    count_tokens, unknown = _token_counter(base_model_reference, storage)
    with _ProblemFile(storage / "imports" / name if name else None) as problems, DatasetWriter(storage) as writer:
        judge, profiler = Judge(options, problems.add), Profiler()
        for batch in judge.read(files):
            profiler.add(batch, count_tokens(batch.texts))
            writer.add(batch)
        found = profiler.finish(judge.schema)
        dataset = writer.publish(judge.schema)
    write_profile(dataset.path, found)
    if unknown:
        found.warnings.append(Warn("NoTokenLengths", unknown))
    return Imported(dataset, judge.origin, found, judge.problem_count, judge.problems)


def write_profile(dataset: Path, found: Profile) -> None:
    """profile.json beside the rows, whole or not at all. The last import's word stands: token lengths depend on the
    base model."""
    temporary = dataset / f".tmp-{PROFILE_FILE}"
    try:
        temporary.write_bytes(orjson.dumps(found.document(), option=orjson.OPT_INDENT_2) + b"\n")
        temporary.replace(dataset / PROFILE_FILE)
    except OSError as err:
        raise StorageError(f"{dataset / PROFILE_FILE} cannot be written: {err.strerror or err}") from err


class _ProblemFile:
    """A line of JSON for each problem. It appears when all are in it; an import without any removes an older one."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def add(self, problem: Problem) -> None:
        if self._folder is None:
            return
        with _told(self._folder):
            if self._stream is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._stream = (self._folder / f".tmp-{PROBLEMS_FILE}").open("wb")
            self._stream.write(orjson.dumps(_place(problem), option=orjson.OPT_APPEND_NEWLINE))

    def __exit__(self, *_: object) -> None:
        if self._folder is None:
            return
        with _told(self._folder):
            if self._stream is None:
                (self._folder / PROBLEMS_FILE).unlink(missing_ok=True)
            else:
                self._stream.close()
                Path(self._stream.name).replace(self._folder / PROBLEMS_FILE)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        full = err.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (StorageFull if full else StorageError)(f"{folder / PROBLEMS_FILE}: {err.strerror or err}") from err


CountTokens = Callable[[Sequence[str]], Sequence[int]]


def _token_counter(reference: str | None, storage: Path) -> tuple[CountTokens, str | None]:
    """Counts the tokens of texts; or why it cannot: rows are good rows even where the base model is not there."""
    if reference is None:
        return lambda texts: (), None
    try:
        file = base_model.resolve(reference, storage) / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as err:  # the library raises nothing narrower
            raise BaseModelError(f"{file} is not a tokenizer: {err}") from err
    except WinnowError as err:
        return lambda texts: (), f"the rows' lengths in tokens are not known: {err}"
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: [len(encoding) for encoding in tokenizer.encode_batch_fast(list(texts))], None


def ready_message(imported: Imported) -> dict[str, Any]:
    found, dataset = imported.profile, imported.dataset
    return {
        "kind": "import",
        "state": "Ready",
        "reason": "Verified",
        "message": f"{found.rows:,} rows, {dataset.schema.task_detail}, {len(found.labels)} labels",
        "digest": dataset.digest,
        "taskDetail": dataset.schema.task_detail.value,
        "format": imported.origin,
        "rows": found.rows,
        "labelCount": len(found.labels),
        "labels": [[label, count] for label, count in found.labels],
        "tokens": asdict(found.tokens) if found.tokens else None,
        "duplicates": found.duplicates,
        "conflicts": found.conflicts,
        "nearDuplicates": found.near_duplicates,
        "skippedRows": imported.skipped_rows,
        "warnings": [asdict(warning) for warning in found.warnings],
        "problems": list(map(_place, imported.problems)),
        "problemCount": imported.skipped_rows,
    }


def failed_message(reason: str, message: str, error: BaseException) -> dict[str, Any]:
    wrong = error if isinstance(error, InvalidRowsError) else None
    return {
        "kind": "import",
        "state": "Failed",
        "reason": reason,
        "message": message,
        "problems": list(map(_place, wrong.problems)) if wrong else [],
        "problemCount": wrong.problem_count if wrong else 0,
    }


def _place(problem: Problem) -> dict[str, Any]:
    """A file is named only where several were read."""
    return {name: value for name, value in asdict(problem).items() if name != "file" or value is not None}
