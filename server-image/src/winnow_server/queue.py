"""Requests that wait for the model: bounded in tokens, shared by event loop, tokeniser and engine."""

import math
import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from winnow_server.batcher import Pick, Waiting, next_batch
from winnow_server.errors import ApiError, Overloaded, TooLarge
from winnow_server.ticket import Ticket

# Weight of the newest value in running means: about the last ten batches, or requests, count.
NEWEST_SHARE = 0.2
# A short batch takes a good part of a full one's time, so it says nothing of how fast a full queue runs: that is measured on
# full batches.
FULL_ENOUGH = 0.5
# Bounds of the correction of estimates, so that odd texts of one client do not keep out long requests of others.
LEAST_SHARE, MOST_SHARE = 0.5, 4.0
MAX_RETRY_AFTER_SECONDS = 60
# A batch cannot be interrupted, so background work runs in short ones while requests keep coming: one that arrives in the
# middle waits for a quarter of a batch at most. When nobody asked for a while it runs in full ones.
BACKGROUND_SHARE = 4
QUIET_SECONDS = 2.0
# Requests that came side by side so recently will do so again; then a batch gets no more than its worker's own cores.
BESIDE_SECONDS = 0.1


Texts = list[tuple[Ticket, int]]  # (request, index of its text)


class Batch(NamedTuple):
    texts: Texts
    alone: bool  # no other runs before it ends, or is likely to come


class TokenQueue:
    """A request reserves the tokens of all its texts at once, or is refused as a whole.

    Of the workers that take batches the first is woken first, so that whoever asks alone always meets the same one.
    """

    def __init__(self, max_tokens: int, max_batch_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.max_batch_tokens = max_batch_tokens
        self.tokens = 0  # held by requests that wait, in tokenising too
        self._running = 0  # tokens in batches
        self._batches = 0  # that run
        self._alone = False  # the one that runs has all cores
        self._tokens_per_second = 0.0
        self._true_share = 1.0  # of requests: their tokens, as a multiple of what was estimated
        self._waiting: dict[Ticket, None] = {}  # in order of arrival
        self._background: dict[Ticket, None] = {}
        self._handed: Ticket | None = None  # to the first worker, not tokenised yet
        self._first_waits = False
        self._last_request = -QUIET_SECONDS  # on time.monotonic's clock
        self._last_beside = -QUIET_SECONDS  # when a request came while a batch ran
        self._closed = False
        self._lock = threading.Lock()
        self._first, self._others = threading.Condition(self._lock), threading.Condition(self._lock)

    def reserve(self, ticket: Ticket, estimated_tokens: int) -> None:
        """Holds room for a request before it is tokenised; raises Overloaded.

        An estimate above the whole queue counts as the whole queue: only counting can tell that it never fits. Estimates are
        corrected by what requests turned out to hold lately: one that is let in too easily is counted, and refused then.
        """
        with self._lock:
            if self._batches:
                self._last_beside = time.monotonic()
            self._hold(ticket, min(round(estimated_tokens * self._true_share), self.max_tokens))

    def put(self, ticket: Ticket) -> None:
        """A tokenised request, now with its true size; raises TooLarge, Overloaded."""
        tokens = sum(ticket.lengths)
        with self._lock:
            if ticket.dropped:
                return
            if ticket.background:
                self._background[ticket] = None
                self._wake()
                return
            if tokens > self.max_tokens:
                self._release(ticket)
                raise TooLarge(
                    f"The request has {tokens} tokens, the limit is {self.max_tokens}. Send it in parts.",
                    code="request_too_large",
                    param=ticket.field,
                )
            if ticket.reserved:
                found = self._true_share * (tokens / ticket.reserved) ** NEWEST_SHARE
                self._true_share = min(max(found, LEAST_SHARE), MOST_SHARE)
            self._release(ticket)
            self._hold(ticket, tokens)
            self._waiting[ticket] = None
            self._wake()

    def hand(self, ticket: Ticket) -> bool:
        """Give a request to the first worker before it is tokenised, if that is idle: to wake one thread is faster than to
        wake two. False if it is busy."""
        with self._lock:
            if not self._first_waits:
                return False
            self._handed = ticket
            self._wake()
            return True

    def drop(self, ticket: Ticket) -> None:
        """Forgets what has not run yet of a request, at any stage."""
        with self._lock:
            ticket.dropped = True
            self._waiting.pop(ticket, None)
            self._background.pop(ticket, None)
            self._release(ticket)

    def take(self, *, first: bool) -> Batch | Ticket | None:
        """Waits for work: a batch, for the first worker also a request to tokenise, or None when closed and empty."""
        with self._lock:
            while not self._work_for(first) and not self._closed:
                self._first_waits = first or self._first_waits
                (self._first if first else self._others).wait()
            if first:
                self._first_waits = False
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
            self._batches += 1
            beside = time.monotonic() - self._last_beside < BESIDE_SECONDS
            self._alone = first and not lane and self._batches == 1 and not beside
            if lane:
                self._wake()
            return Batch([(tickets[pick.request], pick.text) for pick in picks], self._alone)

    def ran(self, tokens: int, seconds: float) -> None:
        """A worker reports a batch; its speed goes into Retry-After."""
        with self._lock:
            if tokens >= FULL_ENOUGH * self.max_batch_tokens or not self._tokens_per_second:
                speed = tokens / max(seconds, 1e-6) * max(1, self._batches)  # those beside it are as fast
                share = NEWEST_SHARE if self._tokens_per_second else 1.0
                self._tokens_per_second += share * (speed - self._tokens_per_second)
            self._running = max(0, self._running - tokens)
            self._batches = max(0, self._batches - 1)
            self._alone = False

    def shrink_batches(self, tokens: int) -> None:
        """From now on no batch has more tokens than this, even if another worker reports a larger size later."""
        with self._lock:
            self.max_batch_tokens = max(1, min(self.max_batch_tokens, tokens))

    def close(self) -> None:
        """No more work will come; take() hands out what is left."""
        with self._lock:
            self._closed = True
            self._first.notify_all()
            self._others.notify_all()

    @property
    def background_tokens(self) -> int:
        with self._lock:
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

    def _work_for(self, first: bool) -> bool:
        """Whether there is work for a worker. No batch is, while one runs on all cores: a second would slow that by more than
        it would itself have to wait."""
        if first and self._handed is not None:
            return True
        return bool(self._waiting or self._background) and not self._alone

    def _wake(self) -> None:
        (self._first if self._first_waits else self._others).notify()
        self._first_waits = False

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
