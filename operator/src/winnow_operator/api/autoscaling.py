"""How many pods serve a Deployment, where an autoscaler decides it."""

from typing import Annotated

from pydantic import Field, StringConstraints

from .common import Spec

Cron = Annotated[
    str, StringConstraints(min_length=9, max_length=128, pattern=r"^[0-9A-Za-z*/,-]+( [0-9A-Za-z*/,-]+){4}$")
]


class Window(Spec):
    """A window of time with more pods at least."""

    start: Cron
    end: Cron
    min_replicas: Annotated[int, Field(ge=1, le=1000)]
    time_zone: (
        Annotated[
            str,
            StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$"),
        ]
        | None
    ) = None


class Autoscaling(Spec):
    """Bounds, and what is aimed at between them."""

    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    max_replicas: Annotated[int, Field(ge=1, le=1000)]
    target_queued_tokens: Annotated[int, Field(ge=1, le=1_000_000_000)] = 4096
    scale_down_stabilization_seconds: Annotated[int, Field(ge=0, le=3600)] = 300
    wake_on_request: bool = False
    schedule: Annotated[tuple[Window, ...], Field(max_length=16)] | None = None
