"""Rows of the test set that came with the checkpoint: to try on the test page, and to hold a faster model against.

Read from predictions.jsonl, a bounded part of it; a checkpoint without it has no examples.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from winnow_classifier.files import PREDICTIONS

log = logging.getLogger(__name__)

READ_BYTES = 16 * 1024 * 1024  # at most: the beginning of a large test set is as good as any part
SHOWN = 24
SHOWN_CHARACTERS = 2_000  # a longer text is cut on no page: it is left out
JUDGED = 256
JUDGED_CHARACTERS = 32_768  # of all of them: a second or two of a small model's time


class Row(BaseModel):
    """A line of predictions.jsonl, as much of it as is read."""

    input: str
    expected: dict[str, int]  # 1: the label holds
    predicted: list[str]


class Example(BaseModel):
    text: str
    expected: list[str] = Field(description="The labels that hold, according to the test set.")
    predicted: list[str] = Field(description="What the checkpoint predicted when it was evaluated.")
    correct: bool


def read(folder: Path) -> list[Example]:
    """The test rows in their order, at most READ_BYTES of them. A file that cannot be read has none: it is not needed."""
    try:
        with (folder / PREDICTIONS).open("rb") as file:
            content = file.read(READ_BYTES)
            complete = not file.read(1)
    except OSError:
        return []
    lines = content.split(b"\n")
    try:
        return [example(Row.model_validate_json(line)) for line in (lines if complete else lines[:-1]) if line.strip()]
    except ValidationError as err:
        log.warning("predictions.jsonl has no examples that can be read", extra={"error": err.title})
        return []


def example(row: Row) -> Example:
    expected = [label for label, holds in row.expected.items() if holds]
    return Example(
        text=row.input, expected=expected, predicted=row.predicted, correct=set(expected) == set(row.predicted)
    )


def to_show(examples: Sequence[Example]) -> list[Example]:
    """A varied few: labels in turn, and for each a mistake before the next row that was right."""
    short = [one for one in examples if len(one.text) <= SHOWN_CHARACTERS and one.text.strip()]
    kinds: dict[tuple[str, ...], list[Example]] = {}
    for one in sorted(short, key=lambda one: one.correct):
        kinds.setdefault(tuple(one.expected), []).append(one)
    chosen: list[Example] = []
    for turn in in_turn([interleaved(rows) for rows in kinds.values()]):
        if len(chosen) == SHOWN:
            break
        chosen.append(turn)
    return chosen


def interleaved(rows: Sequence[Example]) -> list[Example]:
    """Right and wrong in turn, a right one first."""
    right = [one for one in rows if one.correct]
    wrong = [one for one in rows if not one.correct]
    return list(in_turn([right, wrong]))


def in_turn(groups: Sequence[Sequence[Example]]) -> Iterator[Example]:
    for place in range(max(map(len, groups), default=0)):
        for group in groups:
            if place < len(group):
                yield group[place]


def to_judge(examples: Sequence[Example]) -> list[str]:
    """Texts from the whole of the rows, evenly."""
    step = max(1, len(examples) // JUDGED)
    texts: list[str] = []
    characters = 0
    for one in examples[::step][:JUDGED]:
        if one.text.strip() and characters + len(one.text) <= JUDGED_CHARACTERS:
            texts.append(one.text)
            characters += len(one.text)
    return texts
