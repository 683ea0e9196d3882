"""Which waiting texts run together, by token budget. Pure; the queue calls it when the engine is free."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

# Past so many texts in a row that do not fit, the batch is as good as full; a long queue is not read to its end for each batch.
LOOKS_ON = 32


class Waiting(NamedTuple):
    """What is left of one request: lengths in tokens of all its texts, the first `started` of them already running or done."""

    lengths: Sequence[int]
    started: int


class Pick(NamedTuple):
    request: int  # index into the waiting requests
    text: int  # index into that request's texts


def next_batch(waiting: Iterable[Waiting], max_tokens: int) -> list[Pick]:
    """The texts of the next batch, within max_tokens; waiting is in order of arrival, and read as far as the batch needs.

    One text of each request in turn, so that a request of a thousand texts does not keep a request of one waiting.
    The oldest request's next text is always taken, even if it alone is above the budget: nothing starves.
    A text that does not fit ends its request's turn; shorter texts of requests soon after it may still fill the batch.
    """
    picks: list[Pick] = []
    tokens = 0
    turn: Iterable[tuple[int, Sequence[int], int]] = ((n, each.lengths, each.started) for n, each in enumerate(waiting))
    while turn:
        next_turn: list[tuple[int, Sequence[int], int]] = []
        passed_over = 0
        for request, lengths, text in turn:
            if text == len(lengths):
                continue
            if picks and tokens + lengths[text] > max_tokens:
                passed_over += 1
                if passed_over == LOOKS_ON:
                    break
                continue
            passed_over = 0
            picks.append(Pick(request, text))
            tokens += lengths[text]
            next_turn.append((request, lengths, text + 1))
        turn = next_turn
    return picks
