"""Which waiting texts run together, by token budget. Pure; the queue calls it when the engine is free."""

from collections.abc import Sequence
from typing import NamedTuple


class Waiting(NamedTuple):
    """What is left of one request: lengths in tokens of all its texts, the first `started` of them already running or done."""

    lengths: Sequence[int]
    started: int


class Pick(NamedTuple):
    request: int  # index into the waiting requests
    text: int  # index into that request's texts


def next_batch(waiting: Sequence[Waiting], max_tokens: int) -> list[Pick]:
    """The texts of the next batch, within max_tokens; waiting is in order of arrival.

    One text of each request in turn, so that a request of a thousand texts does not keep a request of one waiting.
    The oldest request's next text is always taken, even if it alone is above the budget: nothing starves.
    A text that does not fit ends its request's turn; shorter texts of other requests may still fill the batch.
    """
    picks: list[Pick] = []
    tokens = 0
    turn = [(number, request.started) for number, request in enumerate(waiting)]
    while turn:
        next_turn: list[tuple[int, int]] = []
        for request, text in turn:
            lengths = waiting[request].lengths
            if text == len(lengths) or (picks and tokens + lengths[text] > max_tokens):
                continue
            picks.append(Pick(request, text))
            tokens += lengths[text]
            next_turn.append((request, text + 1))
        turn = next_turn
    return picks
