"""Who has to be looked at again when an object changes. Memory only."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from winnow_operator import api, pods
from winnow_operator.build.training_job import run_name
from winnow_operator.policies import lineage
from winnow_operator.resources import (
    APPS_DEPLOYMENT,
    CLAIM,
    DATASET,
    DEPLOYMENT,
    JOB,
    KINDS,
    MODEL_SERVICE,
    STORAGE_CLASS,
    TRAINING_JOB,
    Key,
    Object,
    Resource,
    being_deleted,
    condition_of,
    key_of,
    name_of,
    namespace_of,
    resource_of,
    status_of,
)
from winnow_operator.store import Store, owner_key

# A hundred jobs that change together are one change to their ModelService's counts.
GATHER_SECONDS = 1.0
Visit = tuple[Key, float]  # and after how many seconds
ROWS = ("trainingDataset", "testDataset", "validationDataset")  # fields of a TrainingJob that name Datasets


def visits(store: Store, new: Object | None, old: Object | None) -> Iterator[Visit]:
    """`new` is None when the object is gone, `old` when it was not there before."""
    obj = new or old
    if obj is None:
        return
    resource = resource_of(obj)
    owner = owner_key(obj)
    if old is not None and (before := owner_key(old)) not in (None, owner):
        yield before, 0  # its labels were edited, and are put back
    if owner is not None:
        yield owner, 0
        if resource == APPS_DEPLOYMENT:
            yield from _stood_on(store, new, old)
        if resource == JOB and (new is None or (_over(new) and (old is None or not _over(old)))):
            yield from _after(store, owner)
        if resource == CLAIM and _changed(new, old, "spec"):
            yield from _of_service(store, owner.namespace, owner.name)
    elif resource == STORAGE_CLASS:
        yield from ((key_of(service), 0) for service in store.all(MODEL_SERVICE))
    elif resource in KINDS:
        yield key_of(obj), 0
        yield from _around(store, resource, obj, new, old)


def _after(store: Store, owner: Key) -> Iterator[Visit]:
    """Who waits for the end of a batch Job of `owner`: Datasets that a training read, or that could not be imported while
    storage was cleared."""
    if owner.resource == TRAINING_JOB:
        job = store.get(owner.resource, owner.namespace, owner.name)
        if job is not None:
            yield from _datasets(job, 0)
    elif owner.resource == MODEL_SERVICE:
        yield from _those(store, DATASET, owner.namespace, lambda rows: "digest" not in status_of(rows))


def _stood_on(store: Store, new: Object | None, old: Object | None) -> Iterator[Visit]:
    """The TrainingJobs whose checkpoints a server's adapter stands on, or no longer does."""
    before, after = (lineage.bases((), (server,) if server else ()) for server in (old, new))
    runs = {place.partition("/")[0] for place in before ^ after}
    if runs and (server := new or old):
        for job in store.models(api.TrainingJob, TRAINING_JOB, namespace_of(server)):
            if run_name(job) in runs:
                yield Key(TRAINING_JOB, namespace_of(server), job.metadata.name), 0


def _datasets(job: Object, seconds: float) -> Iterator[Visit]:
    spec = job["spec"]
    for name in {spec.get(field) for field in ROWS} - {None}:
        yield Key(DATASET, namespace_of(job), name), seconds


def _over(job: Object) -> bool:
    return pods.outcome(job) is not None


