"""Which labels a classifier has, in which order, and how logits become probabilities and predicted labels.

Shapes: B rows, C labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from winnow_classifier.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

MULTILABEL_THRESHOLD = 0.5  # a label holds from here on; every other task takes the likeliest label
MAX_LABELS = 1_000
# Zero-width non-joiner and joiner: Persian words are spelt with the one, emoji of several parts hold the other.
_JOINERS = {0x200C: None, 0x200D: None}
MAX_LABEL_CHARACTERS = 128


class TaskDetail(StrEnum):
    BINARY = "Binary"  # two labels, one holds; the negative one stands first
    MULTICLASS = "Multiclass"  # exactly one label holds
    MULTILABEL = "Multilabel"  # any number of labels hold


# Names, as `ham` and `spam`, are Multiclass unless it is said which of them is the positive one.
TWO_NAMES = "import two names as taskDetail: Binary, with labels: [negative, positive]"


@dataclass(frozen=True, slots=True)
class LabelSchema:
    task_detail: TaskDetail
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        check_label_names(self.labels)
        if self.task_detail is TaskDetail.BINARY and len(self.labels) != 2:
            raise ConfigError(f"labels: Binary has two labels, the negative one first; found {len(self.labels)}")
        if self.task_detail is TaskDetail.MULTICLASS and len(self.labels) < 2:
            raise ConfigError("labels: Multiclass needs at least two labels; found 1")

    @property
    def problem_type(self) -> str:
        """transformers' name for the task, as it stands in a model's config.json."""
        multilabel = self.task_detail is TaskDetail.MULTILABEL
        return "multi_label_classification" if multilabel else "single_label_classification"

    def probabilities(self, logits: "Tensor") -> "Tensor":
        """(B, C) logits of any dtype to (B, C) float32: softmax over the labels, or a sigmoid for each (Multilabel)."""
        logits = logits.float()
        return logits.sigmoid() if self.task_detail is TaskDetail.MULTILABEL else logits.softmax(dim=-1)

    def predicted(self, probabilities: Any) -> list[list[str]]:
        """The labels that hold for each row of (B, C) probabilities (tensor, array or lists), in label order."""
        if self.task_detail is TaskDetail.MULTILABEL:
            return [[self.labels[i] for i in np.flatnonzero(row)] for row in self.predicted_targets(probabilities)]
        return [[self.labels[i]] for i in self._rows(probabilities).argmax(axis=1)]

    def predicted_targets(self, probabilities: Any) -> npt.NDArray[np.int8]:
        """(B, C) probabilities to (B, C) zeros and ones: the likeliest label, or each from 0.5 on (Multilabel)."""
        values = self._rows(probabilities)
        if self.task_detail is TaskDetail.MULTILABEL:
            return (values >= MULTILABEL_THRESHOLD).astype(np.int8)
        chosen = np.zeros(values.shape, dtype=np.int8)
        chosen[np.arange(len(values)), values.argmax(axis=1)] = 1
        return chosen

    def _rows(self, probabilities: Any) -> npt.NDArray[np.float64]:
        return np.asarray(probabilities, dtype=np.float64).reshape(-1, len(self.labels))


def check_label_names(names: Sequence[str]) -> None:
    """Raises ConfigError unless the names are distinct, printable and not longer than a label should be."""
    if not names:
        raise ConfigError("labels: at least one label is needed")
    if len(names) > MAX_LABELS:
        raise ConfigError(f"labels: {len(names):,} are named; {MAX_LABELS:,} are allowed")
    for name in names:
        seen = name.translate(_JOINERS)
        if not seen or name != name.strip():
            raise ConfigError(f"labels: {name!r} is empty or has spaces around it")
        if not seen.isprintable():
            raise ConfigError(f"labels: {name!r} holds a character that cannot be printed")
        if len(name) > MAX_LABEL_CHARACTERS:
            raise ConfigError(f"labels: {name[:40]!r}… has {len(name)} characters; {MAX_LABEL_CHARACTERS} are allowed")
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise ConfigError(f"labels: {repeated[0]!r} is named twice")


def binary_labels(names: Sequence[str] | None) -> tuple[str, str]:
    """The two labels of a Binary task, negative first: `[ham, spam]` as they stand, `[spam]` gives not_spam and spam,
    no names give 0 and 1."""
    if not names:
        return ("0", "1")
    if len(names) == 1:
        return (f"not_{names[0]}", names[0])
    if len(names) == 2:
        return (names[0], names[1])
    raise ConfigError(f"labels: rows with 0 or 1 have two labels at most, the negative one first; found {len(names)}")
