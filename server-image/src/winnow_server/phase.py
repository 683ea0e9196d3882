"""What a server is at."""

from enum import StrEnum


class Phase(StrEnum):
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"  # still answers, but wants no new clients
    FAILED = "failed"
