"""The one thread that owns the model: loads it, warms it up, then runs batch after batch until the queue is closed."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from winnow_classifier.tokens import Encoded
from winnow_server.errors import InternalError
from winnow_server.metrics import Metrics
from winnow_server.model import Served
from winnow_server.queue import TokenQueue
from winnow_server.ticket import Result, Ticket
from winnow_server.tokenising import tokenise

log = logging.getLogger(__name__)

Batch = list[tuple[Ticket, int]]

# After this many failed batches in a row the device is taken for broken, and only a new process helps:
# a CUDA error stays with its process.
FAILURES_UNTIL_BROKEN = 3
# No batch of a served model takes this long; one that does will not end.
STUCK_SECONDS = 300.0


class Deliver(Protocol):
    def __call__(self, callback: Callable[[Sequence[Ticket]], None], tickets: Sequence[Ticket], /) -> object: ...


class Engine:
    def __init__(
        self,
        load: Callable[[], Served],
        queue: TokenQueue,
        metrics: Metrics,
        deliver: Deliver,
        on_ready: Callable[[Served], object],
        on_failure: Callable[[Exception], object],
    ) -> None:
        """deliver is the event loop's call_soon_threadsafe; on_ready and on_failure are called on the engine's thread."""
        self._load = load
        self._queue = queue
        self._metrics = metrics
        self._deliver = deliver
        self._on_ready = on_ready
        self._on_failure = on_failure
        self._failures = 0
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        if self._thread.ident is not None:
            self._thread.join()

    def alive(self, now: float) -> bool:
        """False if only a restart can help: the thread ended, the device broke, or a batch does not end."""
        stuck = self._busy_since is not None and now - self._busy_since > STUCK_SECONDS
        return self._thread.is_alive() and self._failures < FAILURES_UNTIL_BROKEN and not stuck

    def _run(self) -> None:
        try:
            served = self._load()
            self._queue.ran(*warm_up(served, self._queue.max_batch_tokens))
        except Exception as err:
            self._on_failure(err)
            return
        self._on_ready(served)
        while (batch := self._queue.take()) is not None:
            if isinstance(batch, Ticket):
                tokenise([batch], served.encoder, self._queue)
                continue
            self._busy_since = time.perf_counter()
            tokens = sum(ticket.lengths[text] for ticket, text in batch)
            finished = self._run_batch(served, batch)
            if finished:
                self._deliver(resolve_all, finished)
            seconds = time.perf_counter() - self._busy_since
            self._busy_since = None
            self._queue.ran(tokens, seconds)
            self._metrics.batch(texts=len(batch), tokens=tokens, seconds=seconds)

    def _run_batch(self, served: Served, batch: Batch) -> list[Ticket]:
        """The requests that this batch completes. What goes wrong fails the requests in the batch, not the engine."""
        started = time.perf_counter()
        for ticket, _ in batch:
            ticket.timing.started = ticket.timing.started or started
        try:
            results = classify(served, [ticket.encoded[text] for ticket, text in batch])
        except torch.OutOfMemoryError:
            return self._run_halves(served, batch)
        except Exception:
            log.exception("Batch failed", extra={"texts": len(batch)})
            self._failures += 1
            self._reject([ticket for ticket, _ in batch], "The model failed on this request.", "model_failed")
            return []
        self._failures = 0
        return self._complete(batch, results)

    def _run_halves(self, served: Served, batch: Batch) -> list[Ticket]:
        """Out of memory: half of it at a time, and smaller batches from now on."""
        if len(batch) == 1:
            log.error("Out of memory on one text", extra={"tokens": batch[0][0].lengths[batch[0][1]]})
            self._reject([batch[0][0]], "The text does not fit in the model's memory.", "out_of_memory")
            return []
        self._queue.max_batch_tokens = max(1, sum(ticket.lengths[text] for ticket, text in batch) // 2)
        log.warning("Out of memory, batches get smaller", extra={"maxBatchTokens": self._queue.max_batch_tokens})
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        middle = len(batch) // 2
        return self._run_batch(served, batch[:middle]) + self._run_batch(served, batch[middle:])

    def _complete(self, batch: Batch, results: Sequence[Result | None]) -> list[Ticket]:
        finished = []
        now = time.perf_counter()
        for (ticket, text), result in zip(batch, results, strict=True):
            if result is None:
                log.error("Logits are not finite", extra={"tokens": ticket.lengths[text]})
                self._reject([ticket], f"The model gave no number for input[{text}].", "not_finite")
            elif ticket.complete(text, result):
                ticket.timing.finished = now
                finished.append(ticket)
        return finished

    def _reject(self, tickets: Sequence[Ticket], message: str, code: str) -> None:
        for ticket in dict.fromkeys(tickets):
            self._queue.drop(ticket)
            ticket.reject_from_thread(InternalError(message, code=code))


def classify(served: Served, encoded: Sequence[Encoded]) -> list[Result | None]:
    """One forward pass; None for a text whose logits are not finite: no probability is ever made up."""
    with torch.inference_mode():
        logits = served.logits([one.input_ids for one in encoded])
        probabilities = served.schema.probabilities(logits)
    # numpy from here on: on a few numbers its calls are a third of torch's.
    values, shares = logits.numpy(), probabilities.numpy()
    finite = np.isfinite(values).all(axis=1).tolist()
    rows = zip(finite, values, shares, shares.argmax(axis=1).tolist(), served.schema.predicted(shares), strict=True)
    return [Result(*row) if is_finite else None for is_finite, *row in rows]


def warm_up(served: Served, max_batch_tokens: int) -> tuple[int, float]:
    """Runs a batch of one and a full one, so that the first request pays for neither; the full one's tokens and seconds."""
    text = served.encoder.encode(["warm up " * served.encoder.max_seq_length])[0]
    classify(served, [text])
    full = [text] * max(1, max_batch_tokens // len(text.input_ids))
    started = time.perf_counter()
    classify(served, full)
    return len(full) * len(text.input_ids), time.perf_counter() - started


def resolve_all(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        ticket.resolve()
