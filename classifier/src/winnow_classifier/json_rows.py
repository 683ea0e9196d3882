"""JSON records: one a line, over several lines, several on a line, or in an array. Where one is broken, reading goes on
at the next."""

from __future__ import annotations

import io
import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import orjson

from winnow_classifier.row_files import MAX_ROW_CHARACTERS, Problem, shown

_CHUNK_BYTES = 1 << 20
BLOCK_BYTES = 1 << 19
_SPACE = re.compile(r"[ \t\r\n]*")
# A text, or what opens and closes; a quote alone is a text that does not end in what was read so far.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["{}\[\]]', re.DOTALL)
_SCALAR_END = re.compile(rb"[,\]\s]")
_BETWEEN = b" \t\r\n,"  # JSON has commas only in an array; people leave them behind records as well


@dataclass(frozen=True, slots=True)
class JsonRecord:
    line: int
    column: int  # where it starts
    fields: Mapping[str, object]
    raw: bytes

    @property
    def format(self) -> str:
        return "JSON"

    def problem(self, message: str, *keys: str) -> Problem:
        offset = _offset_of(self.raw.decode(), keys) if keys else 0
        if offset is None:
            return Problem(self.line, None, message)
        return Problem(*place(self.raw, offset, self.line, self.column), message)


@dataclass(frozen=True, slots=True)
class JsonBlock:
    """Lines in a row that are each a JSON value, which can be judged at once where they are alike."""

    line: int  # of the first
    values: list[object]
    raws: list[bytes]

    def records(self) -> Iterator[JsonRecord | Problem]:
        for number, (value, raw) in enumerate(zip(self.values, self.raws, strict=True)):
            yield _judged(self.line + number, 1, value, raw)


class _Lines:
    """A stream's lines, one at a time, or as many as are at hand."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._ready: deque[bytes] = deque()
        self._rest = b""  # the beginning of the line behind these

    def block(self) -> list[bytes]:
        """The next whole lines, for now: `take_back` those that are to be read one at a time."""
        if self._ready:
            return []
        chunk = self._rest + self._stream.read(BLOCK_BYTES)
        end = chunk.rfind(b"\n") + 1
        self._rest = chunk[end:]
        return io.BytesIO(chunk[:end]).readlines()

    def take_back(self, lines: Sequence[bytes]) -> None:
        self._ready.extend(lines)

    def readline(self, limit: int) -> bytes:
        if self._ready:
            return self._ready.popleft()
        rest, self._rest = self._rest, b""
        return rest + self._stream.readline(limit - len(rest))


def place(raw: bytes, offset: int, line: int, column: int) -> tuple[int, int]:
    """Line and column of the character at `offset` of a record that starts at `line` and `column`."""
    before = raw.decode(errors="replace")[:offset]
    newlines = before.count("\n")
    return line + newlines, offset - before.rindex("\n") if newlines else column + offset


def read_json(stream: BinaryIO) -> Iterator[JsonBlock | JsonRecord | Problem]:
    """Records that are no array. A record that is broken ends where a line begins with the brace of the next."""
    lines = _Lines(stream)
    pending = _Pending()
    broken = False  # within a record that was already told of
    line = 0
    while True:
        while not pending.raw and not broken and (block := lines.block()):
            try:
                values = list(map(orjson.loads, block))
            except orjson.JSONDecodeError:
                lines.take_back(block)
                break
            yield JsonBlock(line + 1, values, block)
            line += len(block)
        if not (raw := lines.readline(MAX_ROW_CHARACTERS + 1)):
            break
        line += 1
        if len(raw) > MAX_ROW_CHARACTERS:
            yield Problem(line, None, f"the line is longer than {MAX_ROW_CHARACTERS:,} bytes")
            while raw and not raw.endswith(b"\n"):
                raw = lines.readline(MAX_ROW_CHARACTERS)
            pending.clear()
            continue
        starts_one = raw.startswith(b"{")
        if pending.raw and starts_one and not pending.goes_on():
            yield pending.problem()
            pending.clear()
        if not pending.raw:
            if raw.isspace() or (broken and not starts_one):
                continue
            broken = False
            try:
                value = orjson.loads(raw)
            except orjson.JSONDecodeError:
                pass
            else:
                yield _judged(line, 1, value, raw)
                continue
        yield from pending.take(line, raw)
        if pending.lost:
            yield pending.problem()
            pending.clear()
            broken = True
    if pending.raw:
        yield pending.problem()


class _Pending:
    """Lines of a record whose braces are not closed yet."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.raw = bytearray()
        self.line, self.column = 0, 1  # where the record starts
        self.open: list[bytes] = []  # its braces and brackets that are not closed yet
        self.last = b""  # its last byte that is no white space
        self.in_text = False

    @property
    def lost(self) -> bool:
        """It can never be completed: a text may not hold a line's end."""
        return self.in_text or len(self.raw) > MAX_ROW_CHARACTERS

    def goes_on(self) -> bool:
        """Whether a brace may come next: as a value, or as the next element of a list. Behind a comma in an object a
        name would."""
        return self.last in (b":", b"[") or (self.last == b"," and self.open[-1:] == [b"["])

    def take(self, line: int, raw: bytes) -> Iterator[JsonRecord | Problem]:
        """Every record that the line completes. Looks at each of its bytes once, and never again at earlier lines."""
        if not self.raw:
            self.line, self.column = line, 1
        before = len(self.raw)
        self.raw += raw
        self.last = raw.rstrip()[-1:] or self.last
        start, counted, column = 0, 0, 1
        for token in _TOKEN.finditer(raw):
            kind = token[0]
            if kind == b'"':
                self.in_text = True
                break
            if kind in b"{[":
                self.open.append(kind)
            elif kind in b"}]":
                del self.open[-1:]
                if not self.open:
                    end = before + token.end()
                    record = bytes(self.raw[start:end])
                    content = record.lstrip(_BETWEEN)
                    yield parsed(content, self.line, self.column + len(record) - len(content))
                    column += len(raw[counted : token.end()].decode(errors="replace"))
                    start, counted = end, token.end()
                    self.line, self.column = line, column
        del self.raw[:start]
        if self.open or self.in_text:
            return
        if self.raw.strip(_BETWEEN):  # words between records, which no brace will close
            yield self.problem()
        self.clear()

    def problem(self) -> Problem:
        if len(self.raw) > MAX_ROW_CHARACTERS:
            message = f"this record is longer than {MAX_ROW_CHARACTERS:,} bytes; is it closed?"
            return Problem(self.line, self.column, message)
        line, column, message = _error(bytes(self.raw), self.line, self.column)
        if self.in_text:
            message += '; a text that begins with " must end on its line (a line break in it is written \\n)'
        return Problem(line, column, message)


