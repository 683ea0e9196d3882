"""What Prometheus sees. Names as documented in docs/serving.md; times in seconds, sizes in tokens."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from winnow_server.recency import Recency
from winnow_server.ticket import Ticket

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
TOKENS = (8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024)
TENTHS = tuple(tenth / 10 for tenth in range(1, 11))
MODEL = ("model_name", "model_version")

Metric = TypeVar("Metric", Counter, Gauge, Histogram)


class Metrics:
    """One registry for each server; every series carries the model it speaks of."""

    def __init__(self, model_name: str, model_version: str) -> None:
        self._registry = CollectorRegistry()
        self._model = (model_name, model_version)
        one, each = self._one, self._each
        self._requests = each(Counter, "clf_requests", "Requests answered", "endpoint", "code")
        self._duration = each(
            Histogram, "clf_request_duration_seconds", "Request to answer", "endpoint", buckets=SECONDS
        )
        self._rejected = each(Counter, "clf_rejected", "Requests refused for want of room or readiness", "reason")
        self._predictions = each(Counter, "clf_predictions", "Texts by predicted label", "label")
        self._confidence = each(
            Histogram, "clf_confidence", "Probability of the most probable label", "label", buckets=TENTHS
        )
        self._tokenise = one(
            Histogram, "clf_tokenize_duration_seconds", "Text to ids, with the wait for it", buckets=SECONDS
        )
        self._queue = one(Histogram, "clf_queue_duration_seconds", "Wait for a batch", buckets=SECONDS)
        self._inference = one(Histogram, "clf_inference_duration_seconds", "A batch in the model", buckets=SECONDS)
        self._batch_size = one(Histogram, "clf_batch_size", "Texts in a batch", buckets=TEXTS)
        self._batch_tokens = one(Histogram, "clf_batch_tokens", "Tokens in a batch", buckets=TOKENS)
        self._padding = one(
            Histogram,
            "clf_batch_padding_ratio",
            "Share of padding in what a batch computes: in attention, or in all of a model that does not pack",
            buckets=(0.0, *TENTHS),
        )
        self._input_tokens = one(Histogram, "clf_input_tokens", "Tokens of a text, after a cut", buckets=TOKENS)
        self._truncated = one(Counter, "clf_truncated", "Texts that were cut")
        self._lines = each(Counter, "clf_stream_lines", "Lines of streams answered", "outcome")
        for outcome in ("ok", "error"):
            self._lines(outcome)
        self._running = one(Gauge, "clf_requests_running", "Requests in work")
        self._recency = Recency()
        self.watch(
            "clf_recently_used",
            "1 while a request is in work, and for a minute after the last one",
            self._recency.recent,
        )
        self._load_seconds = one(Gauge, "clf_model_load_seconds", "Verifying, loading and warming up")
        one(Gauge, "clf_model_info", "Always 1").set(1)

    def watch(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """A gauge that is read when Prometheus asks."""
        self._one(Gauge, name, help_text).set_function(value)

    def loaded(self, seconds: float) -> None:
        self._load_seconds.set(seconds)

    def request_started(self) -> None:
        self._recency.started()
        self._running.inc()

    def request_ended(self, endpoint: str, code: int, seconds: float) -> None:
        self._recency.ended()
        self._running.dec()
        self._requests(endpoint, str(code)).inc()
        self._duration(endpoint).observe(seconds)

    def rejected(self, reason: str) -> None:
        self._rejected(reason).inc()

    def line(self, *, ok: bool) -> None:
        self._lines("ok" if ok else "error").inc()

    def batch(self, *, texts: int, tokens: int, seconds: float) -> None:
        self._batch_size.observe(texts)
        self._batch_tokens.observe(tokens)
        self._inference.observe(seconds)

    def padded(self, share: float) -> None:
        self._padding.observe(share)

    def classified(self, ticket: Ticket, labels: tuple[str, ...]) -> None:
        """A request that got its results."""
        if not ticket.background:  # how long a stream's line waits says nothing of how long a client does
            self._tokenise.observe(ticket.timing.tokenised - ticket.timing.arrived)
            self._queue.observe(ticket.timing.started - ticket.timing.tokenised)
        for encoded, result in zip(ticket.encoded, ticket.complete_results(), strict=True):
            self._input_tokens.observe(len(encoded.input_ids))
            if encoded.truncated:
                self._truncated.inc()
            for label in result.predicted:
                self._predictions(label).inc()
            self._confidence(labels[result.top]).observe(float(result.probabilities[result.top]))

    def exposition(self) -> bytes:
        return generate_latest(self._registry)

    def _one(self, kind: type[Metric], name: str, help_text: str, **options: Any) -> Metric:
        return self._each(kind, name, help_text, **options)()

    def _each(
        self, kind: type[Metric], name: str, help_text: str, *labels: str, **options: Any
    ) -> Callable[..., Metric]:
        """The series by the values of its labels; kept, since to look one up takes longer than to count in it."""
        metric = kind(name, help_text, (*MODEL, *labels), registry=self._registry, **options)
        return cache(partial(metric.labels, *self._model))
