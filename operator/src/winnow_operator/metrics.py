"""What Prometheus sees of the operator."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


class Metrics:
    """One registry of its own, so that importing this module does nothing."""

    def __init__(self, clock: Callable[[], float]) -> None:
        registry = self.registry = CollectorRegistry()
        self._clock = clock
        self._last_event: dict[str, float] = {}
        self.reconciles = Counter("winnow_reconcile", "Looks at an object.", ["kind", "result"], registry=registry)
        self.reconcile_seconds = Histogram(
            "winnow_reconcile_seconds", "How long a look took.", ["kind"], buckets=_SECONDS, registry=registry
        )
        self.api_requests = Counter(
            "winnow_api_requests", "Requests to the API server.", ["verb", "code"], registry=registry
        )
        self.api_seconds = Histogram(
            "winnow_api_request_seconds", "How long they took.", ["verb"], buckets=_SECONDS, registry=registry
        )
        self.writes = Counter("winnow_writes", "Objects written, by kind.", ["kind", "what"], registry=registry)
        self.progress_pulls = Counter(
            "winnow_progress_pulls", "Pulls of /progress from training pods.", ["result"], registry=registry
        )
        self.leader = Gauge("winnow_leader", "1 while this replica holds the Lease.", registry=registry)
        self._ages = Gauge(
            "winnow_watch_last_event_age_seconds", "Since the watch of this kind spoke.", ["kind"], registry=registry
        )
        self._depth = Gauge("winnow_queue_depth", "Objects that wait for a look.", registry=registry)
        self._oldest = Gauge("winnow_queue_oldest_seconds", "How long the first of them waits.", registry=registry)

    def watch_spoke(self, kind: str) -> None:
        if kind not in self._last_event:
            self._ages.labels(kind).set_function(lambda: self._clock() - self._last_event[kind])
        self._last_event[kind] = self._clock()

    def follow_queue(self, depth: Callable[[], float], oldest: Callable[[], float]) -> None:
        self._depth.set_function(depth)
        self._oldest.set_function(oldest)

    def page(self) -> bytes:
        """In the Prometheus text format."""
        return generate_latest(self.registry)
