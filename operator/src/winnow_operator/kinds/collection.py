"""What deleted Datasets left in the storage of a ModelService, checkpoints that retention does not keep, and the Job that
removes both when things are quiet. Pure.

What is stored is remembered in status, since the operator neither touches storage nor may miss a deletion that happened while
it was away. What nothing refers to any more is marked with the time, and removed by a Job no earlier than MARK after. The
danger is an import of the same rows at that moment: it finds them in storage and writes nothing. So imports and a collection
exclude each other (`Turn`, and no import starts while a collect Job is there), imports go first, and the collector itself
keeps what was stored or found again after the mark.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from winnow_operator import api, conditions, pods, report
from winnow_operator.build.collect_job import Left, checkpoints_of, collect_job, left_by
from winnow_operator.build.common import storage_claim
from winnow_operator.observed import ModelServiceSeen
from winnow_operator.plan import NO_TURN, Child, Config, Create, Delete, Event, Turn
from winnow_operator.policies import lineage, retention
from winnow_operator.reasons import Reason
from winnow_operator.resources import Object, being_deleted, name_of, newest

STORED = 1_000  # as the CRD has it
AT_ONCE = 30  # their digests fit in a termination message
CHECKPOINTS_AT_ONCE = 50
SHOWN = 5
# Longer than a leader may write without its Lease: what it began before is seen by the next one.
MARK = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Collection:
    stored: tuple[api.StoredRows, ...]
    collected: api.Collected | None
    children: tuple[Child, ...] = ()
    requeue_after: float | None = None
    events: tuple[Event, ...] = ()
    turn: Turn = NO_TURN
    trouble: str = ""  # why the pod of its Job does not run


def place(service: api.ModelService) -> str:
    """Where its rows lie: ModelServices may share a claim that was brought, or a bucket."""
    if s3 := service.spec.storage.s3:
        return f"{s3.endpoint or 'AWS'} {s3.uri.rstrip('/')}"
    return f"PersistentVolumeClaim {service.metadata.namespace}/{storage_claim(service)}"


def importing(dataset: api.Dataset, jobs: tuple[Object, ...]) -> bool:
    """Whether an import of it runs, or starts as soon as it may."""
    if dataset.status.digest is not None:
        return False
    ready = dataset.status.condition("Ready")
    reason = ready.reason if ready else ""
    job = newest(jobs)
    if job is None:
        return reason != Reason.SOURCE_UNREACHABLE and dataset.metadata.deletion_timestamp is None
    outcome = pods.outcome(job)
    if being_deleted(job) or outcome is None:
        return True
    # A complete one is over when its digest is recorded, or when its message is known to be lost.
    return outcome.complete and reason != Reason.IMPORT_FAILED


def referenced(datasets: Iterable[api.Dataset], jobs: Iterable[api.TrainingJob]) -> frozenset[str]:
    """Digests that existing Datasets and trainings that have not ended name: one that is suspended goes on with its rows."""
    found = {dataset.status.digest for dataset in datasets} | {use.digest for use in _uses(jobs)}
    return frozenset(digest for digest in found if digest)


def _uses(jobs: Iterable[api.TrainingJob]) -> Iterator[api.DatasetUse]:
    for job in jobs:
        used = job.status.datasets
        if job.status.completion_time is None and used:
            yield from (use for use in (used.training, used.test, used.validation) if use and use.name and use.digest)


def decide(seen: ModelServiceSeen, now: datetime, config: Config, *, ready: bool) -> Collection:
    found = Collection(_stored(seen, now), seen.obj.status.collected)
    job = newest(seen.jobs)
    if job is None:
        return _start(seen, found, now, config) if ready else found
    if being_deleted(job):
        return found
    outcome = pods.outcome(job)
    if outcome is None:
        # It can be stopped at any moment, and an import should not wait for a pod that finds no node.
        known = {
            retention.folder(one, kept.name) for one in seen.training_jobs for kept in one.status.checkpoints or ()
        }
        needed = known & set(checkpoints_of(job)) - _unneeded(seen).keys()  # by a Deployment that was applied meanwhile
        begun = any(pods.running(pod) or pods.ended(pod) for pod in seen.pods)
        if (seen.importing or needed) and not begun:
            return replace(found, children=(Delete(job),))
        pod = newest(seen.pods)
        trouble = pods.trouble(pod) if pod else None
        return replace(found, trouble=trouble.message if trouble else seen.pods_refused)
    if found.collected and found.collected.job == name_of(job):
        return replace(found, children=(Delete(job),)) if outcome.complete else found
    return _record(seen, found, job, outcome, now)


def _stored(seen: ModelServiceSeen, now: datetime) -> tuple[api.StoredRows, ...]:
    """What is known to be stored: of existing Datasets, and of deleted ones until it is collected."""
    names = {dataset.metadata.name for dataset in seen.stored_by}
    current = {
        (dataset.metadata.name, dataset.status.digest)
        for dataset in seen.stored_by
        if dataset.spec.model_service == seen.obj.metadata.name
    }
    digests = {digest for _, digest in current}
    left = []
    known = {(entry.dataset, entry.digest): entry.unreferenced_since for entry in seen.obj.status.stored or ()}
    for use in _uses(seen.training_jobs):  # of a Dataset that came and went before anybody looked
        known.setdefault((use.name or "", use.digest), None)
    for (dataset, digest), since in known.items():
        if (dataset, digest) in current:
            continue
        if digest in seen.referenced and digest not in digests:
            left.append(api.StoredRows(dataset=dataset, digest=digest))
        elif (digest and digest not in seen.referenced) or dataset not in names:
            left.append(api.StoredRows(dataset=dataset, digest=digest, unreferenced_since=since or now))
    # Of more than fit, those of deleted Datasets: only they cannot be found again.
    kept = [*left, *(api.StoredRows(dataset=name, digest=digest) for name, digest in sorted(current, key=_order))]
    return tuple(sorted(kept[:STORED], key=lambda entry: _order((entry.dataset, entry.digest))))


def _order(entry: tuple[str, str | None]) -> tuple[str, str]:
    return entry[0], entry[1] or ""


def _start(seen: ModelServiceSeen, found: Collection, now: datetime, config: Config) -> Collection:
    marked = {
        (entry.dataset, entry.digest): entry.unreferenced_since
        for entry in seen.obj.status.stored or ()
        if entry.unreferenced_since
    }
    waiting = [entry for entry in found.stored if entry.unreferenced_since]
    # Only what was marked in a status that was written: the Job's content, and so its name, hang on nothing else.
    due = [entry for entry in waiting if (since := marked.get((entry.dataset, entry.digest))) and now - since >= MARK]
    unneeded = _unneeded(seen)
    over = sorted(place for place, since in unneeded.items() if now - since >= MARK)[:CHECKPOINTS_AT_ONCE]
    if not due and not over:
        ages = [now - entry.unreferenced_since for entry in waiting if entry.unreferenced_since]
        ages += [now - since for since in unneeded.values()]
        return replace(found, requeue_after=(MARK - max(ages)).total_seconds() if ages else None)
    if seen.importing:
        return replace(found, requeue_after=MARK.total_seconds())
    names = {dataset.metadata.name for dataset in seen.stored_by}
    due = due[:AT_ONCE]
    left = tuple(
        Left(
            entry.dataset,
            entry.digest or "",
            rows=entry.digest is not None and entry.digest not in seen.referenced,
            problems=entry.dataset not in names,
        )
        for entry in due
    )
    marks = [entry.unreferenced_since for entry in due if entry.unreferenced_since]
    before = max(marks or [unneeded[place] for place in over])
    networks = config.fetch.allowed_networks
    job = collect_job(seen.obj, left, before, config.trainer_image, networks, tuple(over))
    return replace(found, children=(Create(job),), turn=Turn(alone=frozenset({place(seen.obj)})))


def _unneeded(seen: ModelServiceSeen) -> dict[str, datetime]:
    """Marked checkpoints by their place, and since when: those that a Deployment has come to need are left alone, and so
    are those of which the job does not know yet that they are gone."""
    last = seen.obj.status.collected
    gone = frozenset(last.checkpoints or ()) if last else frozenset()
    found = {}
    for job in seen.training_jobs:
        in_use = retention.used(seen.deployments, job.metadata.name)
        in_use |= lineage.needed(seen.training_jobs, job, seen.bases)
        for checkpoint in job.status.checkpoints or ():
            place = retention.folder(job, checkpoint.name)
            since = checkpoint.unneeded_since
            if since and not checkpoint.removed and checkpoint.name not in in_use and place not in gone:
                found[place] = since
    return found


def _record(seen: ModelServiceSeen, found: Collection, job: Object, outcome: pods.Outcome, now: datetime) -> Collection:
    pod = newest([pod for pod in seen.pods if pods.ended(pod)])
    ended = pods.ended(pod) if pod else None
    if pods.message_awaited(ended, outcome, now):
        return replace(found, requeue_after=1)
    said = report.parse(report.Collection, ended.message) if ended else None
    removed = left_by(job)
    if not outcome.complete:
        why = (said.message if said else "") or outcome.message or "its pod left no message"
        what = "What deleted datasets left in storage" if removed else "Checkpoints that retention does not keep"
        message = f"{what} could not be removed; it is tried again in an hour: {why}"
        told = api.Collected(job=name_of(job), time=now, message=conditions.shorten(message))
        return replace(found, collected=told, events=(Event("Warning", Reason.COLLECTION_FAILED, told.message),))
    kept = set(said.kept) if said else set()
    stored = []
    for entry in found.stored:
        if not entry.unreferenced_since or (entry.dataset, entry.digest or "") not in removed:
            stored.append(entry)
        elif entry.digest in kept:
            stored.append(api.StoredRows(dataset=entry.dataset, digest=entry.digest, unreferenced_since=now))
    datasets = sorted({dataset for dataset, digest in removed if digest not in kept})
    freed = said.freed_bytes if said else None
    checkpoints = checkpoints_of(job)
    if checkpoints:
        message = _removed_too(checkpoints, datasets, freed)
    elif not datasets:
        message = "Nothing was removed: imports found the rows again meanwhile"
    else:
        room = f", {_size(freed)}" if freed is not None else ""
        message = f"Removed from storage what deleted datasets left there{room}: {conditions.some(datasets, SHOWN)}"
    told = api.Collected(
        job=name_of(job),
        time=now,
        checkpoints=checkpoints or None,
        datasets=len(datasets),
        freed_bytes=freed,
        message=message,
    )
    event = Event("Normal", Reason.COLLECTED, message)
    return replace(found, stored=tuple(stored), collected=told, events=(event,))


def _removed_too(checkpoints: tuple[str, ...], datasets: list[str], freed: int | None) -> str:
    others = f", and what {conditions.counted(len(datasets), 'deleted dataset')} left there" if datasets else ""
    room = f", {_size(freed)}" if freed is not None else ""
    return f"Removed from storage checkpoints that retention does not keep{others}{room}: {conditions.some(checkpoints, SHOWN)}"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
