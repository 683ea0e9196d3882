"""What a decision consists of: children to write, the status to report, when to look again, events to tell. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from winnow_operator.reasons import Reason
from winnow_operator.resources import Object, Resource


@dataclass(frozen=True, slots=True)
class Create:
    """Once: an object of that name which is already ours is left as it is."""

    obj: Object


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Put our labels on again where an object of that name is there and ours: without them no watch tells of it."""

    obj: Object


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply; ours by force, but never an object that somebody else controls."""

    obj: Object


@dataclass(frozen=True, slots=True)
class Delete:
    """The object as it was seen: another one of the same name stays. What hangs on it goes first."""

    obj: Object


@dataclass(frozen=True, slots=True)
class Hold:
    """Put our finalizer on a user's Dataset, which then stays until that is taken off. The API server refuses it on one that
    is being deleted."""

    obj: Object


@dataclass(frozen=True, slots=True)
class Release:
    """Take our finalizer off."""

    obj: Object


Child = Create | TakeBack | Apply | Delete | Hold | Release


@dataclass(frozen=True, slots=True)
class Turn:
    """Names by which plans lock each other while they are written: many plans may share a name at once, or one has it
    alone."""

    shared: frozenset[str] = frozenset()
    alone: frozenset[str] = frozenset()


NO_TURN = Turn()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for `kubectl describe` and `kubectl events`."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    children: tuple[Child, ...]
    status: Object
    requeue_after: float | None = None  # seconds; None: when something changes
    events: tuple[Event, ...] = ()
    turn: Turn = NO_TURN  # for its children


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the API server or prudence kept a child from being written; it goes back into plan() as a fact."""

    reason: Reason
    message: str
    kind: str = ""  # of the child
    final: bool = True  # a person has to do something; else it is tried again and may pass


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """An object that the user made and that is not watched, such as a ConfigMap with rows: looked up when it matters."""

    resource: Resource
    name: str


Lookups = Mapping[Reference, Object | None]


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What an import may fetch by HTTP or S3."""

    max_bytes: int = 10 * 1024**3  # of all files of a source together
    timeout_seconds: int = 3_600  # for all of them
    allowed_networks: tuple[str, ...] = ()  # CIDRs, beside what is public


@dataclass(frozen=True, slots=True)
class Config:
    """What the operator's environment adds to specs."""

    trainer_image: str
    server_image: str
    fetch: FetchLimits = FetchLimits()
