"""CSV records: as RFC 4180 and Python write them, and label maps as people write them by hand."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from winnow_classifier.row_files import MAX_ROW_CHARACTERS, Problem, shown
from winnow_classifier.words import some

_DELIMITERS = ",\t;"  # the first of them that the header has
# A first line by which Excel goes, and which it does not show.
_SEP = re.compile(r"sep=([,;\t|])[\r\n]*", re.IGNORECASE)
_TWICE = 'write a quote within a text twice: ""'
_NAMED = 20  # fields of a header, in a message
_SPACE = " \t\r\n\v\f"
_LINE_END = re.compile(r"\r\n|\r|\n")
# A field as people write it: spaces around it, a label map in quotes whose own quotes are not doubled.
# Possessive throughout: a long field that does not fit in the end is not tried in every other way.
_BY_HAND = r'[ ]*+(?:(?P<map>"?\{{[^{{}}]*+\}}"?)|"(?P<quoted>[^"]*+(?:""[^"]*+)*+)"|(?P<plain>[^"{0}\r\n]*+))[ ]*+(?:(?P<end>{0})|\Z)'
_LABEL_MAP = re.compile(r'"?\{[^{}]*+\}"?')


@dataclass(frozen=True, slots=True)
class CsvRecord:
    line: int  # where it starts
    fields: Mapping[str, object]
    raw: str
    delimiter: str

    @property
    def format(self) -> str:
        return "CSV"

    def problem(self, message: str, *keys: str) -> Problem:
        """At the field's own line and column, which may be lines below the record's start."""
        field = re.compile(rf'[ ]*"\{{[^{{}}\r\n]*\}}"|"(?:[^"]|"")*"[^{self.delimiter}\r\n]*|[^{self.delimiter}\r\n]*')
        index = list(self.fields).index(keys[0]) if keys and keys[0] in self.fields else 0
        offset = 0
        for _ in range(index):
            found = field.match(self.raw, offset)
            offset = found.end() + 1 if found else offset
        ends = list(_LINE_END.finditer(self.raw, 0, offset))
        return Problem(self.line + len(ends), offset - (ends[-1].end() if ends else 0) + 1, message)


class _TooLongError(csv.Error):
    def __init__(self) -> None:
        super().__init__("field larger than allowed")


class _Lines:
    """A text file's lines, their ends kept, and those that the current record was read from."""

    def __init__(self, stream: BinaryIO) -> None:
        # surrogateescape: a byte that is not UTF-8 arrives as a lone surrogate, so that its row can be named.
        self._text = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
        self._back: deque[str] = deque()
        self.read = 0
        self.record: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else self._text.readline(MAX_ROW_CHARACTERS + 1)
        if not line:
            raise StopIteration
        self.read += 1
        if len(line) > MAX_ROW_CHARACTERS:
            self.skip_the_rest(line)
            raise _TooLongError
        self.record.append(line)
        return line

    def skip_the_rest(self, line: str) -> None:
        """Read on to the end of the line that begins with `line`."""
        while line and not line.endswith(("\n", "\r")):
            line = self._text.readline(1 << 20)

    def take_back(self, lines: Sequence[str]) -> None:
        """Give lines back, to be read again as the next ones."""
        self._back.extendleft(reversed(lines))
        self.read -= len(lines)

    def delimiter(self) -> str:
        """The delimiter of the first line that is not blank. The line stays to be read, unless it does nothing but name it."""
        for line in self:
            if line.strip():
                if named := _SEP.fullmatch(line):
                    return named[1]
                self.take_back([line])
                return next((mark for mark in _DELIMITERS if mark in line), ",")
        return ","


def read_csv(stream: BinaryIO) -> Iterator[CsvRecord | Problem]:
    csv.field_size_limit(MAX_ROW_CHARACTERS)  # of the whole process; the default of 128 KiB refuses long texts
    lines = _Lines(stream)
    delimiter = lines.delimiter()
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    by_hand, broken = _ByHand(delimiter), _Broken(delimiter)
    header: list[str] | None = None
    while True:
        lines.record.clear()
        start = lines.read + 1
        cells: list[str] | None = None
        error: csv.Error | None = None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as err:
            error = err
        if header is None:
            if cells is not None and not any(cell.strip() for cell in cells):
                continue  # a blank line
            raw = "".join(lines.record)
            header = by_hand.cells(raw, None) if error or any('"' in cell for cell in cells or ()) else cells
            if header is None:
                yield broken.told(start, lines, error) if error else Problem(start, 1, "the header cannot be read")
                return  # without a header no row can be understood
            header = [cell.strip() for cell in header]
            if repeated := next((name for name, count in Counter(header).items() if count > 1), None):
                yield Problem(start, 1, f"the header names {shown(repeated)} twice")
                return
            continue
        if cells is not None and len(cells) < 2 and not any(cell.strip() for cell in cells):
            continue
        raw = "".join(lines.record)
        if error is not None and "field larger" in str(error):
            yield broken.told(start, lines, error)
            continue
        if cells is None or len(cells) != len(header) or any(cell[:1] == " " and '"' in cell for cell in cells):
            cells = by_hand.cells(raw, len(header)) or cells
        if cells is None:
            assert error is not None
            yield broken.told(start, lines, error)
        elif len(cells) != len(header):
            yield Problem(start, 1, _wrong_count(len(cells), header))
        else:
            yield CsvRecord(start, dict(zip(header, cells, strict=True)), raw, delimiter)


