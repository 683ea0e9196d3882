"""Parquet rows. There are no lines in Parquet: a problem names the row, from 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
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
                for fields in _plain(batch).to_pylist(maps_as_pydicts="strict"):
                    row += 1
                    yield _record(row, fields, names)
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


def class_labels(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """The names of the classes by column, as `datasets` writes them into a file's schema."""
    try:
        features: Any = orjson.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        kinds = {column: _element(feature) for column, feature in features.items()}
        return {
            column: list(map(str, kind["names"])) for column, kind in kinds.items() if kind.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _element(feature: Any) -> Any:
    """What a list is of: `datasets` has written lists of a feature in three ways."""
    if isinstance(feature, list):
        return feature[0]
    return feature["feature"] if isinstance(feature.get("feature"), dict) else feature


def _record(row: int, fields: dict[str, object], names: Mapping[str, list[str]]) -> ParquetRecord | Problem:
    for column, value in fields.items():
        if isinstance(value, bytes):  # a text whose writer did not say so, as older tools leave them
            with suppress(UnicodeDecodeError):
                fields[column] = value.decode()
    for column, classes in names.items():
        value = fields.get(column)
        if value is None:
            continue
        held: list[str] = []
        for number in value if isinstance(value, list) else [value]:
            if not isinstance(number, int) or not 0 <= number < len(classes):
                expected = f"expected a class from 0 to {len(classes) - 1}"
                return Problem(row, None, f"{column}: {expected}, found {shown(number)}")
            held.append(classes[number])
        fields[column] = held if isinstance(value, list) else held[0]
    return ParquetRecord(row, fields)
