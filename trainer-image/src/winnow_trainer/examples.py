"""Rows made ready for the model: token ids and targets in memory, lengths at hand. Letters: N rows, C labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from winnow_classifier.errors import DataError
from winnow_classifier.packing import PackedBatch, pack
from winnow_classifier.tokens import Encoder, no_embedding
from winnow_classifier.words import some
from winnow_trainer.steps import Rows

TEXTS_AT_A_TIME = 1_000
ROWS_NAMED = 10


@dataclass(frozen=True)
class Examples:
    texts: list[str]
    targets: npt.NDArray[np.int8]  # (N, C)
    tokens: npt.NDArray[np.int32]  # all texts' ids, end to end: a list of lists would take nine times the memory
    offsets: npt.NDArray[np.int64]  # (N + 1,)
    truncated: int  # how many texts were cut

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.offsets)

    def take(self, rows: npt.NDArray[np.int64]) -> Examples:
        """Some of them, in this order."""
        spans = [self.tokens[self.offsets[row] : self.offsets[row + 1]] for row in rows.tolist()]
        offsets = np.concatenate([[0], np.cumsum(self.lengths[rows])]).astype(np.int64)
        texts = [self.texts[row] for row in rows.tolist()]
        return Examples(texts, self.targets[rows], np.concatenate(spans), offsets, self.truncated)

    def pack(self, rows: Sequence[int], position_start: int, multiple: int = 1) -> PackedBatch:
        spans = [self.tokens[self.offsets[row] : self.offsets[row + 1]].tolist() for row in rows]
        return pack(spans, position_start, multiple)


def encode(texts: list[str], targets: npt.NDArray[np.int8], encoder: Encoder) -> Examples:
    """Raises BaseModelError if a row has a token that the model has no embedding for."""
    ids: list[npt.NDArray[np.int32]] = []
    truncated = 0
    for start in range(0, len(texts), TEXTS_AT_A_TIME):
        for encoded in encoder.encode(texts[start : start + TEXTS_AT_A_TIME]):
            if (unread := encoder.unread_in(encoded)) is not None:
                raise no_embedding(encoder.tokenizer, unread, encoder.embeddings)
            ids.append(np.array(encoded.input_ids, dtype=np.int32))
            truncated += encoded.truncated
    offsets = np.concatenate([[0], np.cumsum([len(tokens) for tokens in ids])])
    return Examples(texts, targets, np.concatenate(ids), offsets.astype(np.int64), truncated)


def check_tokens(examples: Examples, which: str, numbered: Callable[[Rows], list[int]]) -> None:
    """Raises DataError for rows without a token, which tell a model nothing: the tokenizer drops all of their characters and
    adds none of its own. `numbered`: what people call the `which` rows."""
    empty = np.flatnonzero(examples.lengths == 0)
    if len(empty):
        raise DataError(
            f"the base model's tokenizer leaves no token of the {which} rows {named(numbered(empty))}",
            hint="leave these rows out, or give promptTemplate words of its own",
        )


def named(numbers: Sequence[int]) -> str:
    """Rows, by what people call them."""
    return some([str(number) for number in numbers], ROWS_NAMED)
