"""From a request's texts to its results, and the server's phases: loading, ready, draining."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import ClientDisconnect

from winnow_classifier.errors import StorageError, WinnowError
from winnow_server.deciding import decided
from winnow_server.engine import Engine, Threads
from winnow_server.errors import DeadlineExceeded, InternalError, Overloaded, Unavailable
from winnow_server.examples import Example, to_show
from winnow_server.limits import Limits, Truncation
from winnow_server.metrics import Metrics
from winnow_server.model import Announced, Served
from winnow_server.phase import Phase
from winnow_server.queue import TokenQueue
from winnow_server.thresholds import NO_RULES, Rules
from winnow_server.ticket import Ticket
from winnow_server.tokenising import SHORT_CHARACTERS, WORKERS, Tokeniser, estimated_tokens

log = logging.getLogger(__name__)

LOADING_RETRY_SECONDS = 5


class Service:
    def __init__(
        self,
        announced: Announced,
        load: Callable[[], Served],
        *,
        max_batch_tokens: int,
        max_queue_tokens: int,
        workers: Sequence[Threads],
        limits: Limits | None = None,
        show_examples: bool = True,
    ) -> None:
        self.announced = announced
        self.schema = announced.manifest.schema_
        self.limits = limits or Limits()
        self.rules = NO_RULES  # that hold where a request brings none
        self.decision: str | None = None  # the digest of the decision.json that the rules come from
        self.precision: str | None = None  # that the model computes in, once it is loaded
        self.examples: list[Example] = []  # to try, of the test set
        self._show_examples = show_examples
        self.draining = asyncio.Event()
        self._phase = Phase.LOADING
        self.failure: WinnowError | None = None
        self.on_failure: Callable[[], None] = lambda: None
        self.on_classified: Callable[[Ticket], None] = lambda ticket: None
        self.started_at = int(time.time())
        self.metrics = Metrics(announced.name, announced.version)
        self._load = load
        self._workers = workers
        self._queue = TokenQueue(max_queue_tokens, max_batch_tokens)
        self._tokeniser: Tokeniser | None = None
        self._background_tokeniser: Tokeniser | None = None
        self._engine: Engine | None = None
        self._load_started = 0.0
        self.metrics.watch("clf_queue_size", "Requests that wait for the model", lambda: self._queue.requests)
        self.metrics.watch("clf_queue_tokens", "Tokens that wait for the model", lambda: self._queue.tokens)
        self.metrics.watch(
            "clf_background_tokens", "Tokens of streams that wait for the model", lambda: self._queue.background_tokens
        )
        self.metrics.watch("clf_ready", "1 when new requests are wanted", lambda: self.phase is Phase.READY)

    async def start(self) -> None:
        """Begin to load, in the engine's thread: probes are answered meanwhile."""
        self.loop = loop = asyncio.get_running_loop()
        self._load_started = time.perf_counter()
        self._engine = Engine(
            self._load,
            self._queue,
            self.metrics,
            deliver=loop.call_soon_threadsafe,
            on_ready=lambda served: loop.call_soon_threadsafe(self._ready, served),
            on_failure=lambda err: loop.call_soon_threadsafe(self._failed, err),
            workers=self._workers,
        )
        self._engine.start()

    async def stop(self) -> None:
        """End the threads, after all that was accepted has run."""
        for tokeniser in (self._tokeniser, self._background_tokeniser):
            if tokeniser is not None:
                await asyncio.to_thread(tokeniser.close)
        self._queue.close()
        if self._engine is not None and self._phase is not Phase.LOADING:
            await asyncio.to_thread(self._engine.join)

    @property
    def phase(self) -> Phase:
        return self._phase if self.alive() else Phase.FAILED

    @property
    def max_batch_tokens(self) -> int:
        return self._queue.max_batch_tokens

    @property
    def max_queue_tokens(self) -> int:
        return self._queue.max_tokens

    def drain(self) -> None:
        """Turn readiness off for good, also if the model still loads. Requests that come all the same are still answered."""
        self.draining.set()
        if self._phase is Phase.READY:
            self._phase = Phase.DRAINING

    def alive(self) -> bool:
        return self._engine is None or self._engine.alive(time.perf_counter())

    async def classify(
        self,
        texts: Sequence[str],
        *,
        field: str = "input",
        truncation: Truncation | None,
        max_tokens: int | None = None,
        gone: Callable[[], Awaitable[None]],
        rules: Rules = NO_RULES,
    ) -> Ticket:
        """A ticket with all its results; raises ApiError, ClientDisconnect. field: where errors say that a text stands.
        gone() returns when the client has left."""
        tokeniser = self._loaded(self._tokeniser)
        cut = truncation or self.limits.truncation
        if truncation is None and max_tokens is not None and cut == "error":
            cut = "right"  # a request that names a length wants its texts cut to it
        ticket = Ticket(texts, field=field, truncation=cut, max_tokens=max_tokens)
        try:
            longest = self.announced.manifest.max_seq_length
            self._queue.reserve(ticket, estimated_tokens(texts, min(longest, max_tokens or longest)))
            if sum(map(len, texts)) > SHORT_CHARACTERS or not self._queue.hand(ticket):
                tokeniser.submit(ticket)
            await self._finished(ticket, gone)
        except Overloaded:
            self.metrics.rejected("queue_full")
            raise
        self._classified(ticket, rules)
        return ticket

    def check_loaded(self) -> None:
        """Raises Unavailable."""
        self._loaded(self._tokeniser)

    def submit_background(self, text: str, *, field: str, truncation: Truncation | None) -> Ticket:
        """One text that runs when nobody waits; finish_background() gives its result, drop() forgets it. The caller bounds
        how many there are. Raises Unavailable."""
        tokeniser = self._loaded(self._background_tokeniser)
        cut = truncation or self.limits.truncation
        ticket = Ticket([text], field=field, truncation=cut, background=True)
        tokeniser.submit(ticket)
        return ticket

    async def finish_background(self, ticket: Ticket, rules: Rules) -> Ticket:
        """Raises ApiError."""
        await ticket.done
        self._classified(ticket, rules)
        return ticket

    def drop(self, ticket: Ticket) -> None:
        ticket.done.cancel()
        self._queue.drop(ticket)

    def _loaded(self, tokeniser: Tokeniser | None) -> Tokeniser:
        if tokeniser is None:
            self.metrics.rejected("not_ready")
            raise Unavailable(
                "The model is still loading.", code="not_ready", headers={"Retry-After": str(LOADING_RETRY_SECONDS)}
            )
        return tokeniser

    def _classified(self, ticket: Ticket, rules: Rules) -> None:
        if rules != NO_RULES:
            try:
                ticket.decide(decided(ticket, rules, self.schema))
            except InternalError:
                log.error("Calibrated probabilities are not finite", extra={"decision": self.decision})
                raise
        self.on_classified(ticket)
        # After the answer has left, so that nobody waits for this.
        asyncio.get_running_loop().call_soon(self.metrics.classified, ticket, self.announced.manifest.labels)

    async def _finished(self, ticket: Ticket, gone: Callable[[], Awaitable[None]]) -> None:
        """Waits for the results; if the client leaves first or it takes too long, what has not run yet never will."""
        watch = asyncio.ensure_future(gone())
        watch.add_done_callback(lambda done: None if done.cancelled() else ticket.reject(ClientDisconnect()))
        deadline = asyncio.get_running_loop().call_later(self.limits.request_seconds, self._too_late, ticket)
        try:
            await ticket.done
        except (ClientDisconnect, DeadlineExceeded, asyncio.CancelledError):
            self._queue.drop(ticket)
            raise
        finally:
            deadline.cancel()
            watch.cancel()

    def _too_late(self, ticket: Ticket) -> None:
        ticket.reject(
            DeadlineExceeded(
                f"The request was not done within {self.limits.request_seconds:g} s. Send fewer texts in a request.",
                code="deadline_exceeded",
            )
        )

    def _ready(self, served: Served) -> None:
        self._tokeniser = Tokeniser(served.encoders(WORKERS), self._queue)
        self._tokeniser.start()
        # A second one, so that a text whose sender waits never stands behind a stream's.
        self._background_tokeniser = Tokeniser(served.encoders(1), self._queue)
        self._background_tokeniser.start()
        self.precision = served.precision
        self.examples = to_show(served.rows) if self._show_examples else []
        seconds = time.perf_counter() - self._load_started
        self.metrics.loaded(seconds)
        if self._phase is Phase.LOADING:
            self._phase = Phase.DRAINING if self.draining.is_set() else Phase.READY
        log.info(
            "Ready",
            extra={
                "model": self.announced.name,
                "modelVersion": self.announced.version,
                "device": str(served.device),
                "precision": served.precision,
                "seconds": round(seconds, 2),
            },
        )

    def _failed(self, err: Exception) -> None:
        self._phase = Phase.FAILED
        self.failure = as_winnow_error(err)
        self.on_failure()


def as_winnow_error(err: Exception) -> WinnowError:
    """What stopped the model from loading, as one of the errors with an exit code."""
    if isinstance(err, WinnowError):
        return err
    if isinstance(err, OSError):
        return StorageError(f"The checkpoint cannot be read: {err}")
    log.error("Loading failed", exc_info=err)
    return WinnowError(f"The model cannot be loaded: {err}")
