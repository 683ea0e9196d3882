"""Parquet rows. There are no lines in Parquet: a problem names the row, from 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from winnow_classifier.class_labels import ClassNames, of_features
from winnow_classifier.errors import DataError, EmptyDatasetError
from winnow_classifier.row_files import SUPPORTED, Problem

_ROWS_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True)
class ParquetRecord:
    line: int  # the row
    fields: Mapping[str, object]
    classes: Mapping[str, ClassNames]  # by column, where the file has them

    @property
    def format(self) -> str:
        return "Parquet"

    def problem(self, message: str, *keys: str) -> Problem:
        return Problem(self.line, None, message)


def read_parquet(path: Path) -> Iterator[ParquetRecord]:
    row = 0
    try:
        with pq.ParquetFile(path) as file:
            if not file.metadata.num_rows:
                raise EmptyDatasetError(f"{path.name} has no rows", hint=SUPPORTED)
            classes = class_labels(file.schema_arrow.metadata or {})
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                for fields in batch.to_pylist():
                    row += 1
                    yield ParquetRecord(row, fields, classes)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as err:
        raise DataError(f"{path.name} is damaged behind row {row:,}: {err}", hint="write it again") from err


def class_labels(metadata: Mapping[bytes, bytes]) -> dict[str, ClassNames]:
    """The names of the classes by column, as `datasets` writes them into a file's schema."""
    try:
        return of_features(orjson.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"])
    except (ValueError, KeyError, TypeError):
        return {}
