"""A row file as records with their places: JSON, CSV or Parquet, told apart by content, compressed or not. One record is
in memory at a time. What a record means is judged in rows.py."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import orjson
import pyarrow as pa

from winnow_classifier.errors import DataError, EmptyDatasetError, SourceError, StorageError

if TYPE_CHECKING:
    from winnow_classifier.json_rows import JsonBlock

# A record is held in memory as a whole; longer than this is a quote that was never closed, or no row file at all.
MAX_ROW_CHARACTERS = 64 * 1024 * 1024
SUPPORTED = (
    'supported are JSONL and JSON, records such as {"prompt": "…", "completion": 0 or 1 or {"label": 0 or 1}}; '
    "CSV with the header input,expected_output; and Parquet with the same columns; all in UTF-8, plain, gzip or zstd"
)
BOM = b"\xef\xbb\xbf"
_START_BYTES = 65_536
_BUFFER_BYTES = 1 << 20
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_OTHER_FILES = (
    (b"\xff\xfe", "UTF-16 text; save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text; save it as UTF-8"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet; save it as CSV in UTF-8"),
    (b"BZh", "compressed with bzip2; unpack it first"),
    (b"\xfd7zXZ", "compressed with xz; unpack it first"),
    (b"ARROW1", "an Arrow file; write it as Parquet"),
)
_PARQUET = b"PAR1"
_SHOWN_CHARACTERS = 40


class FileFormat(StrEnum):
    AUTO = "Auto"
    JSONL = "JSONL"
    JSON = "JSON"
    CSV = "CSV"
    PARQUET = "Parquet"


@dataclass(frozen=True, slots=True)
class Problem:
    line: int  # from 1; in Parquet, which has no lines, the row
    column: int | None  # in characters, from 1; None: the whole line
    message: str
    file: str | None = None  # where several files are read


class Record(Protocol):
    """A row as the file has it."""

    @property
    def line(self) -> int: ...
    @property
    def fields(self) -> Mapping[str, object]: ...
    @property
    def format(self) -> str: ...
    def problem(self, message: str, *keys: str) -> Problem:
        """At the value that `keys` lead to; at the record's start without keys."""


def read_records(
    path: Path, file_format: FileFormat, columns: Collection[str]
) -> Iterator[JsonBlock | Record | Problem]:
    """Records and problems in the file's order; of Parquet these columns, where it has them. Raises EmptyDatasetError for a
    file without content, DataError for one of another kind or a damaged one, SourceError if there is no such file."""
    # Here, since these readers make the records that are declared above.
    from winnow_classifier.csv_rows import read_csv
    from winnow_classifier.json_rows import read_array, read_json
    from winnow_classifier.parquet_rows import read_parquet

    try:
        with _opened(path) as opened:
            start, stream = _peeked(opened, _START_BYTES)
            found, content = _detect(start, path, file_format)
            stream.read(len(BOM) if start.startswith(BOM) else 0)
            if found is FileFormat.PARQUET:
                if not stream.seekable():
                    message = f"{path.name} is Parquet in a pipe, or compressed once more; it can be read in neither"
                    raise DataError(message, hint="write it to a file as it is")
                yield from read_parquet(path, columns)
            elif found is FileFormat.CSV:
                yield from read_csv(stream)
            else:
                yield from (read_array if content.startswith(b"[") else read_json)(stream)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as err:
        what = "is a folder, not a file" if isinstance(err, IsADirectoryError) else "does not exist"
        raise SourceError(f"{path} {what}", hint="name the file with the rows") from err
    except OSError as err:
        raise StorageError(f"{path} cannot be read: {err.strerror or err}") from err


def _detect(start: bytes, path: Path, asked: FileFormat) -> tuple[FileFormat, bytes]:
    """What to read the file as, and its first content. JSON and JSONL are read alike: a record ends where its braces
    close, whatever lines it spans."""
    for magic, kind in _OTHER_FILES:
        if start.startswith(magic):
            raise DataError(f"{path.name} is {kind}", hint=SUPPORTED)
    if start.startswith(_PARQUET):
        if asked not in (FileFormat.AUTO, FileFormat.PARQUET):
            raise DataError(f"{path.name} is Parquet, not {asked}", hint="set format: Auto")
        return FileFormat.PARQUET, start
    if asked is FileFormat.PARQUET:
        raise DataError(f"{path.name} is not Parquet", hint=SUPPORTED)
    if start.count(b"\0") * 100 > len(start):  # a single one is a problem of its row
        raise DataError(f"{path.name} is binary data, no text", hint=SUPPORTED)
    content = start.removeprefix(BOM).lstrip()
    if not content:
        if len(start) < _START_BYTES:
            raise EmptyDatasetError(f"{path.name} is empty", hint=SUPPORTED)
        raise DataError(f"{path.name} begins with more than 64 KiB of white space", hint=SUPPORTED)
    if asked is not FileFormat.AUTO:
        return asked, content
    if content.startswith(b"<"):
        raise DataError(f"{path.name} is HTML or XML, perhaps a page in place of the file", hint=SUPPORTED)
    return FileFormat.JSON if content[:1] in b"{[" else FileFormat.CSV, content


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file's content, unpacked as it is read. Parquet stays as it is."""
    with path.open("rb") as raw:
        start, stream = _peeked(raw, 8)
        kind = next((kind for magic, kind in _COMPRESSED.items() if start.startswith(magic)), None)
        if kind is None:
            yield stream
        else:
            with pa.input_stream(stream, compression=kind) as unpacked:
                yield io.BufferedReader(_Unpacked(unpacked, kind, path.name), _BUFFER_BYTES)


def _peeked(stream: BinaryIO, size: int) -> tuple[bytes, BinaryIO]:
    """The first bytes, and a stream that begins with them still. Opened a second time, a pipe would go on behind them."""
    start = stream.read(size)
    if stream.seekable():
        stream.seek(0)
        return start, stream
    return start, io.BufferedReader(_Joined(start, stream), _BUFFER_BYTES)


class _Joined(io.RawIOBase):
    """Bytes that were read already, and then the rest of their stream."""

    def __init__(self, start: bytes, stream: BinaryIO) -> None:
        self._parts = (io.BytesIO(start), stream)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        chunk = self._parts[0].read(len(buffer)) or self._parts[1].read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)


class _Unpacked(io.RawIOBase):
    """What a compressed file holds; damage is told in words."""

    def __init__(self, stream: pa.NativeFile, kind: str, name: str) -> None:
        self._stream, self._kind, self._name, self._read = stream, kind, name, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            chunk = self._stream.read(len(buffer))
        except (OSError, pa.ArrowException) as err:
            raise _DamagedError(self._name, self._kind, self._read) from err
        buffer[: len(chunk)] = chunk
        self._read += len(chunk)
        return len(chunk)


class _DamagedError(DataError):
    def __init__(self, name: str, kind: str, after: int) -> None:
        where = f" behind {after:,} unpacked bytes" if after else ""
        super().__init__(
            f"{name} is damaged: its {kind} data breaks off or is wrong{where}", "copy the file again, or pack it again"
        )


def shown(value: object) -> str:
    """A value as it would stand in JSON, cut so that a message stays readable."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bytes):
        return "bytes that are not UTF-8"
    try:
        text = orjson.dumps(value).decode()
    except TypeError:  # a date, bytes, a number beyond 64 bits, a text with bytes that are not UTF-8
        text = f'"{value}"' if not isinstance(value, int) else str(value)[: _SHOWN_CHARACTERS + 1]
        text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
