"""Records judged as labelled rows: text, 0 or 1 for each label, the label schema that they agree on, and every problem
with its place. Nothing is skipped silently."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from pathlib import Path
from typing import TypeVar

from winnow_classifier import dialects
from winnow_classifier.class_labels import ClassNames, NoSuchClass
from winnow_classifier.csv_rows import CsvRecord
from winnow_classifier.dataset import Batch, Labels
from winnow_classifier.errors import ConfigError, DataError, EmptyDatasetError
from winnow_classifier.json_rows import JsonBlock
from winnow_classifier.labels import MAX_LABELS, LabelSchema, TaskDetail, binary_labels, check_label_names
from winnow_classifier.parquet_rows import ParquetRecord
from winnow_classifier.row_blocks import bits_held, columns, maps_held, names_held
from winnow_classifier.row_files import SUPPORTED, FileFormat, Problem, Record, read_records, shown
from winnow_classifier.row_paths import common_folder
from winnow_classifier.row_values import (
    CLASS_NUMBER,
    NUMBER,
    WHOLE_NUMBER,
    are_names,
    bit_of,
    check_order,
    literal,
    literal_list,
    written,
)
from winnow_classifier.words import some

T = TypeVar("T")

MAX_PROBLEMS = 20  # kept with their place; the others are counted
MAX_FILE_NAME = 256  # characters from its end, as status keeps them
FIELD_NAMES = (
    ("prompt", "completion"),
    ("input", "expected_output"),
    ("text", "label"),
    ("text", "labels"),
    ("input_text", "output_text"),  # PaLM and Vertex AI tuning
)
BATCH_ROWS = 8_192
BATCH_CHARACTERS = 16 * 1024 * 1024

_COLUMNS = "name those that hold text and label: in columns, or in huggingFace's textColumn and labelColumn"


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
    class_names: Mapping[str, ClassNames] = field(default_factory=dict)  # by column, where the files have none


class InvalidRowsError(DataError):
    """At least one row is wrong; `problems` has the first of them."""

    def __init__(self, message: str, problems: list[Problem], problem_count: int, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.problems = problems
        self.problem_count = problem_count


class NoValidRowsError(InvalidRowsError, EmptyDatasetError):
    """Wrong rows were skipped, and none is left."""


class _Kind(Enum):
    """What the target of every row looks like."""

    BIT = "0 or 1"
    MAP = "a map of labels to 0 or 1"
    NAMES = "the name of a label"


@dataclass(frozen=True, slots=True)
class _Shape:
    """As the first valid row (at `line`) has it."""

    kind: _Kind
    labels: Labels  # of a label map, in the schema's order; of a bit, the two names; of names: those of spec.labels
    line: int
    file: str | None  # where several are read


class Judge:
    """Reads files as rows of one label schema. While reading, only a batch of rows is in memory."""

    def __init__(self, options: RowOptions, on_problem: Callable[[Problem], object] | None = None) -> None:
        """`on_problem` is called with each problem, beyond the first ones too."""
        if options.labels:
            check_label_names(options.labels)
        check_order(options.task_detail, options.labels)
        self.options = options
        self.problems: list[Problem] = []
        self.problem_count = 0
        self.row_count = 0
        self.origin = ""  # the files' format, or the service that they were written for
        self._on_problem = on_problem
        names = options.text_column, options.target_column
        self._text_names = (names[0],) if names[0] else tuple(dict.fromkeys(text for text, _ in FIELD_NAMES))
        self._target_names = (names[1],) if names[1] else tuple(target for _, target in FIELD_NAMES)
        self._own_names = not any(names)  # other services' records are looked for
        self._columns = {*self._text_names, *self._target_names, *(dialects.FIELDS if self._own_names else ())}
        self._numbered = are_names(options.task_detail, options.labels)
        self._words = {label.lower(): label for label in options.labels}  # true is True where labels has it so
        self._exclusive = options.task_detail in (TaskDetail.BINARY, TaskDetail.MULTICLASS)
        self._shape: _Shape | None = None
        self._single = False  # a map of one label, which makes a Binary dataset
        self._one_each = True  # so far exactly one label was 1 in every row
        self._found: dict[str, Labels] = {}  # label names in the order that they were met
        self._holding: dict[tuple[int, ...], Labels] = {}  # of the bits of a label map
        self._file: str | None = None

    def read(self, files: Sequence[Path]) -> Iterator[Batch]:
        """Raises InvalidRowsError for a wrong row (unless they are skipped; told at the end, when all were judged),
        EmptyDatasetError where no row is left, DataError or ConfigError where a file cannot be read as rows at all."""
        texts: list[str] = []
        labels: list[Labels] = []
        size = 0
        # Of several files in one folder, or in folders of it, each is known by its path from there on.
        folder = common_folder(files)
        for path in files:
            self._file = _shown_name(path, folder) if len(files) > 1 else None
            for more_texts, more_labels in self._good_rows(path, may_be_empty=len(files) > 1):
                self.row_count += len(more_texts)
                if self.problem_count and self.options.on_invalid_rows is not OnInvalidRows.SKIP:
                    continue  # rows that come after a wrong one are judged, and of no other use
                texts += more_texts
                labels += more_labels
                size += sum(map(len, more_texts))
                if len(texts) >= BATCH_ROWS or size >= BATCH_CHARACTERS:
                    yield Batch(texts, labels)
                    texts, labels, size = [], [], 0
        self._check(files)
        if texts:
            yield Batch(texts, labels)

    def _good_rows(self, path: Path, *, may_be_empty: bool) -> Iterator[tuple[list[str], list[Labels]]]:
        """Texts and labels of one row or of many; wrong rows are told of and left out."""
        records = read_records(path, self.options.file_format, self._columns)
        for found in _or_nothing(records) if may_be_empty else records:
            if isinstance(found, JsonBlock) and (rows := self._at_once(found.values)) is not None:
                yield rows
                continue
            for record in found.records() if isinstance(found, JsonBlock) else (found,):
                row = record if isinstance(record, Problem) else self._row(record)
                if isinstance(row, Problem):
                    self._refuse(row)
                    continue
                if not self.row_count and not isinstance(record, Problem):
                    self.origin = self.origin or record.format
                yield [row[0]], [row[1]]

    def _at_once(self, values: list[object]) -> tuple[list[str], list[Labels]] | None:
        """What `_row` would make of each of these records, where all are alike and like the first row; else None."""
        shape = self._shape
        if self.options.class_names:  # numbers of classes become names one by one
            return None
        if shape is None or (found := columns(values, self._text_names, self._target_names)) is None:
            return None
        texts, targets = found
        if shape.kind is _Kind.BIT:
            held = bits_held(targets, shape.labels)
        elif shape.kind is _Kind.NAMES:
            held = names_held(targets, self._found, self._is_name, single=self._exclusive)
        else:
            keys = shape.labels[1:] if self._single else shape.labels
            held = maps_held(targets, keys, self._hold, single=self._exclusive and len(keys) > 1)
        if held is None:
            return None
        self._one_each = self._one_each and set(map(len, held)) == {1}
        return texts, held

    @property
    def schema(self) -> LabelSchema:
        """Of all rows read. Raises DataError where they cannot be those of a classifier."""
        shape, detail = self._shape, self.options.task_detail
        assert shape is not None, "no row was read"
        if shape.kind is _Kind.BIT or self._single:
            return LabelSchema(TaskDetail.BINARY, shape.labels)
        found = TaskDetail.MULTICLASS if self._one_each else TaskDetail.MULTILABEL
        if shape.kind is _Kind.NAMES and self._one_each and len(self.options.labels) == 1:
            found = TaskDetail.BINARY  # that label, or not
        if shape.kind is _Kind.MAP:
            return LabelSchema(detail or found, shape.labels)
        labels = shape.labels or tuple(sorted(self._found))
        detail = detail or found
        if not labels:
            raise DataError("no row has any label", hint="name the labels in spec.labels")
        if len(labels) < 2 and detail is not TaskDetail.MULTILABEL:
            message = f'every row has the label "{labels[0]}", and a classifier needs at least two'
            raise DataError(message, hint="add rows with other labels, or name all of them in spec.labels")
        if len(labels) > 2 and detail is TaskDetail.BINARY:
            raise DataError(f"Binary rows have two labels, found {len(labels)}: {_names(labels)}")
        return LabelSchema(detail, labels)

    def _refuse(self, problem: Problem) -> None:
        self.problem_count += 1
        if self._file:
            problem = replace(problem, file=self._file)
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
        if self._on_problem:
            self._on_problem(problem)

    def _check(self, files: Sequence[Path]) -> None:
        count, skip = self.problem_count, self.options.on_invalid_rows is OnInvalidRows.SKIP
        if count and (not skip or not self.row_count):
            first = self.problems[0]
            where = f"line {first.line}" + (f", column {first.column}" if first.column else "")
            where = f"{first.file}, {where}" if first.file else where
            total = count + self.row_count
            message = f"{count:,} of {total:,} rows cannot be read; the first, {where}: {first.message}"
            if skip:
                raise NoValidRowsError(message, self.problems, count)
            hint = "correct the rows" + (", or set onInvalidRows: Skip to leave them out" if self.row_count else "")
            raise InvalidRowsError(message, self.problems, count, hint)
        if not self.row_count:
            name = files[0].name if len(files) == 1 else "the files have" if files else "there are no files and"
            raise EmptyDatasetError(f"{name} {'has ' if len(files) == 1 else ''}no rows", hint=SUPPORTED)

    def _row(self, record: Record) -> tuple[str, Labels] | Problem:
        fields = record.fields
        text_name = next((name for name in self._text_names if name in fields), None)
        target_name = next((name for name in self._target_names if name in fields), None)
        if self._own_names and (text_name is None or target_name is None):
            other = dialects.foreign(fields)
            if isinstance(other, str):
                return record.problem(other)
            if other is not None:
                self.origin = self.origin or other.origin
                return self._judged(record, other.text_key, other.text, other.target_key, other.target)
        if text_name is None:
            return self._missing(record, self._text_names)
        if target_name is None:
            return self._missing(record, self._target_names)
        target = fields[target_name]
        if (classes := self._classes(record, target_name)) is not None:
            try:
                target = classes.of(literal_list(target), typed=not isinstance(record, CsvRecord))
            except NoSuchClass as err:
                return record.problem(f"{target_name}: {err}", target_name)
        return self._judged(record, text_name, fields[text_name], target_name, target)

    def _classes(self, record: Record, column: str) -> ClassNames | None:
        own = record.classes.get(column) if isinstance(record, ParquetRecord) else None
        return own or self.options.class_names.get(column)

    def _judged(
        self, record: Record, text_name: str, text: object, target_name: str, target: object
    ) -> tuple[str, Labels] | Problem:
        if (wrong := _wrong_text(record, text_name, text)) is not None:
            return wrong
        labels = self._target(record, target_name, target)
        if isinstance(labels, Problem):
            return labels
        self._one_each = self._one_each and len(labels) == 1
        assert isinstance(text, str)
        return (text.replace("\r\n", "\n") if "\r" in text else text), labels

    def _missing(self, record: Record, names: tuple[str, ...]) -> Problem:
        # Of the names that would do, the one that goes with what the row has.
        wanted = '" or "'.join(names)
        if self._own_names:
            pairs = FIELD_NAMES if names is self._text_names else [(target, text) for text, target in FIELD_NAMES]
            usual = wanted if isinstance(record, ParquetRecord) else names[0]
            wanted = next((name for name, partner in pairs if partner in record.fields), usual)
        there = record.columns if isinstance(record, ParquetRecord) else list(record.fields)
        found = ", ".join(map(shown, there[:8])) or "nothing"
        if isinstance(record, CsvRecord | ParquetRecord):  # every row has the same fields, so none can be read
            what = "header has no field" if isinstance(record, CsvRecord) else "file has no column"
            problem = Problem(1, 1, f'the {what} "{wanted}"; found {found}', self._file)
            hint = f"give the file a header, or name its fields in columns; {SUPPORTED}"
            if isinstance(record, ParquetRecord):
                problem, hint = replace(problem, column=None), _COLUMNS
            where = f"{self._file}, line 1" if self._file else "line 1"
            raise InvalidRowsError(f"{where}: {problem.message}", [problem], 1, hint)
        return record.problem(f'the field "{wanted}" is missing; found {found}')

    def _target(self, record: Record, name: str, value: object) -> Labels | Problem:
        if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
            given = value
            if (value := literal(given)) is None:
                return record.problem(f"{name} must be {self._expected()}, found {shown(given)}", name)
        if isinstance(value, dict):
            return self._label_map(record, name, value)
        if isinstance(value, list):
            return self._named(record, name, value)
        kind = self._shape.kind if self._shape else None
        bit = bit_of(value)
        if kind is not _Kind.NAMES and bit is not None and not (kind is None and self._numbered):
            return self._bit(record, name, value, bit)
        if kind in (None, _Kind.NAMES) and (label := self._name(value, numbered=self._numbered)):
            return self._named(record, name, [label])
        expected = "0 or 1" if kind in (None, _Kind.BIT) else self._expected()
        expected = "a whole number or a name" if self._numbered and kind is not _Kind.MAP else expected
        found = shown(value)
        if kind is None and found == '""' and not self._numbered:  # the first row: names may follow
            expected = "0 or 1, or the name of a label"
        if not self._numbered and name.startswith("label") and CLASS_NUMBER.fullmatch(found):
            found += " (numbers of classes are read with taskDetail: Multiclass)"
        elif not self._numbered and kind is _Kind.NAMES and found.strip('"').lower() in ("true", "false"):
            found += " (true and false are classes with taskDetail: Multiclass, or where labels names them)"
        return record.problem(f"{name} must be {expected}, found {found}", name)

    def _name(self, value: object, *, numbered: bool) -> str | None:
        """The label that a value names, the same from every format; None where it is none. Numbers, true and false name
        labels only where `labels` has them, or where all values are names: `numbered`."""
        label = value.strip() if isinstance(value, str) else written(value)
        if label in self.options.labels:
            return label
        if not label or label.startswith(("{", "[")):
            return None
        if label.lower() in ("true", "false"):
            return self._words.get(label.lower(), label.lower()) if numbered else None
        if not NUMBER.fullmatch(label):
            return label
        whole = WHOLE_NUMBER.fullmatch(label)
        return whole[1] if numbered and whole else None

    def _is_name(self, text: str) -> bool:
        """As it stands."""
        return self._name(text, numbered=self._numbered) == text

    def _bit(self, record: Record, name: str, value: object, bit: int) -> Labels | Problem:
        shape = self._shape
        if shape is None:
            if problem := self._not_allowed(()):
                return record.problem(f"{name}: {problem}", name)
            shape = self._shape = _Shape(_Kind.BIT, binary_labels(self.options.labels), record.line, self._file)
        if shape.kind is not _Kind.BIT:
            return record.problem(f"{name} must be {self._expected()}, found {shown(value)}", name)
        return (shape.labels[bit],)

    def _named(self, record: Record, name: str, values: Sequence[object]) -> Labels | Problem:
        if self._shape is not None and self._shape.kind is not _Kind.NAMES:
            return record.problem(f"{name} must be {self._expected()}, found {shown(list(values))}", name)
        if len(values) == 1 and isinstance(values[0], str) and (known := self._found.get(values[0])):
            return known
        names = []
        for value in values:
            label = value.strip() if isinstance(value, str) else self._name(value, numbered=True)
            if not label:
                found = shown(value)
                return record.problem(f"{name} must be a list of label names, found {found} in it", name)
            if (wrong := self._new_name(label)) is not None:
                return record.problem(f"{name}: {wrong}", name)
            names.append(label)
        if len(set(names)) < len(names):
            return record.problem(f"{name} names a label twice", name)
        if self._exclusive and len(names) != 1:
            detail = self.options.task_detail
            return record.problem(f"{name} must have exactly one label ({detail}), found {len(names)}", name)
        if self._shape is None:
            labels = self.options.labels
            self._shape = _Shape(
                _Kind.NAMES, self._two_names() if len(labels) == 1 else labels, record.line, self._file
            )
        for label in names:
            self._found.setdefault(label, (label,))
        return tuple(sorted(names)) if len(names) != 1 else self._found[names[0]]

    def _new_name(self, label: str) -> str | None:
        """Why this cannot be a label."""
        if label in self._found:
            return None
        if allowed := self._two_names() if len(self.options.labels) == 1 else self.options.labels:
            return None if label in allowed else f"{shown(label)} is not in spec.labels ({_names(allowed)})"
        if len(self._found) >= MAX_LABELS:
            return f"{shown(label)} would be label {MAX_LABELS + 1:,}; {MAX_LABELS:,} are allowed. Are these labels?"
        try:
            check_label_names([label])
        except ConfigError as err:
            return str(err).removeprefix("labels: ")
        return None

    def _two_names(self) -> Labels:
        multilabel = self.options.task_detail is TaskDetail.MULTILABEL
        return self.options.labels if multilabel else binary_labels(self.options.labels)

    def _label_map(self, record: Record, name: str, value: Mapping[object, object]) -> Labels | Problem:
        shape = self._shape
        if not value:
            return record.problem(f"{name} has no labels; expected {self._expected()}", name)
        if shape is not None and shape.kind is not _Kind.MAP:
            return record.problem(f"{name} must be {self._expected()}, found an object", name)
        if not all(isinstance(label, str) for label in value):
            return record.problem(f"{name}: the labels of a map must be texts", name)
        given = {str(label): bit for label, bit in value.items()}
        labels = self._keys(given)
        if set(labels) != given.keys() and (shape or self.options.labels):
            return record.problem(self._differs(name, labels, given), name)
        bits = tuple(bit_of(given[label]) for label in labels)
        for label, bit in zip(labels, bits, strict=True):
            if bit is None:
                where = f"{name}: label {shown(label)}"
                return record.problem(f"{where} must be 0 or 1, found {shown(given[label])}", name, label)
        ones = tuple(bit for bit in bits if bit is not None)
        if shape is None and (wrong := self._not_allowed(labels)):
            return record.problem(f"{name}: {wrong}", name)
        if self._exclusive and len(labels) > 1 and sum(ones) != 1:
            detail = self.options.task_detail
            return record.problem(f"{name} must have exactly one 1 ({detail}), found {sum(ones)}", name)
        if shape is None and (wrong := self._first_map(labels, record.line)):
            return record.problem(f"{name}: {wrong}", name)
        return self._hold(ones)

    def _keys(self, value: Mapping[str, object]) -> Labels:
        """What a map must name, in the schema's order: as spec.labels or the first map has it."""
        if self._shape:
            single = self._shape.kind is _Kind.MAP and self._single
            return self._shape.labels[1:] if single else self._shape.labels
        labels = self.options.labels
        if len(labels) == 2 and len(value) == 1 and self.options.task_detail is not TaskDetail.MULTILABEL:
            return labels[1:]  # {"spam": 1} where spec.labels is [ham, spam]
        return labels or tuple(sorted(value))

    def _first_map(self, keys: Labels, line: int) -> str | None:
        if not self.options.labels:
            try:
                check_label_names(keys)
            except ConfigError as err:
                return str(err).removeprefix("labels: ")
        self._single = len(keys) == 1 and self.options.task_detail is not TaskDetail.MULTILABEL
        labels = binary_labels(self.options.labels or keys) if self._single else keys
        self._shape = _Shape(_Kind.MAP, labels, line, self._file)
        return None

    def _hold(self, ones: tuple[int, ...]) -> Labels:
        held = self._holding.get(ones)
        if held is None:
            assert self._shape is not None
            bits = (1 - ones[0], ones[0]) if self._single else ones
            held = tuple(sorted(label for label, bit in zip(self._shape.labels, bits, strict=True) if bit))
            if len(self._holding) < 100_000:
                self._holding[ones] = held
        return held

    def _not_allowed(self, labels: Labels) -> str | None:
        """Why the first valid target cannot be what all others look like, by taskDetail and labels."""
        detail, named = self.options.task_detail, self.options.labels
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
        return f"{self._shape.kind.value} as in {self._first_line()}"

    def _first_line(self) -> str:
        """Of the rows that all others are to be like."""
        assert self._shape is not None
        line, file = self._shape.line, self._shape.file
        return f"line {line}" if file == self._file else f"line {line} of {file}"

    def _differs(self, name: str, labels: Labels, value: Mapping[str, object]) -> str:
        missing = [label for label in labels if label not in value]
        unknown = [label for label in value if label not in labels]
        source = f"{self._first_line()} has" if self._shape else "spec.labels has"
        parts = [f"without the label {_names(missing)}, which {source}"] if missing else []
        parts += [f"with the label {_names(unknown)}, which {source.replace('has', 'has not')}"] if unknown else []
        return f"{name} is {' and '.join(parts)}; every row names the same labels"


