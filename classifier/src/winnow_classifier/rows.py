"""Records judged as labelled rows: text, 0 or 1 for each label, the label schema that they agree on, and every problem
with its place. Nothing is skipped silently."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from winnow_classifier import dialects
from winnow_classifier.class_labels import ClassNames, NoSuchClass
from winnow_classifier.csv_rows import CsvRecord
from winnow_classifier.dataset import Batch, Labels
from winnow_classifier.errors import DataError, EmptyDatasetError
from winnow_classifier.json_rows import JsonBlock
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.parquet_rows import ParquetRecord
from winnow_classifier.row_blocks import columns
from winnow_classifier.row_files import SUPPORTED, FileFormat, Problem, Record, read_records, shown
from winnow_classifier.row_paths import common_folder
from winnow_classifier.row_targets import Targets
from winnow_classifier.row_values import literal_list

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


class Judge:
    """Reads files as rows of one label schema. While reading, only a batch of rows is in memory."""

    def __init__(self, options: RowOptions, on_problem: Callable[[Problem], object] | None = None) -> None:
        """`on_problem` is called with each problem, beyond the first ones too."""
        self.options = options
        self._targets = Targets(options.task_detail, options.labels)
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

    def read(self, files: Sequence[Path]) -> Iterator[Batch]:
        """Raises InvalidRowsError for a wrong row (unless they are skipped; told at the end, when all were judged),
        EmptyDatasetError where no row is left, DataError or ConfigError where a file cannot be read as rows at all."""
        texts: list[str] = []
        labels: list[Labels] = []
        size = 0
        # Of several files in one folder, or in folders of it, each is known by its path from there on.
        folder = common_folder(files)
        for path in files:
            self._targets.file = _shown_name(path, folder) if len(files) > 1 else None
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
        if self.options.class_names:  # numbers of classes become names one by one
            return None
        if (found := columns(values, self._text_names, self._target_names)) is None:
            return None
        texts, targets = found
        held = self._targets.of_all(targets)
        return None if held is None else (texts, held)

    @property
    def schema(self) -> LabelSchema:
        """Of all rows read. Raises DataError where they cannot be those of a classifier."""
        return self._targets.schema

    def _refuse(self, problem: Problem) -> None:
        self.problem_count += 1
        if self._targets.file:
            problem = replace(problem, file=self._targets.file)
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
        labels = self._targets.of(record, target_name, target)
        if isinstance(labels, Problem):
            return labels
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
            problem = Problem(1, 1, f'the {what} "{wanted}"; found {found}', self._targets.file)
            hint = f"give the file a header, or name its fields in columns; {SUPPORTED}"
            if isinstance(record, ParquetRecord):
                problem, hint = replace(problem, column=None), _COLUMNS
            where = f"{self._targets.file}, line 1" if self._targets.file else "line 1"
            raise InvalidRowsError(f"{where}: {problem.message}", [problem], 1, hint)
        return record.problem(f'the field "{wanted}" is missing; found {found}')


def _shown_name(path: Path, folder: str) -> str:
    name = os.path.relpath(path.absolute(), folder)
    return name.encode(errors="backslashreplace").decode()[-MAX_FILE_NAME:]  # bytes that are no UTF-8 stay visible


def _or_nothing(records: Iterator[T]) -> Iterator[T]:
    """Nothing for a file without rows beside others, as programs that write shards leave them."""
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
