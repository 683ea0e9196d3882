"""Who waits for a server, bounded in requests and in the bytes of their bodies, and what an autoscaler sees of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from winnow_server.errors import Overloaded
from winnow_server.recency import Recency

BYTES_PER_TOKEN = 4  # of English; no tokenizer is at hand
RETRY_SECONDS = 15  # as often as KEDA looks: sooner, nothing can have changed


@dataclass(slots=True, eq=False)
class Place:
    """Room of one request."""

    size: int  # bytes that are reserved


class Room:
    """Bounded from the first byte on: a body of unknown size reserves the most that it may have."""

    def __init__(self, name: str, *, requests: int, size: int) -> None:
        """name: of the model, as the server's own metrics have it. size: bytes of all bodies together."""
        self._most, self._size = requests, size
        self._places: list[Place] = []
        self._recency = Recency()
        self._registry = CollectorRegistry()
        self._name = name
        self._gauge("clf_queue_size", "Requests that are held").set_function(lambda: len(self._places))
        self._gauge("clf_queue_tokens", "Tokens that are held, by the bytes of bodies").set_function(self.tokens)
        recent = "1 while a request is held, and for a minute after the last one"
        self._gauge("clf_recently_used", recent).set_function(self._recency.recent)
        ended = "Requests that wanted a server, by how it ended"
        self._ended = Counter("clf_held_requests", ended, ("model_name", "outcome"), registry=self._registry)
        for outcome in ("answered", "asleep", "refused", "left"):
            self._ended.labels(name, outcome)

    def tokens(self) -> int:
        """Held, at least one a request: whoever asks for anything wants a server."""
        return sum(max(1, place.size // BYTES_PER_TOKEN) for place in self._places)

    @contextmanager
    def wanted(self) -> Iterator[None]:
        """Around everything that is reason enough to start a server, whether there is room for it or not."""
        self._recency.started()
        try:
            yield
        finally:
            self._recency.ended()

    @contextmanager
    def place(self, size: int) -> Iterator[Place]:
        """Raises Overloaded if there is no room."""
        full = len(self._places) >= self._most or sum(place.size for place in self._places) + size > self._size
        if full:
            raise Overloaded.queue_full(RETRY_SECONDS)
        place = Place(size)
        self._places.append(place)
        try:
            yield place
        finally:
            self._places.remove(place)

    def ended(self, outcome: str) -> None:
        self._ended.labels(self._name, outcome).inc()

    def exposition(self) -> bytes:
        return generate_latest(self._registry)

    def _gauge(self, name: str, help_text: str) -> Gauge:
        return Gauge(name, help_text, ("model_name",), registry=self._registry).labels(self._name)
