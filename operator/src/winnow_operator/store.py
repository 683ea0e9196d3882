"""What was seen of the cluster: the newest version of each object, kept in memory, complete before anything is decided."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TypeVar

from pydantic import ValidationError

from winnow_operator import api
from winnow_operator.build.compare_job import POD_KIND
from winnow_operator.build.waker import KIND as WAKER_KIND
from winnow_operator.departed import Departed
from winnow_operator.resources import (
    DEPLOYMENT,
    GROUP,
    KINDS,
    POD,
    TRAINING_JOB,
    Key,
    Object,
    Resource,
    key_of,
    name_of,
    namespace_of,
    resource_of,
    status_of,
    uid_of,
)

log = logging.getLogger(__name__)
M = TypeVar("M", api.ModelService, api.Dataset, api.TrainingJob, api.Deployment)

# The pods of a gate and the waker are children of the Deployment, but not its servers.
_KIND_BY_NAME = {**{resource.kind: resource for resource in KINDS}, POD_KIND: DEPLOYMENT, WAKER_KIND: DEPLOYMENT}
# Deletions that are remembered: more than come while one list is read.
GONE = 10_000
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Store:
    def __init__(self) -> None:
        self._objects: dict[Resource, dict[str, dict[str, Object]]] = defaultdict(dict)  # by namespace, by name
        self._children: dict[tuple[Resource, Key], dict[str, Object]] = defaultdict(dict)
        self._parsed: dict[Key, tuple[str, api.Resource | str]] = {}  # of what does not fit our types, why
        self._departed = Departed()
        self._gone: dict[str, int] = {}  # uid → the last version of what is gone
        self.guests: frozenset[Resource] = frozenset()  # kinds of other projects that the cluster has

    def put(self, obj: Object) -> tuple[Object | None, bool]:
        """Keep the object; returns what was there before, and whether this is news.

        No news is what lists and answers tell late: an older version than the one at hand, also of an earlier object of the
        name (versions grow over the whole cluster), and an object that is known to be gone.
        """
        resource, namespace, name = resource_of(obj), namespace_of(obj), name_of(obj)
        old = self.get(resource, namespace, name)
        version = _version(obj)
        if (old is not None and version <= _version(old)) or version < self._gone.get(uid_of(obj), 0):
            return old, False
        slim = _slim(obj)
        if old is not None:
            self._disown(resource, old)
        self._objects[resource].setdefault(namespace, {})[name] = slim
        if owner := owner_key(slim):
            self._children[resource, owner][name] = slim
        if resource == TRAINING_JOB and _over(slim):
            self._departed.forget(Key(resource, namespace, name))
        return old, True

    def remove(self, obj: Object) -> Object | None:
        """What was there, or None if it was gone already or another one took its name."""
        resource, namespace, name = resource_of(obj), namespace_of(obj), name_of(obj)
        old = self.get(resource, namespace, name)
        self._remember(obj)
        if old is None or uid_of(old) != uid_of(obj):
            return None
        del self._objects[resource][namespace][name]
        self._disown(resource, old)
        if owner := owner_key(old):
            training = self.get(owner.resource, owner.namespace, owner.name)
            if resource == POD and training is not None and owner.resource == TRAINING_JOB and not _over(training):
                self._departed.keep(owner, _slim(obj) if _version(obj) > _version(old) else old)
        self._parsed.pop(Key(resource, namespace, name), None)
        self._departed.forget(Key(resource, namespace, name))
        return old

    def _remember(self, obj: Object) -> None:
        """Remember the deletion by its version: an object whose label was taken off, or whose kind was away for a moment,
        also counts as deleted, and may come back with a newer one."""
        uid = uid_of(obj)
        self._gone[uid] = max(_version(obj), self._gone.pop(uid, 0))
        if len(self._gone) > GONE:
            del self._gone[next(iter(self._gone))]

    def _disown(self, resource: Resource, obj: Object) -> None:
        if owner := owner_key(obj):
            children = self._children[resource, owner]
            children.pop(name_of(obj), None)
            if not children:
                del self._children[resource, owner]

    def missing_from(self, resource: Resource, listed: Iterable[Object]) -> list[Object]:
        """Objects that are kept here but missing from a fresh list: no watch told of their deletion."""
        uids = {uid_of(obj) for obj in listed}
        return [obj for obj in self.all(resource) if uid_of(obj) not in uids]

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        return self._objects[resource].get(namespace, {}).get(name)

    def all(self, resource: Resource) -> list[Object]:
        return [obj for named in self._objects[resource].values() for obj in named.values()]

    def within(self, resource: Resource, namespace: str) -> list[Object]:
        return list(self._objects[resource].get(namespace, {}).values())

    def our_keys(self) -> Iterator[Key]:
        """Every object of ours."""
        for resource in KINDS:
            yield from map(key_of, self.all(resource))

    def children(self, resource: Resource, owner: Key) -> tuple[Object, ...]:
        """By label. Whether they are really owned is for the caller to check."""
        found = self._children.get((resource, owner), {})
        return tuple(found[name] for name in sorted(found))

    def departed(self, training: Key) -> tuple[Object, ...]:
        """Pods of a training that runs which ended and are gone."""
        return self._departed.of(training)

    def model(self, model: type[M], key: Key) -> M | None:
        """An object of ours, parsed once a version. None if it does not exist or does not fit our types: see misfit."""
        obj = self.get(key.resource, key.namespace, key.name)
        if obj is None:
            return None
        version = obj["metadata"]["resourceVersion"]
        cached = self._parsed.get(key)
        if cached is None or cached[0] != version:
            try:
                cached = (version, model.model_validate(obj))
            except ValidationError as err:
                found = {".".join(map(str, problem["loc"])): problem["msg"] for problem in err.errors()}
                why = "; ".join(f"{field}: {message}" for field, message in sorted(found.items()))
                log.error("Object does not fit the CRDs of this version", extra={"object": str(key), "why": why})
                cached = (version, why)
            self._parsed[key] = cached
        parsed = cached[1]
        return parsed if isinstance(parsed, model) else None

    def misfit(self, key: Key) -> tuple[Object, str] | None:
        """An object of ours that does not fit our types, and why."""
        obj, cached = self.get(key.resource, key.namespace, key.name), self._parsed.get(key)
        if obj is None or cached is None or cached[0] != obj["metadata"]["resourceVersion"]:
            return None
        return (obj, cached[1]) if isinstance(cached[1], str) else None

    def models(self, model: type[M], resource: Resource, namespace: str, *, leaving: bool = False) -> Iterator[M]:
        """All of a kind in a namespace, by name; those that are being deleted only where `leaving`."""
        for name in sorted(self._objects[resource].get(namespace, {})):
            found = self.model(model, Key(resource, namespace, name))
            if found is not None and (leaving or found.metadata.deletion_timestamp is None):
                yield found


def owner_key(obj: Object) -> Key | None:
    """Whose child this is, by our labels."""
    labels = obj["metadata"].get("labels") or {}
    kind, name = labels.get(f"{GROUP}/kind"), labels.get(f"{GROUP}/name")
    resource = _KIND_BY_NAME.get(kind or "")
    return Key(resource, namespace_of(obj), name) if resource and name and resource_of(obj) not in KINDS else None


def _over(training: Object) -> bool:
    """Whether its end is recorded."""
    return status_of(training).get("completionTime") is not None


def _version(obj: Object) -> int:
    return int(obj["metadata"].get("resourceVersion") or 0)


def _slim(obj: Object) -> Object:
    """The object without fields that nobody here reads, such as managedFields: up to half of its size."""
    metadata = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    annotations = metadata.get("annotations")
    if annotations and _LAST_APPLIED in annotations:
        metadata["annotations"] = {name: text for name, text in annotations.items() if name != _LAST_APPLIED}
    return {**obj, "metadata": metadata}
