"""Who has to be looked at again when an object changes. Memory only."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from winnow_operator.resources import (
    DATASET,
    DEPLOYMENT,
    MODEL_SERVICE,
    STORAGE_CLASS,
    TRAINING_JOB,
    Key,
    Object,
    Resource,
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


def visits(store: Store, new: Object | None, old: Object | None) -> Iterator[Visit]:
    """`new` is None when the object is gone, `old` when it was not there before."""
    obj = new or old
    if obj is None:
        return
    resource = resource_of(obj)
    owner = owner_key(obj)
    if owner is not None:
        yield owner, 0
    elif resource == STORAGE_CLASS:
        yield from ((key_of(service), 0) for service in store.all(MODEL_SERVICE))
    else:
        yield key_of(obj), 0
        yield from _around(store, resource, obj, new, old)


def _around(store: Store, resource: Resource, obj: Object, new: Object | None, old: Object | None) -> Iterator[Visit]:
    namespace, name = namespace_of(obj), name_of(obj)
    if resource != MODEL_SERVICE:
        yield Key(MODEL_SERVICE, namespace, obj["spec"]["modelService"]), GATHER_SECONDS
    if resource == MODEL_SERVICE and _changed(new, old, "spec"):
        for kind in (DATASET, TRAINING_JOB, DEPLOYMENT):
            yield from _naming(store, kind, namespace, lambda spec: spec["modelService"] == name)
    elif resource == DATASET:
        fields = ("trainingDataset", "testDataset", "validationDataset")
        yield from _naming(store, TRAINING_JOB, namespace, lambda spec: name in (spec.get(field) for field in fields))
    elif resource == TRAINING_JOB and _checkpoints_changed(new, old):
        yield from _naming(store, DEPLOYMENT, namespace, lambda spec: spec["checkpoint"]["trainingJob"] == name)
    elif resource == DEPLOYMENT:
        for version in (new, old):
            live = status_of(version).get("live") if version else None
            if live:
                yield Key(TRAINING_JOB, namespace, live["trainingJob"]), 0


def _naming(store: Store, kind: Resource, namespace: str, names: Callable[[Object], bool]) -> Iterator[Visit]:
    for obj in store.all(kind):
        if namespace_of(obj) == namespace and names(obj["spec"]):
            yield key_of(obj), 0


def _changed(new: Object | None, old: Object | None, field: str) -> bool:
    return new is None or old is None or new.get(field) != old.get(field) or _leaving(new) != _leaving(old)


def _leaving(obj: Object) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def _checkpoints_changed(new: Object | None, old: Object | None) -> bool:
    if new is None or old is None:
        return True
    fields = ("checkpoints", "bestCheckpoint", "completionTime", "summary")
    return any(status_of(new).get(field) != status_of(old).get(field) for field in fields)
