"""From a row file to a stored dataset: read, judge, profile, store; and the final word about it."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from tokenizers import Tokenizer

from winnow_classifier import base_model
from winnow_classifier.dataset import StoredDataset, store_dataset
from winnow_classifier.errors import BaseModelError, WinnowError
from winnow_classifier.labels import TaskDetail
from winnow_classifier.profile import Profile, Warn, profile
from winnow_classifier.row_files import FileFormat, Problem
from winnow_classifier.rows import InvalidRowsError, OnInvalidRows, RowOptions, read_rows
from winnow_trainer.manifest import read_manifest

TEXTS_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True)
class Imported:
    dataset: StoredDataset
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


class Dataset(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    kind: Literal["Dataset"]
    spec: _Spec


def options_of_manifest(path: Path) -> RowOptions:
    """How to read the rows, from a Dataset manifest. Raises ConfigError naming the field."""
    spec = read_manifest(path, Dataset).spec
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


def import_file(file: Path, storage: Path, options: RowOptions, base_model_reference: str | None = None) -> Imported:
    """Raises a WinnowError; then nothing is stored."""
    rows = read_rows(file, options)
    lengths, unknown = _token_lengths(base_model_reference, storage, rows.texts)
    found = profile(rows.schema, rows.texts, rows.targets, lengths)
    stored = store_dataset(storage, rows.schema, rows.texts, rows.targets)
    if unknown:
        found.warnings.append(Warn("NoTokenLengths", unknown))
    return Imported(stored, found, rows.problem_count, rows.problems)


def _token_lengths(reference: str | None, storage: Path, texts: Sequence[str]) -> tuple[list[int], str | None]:
    """The length of each text, or why it is not known: rows are good rows even where the base model is not there."""
    if reference is None:
        return [], None
    try:
        return list(_lengths(base_model.resolve(reference, storage) / "tokenizer.json", texts)), None
    except WinnowError as err:
        return [], f"the rows' lengths in tokens are not known: {err}"


def _lengths(tokenizer_file: Path, texts: Sequence[str]) -> Iterator[int]:
    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
    except Exception as err:  # the library raises nothing narrower
        raise BaseModelError(f"{tokenizer_file} is not a tokenizer: {err}") from err
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        yield from map(len, tokenizer.encode_batch_fast(list(texts[start : start + TEXTS_AT_ONCE])))


def ready_message(imported: Imported) -> dict[str, Any]:
    found, dataset = imported.profile, imported.dataset
    return {
        "kind": "import",
        "state": "Ready",
        "reason": "Verified",
        "message": f"{found.rows:,} rows, {dataset.schema.task_detail}, {len(found.labels)} labels",
        "digest": dataset.digest,
        "taskDetail": dataset.schema.task_detail.value,
        "rows": found.rows,
        "labelCount": len(found.labels),
        "labels": [[label, count] for label, count in found.labels],
        "tokens": asdict(found.tokens) if found.tokens else None,
        "duplicates": found.duplicates,
        "conflicts": found.conflicts,
        "skippedRows": imported.skipped_rows,
        "warnings": [asdict(warning) for warning in found.warnings],
        "problems": [asdict(problem) for problem in imported.problems],
        "problemCount": imported.skipped_rows,
    }


def failed_message(reason: str, message: str, error: BaseException) -> dict[str, Any]:
    wrong = error if isinstance(error, InvalidRowsError) else None
    return {
        "kind": "import",
        "state": "Failed",
        "reason": reason,
        "message": message,
        "problems": [asdict(problem) for problem in wrong.problems] if wrong else [],
        "problemCount": wrong.problem_count if wrong else 0,
    }
