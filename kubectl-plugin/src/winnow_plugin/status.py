"""What there is to say about an object of each kind, in one line: its state, how far it is, what matters now. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rich.table import Table
from rich.text import Text

from winnow_classifier.words import count
from winnow_plugin.objects import (
    DATASET,
    DEPLOYMENT,
    KINDS,
    MODEL_SERVICE,
    TRAINING_JOB,
    Object,
    condition,
    created,
    is_true,
    name_of,
    namespace_of,
    status_of,
)
from winnow_plugin.screen import table
from winnow_plugin.words import NOTHING, age, bar, plain

BAR_WIDTH = 12
WIDE_ENOUGH_FOR_AGES = 100  # characters
UNSEEN = "Pending"
UNSEEN_BECAUSE = "the operator has not seen it yet"


class Tone(StrEnum):
    """How a state is meant; the value is its colour."""

    GOOD = "green"
    WORKING = "yellow"
    BAD = "red"


@dataclass(frozen=True, slots=True)
class Line:
    kind: str
    namespace: str
    name: str
    state: str
    tone: Tone
    done: float | None  # from 0 to 1, where something goes on that has an end
    progress: str
    details: str
    created: str


def line(obj: Object) -> Line:
    """Raises KeyError for an object that is none of ours."""
    told = _TELL[obj["kind"]](obj)
    return Line(
        obj["kind"],
        namespace_of(obj),
        name_of(obj),
        state=plain(told.state),
        tone=told.tone,
        done=told.done,
        progress=told.progress,
        details=plain(" · ".join(filter(None, told.details if status_of(obj) else (UNSEEN_BECAUSE,)))),
        created=created(obj),
    )


def lines(objects: Iterable[Object]) -> list[Line]:
    """By kind in the order in which work flows, then by namespace and name."""
    order = {kind.name: number for number, kind in enumerate(KINDS)}
    return sorted(map(line, objects), key=lambda found: (order[found.kind], found.namespace, found.name))


def fitting(found: Sequence[Line], room: int) -> tuple[list[Line], int]:
    """The lines that a screen has room for, in their order, and how many are left out: those that need nobody's attention
    first, the oldest of them before others."""
    if len(found) <= room:
        return list(found), 0
    kept = set(sorted(found, key=lambda each: (each.tone is not Tone.GOOD, each.created), reverse=True)[: max(0, room)])
    return [each for each in found if each in kept], len(found) - len(kept)


def nothing(namespace: str | None, what: str = "objects of Winnow") -> str:
    return f"There are no {what} {f'in the namespace {namespace}' if namespace is not None else 'in this cluster'}."


def plain_table(found: Sequence[Line], now: datetime, *, namespaces: bool) -> Table:
    """A row an object, each row whole in itself."""
    headings = ("KIND", "NAME", "STATE", "PROGRESS", "DETAILS", "AGE")
    made = table(*(("NAMESPACE",) if namespaces else ()), *headings)
    for each in found:
        cells = (each.kind, each.name, each.state, each.progress, each.details, age(each.created, now))
        made.add_row(*(Text(plain(cell) or NOTHING) for cell in ((each.namespace,) if namespaces else ()) + cells))
    return made


def screen_table(found: Sequence[Line], now: datetime, *, namespaces: bool, width: int) -> Table:
    """A block for each kind, with bars. Where the screen is narrow, ages are left out and details are cut."""
    ages = width >= WIDE_ENOUGH_FOR_AGES
    columns = ("NAME", *(("NAMESPACE",) if namespaces else ()), "STATE", "PROGRESS", *(("AGE",) if ages else ()))
    made = table(*columns, "DETAILS")
    made.columns[-1].no_wrap = False  # what rich takes room from first
    before = ""
    for each in found:
        if each.kind != before:
            if before:
                made.add_row()
            made.add_row(Text(f"{each.kind}s", style="bold"))
        before = each.kind
        made.add_row(
            Text(plain(f"  {each.name}")),
            *((Text(plain(each.namespace)),) if namespaces else ()),
            Text(each.state, style=each.tone.value),
            _progress(each),
            *((Text(age(each.created, now)),) if ages else ()),
            Text(each.details, no_wrap=True, overflow="ellipsis"),
        )
    return made


def _progress(each: Line) -> Text:
    if each.done is None:
        return Text(each.progress)
    drawn = bar(each.done, BAR_WIDTH)
    return Text.assemble((drawn, f"{each.tone.value} on grey23"), f" {each.progress}")


@dataclass(frozen=True, slots=True)
class _Told:
    state: str
    tone: Tone
    details: tuple[str, ...]
    done: float | None = None
    progress: str = ""


def _tone(obj: Object) -> Tone:
    if is_true(obj, "Stalled"):
        return Tone.BAD
    return Tone.GOOD if is_true(obj, "Ready") else Tone.WORKING


def _model_service(obj: Object) -> _Told:
    status, ready = status_of(obj), condition(obj, "Ready")
    counts = (
        count(status.get(field, 0), noun)
        for field, noun in (("datasets", "dataset"), ("trainingJobs", "training job"), ("deployments", "deployment"))
    )
    board = status.get("leaderboard") or []
    best = f"best {board[0]['metric']} {board[0]['value']:.4f} ({board[0]['trainingJob']})" if board else ""
    return _Told(ready.get("reason", UNSEEN), _tone(obj), (*counts, best, _why_not(obj)))


def _dataset(obj: Object) -> _Told:
    status, ready = status_of(obj), condition(obj, "Ready")
    found: tuple[str, ...] = ()
    if "rows" in status:
        warnings, skipped = len(status.get("warnings") or []), status.get("skippedRows", 0)
        found = (
            count(status["rows"], "row"),
            status.get("taskDetail", ""),
            count(status.get("labelCount", 0), "label"),
            count(skipped, "skipped row") if skipped else "",
            count(warnings, "warning") if warnings else "",
        )
    return _Told(ready.get("reason", UNSEEN), _tone(obj), (*found, _why_not(obj)))


def _training_job(obj: Object) -> _Told:
    status = status_of(obj)
    progress = status.get("progress") or {}
    complete, failed = is_true(obj, "Complete"), is_true(obj, "Failed")
    state = status.get("summary") or UNSEEN
    best = f"best {status['bestMetric']}" if status.get("bestMetric") else ""
    warnings = len((status.get("datasets") or {}).get("warnings") or [])
    checkpoint = f"({status['bestCheckpoint']})" if status.get("bestCheckpoint") else ""
    details = (
        f"{progress['eta']} left" if progress.get("eta") else "",
        " ".join(filter(None, (best, checkpoint))) if best or complete else "",
        f"loss {progress['loss']:.4g}" if "loss" in progress and not complete else "",
        f"epoch {progress['epoch']}/{progress.get('totalEpochs', '?')}"
        if "epoch" in progress and not complete and "epoch" not in state
        else "",
        count(warnings, "warning") if warnings else "",
        (status.get("failure") or {}).get("message", "") if failed else _why_waiting(obj),
    )
    tone = Tone.GOOD if complete else Tone.BAD if failed or is_true(obj, "Stalled") else Tone.WORKING
    done = progress.get("percent")
    if done is None:
        return _Told(state, tone, details)
    return _Told(state, tone, details, done / 100, f"{done:.0f}%" if complete else f"{done:.1f}%")


def _deployment(obj: Object) -> _Told:
    status, ready = status_of(obj), condition(obj, "Ready")
    live = status.get("live")
    wanted, answering = obj["spec"].get("replicas", 1), status.get("readyReplicas", 0)
    details = (
        f"{live['trainingJob']}/{live['checkpoint']} is live" if live else "nothing is live yet",
        status.get("url", "") if live else "",
        _candidate(obj),
        _why_not(obj),
    )
    if not wanted:
        return _Told(ready.get("reason", UNSEEN), _tone(obj), details, None, "0 ready")
    share = min(1.0, answering / wanted)
    return _Told(ready.get("reason", UNSEEN), _tone(obj), details, share, f"{answering}/{wanted} ready")


def _candidate(obj: Object) -> str:
    """What becomes of the checkpoint that the spec chooses, where Ready's reason does not say so."""
    promoted, candidate = condition(obj, "Promoted"), status_of(obj).get("candidate")
    reason = promoted.get("reason", "")
    if promoted.get("status") == "True" or reason in ("", condition(obj, "Ready").get("reason")):
        return ""
    if not candidate:
        return "is being watched" if reason == "Watching" else ""
    words = f"{candidate['trainingJob']}/{candidate['checkpoint']}: {reason}"
    return f"{words}, {promoted.get('message', '')}" if promoted.get("status") == "False" else words


def _why_not(obj: Object) -> str:
    """The operator's words where the object is not ready."""
    ready = condition(obj, "Ready")
    return ready.get("message", "") if ready and ready.get("status") != "True" else ""


def _why_waiting(obj: Object) -> str:
    """The operator's words where a job has not been accepted, or cannot run."""
    accepted = condition(obj, "Accepted")
    if accepted.get("status") == "False":
        return accepted.get("message", "")
    return condition(obj, "Reconciling").get("message", "") if not is_true(obj, "Running") else ""


_TELL: dict[str, Callable[[Object], _Told]] = {
    MODEL_SERVICE.name: _model_service,
    DATASET.name: _dataset,
    TRAINING_JOB.name: _training_job,
    DEPLOYMENT.name: _deployment,
}
