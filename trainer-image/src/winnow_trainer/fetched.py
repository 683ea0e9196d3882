"""What fetching a source came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from winnow_classifier.class_labels import ClassNames
from winnow_classifier.profile import Warn


@dataclass(frozen=True, slots=True)
class Fetched:
    files: list[Path]  # with the rows, in the order in which they are read
    pinned: Mapping[str, str] = field(default_factory=dict)  # what the source meant now: status.source
    class_names: Mapping[str, ClassNames] = field(default_factory=dict)  # by column
    warnings: Sequence[Warn] = ()