def _shown_name(path: Path, folder: str) -> str:
    name = os.path.relpath(path.absolute(), folder)
    return name.encode(errors="backslashreplace").decode()[-MAX_FILE_NAME:]  # bytes that are no UTF-8 stay visible


def _or_nothing(records: Iterator[T]) -> Iterator[T]:
    """Of a file without rows beside others, as programs that write shards leave them."""
    with suppress(EmptyDatasetError):
        yield from records


def _wrong_text(record: Record, name: str, text: object) -> Problem | None:
    if not isinstance(text, str):
        return record.problem(f"{name} must be a text, found {shown(text)}", name)
    if not text or text.isspace():
        return record.problem(f"{name} is empty", name)
    if "\0" in text:
        return record.problem(f"{name} holds the character U+0000, which no text has", name)
    if isinstance(record, CsvRecord) and not text.isascii():
        return _undecodable(record, name, text)
    return None


def _undecodable(record: CsvRecord, name: str, text: str) -> Problem | None:
    try:
        text.encode()
    except UnicodeEncodeError as err:
        byte = ord(text[err.start]) - 0xDC00  # how surrogateescape keeps a byte
        return record.problem(f"{name} is not UTF-8: found the byte 0x{byte:02x}", name)
    return None


def _names(labels: Sequence[str]) -> str:
    return some([shown(label) for label in labels], 3)
