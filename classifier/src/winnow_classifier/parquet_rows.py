"""Parquet rows. There are no lines in Parquet: a problem names the row, from 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from winnow_classifier.errors import DataError, EmptyDatasetError
from winnow_classifier.row_files import SUPPORTED, Problem, shown

_ROWS_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True)
class ParquetRecord:
    line: int  # the row
    fields: Mapping[str, object]

    @property
    def format(self) -> str:
        return "Parquet"

    def problem(self, message: str, *keys: str) -> Problem:
        return Problem(self.line, None, message)


def read_parquet(path: Path) -> Iterator[ParquetRecord | Problem]:
    """Whole numbers of a Hugging Face ClassLabel column become the names that the file has for them."""
    row = 0
    try:
        with pq.ParquetFile(path) as file:
            if not file.metadata.num_rows:
                raise EmptyDatasetError(f"{path.name} has no rows", hint=SUPPORTED)
            names = class_labels(file.schema_arrow.metadata or {})
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                for fields in batch.to_pylist():
                    row += 1
                    yield _record(row, fields, names)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as err:
        raise DataError(f"{path.name} is damaged behind row {row:,}: {err}", hint="write it again") from err


def class_labels(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """The names of the classes by column, as `datasets` writes them into a file's schema."""
    try:
        features: Any = orjson.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        kinds = {column: feature for column, feature in features.items() if feature.get("_type") == "ClassLabel"}
        return {column: list(map(str, feature["names"])) for column, feature in kinds.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _record(row: int, fields: dict[str, object], names: Mapping[str, list[str]]) -> ParquetRecord | Problem:
    for column, classes in names.items():
        value = fields.get(column)
        if value is None:
            continue
        if not isinstance(value, int) or not 0 <= value < len(classes):
            expected = f"expected a class from 0 to {len(classes) - 1}"
            return Problem(row, None, f"{column}: {expected}, found {shown(value)}")
        fields[column] = classes[value]
    return ParquetRecord(row, fields)
