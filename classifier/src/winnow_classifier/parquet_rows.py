"""Parquet rows. There are no lines in Parquet: a problem names the row, from 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
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
                for fields in _plain(batch).to_pylist(maps_as_pydicts="strict"):
                    row += 1
                    _decode_bytes(fields)
                    yield ParquetRecord(row, fields, classes)
    except KeyError as err:  # so it tells of a map with a key twice
        raise DataError(f"{path.name}: a map behind row {row:,} has a key twice", hint="write it again") from err
    except (pa.ArrowException, OSError, ValueError, OverflowError) as err:
        why = " ".join(str(err).split())
        raise DataError(f"{path.name} is damaged behind row {row:,}: {why}", hint="write it again") from err


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Decimals as floats, since 1.00 is a 1."""
    for number, column in enumerate(batch.columns):
        if pa.types.is_decimal(column.type):
            batch = batch.set_column(number, batch.schema.names[number], column.cast(pa.float64()))
    return batch


def class_labels(metadata: Mapping[bytes, bytes]) -> dict[str, ClassNames]:
    """The names of the classes by column, as `datasets` writes them into a file's schema."""
    try:
        return of_features(orjson.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"])
    except (ValueError, KeyError, TypeError):
        return {}


def _decode_bytes(fields: dict[str, object]) -> None:
    """Texts whose writer did not say so, as older tools leave them."""
    for column, value in fields.items():
        if isinstance(value, bytes):
            with suppress(UnicodeDecodeError):
                fields[column] = value.decode()
