"""Requests that wait for the model: bounded in tokens, shared by event loop, tokeniser and engine."""

import math
import threading
from collections.abc import Iterable

from winnow_server.batcher import Pick, Waiting, next_batch
from winnow_server.errors import ApiError, Overloaded, TooLarge
from winnow_server.ticket import Ticket

# The share of the newest batch in the measured speed: about the last ten batches count.
NEWEST_SHARE = 0.2
MAX_RETRY_AFTER_SECONDS = 60


class TokenQueue:
    """A request reserves the tokens of all its texts at once, or is refused as a whole."""

    def __init__(self, max_tokens: int, max_batch_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.max_batch_tokens = max_batch_tokens
        self.tokens = 0  # held by requests that wait, in tokenising too
        self._running = 0  # tokens in the engine
        self._tokens_per_second = 0.0
        self._waiting: dict[Ticket, None] = {}  # in order of arrival
        self._closed = False
        self._changed = threading.Condition()

    def reserve(self, ticket: Ticket, estimated_tokens: int) -> None:
        """Holds room for a request before it is tokenised; raises Overloaded.

        An estimate above the whole queue counts as the whole queue: only counting can tell that it never fits.
        """
        with self._changed:
            self._hold(ticket, min(estimated_tokens, self.max_tokens))

    def put(self, ticket: Ticket) -> None:
        """A tokenised request, now with its true size; raises TooLarge, Overloaded."""
        tokens = sum(ticket.lengths)
        with self._changed:
            if ticket.dropped:
                return
            if tokens > self.max_tokens:
                self._release(ticket)
                raise TooLarge(
                    f"The request has {tokens} tokens, the limit is {self.max_tokens}. Send it in parts.",
                    code="request_too_large",
                    param="input",
                )
            self._release(ticket)
            self._hold(ticket, tokens)
            self._waiting[ticket] = None
            self._changed.notify()

    def drop(self, ticket: Ticket) -> None:
        """Forgets what has not run yet of a request, at any stage."""
        with self._changed:
            ticket.dropped = True
            self._waiting.pop(ticket, None)
            self._release(ticket)

    def take(self) -> list[tuple[Ticket, int]] | None:
        """Waits for work; the next batch as (request, index of its text), or None when closed and empty."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if not self._waiting:
                return None
            tickets = list(self._waiting)
            picks = next_batch([Waiting(t.lengths, t.started) for t in tickets], self.max_batch_tokens)
            for ticket, text in self._started(picks, tickets):
                ticket.reserved -= ticket.lengths[text]
                self.tokens -= ticket.lengths[text]
                self._running += ticket.lengths[text]
            return [(tickets[pick.request], pick.text) for pick in picks]

    def ran(self, tokens: int, seconds: float) -> None:
        """The engine's report of a batch, which makes Retry-After true."""
        with self._changed:
            self._running = 0
            speed = tokens / max(seconds, 1e-6)
            share = NEWEST_SHARE if self._tokens_per_second else 1.0
            self._tokens_per_second += share * (speed - self._tokens_per_second)

    def close(self) -> None:
        """No more work will come; take() hands out what is left."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def requests(self) -> int:
        return len(self._waiting)

    def retry_after_seconds(self) -> int:
        """When what is queued now will have run."""
        if not self._tokens_per_second:
            return 1
        seconds = (self.tokens + self._running) / self._tokens_per_second
        return min(MAX_RETRY_AFTER_SECONDS, max(1, math.ceil(seconds)))

    def _started(self, picks: Iterable[Pick], tickets: list[Ticket]) -> Iterable[tuple[Ticket, int]]:
        for pick in picks:
            ticket = tickets[pick.request]
            ticket.started = pick.text + 1
            if ticket.started == len(ticket.lengths):
                del self._waiting[ticket]
            yield ticket, pick.text

    def _hold(self, ticket: Ticket, tokens: int) -> None:
        if self.tokens + tokens > self.max_tokens:
            raise self._full()
        ticket.reserved = tokens
        self.tokens += tokens

    def _release(self, ticket: Ticket) -> None:
        self.tokens -= ticket.reserved
        ticket.reserved = 0

    def _full(self) -> ApiError:
        return Overloaded.queue_full(self.retry_after_seconds())
