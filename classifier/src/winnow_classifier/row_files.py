"""A row file as records with their places: JSONL or CSV, UTF-8, one row in memory at a time. What a record means is
judged in rows.py."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import orjson

from winnow_classifier.errors import DataError, EmptyDatasetError, SourceError, StorageError

# A row is held in memory as a whole; longer than this is a quote that was never closed, or no row file at all.
MAX_ROW_CHARACTERS = 64 * 1024 * 1024
SUPPORTED = (
    'supported are JSONL, one {"prompt": "…", "completion": 0 or 1 or {"label": 0 or 1}} a line, '
    "and CSV with the header input,expected_output and 0 or 1 in the second field"
)
_BOM = b"\xef\xbb\xbf"
_OTHER_FILES = (
    (b"\xff\xfe", "UTF-16 text; save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text; save it as UTF-8"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet; save it as CSV in UTF-8"),
    (b"PAR1", "Parquet; write it as JSONL"),
)
_CSV_FIELD = re.compile(r'"(?:[^"]|"")*"[^,\r\n]*|[^,\r\n]*')
_LINE_END = re.compile(r"\r\n|\r|\n")
_SPACE = re.compile(r"[ \t\r\n]*")


class FileFormat(StrEnum):
    AUTO = "Auto"
    JSONL = "JSONL"
    CSV = "CSV"


@dataclass(frozen=True, slots=True)
class Problem:
    line: int  # from 1
    column: int | None  # in characters, from 1; None: the whole line
    message: str


@dataclass(frozen=True, slots=True)
class JsonRecord:
    line: int
    fields: Mapping[str, object]
    raw: bytes

    def problem(self, message: str, *keys: str) -> Problem:
        """At the value that `keys` lead to; at the record's start without keys."""
        return Problem(self.line, _column_of(self.raw.decode(), keys) if keys else 1, message)


@dataclass(frozen=True, slots=True)
class CsvRecord:
    line: int  # where it starts
    fields: Mapping[str, object]
    raw: str

    def problem(self, message: str, *keys: str) -> Problem:
        """At the field's own line and column, which may be lines below the record's start."""
        index = list(self.fields).index(keys[0]) if keys and keys[0] in self.fields else 0
        offset = 0
        for _ in range(index):
            found = _CSV_FIELD.match(self.raw, offset)
            offset = found.end() + 1 if found else offset
        ends = list(_LINE_END.finditer(self.raw, 0, offset))
        return Problem(self.line + len(ends), offset - (ends[-1].end() if ends else 0) + 1, message)


Record = JsonRecord | CsvRecord


def read_records(path: Path, file_format: FileFormat) -> Iterator[Record | Problem]:
    """Records and problems in the file's order. Raises EmptyDatasetError for a file without content, DataError for one
    of another kind, SourceError if there is no such file."""
    try:
        with path.open("rb") as stream:
            found = _detect(stream, path, file_format)
            yield from (_read_jsonl if found is FileFormat.JSONL else _read_csv)(stream)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as err:
        what = "is a folder, not a file" if isinstance(err, IsADirectoryError) else "does not exist"
        raise SourceError(f"{path} {what}", hint="name the file with the rows") from err
    except OSError as err:
        raise StorageError(f"{path} cannot be read: {err.strerror or err}") from err


def _detect(stream: BinaryIO, path: Path, asked: FileFormat) -> FileFormat:
    """Leaves the stream behind a byte order mark, at the first line."""
    start = stream.read(65_536)
    for magic, kind in _OTHER_FILES:
        if start.startswith(magic):
            raise DataError(f"{path.name} is {kind}", hint=SUPPORTED)
    content = start.removeprefix(_BOM).lstrip()
    if not content:
        if len(start) < 65_536:
            raise EmptyDatasetError(f"{path.name} is empty", hint=SUPPORTED)
        raise DataError(f"{path.name} begins with more than 64 KiB of white space", hint=SUPPORTED)
    if content.startswith(b"[") and asked is not FileFormat.CSV:
        raise DataError(f"{path.name} is a JSON array, not JSONL", hint=f"write one record a line; {SUPPORTED}")
    stream.seek(len(_BOM) if start.startswith(_BOM) else 0)
    if asked is not FileFormat.AUTO:
        return asked
    return FileFormat.JSONL if content.startswith(b"{") else FileFormat.CSV


