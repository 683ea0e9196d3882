"""Requests that wait for the model: bounded in tokens, shared by event loop, tokeniser and engine."""

import math
import threading
import time
from collections.abc import Iterable

from winnow_server.batcher import Pick, Waiting, next_batch
from winnow_server.errors import ApiError, Overloaded, TooLarge
from winnow_server.ticket import Ticket

# The share of the newest batch in the measured speed: about the last ten batches count.
NEWEST_SHARE = 0.2
MAX_RETRY_AFTER_SECONDS = 60
# A batch cannot be interrupted, so background work runs in short ones while requests keep coming: one that arrives in the
# middle waits for a quarter of a batch at most. When nobody asked for a while it runs in full ones.
BACKGROUND_SHARE = 4
QUIET_SECONDS = 2.0


class TokenQueue:
    """A request reserves the tokens of all its texts at once, or is refused as a whole."""

    def __init__(self, max_tokens: int, max_batch_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.max_batch_tokens = max_batch_tokens
        self.tokens = 0  # held by requests that wait, in tokenising too
        self._running = 0  # tokens in the engine
        self._tokens_per_second = 0.0
        self._waiting: dict[Ticket, None] = {}  # in order of arrival
        self._background: dict[Ticket, None] = {}
        self._idle = False  # the engine waits for work
        self._handed: Ticket | None = None  # not tokenised yet
        self._last_request = -QUIET_SECONDS  # on time.monotonic's clock
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
            if ticket.background:
                self._background[ticket] = None
                self._changed.notify()
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

    def hand(self, ticket: Ticket) -> bool:
        """Gives a request that is not tokenised to an engine that waits for work: to wake one thread is faster than to wake
        two. False if it has other work."""
        with self._changed:
            if not self._idle or self._handed is not None:
                return False
            self._handed = ticket
            self._changed.notify()
            return True

    def drop(self, ticket: Ticket) -> None:
        """Forgets what has not run yet of a request, at any stage."""
        with self._changed:
            ticket.dropped = True
            self._waiting.pop(ticket, None)
            self._background.pop(ticket, None)
            self._release(ticket)

    def take(self) -> list[tuple[Ticket, int]] | Ticket | None:
        """Waits for work; the next batch as (request, index of its text), a request to tokenise, or None when closed and empty."""
        with self._changed:
            while not self._waiting and not self._background and not self._handed and not self._closed:
                self._idle = True
                self._changed.wait()
            self._idle = False
            if self._handed is not None:
                ticket, self._handed = self._handed, None
                return ticket
            lane, budget = self._lane()
            if not lane:
                return None
            tickets = list(lane)
            picks = next_batch((Waiting(t.lengths, t.started) for t in tickets), budget)
            for ticket, text in self._started(picks, tickets, lane):
                if not ticket.background:
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
    def background_tokens(self) -> int:
        with self._changed:
            return sum(sum(ticket.lengths[ticket.started :]) for ticket in self._background)

    @property
    def requests(self) -> int:
        return len(self._waiting)

    def retry_after_seconds(self) -> int:
        """When what is queued now will have run."""
        if not self._tokens_per_second:
            return 1
        seconds = (self.tokens + self._running) / self._tokens_per_second
        return min(MAX_RETRY_AFTER_SECONDS, max(1, math.ceil(seconds)))

    def _lane(self) -> tuple[dict[Ticket, None], int]:
        """What runs next, and in how large a batch: the background never shares a batch with those who wait."""
        if self._waiting:
            self._last_request = time.monotonic()
            return self._waiting, self.max_batch_tokens
        quiet = time.monotonic() - self._last_request > QUIET_SECONDS
        return self._background, self.max_batch_tokens if quiet else max(1, self.max_batch_tokens // BACKGROUND_SHARE)

    def _started(
        self, picks: Iterable[Pick], tickets: list[Ticket], lane: dict[Ticket, None]
    ) -> Iterable[tuple[Ticket, int]]:
        for pick in picks:
            ticket = tickets[pick.request]
            ticket.started = pick.text + 1
            if ticket.started == len(ticket.lengths):
                del lane[ticket]
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
