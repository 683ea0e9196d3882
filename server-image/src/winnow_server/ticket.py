"""One request on its way through the server: texts in, one result for each text or one error out."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from winnow_classifier.tokens import Encoded
from winnow_server.errors import ApiError
from winnow_server.limits import Truncation


class Result(NamedTuple):
    """What the model says of one text. C labels, in the checkpoint's order."""

    logits: NDArray[np.float32]  # (C,)
    probabilities: NDArray[np.float32]  # (C,)
    top: int  # index of the most probable label
    predicted: list[str]
    abstained: bool = False


@dataclass(slots=True)
class Timing:
    """Moments on time.perf_counter's clock, in seconds."""

    arrived: float
    tokenised: float = 0.0
    started: float = 0.0  # its first batch began
    finished: float = 0.0  # its last batch ended


class Ticket:
    """Made on the event loop, filled by the tokeniser and the engine, which hand it from one to the other and never share it.

    Only `dropped` is written from anywhere meanwhile: the client left, or a part of it failed, so its work is not worth doing.
    """

    __slots__ = (
        "_loop",
        "_remaining",
        "background",
        "done",
        "dropped",
        "encoded",
        "field",
        "lengths",
        "max_tokens",
        "reserved",
        "results",
        "started",
        "texts",
        "timing",
        "truncation",
    )

    def __init__(
        self,
        texts: Sequence[str],
        *,
        field: str = "input",
        truncation: Truncation = "right",
        max_tokens: int | None = None,
        background: bool = False,
    ) -> None:
        """field: the part of the request that holds the texts, for messages; of a line in the background, the text itself.
        max_tokens: how many a text may have, if fewer than the model reads. background: to run only when nobody waits for an
        answer, without taking room in the queue from those who do."""
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self.texts = texts
        self.field = field
        self.truncation = truncation
        self.max_tokens = max_tokens
        self.background = background
        self.encoded: list[Encoded] = []
        self.lengths: list[int] = []
        self.results: list[Result | None] = [None] * len(texts)
        self.reserved = 0  # tokens it holds in the queue: estimated, then counted
        self.started = 0  # its first texts that have been given to the engine
        self.dropped = False
        self.timing = Timing(arrived=time.perf_counter())
        self._remaining = len(texts)

    def tokenised(self, encoded: list[Encoded]) -> None:
        self.encoded = encoded
        self.lengths = [len(one.input_ids) for one in encoded]
        self.timing.tokenised = time.perf_counter()

    def named(self, text: int) -> str:
        """A text as its sender knows it: input[3], or of a line just text."""
        return self.field if self.background else f"{self.field}[{text}]"

    def complete(self, text: int, result: Result) -> bool:
        """Keeps one text's result; True with the last one."""
        self.results[text] = result
        self._remaining -= 1
        return self._remaining == 0

    def complete_results(self) -> list[Result]:
        return [result for result in self.results if result is not None]

    def decide(self, decided: Sequence[Result]) -> None:
        """Replace the model's results by decided ones; only for a ticket that has all results."""
        self.results = [*decided]

    def resolve(self) -> None:
        """On the event loop."""
        if not self.done.done():
            self.done.set_result(None)

    def reject(self, error: Exception) -> None:
        """On the event loop."""
        if not self.done.done():
            self.done.set_exception(error)

    def reject_from_thread(self, error: ApiError) -> None:
        """As `reject`, from the tokeniser's or the engine's thread. Nothing of the ticket runs any more."""
        self.dropped = True
        self._loop.call_soon_threadsafe(self.reject, error)