def _around(store: Store, resource: Resource, obj: Object, new: Object | None, old: Object | None) -> Iterator[Visit]:
    namespace, name = namespace_of(obj), name_of(obj)
    if resource == MODEL_SERVICE:
        if _changed(new, old, "spec"):
            yield from _of_service(store, namespace, name)
        elif _collected(new) != _collected(old):
            yield from _those(store, TRAINING_JOB, namespace, lambda job: job["spec"]["modelService"] == name)
        return
    # The ModelService notes at once what was stored: a Dataset that is deleted right afterwards could not be asked any more.
    stored = resource == DATASET and new is not None and old is not None and _digest(new) != _digest(old)
    yield Key(MODEL_SERVICE, namespace, obj["spec"]["modelService"]), 0 if stored else GATHER_SECONDS
    if resource == DATASET:
        # Not where only the finalizer changed, which is put on and taken off for the TrainingJobs' sake.
        if _changed(new, old, "spec") or _changed(new, old, "status"):
            yield from _those(store, TRAINING_JOB, namespace, lambda job: _may_read(job, name))
    elif resource == TRAINING_JOB:
        if new is None or _accepted(new) != _accepted(old):
            yield from _datasets(obj, 0)
        if _checkpoints_changed(new, old):
            yield from _those(store, DEPLOYMENT, namespace, lambda one: _may_choose(one["spec"], obj))
            yield from _those(store, TRAINING_JOB, namespace, lambda job: _goes_on_from(job["spec"]) == name)
        if (parent := _goes_on_from(obj["spec"])) and _continued(new) != _continued(old):
            yield Key(TRAINING_JOB, namespace, parent), 0
    elif resource == DEPLOYMENT:
        for job in {job for version in (new, old) if version for job in _served_from(version)}:
            yield Key(TRAINING_JOB, namespace, job), 0


def _may_read(job: Object, rows: str) -> bool:
    """Whether a TrainingJob has to know about changes of a Dataset: it names it, and has not ended."""
    return "completionTime" not in status_of(job) and rows in (job["spec"].get(field) for field in ROWS)


def _may_choose(spec: Object, job: Object) -> bool:
    """Whether a Deployment takes its checkpoint from this TrainingJob, or might."""
    checkpoint = spec.get("checkpoint")
    if checkpoint is None:
        return bool(spec["modelService"] == job["spec"]["modelService"])
    return bool(checkpoint["trainingJob"] == name_of(job))


def _goes_on_from(spec: Object) -> str | None:
    name: str | None = ((spec.get("baseModel") or {}).get("checkpoint") or {}).get("trainingJob")
    return name


def _accepted(job: Object | None) -> object:
    """The reason of its condition Accepted: Datasets stay held while the batch Job is refused, so a change concerns them."""
    return (condition_of(job, "Accepted") or {}).get("reason") if job else None


def _continued(job: Object | None) -> object:
    return status_of(job).get("continuedFrom") if job else None


def _those(store: Store, kind: Resource, namespace: str, concerned: Callable[[Object], bool]) -> Iterator[Visit]:
    return ((key_of(obj), 0) for obj in store.within(kind, namespace) if concerned(obj))


def _served_from(deployment: Object) -> Iterator[str]:
    """TrainingJobs of the checkpoints that retention keeps for it: those that it names, serves, is to serve and served
    last."""
    status = status_of(deployment)
    named = deployment["spec"].get("checkpoint")
    for one in (named, status.get("live"), status.get("candidate"), *(status.get("history") or [])[:1]):
        if one:
            yield one["trainingJob"]


def _of_service(store: Store, namespace: str, name: str) -> Iterator[Visit]:
    for kind in (DATASET, TRAINING_JOB, DEPLOYMENT):
        yield from _those(store, kind, namespace, lambda one: one["spec"]["modelService"] == name)


def _collected(service: Object | None) -> object:
    return (status_of(service).get("collected") or {}).get("checkpoints") if service else None


def _digest(obj: Object) -> object:
    return status_of(obj).get("digest")


def _changed(new: Object | None, old: Object | None, field: str) -> bool:
    return new is None or old is None or new.get(field) != old.get(field) or being_deleted(new) != being_deleted(old)


def _checkpoints_changed(new: Object | None, old: Object | None) -> bool:
    if new is None or old is None:
        return True
    fields = ("checkpoints", "bestCheckpoint", "completionTime", "summary")
    return any(status_of(new).get(field) != status_of(old).get(field) for field in fields)