def read_array(stream: BinaryIO) -> Iterator[JsonRecord | Problem]:
    """The elements of one JSON array."""
    reader = _ArrayReader(stream)
    reader.skip(b" \t\r\n")
    reader.advance(1)  # the bracket, which told that this is an array
    while True:
        reader.skip(_BETWEEN)
        start = reader.peek()
        if not start:
            yield Problem(reader.line, reader.column, "the array is never closed with ]; the file ends in it")
            return
        if start == b"]":
            reader.advance(1)
            reader.skip(b" \t\r\n")
            if reader.peek():
                yield Problem(reader.line, reader.column, "something follows the end of the array")
            return
        line, column = reader.line, reader.column
        raw = reader.element()
        if raw is None:
            yield Problem(line, column, "this element is never closed; the file ends in it")
            return
        yield parsed(raw, line, column)
        if len(raw) > MAX_ROW_CHARACTERS:
            return


class _ArrayReader:
    """Bytes of the file from the current place on, and where that is."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._buffer = b""
        self._at = 0
        self.line = 1
        self.column = 1

    def _more(self) -> bool:
        chunk = self._stream.read(max(_CHUNK_BYTES, len(self._buffer) - self._at))  # doubles: a long one stays linear
        self._buffer = self._buffer[self._at :] + chunk
        self._at = 0
        return bool(chunk)

    def peek(self) -> bytes:
        if self._at >= len(self._buffer):
            self._more()
        return self._buffer[self._at : self._at + 1]

    def skip(self, which: bytes) -> None:
        while (byte := self.peek()) and byte in which:
            self.advance(1)

    def advance(self, count: int) -> None:
        end = self._at + count
        if newlines := self._buffer.count(b"\n", self._at, end):
            self.line += newlines
            self.column = 1
            self._at = self._buffer.rindex(b"\n", self._at, end) + 1
        self.column += len(self._buffer[self._at : end].decode(errors="replace"))
        self._at = end

    def element(self) -> bytes | None:
        """The next value, up to its closing brace; None if the file ends before."""
        depth, scanned = 0, 0
        scalar = self.peek() not in (b"{", b"[", b'"')  # a number or a word, which is refused by its name
        while True:
            if scalar:
                end = _SCALAR_END.search(self._buffer, self._at)
                if end:
                    return self._take(max(1, end.start() - self._at))
            else:
                for token in _TOKEN.finditer(self._buffer, self._at + scanned):
                    kind = token[0]
                    if kind == b'"':
                        break  # it may be closed in what comes
                    scanned = token.end() - self._at
                    depth += (kind in b"{[") - (kind in b"}]")
                    if depth <= 0:
                        return self._take(scanned)
            if len(self._buffer) - self._at > MAX_ROW_CHARACTERS or not self._more():
                return None

    def _take(self, count: int) -> bytes:
        raw = self._buffer[self._at : self._at + count]
        self.advance(count)
        return raw


def parsed(raw: bytes, line: int, column: int) -> JsonRecord | Problem:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return Problem(*_error(raw, line, column))
    return _judged(line, column, value, raw)


def _judged(line: int, column: int, value: object, raw: bytes) -> JsonRecord | Problem:
    if isinstance(value, dict):
        return JsonRecord(line, column, value, raw)
    expected = 'expected an object such as {"prompt": "…", "completion": 1}'
    return Problem(line, column, f"{expected}, found {shown(value)}")


def _error(raw: bytes, line: int, column: int) -> tuple[int, int, str]:
    """Where these bytes are no JSON, and why."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as bad:
        before = raw[: bad.start].decode()
        return *place(raw, len(before), line, column), f"not UTF-8: found the byte 0x{raw[bad.start]:02x}"
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError as err:
        offset = min(err.pos, len(text.rstrip()))  # what ends too early: behind its last character
        where = place(raw, offset, line, column)
        if re.match(r"\s*\{\s*'", text):
            return *where, "not valid JSON: names and texts need double quotes, found '"
        return *where, f"not valid JSON: {err.msg}"
    return line, column, "not valid JSON"


def _offset_of(text: str, keys: Sequence[str]) -> int | None:
    """Where the value that `keys` lead to begins in a valid JSON object; None if that cannot be told."""
    decoder = json.JSONDecoder()
    position, depth = text.index("{") + 1, 0
    try:
        while True:
            key, position = decoder.raw_decode(text, _skip_space(text, position))
            position = _skip_space(text, _skip_space(text, position) + 1)  # behind the colon
            if key == keys[depth]:
                if depth == len(keys) - 1:
                    return position
                position, depth = position + 1, depth + 1  # into the object
                continue
            _, position = decoder.raw_decode(text, position)
            position = _skip_space(text, position) + 1  # behind the comma
    except (ValueError, RecursionError):
        return None


def _skip_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position
