"""Records judged as labelled rows: text, 0 or 1 for each label, the label schema that they agree on, and every problem
with its place. Nothing is skipped silently."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np

from winnow_classifier.dataset import Targets
from winnow_classifier.errors import ConfigError, DataError, EmptyDatasetError
from winnow_classifier.labels import LabelSchema, TaskDetail, binary_labels, check_label_names
from winnow_classifier.row_files import (
    LABEL_MAP_IN_CSV,
    SUPPORTED,
    CsvRecord,
    FileFormat,
    Problem,
    Record,
    read_records,
    shown,
)

MAX_PROBLEMS = 20  # kept with their place; the others are counted
FIELD_NAMES = (("prompt", "completion"), ("input", "expected_output"), ("text", "label"))

# Booleans and whole floats are equal to these keys in Python, so True and 1.0 are found here too.
_BITS: Mapping[object, int] = {0: 0, 1: 1}
_BIT_WORDS: Mapping[str, int] = {"0": 0, "1": 1, "false": 0, "true": 1}
_WHOLE_FLOAT = re.compile(r"([01])\.0+")


class OnInvalidRows(StrEnum):
    FAIL = "Fail"  # one wrong row fails the import
    SKIP = "Skip"  # wrong rows are left out and counted


@dataclass(frozen=True, slots=True)
class RowOptions:
    file_format: FileFormat = FileFormat.AUTO
    task_detail: TaskDetail | None = None  # None: as the rows show it
    labels: tuple[str, ...] = ()  # fixes names and order; empty: as found, sorted
    text_column: str | None = None
    target_column: str | None = None
    on_invalid_rows: OnInvalidRows = OnInvalidRows.FAIL


@dataclass(frozen=True)
class Rows:
    schema: LabelSchema
    texts: list[str]
    targets: Targets  # (N, C) zeros and ones
    problems: list[Problem] = field(default_factory=list)  # the first of the rows that were skipped
    problem_count: int = 0  # rows that were skipped


class InvalidRowsError(DataError):
    """At least one row is wrong; `problems` has the first of them."""

    def __init__(self, message: str, problems: list[Problem], problem_count: int, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.problems = problems
        self.problem_count = problem_count


class NoValidRowsError(InvalidRowsError, EmptyDatasetError):
    """Wrong rows were skipped, and none is left."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the target of every row looks like, as the first valid row (at `line`) has it."""

    labels: tuple[str, ...]  # of a label map, in the schema's order; empty: a bare 0 or 1
    line: int


def read_rows(path: Path, options: RowOptions) -> Rows:
    """Every row of the file. Raises InvalidRowsError for a wrong row (unless they are skipped), EmptyDatasetError where
    no row is left, DataError or ConfigError where the file cannot be read as rows at all."""
    if options.labels:
        check_label_names(options.labels)
    judge = _Judge(options)
    for record in read_records(path, options.file_format):
        if isinstance(record, Problem):
            judge.refuse(record)
        else:
            judge.take(record)
    return judge.rows(path)


