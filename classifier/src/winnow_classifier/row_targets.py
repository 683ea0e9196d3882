"""What the targets of all rows say together: 0 or 1 for each label, and the label schema that they agree on. The first
row shows what the others look like."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from winnow_classifier.dataset import Labels
from winnow_classifier.errors import ConfigError, DataError
from winnow_classifier.labels import MAX_LABELS, LabelSchema, TaskDetail, binary_labels, check_label_names
from winnow_classifier.row_blocks import bits_held, maps_held, names_held
from winnow_classifier.row_files import Problem, Record, shown
from winnow_classifier.row_values import (
    CLASS_NUMBER,
    NUMBER,
    WHOLE_NUMBER,
    are_names,
    bit_of,
    check_order,
    literal,
    written,
)
from winnow_classifier.words import some


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


class Targets:
    """Reads the target of one row after the other."""

    def __init__(self, task_detail: TaskDetail | None, labels: Labels) -> None:
        """`labels` fixes names and order; empty: as found. Raises ConfigError where the two cannot be."""
        if labels:
            check_label_names(labels)
        check_order(task_detail, labels)
        self.file: str | None = None  # where the rows are that are read now, where several are
        self._detail = task_detail
        self._labels = labels
        self._numbered = are_names(task_detail, labels)
        self._words = {label.lower(): label for label in labels}  # true is True where labels has it so
        self._exclusive = task_detail in (TaskDetail.BINARY, TaskDetail.MULTICLASS)
        self._shape: _Shape | None = None
        self._single = False  # a map of one label, which makes a Binary dataset
        self._one_each = True  # so far exactly one label was 1 in every row
        self._found: dict[str, Labels] = {}  # label names in the order that they were met
        self._holding: dict[tuple[int, ...], Labels] = {}  # of the bits of a label map

    def of(self, record: Record, name: str, value: object) -> Labels | Problem:
        """The labels that are 1 by the value of field `name`, sorted."""
        labels = self._target(record, name, value)
        if not isinstance(labels, Problem):
            self._one_each = self._one_each and len(labels) == 1
        return labels

    def of_all(self, values: list[object]) -> list[Labels] | None:
        """What `of` makes of each of these, where all are alike and like the first row; else None."""
        shape = self._shape
        if shape is None:
            return None
        if shape.kind is _Kind.BIT:
            held = bits_held(values, shape.labels)
        elif shape.kind is _Kind.NAMES:
            held = names_held(values, self._found, self._is_name, single=self._exclusive)
        else:
            keys = shape.labels[1:] if self._single else shape.labels
            held = maps_held(values, keys, self._hold, single=self._exclusive and len(keys) > 1)
        if held is not None:
            self._one_each = self._one_each and set(map(len, held)) == {1}
        return held

    @property
    def schema(self) -> LabelSchema:
        """Of all rows read. Raises DataError where they cannot be those of a classifier."""
        shape, detail = self._shape, self._detail
        assert shape is not None, "no row was read"
        if shape.kind is _Kind.BIT or self._single:
            return LabelSchema(TaskDetail.BINARY, shape.labels)
        found = TaskDetail.MULTICLASS if self._one_each else TaskDetail.MULTILABEL
        if shape.kind is _Kind.NAMES and self._one_each and len(self._labels) == 1:
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
        """The label that a value names, whatever the format; None if it names none. Numbers, true and false name a label only
        where `labels` has it, or where all values are names (`numbered`)."""
        label = value.strip() if isinstance(value, str) else written(value)
        if label in self._labels:
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
            shape = self._shape = _Shape(_Kind.BIT, binary_labels(self._labels), record.line, self.file)
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
            detail = self._detail
            return record.problem(f"{name} must have exactly one label ({detail}), found {len(names)}", name)
        if self._shape is None:
            labels = self._labels
            self._shape = _Shape(_Kind.NAMES, self._two_names() if len(labels) == 1 else labels, record.line, self.file)
        for label in names:
            self._found.setdefault(label, (label,))
        return tuple(sorted(names)) if len(names) != 1 else self._found[names[0]]

    def _new_name(self, label: str) -> str | None:
        """Why this cannot be a label."""
        if label in self._found:
            return None
        if allowed := self._two_names() if len(self._labels) == 1 else self._labels:
            return None if label in allowed else f"{shown(label)} is not in spec.labels ({_names(allowed)})"
        if len(self._found) >= MAX_LABELS:
            return f"{shown(label)} would be label {MAX_LABELS + 1:,}; {MAX_LABELS:,} are allowed. Are these labels?"
        try:
            check_label_names([label])
        except ConfigError as err:
            return str(err).removeprefix("labels: ")
        return None

    def _two_names(self) -> Labels:
        multilabel = self._detail is TaskDetail.MULTILABEL
        return self._labels if multilabel else binary_labels(self._labels)

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
        if set(labels) != given.keys() and (shape or self._labels):
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
            detail = self._detail
            return record.problem(f"{name} must have exactly one 1 ({detail}), found {sum(ones)}", name)
        if shape is None and (wrong := self._first_map(labels, record.line)):
            return record.problem(f"{name}: {wrong}", name)
        return self._hold(ones)

    def _keys(self, value: Mapping[str, object]) -> Labels:
        """What a map must name, in the schema's order: as spec.labels or the first map has it."""
        if self._shape:
            single = self._shape.kind is _Kind.MAP and self._single
            return self._shape.labels[1:] if single else self._shape.labels
        labels = self._labels
        if len(labels) == 2 and len(value) == 1 and self._detail is not TaskDetail.MULTILABEL:
            return labels[1:]  # {"spam": 1} where spec.labels is [ham, spam]
        return labels or tuple(sorted(value))

    def _first_map(self, keys: Labels, line: int) -> str | None:
        if not self._labels:
            try:
                check_label_names(keys)
            except ConfigError as err:
                return str(err).removeprefix("labels: ")
        self._single = len(keys) == 1 and self._detail is not TaskDetail.MULTILABEL
        labels = binary_labels(self._labels or keys) if self._single else keys
        self._shape = _Shape(_Kind.MAP, labels, line, self.file)
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
        """Why the kind of the first valid target does not go with the taskDetail and labels that are asked for; None if it
        does."""
        detail, named = self._detail, self._labels
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
        return f"line {line}" if file == self.file else f"line {line} of {file}"

    def _differs(self, name: str, labels: Labels, value: Mapping[str, object]) -> str:
        missing = [label for label in labels if label not in value]
        unknown = [label for label in value if label not in labels]
        source = f"{self._first_line()} has" if self._shape else "spec.labels has"
        parts = [f"without the label {_names(missing)}, which {source}"] if missing else []
        parts += [f"with the label {_names(unknown)}, which {source.replace('has', 'has not')}"] if unknown else []
        return f"{name} is {' and '.join(parts)}; every row names the same labels"


def _names(labels: Sequence[str]) -> str:
    return some([shown(label) for label in labels], 3)
