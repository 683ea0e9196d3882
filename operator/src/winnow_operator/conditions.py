"""Conditions: what users read and wait for. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from winnow_operator import api
from winnow_operator.plan import Event
from winnow_operator.reasons import Reason
from winnow_operator.resources import TRAINING_JOB, Object, resource_of, status_of

MESSAGE_CHARS = 1_024  # api-conventions: a message is for people; the events API cuts here too

# Abnormal-true conditions of kstatus: they stand in status only while they are True.
RECONCILING = "Reconciling"
STALLED = "Stalled"


def timestamp(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def shorten(message: str, limit: int = MESSAGE_CHARS) -> str:
    """One line without control characters, at most `limit` characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in message).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def some(names: Sequence[str], most: int) -> str:
    """`a, b and 3 more`."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def counted(count: int, thing: str) -> str:
    """`1 pod`, `2 pods`."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Condition:
    type: str
    status: bool | None  # None: Unknown
    reason: Reason | str
    message: str


def true(type_: str, reason: Reason | str, message: str) -> Condition:
    return Condition(type_, True, reason, message)


def false(type_: str, reason: Reason | str, message: str) -> Condition:
    return Condition(type_, False, reason, message)


def reconciling(reason: Reason | str, message: str) -> Condition:
    return Condition(RECONCILING, True, reason, message)


def stalled(reason: Reason | str, message: str) -> Condition:
    return Condition(STALLED, True, reason, message)


def ready(holds: bool, reason: Reason | str, message: str, *, final: bool) -> list[Condition]:
    """Ready; where it does not hold, also what kstatus wants to know: whether only a person can help (`final`)."""
    found = Condition("Ready", holds, reason, message)
    if holds:
        return [found]
    abnormal = stalled if final else reconciling
    return [found, abnormal(reason, message)]


def render(
    conditions: Sequence[Condition], old: Sequence[api.Condition], *, generation: int, now: datetime
) -> list[Object]:
    """As status.conditions; lastTransitionTime is kept where the status did not change."""
    before = {condition.type: condition for condition in old}
    rendered = []
    for condition in conditions:
        status = {True: "True", False: "False", None: "Unknown"}[condition.status]
        previous = before.get(condition.type)
        since = previous.last_transition_time if previous and previous.status == status else now
        rendered.append(
            {
                "type": condition.type,
                "status": status,
                "observedGeneration": generation,
                "lastTransitionTime": timestamp(since),
                "reason": str(condition.reason),
                "message": shorten(condition.message),
            }
        )
    return rendered


def news(type_: str, conditions: Sequence[Condition], old: Sequence[api.Condition]) -> tuple[Event, ...]:
    """One event when the reason of condition `type_` is another than before; silence otherwise."""
    current = next((condition for condition in conditions if condition.type == type_), None)
    if current is None:
        return ()
    previous = next((condition for condition in old if condition.type == type_), None)
    if previous is not None and previous.reason == str(current.reason):
        return ()
    bad = any(condition.type == STALLED for condition in conditions)
    return (Event("Warning" if bad else "Normal", str(current.reason), shorten(current.message)),)


def status(
    obj: api.ModelService | api.Dataset | api.TrainingJob | api.Deployment,
    conditions: Sequence[Condition],
    now: datetime,
    **fields: object,
) -> Object:
    """A whole status: what is None or empty is left out, as the API server would."""
    return {
        "conditions": render(conditions, obj.status.conditions or (), generation=obj.metadata.generation, now=now),
        "observedGeneration": obj.metadata.generation,
        **{name: value for name, value in fields.items() if value is not None and value != [] and value != {}},
    }


def not_understood(obj: Object, why: str, now: datetime) -> Object:
    """The status of an object that does not fit our types: the old one, and a condition that nothing is done. It works on raw
    JSON, since the old status may be what does not fit."""
    type_ = "Accepted" if resource_of(obj) == TRAINING_JOB else "Ready"
    message = f"This version of the operator cannot read it, so nothing is done about it: {why}"
    told = (false(type_, Reason.NOT_UNDERSTOOD, message), stalled(Reason.NOT_UNDERSTOOD, message))
    generation = obj["metadata"].get("generation", 0)
    old = status_of(obj).get("conditions") or []
    kept = [one for one in old if one["type"] not in (type_, RECONCILING, STALLED)]
    since = {(one["type"], one["status"]): {"lastTransitionTime": one["lastTransitionTime"]} for one in old}
    fresh = [
        one | since.get((one["type"], one["status"]), {}) for one in render(told, (), generation=generation, now=now)
    ]
    summary = f"Stalled: {Reason.NOT_UNDERSTOOD}"
    return {**status_of(obj), "conditions": [*fresh, *kept], "observedGeneration": generation, "summary": summary}