class _ByHand:
    """A record that is no strict CSV, read as its writer meant it, where that is beyond doubt."""

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter
        self._field = re.compile(_BY_HAND.format(re.escape(delimiter)))

    def cells(self, raw: str, count: int | None) -> list[str] | None:
        """The record's cells, `count` of them if that is known; None where it can be read in no way, or in several."""
        record = raw.rstrip("\r\n")
        found = self._fields(record)
        if found is not None and (count is None or len(found) == count):
            return found
        # A text whose own quotes are not doubled either: of two fields, a label map at the end tells where it stops.
        if count == 2 and (parts := self._before_a_map(record)):
            text, label_map = parts
            if len(text) > 1 and text[0] == text[-1] == '"':
                inner = text[1:-1]
                doubled = '"' not in inner.replace('""', "")
                return [inner.replace('""', '"') if doubled else inner, _unquoted(label_map)]
        return None

    def _before_a_map(self, record: str) -> tuple[str, str] | None:
        """What stands before a label map at the end, and the map; None without one."""
        start = record.rfind("{")
        start -= record[:start].endswith('"')
        label_map = record[max(start, 0) :].rstrip()
        before = record[: max(start, 0)].rstrip(_SPACE.replace(self._delimiter, ""))
        if not before.endswith(self._delimiter) or not _LABEL_MAP.fullmatch(label_map):
            return None
        return before[:-1].strip(), label_map

    def _fields(self, record: str) -> list[str] | None:
        cells, position = [], 0
        while True:
            found = self._field.match(record, position)
            if found is None:
                return None
            if found["map"] is not None:
                cells.append(_unquoted(found["map"]))
            elif found["quoted"] is not None:
                cells.append(found["quoted"].replace('""', '"'))
            else:
                cells.append(found["plain"].rstrip(" "))
            position = found.end()
            if found["end"] is None:
                return cells


def _unquoted(label_map: str) -> str:
    return label_map[1:-1] if label_map.startswith('"') and label_map.endswith('"') else label_map


class _Broken:
    """A record that the csv module refuses."""

    def __init__(self, delimiter: str) -> None:
        mark = re.escape(delimiter)
        self._whole_field = re.compile(rf'(?:"[^"]*+(?:""[^"]*+)*+"|(?!")[^{mark}\r\n]*+){mark}')

    def told(self, start: int, lines: _Lines, err: csv.Error) -> Problem:
        """The problem, at the field that is wrong. A quote that was opened by mistake has swallowed the lines below: they are
        given back, to be read as rows of their own."""
        message, raw = str(err), "".join(lines.record)
        position = 0
        while "field larger" not in message and (found := self._whole_field.match(raw, position)):
            position = found.end()
        ends = list(_LINE_END.finditer(raw, 0, position))
        line, last = start + len(ends), lines.read
        column = position - (ends[-1].end() if ends else 0) + 1
        if not isinstance(err, _TooLongError):  # of which more than these lines was read
            lines.take_back(lines.record[len(ends) + 1 :])
        if "field larger" in message:
            message = f"a field is longer than {MAX_ROW_CHARACTERS:,} characters; is its quote closed?"
        elif "unexpected end of data" in message:
            message = "a quote in this row is never closed; the file ends in it"
        elif "expected after" not in message:
            message = f"not valid CSV: {message}"
        elif line < last:
            message = f"the quote opened in line {line} ends in line {last}, where no comma follows; {_TWICE}"
        else:
            return Problem(line, None, f"a comma must follow a closing quote; {_TWICE}")
        return Problem(line, column, message)


def _wrong_count(found: int, header: Sequence[str]) -> str:
    names = some(header, _NAMED).encode(errors="backslashreplace").decode()  # odd bytes stay visible
    if found < len(header):
        return f"expected {len(header)} fields ({names}), found {found}"
    return f"expected {len(header)} fields ({names}), found {found}; a text with commas needs quotes around it"