class _Judge:
    def __init__(self, options: RowOptions) -> None:
        self._options = options
        names = options.text_column, options.target_column
        self._text_names = (names[0],) if names[0] else tuple(text for text, _ in FIELD_NAMES)
        self._target_names = (names[1],) if names[1] else tuple(target for _, target in FIELD_NAMES)
        self._shape: _Shape | None = None
        self._one_each = True  # so far exactly one label was 1 in every row
        self._texts: list[str] = []
        self._bits = bytearray()  # row after row, a byte a label
        self._problems: list[Problem] = []
        self._problem_count = 0

    def refuse(self, problem: Problem) -> None:
        self._problem_count += 1
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(problem)

    def take(self, record: Record) -> None:
        text = self._text(record)
        bits = self._target(record) if isinstance(text, str) else text
        if isinstance(bits, Problem):
            self.refuse(bits)
        elif isinstance(text, str):
            self._texts.append(text.replace("\r\n", "\n"))
            self._bits.extend(bits)
            self._one_each = self._one_each and sum(bits) == 1

    def rows(self, path: Path) -> Rows:
        count, skip = self._problem_count, self._options.on_invalid_rows is OnInvalidRows.SKIP
        if count and (not skip or not self._texts):
            total = count + len(self._texts)
            first = self._problems[0]
            where = f"line {first.line}" + (f", column {first.column}" if first.column else "")
            message = f"{count:,} of {total:,} rows cannot be read; the first, {where}: {first.message}"
            if skip:
                raise NoValidRowsError(message, self._problems, count)
            hint = "correct the rows" + (", or set onInvalidRows: Skip to leave them out" if self._texts else "")
            raise InvalidRowsError(message, self._problems, count, hint)
        if not self._texts or self._shape is None:
            raise EmptyDatasetError(f"{path.name} has no rows", hint=SUPPORTED)
        schema, targets = self._schema(self._shape)
        return Rows(schema, self._texts, targets, self._problems, count)

    def _schema(self, shape: _Shape) -> tuple[LabelSchema, Targets]:
        columns = max(1, len(shape.labels))
        targets = np.frombuffer(bytes(self._bits), dtype=np.int8).reshape(-1, columns)
        detail = self._options.task_detail
        if columns == 1 and detail is not TaskDetail.MULTILABEL:
            names = binary_labels(self._options.labels or shape.labels)
            return LabelSchema(TaskDetail.BINARY, names), np.hstack([1 - targets, targets]).astype(np.int8)
        found = TaskDetail.MULTICLASS if self._one_each else TaskDetail.MULTILABEL
        return LabelSchema(detail or found, shape.labels), targets

    def _text(self, record: Record) -> str | Problem:
        name = next((n for n in self._text_names if n in record.fields), None)
        if name is None:
            return self._missing(record, self._text_names, self._target_names)
        text = record.fields[name]
        if not isinstance(text, str):
            return record.problem(f"{name} must be a text, found {shown(text)}", name)
        if not text or text.isspace():
            return record.problem(f"{name} is empty", name)
        if "\0" in text:
            return record.problem(f"{name} holds the character U+0000, which no text has", name)
        if isinstance(record, CsvRecord) and not text.isascii():
            return _undecodable(record, name, text) or text
        return text

    def _missing(self, record: Record, names: tuple[str, ...], partners: tuple[str, ...]) -> Problem:
        # Of the names that would do, the one that goes with what the row has.
        pairs = zip(names, partners, strict=False) if len(names) == len(partners) else ()
        wanted = next((name for name, partner in pairs if partner in record.fields), names[0])
        found = ", ".join(shown(name) for name in list(record.fields)[:8]) or "nothing"
        if isinstance(record, CsvRecord):  # every row has the header's fields, so none can be read
            problem = Problem(1, 1, f'the header has no field "{wanted}"; found {found}')
            hint = f"give the file a header, or name its fields in columns; {SUPPORTED}"
            raise InvalidRowsError(f"line 1: {problem.message}", [problem], 1, hint)
        return record.problem(f'the field "{wanted}" is missing; found {found}')

    def _target(self, record: Record) -> tuple[int, ...] | Problem:
        name = next((n for n in self._target_names if n in record.fields), None)
        if name is None:
            return self._missing(record, self._target_names, self._text_names)
        value = record.fields[name]
        if isinstance(value, dict):
            return self._label_map(record, name, value)
        if isinstance(record, CsvRecord) and isinstance(value, str) and value.strip().lstrip('"').startswith("{"):
            return record.problem(LABEL_MAP_IN_CSV, name)
        if (bit := bit_of(value)) is None:
            return record.problem(f"{name} must be 0 or 1, found {shown(value)}", name)
        if self._shape is None:
            return self._first(record, name, (), (bit,))
        if self._shape.labels:
            return record.problem(f"{name} must be {self._expected()}, found {shown(value)}", name)
        return (bit,)

    def _label_map(self, record: Record, name: str, value: dict[str, object]) -> tuple[int, ...] | Problem:
        if not value:
            return record.problem(f"{name} has no labels; expected {self._expected()}", name)
        labels = self._shape.labels if self._shape else self._order(value)
        if set(labels) != value.keys() and (self._shape or self._options.labels):
            return record.problem(self._differs(name, labels, value), name)
        bits = tuple(bit_of(value[label]) for label in labels)
        for label, bit in zip(labels, bits, strict=True):
            if bit is None:
                where = f"{name}: label {shown(label)}"
                return record.problem(f"{where} must be 0 or 1, found {shown(value[label])}", name, label)
        ones = tuple(bit for bit in bits if bit is not None)
        if self._shape is None and isinstance(first := self._first(record, name, labels, ones), Problem):
            return first
        exclusive = self._options.task_detail in (TaskDetail.BINARY, TaskDetail.MULTICLASS) and len(labels) > 1
        if exclusive and sum(ones) != 1:
            detail = self._options.task_detail
            return record.problem(f"{name} must have exactly one 1 ({detail}), found {sum(ones)}", name)
        return ones

    def _order(self, value: dict[str, object]) -> tuple[str, ...]:
        """The labels of the first map, in the order of spec.labels or by name."""
        labels = self._options.labels
        if len(labels) == 2 and len(value) == 1 and self._options.task_detail is not TaskDetail.MULTILABEL:
            return labels[1:]  # {"spam": 1} where spec.labels is [ham, spam]
        return labels or tuple(sorted(value))

    def _first(
        self, record: Record, name: str, labels: tuple[str, ...], bits: tuple[int, ...]
    ) -> tuple[int, ...] | Problem:
        """The first valid target says what all others must look like, if taskDetail and labels allow it."""
        if problem := self._not_allowed(labels):
            return record.problem(f"{name}: {problem}", name)
        if labels and not self._options.labels:
            try:
                check_label_names(labels)
            except ConfigError as err:
                return record.problem(f"{name}: {str(err).removeprefix('labels: ')}", name)
        self._shape = _Shape(labels, record.line)
        return bits

    def _not_allowed(self, labels: tuple[str, ...]) -> str | None:
        detail, named = self._options.task_detail, self._options.labels
        if not labels and detail in (TaskDetail.MULTICLASS, TaskDetail.MULTILABEL):
            return f"{detail} rows have a map of labels to 0 or 1, found a bare 0 or 1"
        if not labels and len(named) > 2:
            return f"labels names {len(named)}, so a map of these to 0 or 1 is expected, found a bare 0 or 1"
        if len(labels) == 1 and detail is TaskDetail.MULTICLASS:
            return "Multiclass rows have at least two labels, found 1"
        if len(labels) > 2 and detail is TaskDetail.BINARY:
            return f"Binary rows have 0, 1 or at most two labels, found {len(labels)}"
        return None

    def _expected(self) -> str:
        if self._shape is None:
            return "0 or 1, or a map of labels to 0 or 1"
        if not self._shape.labels:
            return f"0 or 1 as in line {self._shape.line}"
        return f"a map of labels to 0 or 1 as in line {self._shape.line}"

    def _differs(self, name: str, labels: tuple[str, ...], value: dict[str, object]) -> str:
        if self._shape and not self._shape.labels:
            return f"{name} must be {self._expected()}, found an object"
        missing = [label for label in labels if label not in value]
        unknown = [label for label in value if label not in labels]
        source = f"line {self._shape.line} has" if self._shape else "spec.labels has"
        parts = [f"without the label {_names(missing)}, which {source}"] if missing else []
        parts += [f"with the label {_names(unknown)}, which {source.replace('has', 'has not')}"] if unknown else []
        return f"{name} is {' and '.join(parts)}; every row names the same labels"


def bit_of(value: object) -> int | None:
    """0 or 1 for 0, 1, false, true, whole floats and their texts ("1", "1.0", "true"); None for anything else."""
    if isinstance(value, str):
        word = value.strip().strip('"').lower()
        whole = _WHOLE_FLOAT.fullmatch(word)
        return _BIT_WORDS.get(whole[1] if whole else word)
    return _BITS.get(value) if isinstance(value, int | float) else None


def _undecodable(record: CsvRecord, name: str, text: str) -> Problem | None:
    try:
        text.encode()
    except UnicodeEncodeError as err:
        byte = ord(text[err.start]) - 0xDC00  # how surrogateescape keeps a byte
        return record.problem(f"{name} is not UTF-8: found the byte 0x{byte:02x}", name)
    return None


def _names(labels: list[str]) -> str:
    shown_names = ", ".join(shown(label) for label in labels[:3])
    return shown_names if len(labels) <= 3 else f"{shown_names} and {len(labels) - 3} more"