def _read_jsonl(stream: BinaryIO) -> Iterator[Record | Problem]:
    line = 0
    while raw := stream.readline(MAX_ROW_CHARACTERS + 1):
        line += 1
        if len(raw) > MAX_ROW_CHARACTERS:
            yield Problem(line, None, f"the line is longer than {MAX_ROW_CHARACTERS:,} bytes")
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(MAX_ROW_CHARACTERS)
            continue
        if raw.isspace():
            continue
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError as err:
            yield _json_problem(line, raw, err)
            continue
        if isinstance(value, dict):
            yield JsonRecord(line, value, raw)
        else:
            yield Problem(
                line, 1, f'expected an object such as {{"prompt": "…", "completion": 1}}, found {shown(value)}'
            )


def _json_problem(line: int, raw: bytes, err: orjson.JSONDecodeError) -> Problem:
    try:
        text = raw.decode()
    except UnicodeDecodeError as bad:
        before = raw[: bad.start].decode()
        return Problem(line, len(before) + 1, f"not UTF-8: found the byte 0x{raw[bad.start]:02x}")
    column = min(err.pos, len(text.rstrip())) + 1  # a line that ends too early: behind its last character
    if text.strip() == "{":
        return Problem(line, 1, "a record must stand on one line; this one spans several")
    if re.match(r"\s*\{\s*'", text):
        return Problem(line, column, "not valid JSON: names and texts need double quotes, found '")
    return Problem(line, column, f"not valid JSON: {err.msg}")


def _column_of(text: str, keys: Sequence[str]) -> int | None:
    """Where the value that `keys` lead to begins in a valid JSON object; None if that cannot be told."""
    decoder = json.JSONDecoder()
    position, depth = text.index("{") + 1, 0
    try:
        while True:
            key, position = decoder.raw_decode(text, _skip_space(text, position))
            position = _skip_space(text, _skip_space(text, position) + 1)  # behind the colon
            if key == keys[depth]:
                if depth == len(keys) - 1:
                    return position + 1
                position, depth = position + 1, depth + 1  # into the object
                continue
            _, position = decoder.raw_decode(text, position)
            position = _skip_space(text, position) + 1  # behind the comma
    except (ValueError, RecursionError):
        return None


def _skip_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


class _Lines:
    """A text file's lines, their ends kept, and those that the current CSV record was read from."""

    def __init__(self, stream: BinaryIO) -> None:
        # surrogateescape: a byte that is not UTF-8 arrives as a lone surrogate, so that its row can be named.
        self._text = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
        self.read = 0
        self.record: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_ROW_CHARACTERS + 1)
        if not line:
            raise StopIteration
        self.read += 1
        self.record.append(line)
        return line


def _read_csv(stream: BinaryIO) -> Iterator[Record | Problem]:
    csv.field_size_limit(MAX_ROW_CHARACTERS)  # of the whole process; the default of 128 KiB refuses long texts
    lines = _Lines(stream)
    reader = csv.reader(lines, strict=True)
    header: list[str] | None = None
    while True:
        lines.record.clear()
        start = lines.read + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as err:
            yield _csv_problem(start, lines, err)
            if lines.record and not header:
                return  # without a header no row can be understood
            continue
        if not any(cell.strip() for cell in cells) and len(cells) < 2:
            continue  # a blank line
        if header is None:
            header = [cell.strip() for cell in cells]
            if repeated := next((name for name in header if header.count(name) > 1), None):
                yield Problem(start, 1, f"the header names {shown(repeated)} twice")
                return
            continue
        if len(cells) != len(header):
            yield Problem(start, 1, _wrong_count(cells, header))
            continue
        yield CsvRecord(start, dict(zip(header, cells, strict=True)), "".join(lines.record))


def _csv_problem(start: int, lines: _Lines, err: csv.Error) -> Problem:
    message = str(err)
    if "unexpected end of data" in message:
        return Problem(start, 1, "a quote in this row is never closed; the file ends in it")
    if "field larger" in message:
        return Problem(start, 1, f"a field is longer than {MAX_ROW_CHARACTERS:,} characters; is its quote closed?")
    if "expected after" in message:
        return Problem(lines.read, None, 'a comma must follow a closing quote; write a quote within a text twice: ""')
    return Problem(lines.read, None, f"not valid CSV: {message}")


def _wrong_count(cells: Sequence[str], header: Sequence[str]) -> str:
    if any(cell.strip().lstrip('"').startswith("{") for cell in cells):
        return LABEL_MAP_IN_CSV
    names = ", ".join(header)
    if len(cells) < len(header):
        return f"expected {len(header)} fields ({names}), found {len(cells)}"
    return f"expected {len(header)} fields ({names}), found {len(cells)}; a text with commas needs quotes around it"


LABEL_MAP_IN_CSV = (
    'label maps in CSV are not supported yet; write the rows as JSONL: {"prompt": "…", "completion": {…}}'
)


def shown(value: object, characters: int = 40) -> str:
    """A value as it would stand in JSON, cut so that a message stays readable."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= characters else f"{text[:characters]}…"
