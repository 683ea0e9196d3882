"""The threads that run the model: one loads it and warms it up, then they take batch after batch until the queue is closed.

On a CPU two work side by side, each on half of the cores: what one does between batches, and what the event loop takes of a
core, then holds up one of them, where halves of the same batch would wait for each other (ADR 79).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch

from winnow_classifier.tokens import Encoded
from winnow_server.errors import InternalError
from winnow_server.queue import Texts, TokenQueue
from winnow_server.ticket import Result, Ticket
from winnow_server.tokenising import tokenise

if TYPE_CHECKING:
    from winnow_server.metrics import Metrics
    from winnow_server.model import Served

log = logging.getLogger(__name__)

# After this many failed batches in a row the device is taken for broken, and only a new process helps:
# a CUDA error stays with its process.
FAILURES_UNTIL_BROKEN = 3
# No batch of a served model takes this long; one that does will not end.
STUCK_SECONDS = 300.0


class Deliver(Protocol):
    def __call__(self, callback: Callable[[Sequence[Ticket]], None], tickets: Sequence[Ticket], /) -> object: ...


class Threads(NamedTuple):
    """How many threads of torch a worker computes with."""

    shared: int
    alone: int  # with nothing else to do


def workers_on(cpus: int) -> list[Threads]:
    """Two workers on a CPU with several cores. The first one is woken first, and takes more of the cores while it runs alone.

    Both together never have more threads than there are cores: with more, libgomp's threads sleep at once instead of waiting
    briefly.
    """
    if cpus == 1:
        return [Threads(1, 1)]
    half = cpus // 2
    return [Threads(cpus - half, cpus - half + 1), Threads(half, half)]


class Engine:
    def __init__(
        self,
        load: Callable[[], Served],
        queue: TokenQueue,
        metrics: Metrics,
        deliver: Deliver,
        on_ready: Callable[[Served], object],
        on_failure: Callable[[Exception], object],
        workers: Sequence[Threads],
    ) -> None:
        """deliver is the event loop's call_soon_threadsafe; on_ready and on_failure are called on a worker's thread."""
        self._load = load
        self._on_ready = on_ready
        self._on_failure = on_failure
        self._workers = [
            Worker(queue, metrics, deliver, threads, first=number == 0) for number, threads in enumerate(workers)
        ]
        self._main = threading.Thread(target=self._run, name="engine", daemon=True)
        self._others: list[threading.Thread] = []

    def start(self) -> None:
        self._main.start()

    def join(self) -> None:
        if self._main.ident is not None:
            self._main.join()
        for thread in self._others:
            thread.join()

    def alive(self, now: float) -> bool:
        """False if only a restart can help: a thread ended, the device broke, or a batch does not end."""
        threads_live = self._main.is_alive() and all(thread.is_alive() for thread in self._others)
        return threads_live and all(worker.alive(now) for worker in self._workers)

    def _run(self) -> None:
        first, *others = self._workers
        try:
            served = self._load()
            for worker in others:
                worker.warm_up(served)
            first.warm_up(served)
        except Exception as err:
            self._on_failure(err)
            return
        for worker in others:
            thread = threading.Thread(target=worker.run, args=(served,), name="engine", daemon=True)
            thread.start()
            self._others.append(thread)
        self._on_ready(served)
        first.run(served)


class Worker:
    """Runs batch after batch, on a thread of its own."""

    def __init__(self, queue: TokenQueue, metrics: Metrics, deliver: Deliver, threads: Threads, *, first: bool) -> None:
        self._queue = queue
        self._metrics = metrics
        self._deliver = deliver
        self._threads = threads
        self._first = first
        self._failures = 0
        self._warm: list[Encoded] = []
        self._busy_since: float | None = None

    def alive(self, now: float) -> bool:
        stuck = self._busy_since is not None and now - self._busy_since > STUCK_SECONDS
        return self._failures < FAILURES_UNTIL_BROKEN and not stuck

    def warm_up(self, served: Served) -> None:
        """Runs a batch of one and a full one, so that the first request pays for neither. Full is what memory has room for."""
        use_threads(self._threads.alone)
        self._warm = served.encoder.encode(["warm up " * served.encoder.max_seq_length])
        classify(served, self._warm)
        length = len(self._warm[0].input_ids)
        while True:
            full = self._warm * max(1, self._queue.max_batch_tokens // length)
            started = time.perf_counter()
            try:
                classify(served, full)
                break
            except Exception as err:
                if len(full) == 1 or not out_of_memory(err):
                    raise
            self._shrink_batches(len(full) * length)
        self._queue.ran(len(full) * length, time.perf_counter() - started)

    def run(self, served: Served) -> None:
        """Until the queue is closed and empty."""
        while (work := self._queue.take(first=self._first)) is not None:
            if isinstance(work, Ticket):
                tokenise([work], served.encoder, self._queue)  # the first worker's: nobody else is handed any
                continue
            use_threads(self._threads.alone if work.alone else self._threads.shared)
            self._busy_since = time.perf_counter()
            tokens = sum(ticket.lengths[text] for ticket, text in work.texts)
            finished: list[Ticket] = []
            works = self._run_batch(served, work.texts, finished)
            self._failures = 0 if works else self._failures + 1
            seconds = time.perf_counter() - self._busy_since
            self._busy_since = None
            self._queue.ran(tokens, seconds)
            if finished:
                self._deliver(resolve_all, finished)
            self._metrics.batch(texts=len(work.texts), tokens=tokens, seconds=seconds)

    def _run_batch(self, served: Served, batch: Texts, finished: list[Ticket]) -> bool:
        """Adds the requests that this batch completes to `finished`; False if the model could run none of it. An error fails
        a request, not the engine: the batch is halved, again and again, until the text that causes it is found."""
        started = time.perf_counter()
        for ticket, _ in batch:
            ticket.timing.started = ticket.timing.started or started
        results, padding, lacks_memory = None, 0.0, False
        try:
            results, padding = classify(served, [ticket.encoded[text] for ticket, text in batch])
        except Exception as err:
            lacks_memory = out_of_memory(err)
            if not lacks_memory:
                facts = {"texts": len(batch), "error": str(err)}
                log.error("Batch failed", exc_info=len(batch) == 1, extra=facts)  # the traceback only with the bad text
        # After the handler, not in it: there the error's traceback still holds all that the pass computed, so that halves
        # would find no more room than the whole.
        if results is not None:
            self._metrics.padded(padding)
            self._complete(batch, results, finished)
            return True
        if len(batch) == 1:
            ((ticket, text),) = batch
            return self._fail(served, ticket, text, lacks_memory=lacks_memory)
        if lacks_memory:
            self._shrink_batches(sum(ticket.lengths[text] for ticket, text in batch))
        return self._run_halves(served, batch, finished)

    def _fail(self, served: Served, ticket: Ticket, text: int, *, lacks_memory: bool) -> bool:
        """Fail the request of a text that fails alone. Returns whether the model still runs other texts."""
        if lacks_memory:
            log.error("Out of memory on one text", extra={"tokens": ticket.lengths[text]})
            self._reject(ticket, InternalError.out_of_memory(ticket.named(text)))
            return True
        self._reject(ticket, InternalError.model_failed(ticket.named(text)))
        return self._runs_the_warm_up(served)

    def _runs_the_warm_up(self, served: Served) -> bool:
        """Whether the model still runs a text that it ran before: if so, the fault is the request's."""
        try:
            classify(served, self._warm)
        except Exception:
            return False
        return True

    def _run_halves(self, served: Served, batch: Texts, finished: list[Ticket]) -> bool:
        """Run the halves one after the other, without dropped requests: so only the first bad text of a request is looked
        for."""
        middle = len(batch) // 2
        worked = []
        for half in (batch[:middle], batch[middle:]):
            wanted = [(ticket, text) for ticket, text in half if not ticket.dropped]
            if wanted:
                worked.append(self._run_batch(served, wanted, finished))
        return any(worked) or not worked

    def _shrink_batches(self, tokens: int) -> None:
        """Halve the batches from now on: memory had no room for so many tokens."""
        self._queue.shrink_batches(tokens // 2)
        log.warning("Out of memory, batches get smaller", extra={"maxBatchTokens": self._queue.max_batch_tokens})
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _complete(self, batch: Texts, results: Sequence[Result | None], finished: list[Ticket]) -> None:
        now = time.perf_counter()
        for (ticket, text), result in zip(batch, results, strict=True):
            if result is None:
                log.error("Logits are not finite", extra={"tokens": ticket.lengths[text]})
                self._reject(ticket, InternalError.not_finite(ticket.named(text)))
            elif ticket.complete(text, result):
                ticket.timing.finished = now
                finished.append(ticket)

    def _reject(self, ticket: Ticket, error: InternalError) -> None:
        self._queue.drop(ticket)
        ticket.reject_from_thread(error)


def out_of_memory(error: Exception) -> bool:
    """Of a GPU, or of a CPU, where torch raises a plain RuntimeError."""
    of_cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return of_cpu or isinstance(error, torch.OutOfMemoryError | MemoryError)


def use_threads(count: int) -> None:
    """Set how many threads torch uses for what this thread runs. The number is read first: that keeps torch from setting it
    at the thread's first operator to what another thread set last."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def classify(served: Served, encoded: Sequence[Encoded]) -> tuple[list[Result | None], float]:
    """One forward pass, and the share of padding in it; None for a text whose logits are not finite: no probability is ever
    made up."""
    with torch.inference_mode():
        logits, padding = served.logits([one.input_ids for one in encoded])
        probabilities = served.schema.probabilities(logits)
    # numpy from here on: on a few numbers its calls are a third of torch's.
    values, shares = logits.numpy(), probabilities.numpy()
    finite = np.isfinite(values).all(axis=1).tolist()
    rows = zip(finite, values, shares, shares.argmax(axis=1).tolist(), served.schema.predicted(shares), strict=True)
    return [Result(*row) if is_finite else None for is_finite, *row in rows], padding


def resolve_all(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        ticket.resolve()
