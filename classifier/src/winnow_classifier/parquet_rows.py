"""Parquet rows. There are no lines in Parquet: a problem names the row, from 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from winnow_classifier.class_labels import ClassNames, of_features
from winnow_classifier.errors import DataError, EmptyDatasetError
from winnow_classifier.row_files import SUPPORTED, Problem, shown

_ROWS_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True)
class ParquetRecord:
    line: int  # the row
    fields: Mapping[str, object]  # of the columns that are wanted
    classes: Mapping[str, ClassNames]  # by column, where the file has them
    columns: Sequence[str]  # all that the file has

    @property
    def format(self) -> str:
        return "Parquet"

    def problem(self, message: str, *keys: str) -> Problem:
        return Problem(self.line, None, message)


def read_parquet(path: Path, wanted: Collection[str]) -> Iterator[ParquetRecord | Problem]:
    """Only the wanted columns are read: others do not matter, though nobody could read them."""
    row = 0
    try:
        with pq.ParquetFile(path) as file:
            if not file.metadata.num_rows:
                raise EmptyDatasetError(f"{path.name} has no rows", hint=SUPPORTED)
            names = file.schema_arrow.names
            found = [name for name in names if name in wanted]
            if repeated := next((name for name, count in Counter(found).items() if count > 1), None):
                yield Problem(1, None, f"the file names the column {shown(repeated)} twice")
                return
            classes = class_labels(file.schema_arrow.metadata or {})
            decimals = [name for name in found if _has_decimals(file.schema_arrow.field(name).type)]
            batches = (batch.select(found) for batch in file.iter_batches(_ROWS_AT_ONCE, columns=found))
            rows = (fields for batch in batches for fields in batch.to_pylist(maps_as_pydicts="strict"))
            for row, fields in enumerate(rows, start=1):
                _decode_bytes(fields)
                fields |= {name: _as_floats(fields[name]) for name in decimals}
                yield ParquetRecord(row, fields, classes, names)
    except KeyError as err:  # so it tells of a map with a key twice
        raise DataError(f"{path.name}: a map behind row {row:,} has a key twice", hint="write it again") from err
    except (pa.ArrowException, OSError, ValueError, OverflowError) as err:
        why = " ".join(str(err).split())
        raise DataError(f"{path.name} is damaged behind row {row:,}: {why}", hint="write it again") from err


def _has_decimals(kind: pa.DataType) -> bool:
    nested = (kind.field(number).type for number in range(kind.num_fields))
    return bool(pa.types.is_decimal(kind)) or any(map(_has_decimals, nested))


def _as_floats(value: object) -> object:
    """Decimals as floats, also in label maps and lists, since 1.00 is a 1."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {key: _as_floats(each) for key, each in value.items()}
    return list(map(_as_floats, value)) if isinstance(value, list) else value


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
