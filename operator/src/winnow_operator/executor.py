"""The only module that writes to the API server: children by their rules, then one status, then events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from winnow_operator import api, conditions, drift, pods
from winnow_operator.build.common import digest
from winnow_operator.kube import ApiError, Kube
from winnow_operator.metrics import Metrics
from winnow_operator.plan import Apply, Child, Create, Delete, Event, Hold, Plan, Refusal, Release, TakeBack
from winnow_operator.reasons import Reason
from winnow_operator.resources import (
    API_VERSION,
    AROUND,
    CLAIM,
    EVENT,
    GUESTS,
    IN_USE,
    Object,
    Resource,
    being_deleted,
    controller_of,
    finalizers_of,
    key_of,
    name_of,
    namespace_of,
    owned_by,
    resource_of,
    status_of,
    uid_of,
)
from winnow_operator.store import Store
from winnow_operator.turns import BusyError, Turns

log = logging.getLogger(__name__)
EVENT_BACKLOG = 1_000  # events are a courtesy: beyond this they are dropped
EVENT_DELAY_SECONDS = 5.0  # and no longer, however busy it is
NOTE_CHARS = 1_024  # the limit of events.k8s.io


class RefusedError(Exception):
    """The child must not be written, now or later."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a plan's children."""

    anything: bool  # whether anything was created, changed or removed
    refusal: Refusal | None  # why a child was not written; the later ones, which depend on it, were not tried
    around: tuple[Refusal, ...] = ()  # why children around the pods were not written


class NotWrittenError(ApiError):
    """A child could not be written; the same request may succeed later."""

    def __init__(self, refusal: Refusal, err: ApiError, *, around: bool) -> None:
        super().__init__(err.status, err.reason, err.message)
        self.written = Written(False, None, (refusal,)) if around else Written(False, refusal)


def stands_around(child: Child) -> bool:
    """Whether the children after it are written even if this one is refused. Not where it removes something: two autoscalers
    would pull in two directions."""
    return isinstance(child, Apply) and resource_of(child.obj) in (*AROUND, *GUESTS)


class News(Protocol):
    """Who has to hear of what was written, before the watch tells: the next decision must know of it."""

    def kept(self, obj: Object) -> bool: ...  # whether it was news
    def gone(self, obj: Object) -> None: ...


class Executor:
    def __init__(self, kube: Kube, store: Store, news: News, metrics: Metrics, *, instance: str) -> None:
        self._kube, self._store, self._news, self._metrics = kube, store, news, metrics
        self._instance = instance
        self._turns = Turns()
        self._finalizing = asyncio.Lock()  # so that a hundred jobs that start together on one Dataset mark it once
        self._events: asyncio.Queue[Object] = asyncio.Queue(EVENT_BACKLOG)
        self._pruned: dict[str, tuple[Object, Object]] = {}  # uid → (status as sent, as kept)
        self._changed: dict[str, tuple[str, str]] = {}  # uid → (what was wanted, what admission made of it), as digests

    async def write(self, owner: api.Resource, plan: Plan) -> Written:
        """Raises NotWrittenError, ApiError or BusyError for what passes by itself."""
        with self._turns.take(plan.turn):
            return await self._write_all(owner, plan.children)

    async def _write_all(self, owner: api.Resource, children: Sequence[Child]) -> Written:
        """One after the other. A refused child ends the list, unless it is one that stands around the pods: nothing depends
        on those."""
        wrote, around = False, list[Refusal]()
        passes: NotWrittenError | None = None
        stopped_by: Refusal | None = None
        for child in children:
            try:
                wrote |= await self._write(owner, child)
            except RefusedError as err:
                refusal = err.refusal
            except ApiError as err:
                kind = child.obj["kind"]
                message = f"The API server refused {kind} {name_of(child.obj)}: {err.message}"
                passing = err.transient or pods.lack_room(err.message)
                refusal = Refusal(Reason.API_REFUSED, message, kind, final=not passing)
                if err.transient:
                    passes = passes or NotWrittenError(refusal, err, around=stands_around(child))
            except BusyError as err:
                if isinstance(child, Hold | Release):
                    raise
                # Mostly over in a moment; but a finalizer whose owner is not running keeps an object for ever.
                refusal = Refusal(Reason.NOT_MADE_YET, str(err), child.obj["kind"], final=False)
                busy = ApiError(409, "Busy", str(err))
                passes = passes or NotWrittenError(refusal, busy, around=stands_around(child))
            else:
                continue
            if not stands_around(child):
                stopped_by = refusal
                break
            around.append(refusal)
        if passes:
            raise passes
        return Written(wrote, stopped_by, tuple(around))

    async def _write(self, owner: api.Resource, child: Child) -> bool:
        match child:
            case Create(obj):
                return await self._create(owner, obj)
            case TakeBack(obj):
                return await self._take_back(owner, obj)
            case Apply(obj):
                return await self._apply(owner, obj)
            case Delete(obj):
                return await self._delete(obj)
            case Hold(obj):
                return await self._finalize(owner, obj, held=True)
            case Release(obj):
                return await self._finalize(owner, obj, held=False)

    async def _create(self, owner: api.Resource, obj: Object) -> bool:
        resource = resource_of(obj)
        try:
            created = await self._kube.create(resource, obj, _manager(owner))
        except ApiError as err:
            if err.reason != "AlreadyExists":
                raise
            found = await self._kube.get(resource, namespace_of(obj), name_of(obj))
            if found is None:
                raise BusyError(f"{obj['kind']} {name_of(obj)} came and went") from err
            if not _orphaned(obj, found):
                _check_ours(owner, found)
            if not _marked(owner, obj, found):
                # Its labels or its owner were taken off: without them it does not count as ours, and no watch tells of it.
                found = await self._mark(owner, obj, found, "labels", "ownerReferences")
            # False where the store knew it and it was wanted all the same: to look again at once would only lead here again.
            return self._news.kept(found)
        self._wrote(resource, "create")
        self._news.kept(created)
        return True

    async def _take_back(self, owner: api.Resource, obj: Object) -> bool:
        found = await self._kube.get(resource_of(obj), namespace_of(obj), name_of(obj))
        if found is None or being_deleted(found) or not owned_by(found, owner.metadata.uid):
            return False
        self._news.kept(await self._mark(owner, obj, found, "labels"))
        return True

    async def _mark(self, owner: api.Resource, wanted: Object, live: Object, *marks: str) -> Object:
        """Put these marks of ours, which are fields of metadata, on again; returns the object as it is then."""
        resource = resource_of(wanted)
        patch = {"metadata": {"uid": uid_of(live), **{mark: wanted["metadata"][mark] for mark in marks}}}
        marked = await self._kube.patch(resource, namespace_of(wanted), name_of(wanted), patch, _manager(owner))
        self._wrote(resource, "patch")
        return marked

    async def _apply(self, owner: api.Resource, obj: Object) -> bool:
        resource, namespace, name = resource_of(obj), namespace_of(obj), name_of(obj)
        # Objects of others carry none of our labels, so the store does not know them: before the first write, ask.
        live = self._store.get(resource, namespace, name) or await self._kube.get(resource, namespace, name)
        if live is not None:
            if not _orphaned(obj, live):
                _check_ours(owner, live)
            if not drift.differs(obj, live) or self._changed.get(uid_of(live)) == (digest(obj), drift.content(live)):
                return False
        wanted = drift.stamped(obj)
        if live is not None:
            wanted["metadata"]["uid"] = uid_of(live)  # the API server refuses should it be another one by now
        try:
            written = await self._kube.apply(resource, wanted, _manager(owner))
        except ApiError as err:
            # Somebody's edit beside our fields stays when we apply: another port number, another type of probe.
            if live is None or err.status != 422 or not await self._take_over(live, _manager(owner)):
                raise
            written = await self._kube.apply(resource, wanted, _manager(owner))
        self._news.kept(written)
        written = self._store.get(resource, namespace, name) or written  # without bookkeeping, as `live` is
        self._wrote(resource, "apply")
        self._changed.pop(uid_of(written), None)
        if drift.differs(obj, written):
            # An admission webhook rewrites it, as images to those of a mirror: applied again, it would only do so again.
            self._changed[uid_of(written)] = (digest(obj), drift.content(written))
            log.info("Not kept as applied", extra={"object": f"{resource.kind} {namespace}/{name}"})
        return live is None or drift.content(live) != drift.content(written)

    async def _take_over(self, live: Object, manager: str) -> bool:
        """Whether anything that others specified is ours now, so that the next apply removes it."""
        resource, namespace, name = resource_of(live), namespace_of(live), name_of(live)
        if resource == CLAIM:
            return False  # others are a controller here, which names the volume
        found = await self._kube.get(resource, namespace, name)
        fields = drift.taken_over(found["metadata"].get("managedFields") or [], manager) if found else None
        if found is None or fields is None:
            return False
        metadata = {key: found["metadata"][key] for key in ("uid", "resourceVersion")}
        await self._kube.patch(resource, namespace, name, {"metadata": {**metadata, "managedFields": fields}}, manager)
        log.info("Edit of others taken back", extra={"object": f"{resource.kind} {namespace}/{name}"})
        return True

    async def _delete(self, obj: Object) -> bool:
        resource = resource_of(obj)
        self._changed.pop(uid_of(obj), None)
        try:
            left = await self._kube.delete(resource, obj)
        except ApiError as err:
            if err.status == 409:
                await self._look_afresh(obj)
            if err.status != 404:
                raise
            self._news.gone(obj)
            return True
        self._wrote(resource, "delete")
        if left.get("kind") == resource.kind:
            self._news.kept(left)  # it waits for its dependents
        return True

    async def _look_afresh(self, obj: Object) -> Object | None:
        """Read the object from the API server again. The store may be old: kinds of other projects are listed only now and
        then, and a watch whose connection was lost on the way is silent for a minute before that is noticed."""
        live = await self._kube.get(resource_of(obj), namespace_of(obj), name_of(obj))
        if live is None:
            self._news.gone(obj)
        else:
            self._news.kept(live)
        return live

    async def _finalize(self, owner: api.Resource, obj: Object, *, held: bool) -> bool:
        """Put our finalizer on, or take it off: the one thing beside status that is written to a user's object."""
        key = key_of(obj)
        async with self._finalizing:
            live = self._store.get(key.resource, key.namespace, key.name)
            if live is None or uid_of(live) != uid_of(obj):
                raise BusyError(f"{key} is another one by now")
            finalizers = finalizers_of(live)
            if (IN_USE in finalizers) == held:
                return False
            wanted = [*finalizers, IN_USE] if held else [name for name in finalizers if name != IN_USE]
            patch = {
                "metadata": {
                    "uid": uid_of(live),
                    "resourceVersion": live["metadata"]["resourceVersion"],
                    "finalizers": wanted,
                }
            }
            try:
                written = await self._kube.patch(key.resource, key.namespace, key.name, patch, _manager(owner))
            except ApiError as err:
                if err.status not in (404, 409, 422):
                    raise
                now = await self._look_afresh(live)
                # 422 is the answer for what is being deleted, and that of an admission policy.
                if err.status != 422 or (now and held and being_deleted(now)):
                    raise BusyError(f"{key}: {err.message}") from err
                raise
            self._wrote(key.resource, "finalizers")
            if being_deleted(written) and not finalizers_of(written):
                self._news.gone(written)  # what came off was the last thing that kept it
            else:
                self._news.kept(written)
            return True

    async def status(self, obj: Object, status: Object, events: Sequence[Event]) -> bool:
        """Write the status, but only if it says something new, and only onto the version that was looked at."""
        old = status_of(obj)
        if old == status or self._pruned.get(uid_of(obj)) == (status, old):
            return False
        key = key_of(obj)
        patch = {
            "metadata": {"resourceVersion": obj["metadata"]["resourceVersion"]},
            "status": _merge_patch(old, status),
        }
        try:
            written = await self._kube.patch_status(
                key.resource, key.namespace, key.name, patch, f"winnow-{key.resource.kind.lower()}"
            )
        except ApiError as err:
            if err.status == 404:
                return False  # deleted meanwhile
            if err.status == 409:
                await self._look_afresh(obj)
            raise
        self._wrote(key.resource, "status")
        self._news.kept(written)
        if status_of(written) != status:
            # Unknown fields are dropped by the API server: writing them again and again would help nobody.
            self._pruned[uid_of(obj)] = (status, status_of(written))
            log.error("Status was not kept as written; are the CRDs of another version?", extra={"object": str(key)})
        for event in events:
            self._tell(written, event)
        return True

    def _tell(self, obj: Object, event: Event) -> None:
        key = key_of(obj)
        version = obj["metadata"]["resourceVersion"]
        # The name says what happened to which version, so an event that is sent twice is still one.
        name = f"{key.name}.{digest({'uid': uid_of(obj), 'version': version, 'reason': event.reason})}"
        body: Object = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": name, "namespace": key.namespace},
            "eventTime": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "type": event.type,
            "reason": event.reason,
            "action": event.reason,
            "note": event.message[:NOTE_CHARS],
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": key.resource.kind,
                "namespace": key.namespace,
                "name": key.name,
                "uid": uid_of(obj),
                "resourceVersion": version,
            },
            "reportingController": "winnow.dev/operator",
            "reportingInstance": self._instance,
        }
        try:
            self._events.put_nowait(body)
        except asyncio.QueueFull:
            log.warning("Event dropped, too many wait", extra={"object": str(key), "reason": event.reason})

    async def post_events(self, idle: Callable[[], Awaitable[object]]) -> None:
        """Send events for ever, when no visit is waiting, so that no Job waits for an event about another one."""
        while True:
            body = await self._events.get()
            # Not asyncio.wait_for: Python 3.11's forgets that it was cancelled where what it waits for is done in the same
            # turn of the loop.
            with suppress(TimeoutError):
                async with asyncio.timeout(EVENT_DELAY_SECONDS):
                    await idle()
            try:
                await self._kube.create(EVENT, body)
            except ApiError as err:
                if err.reason != "AlreadyExists":
                    log.warning("Event not written", extra={"event": body["metadata"]["name"], "error": str(err)})

    def _wrote(self, resource: Resource, what: str) -> None:
        self._metrics.writes.labels(resource.kind, what).inc()


def _manager(owner: api.Resource) -> str:
    return f"winnow-{owner.kind.lower()}"


def _orphaned(wanted: Object, live: Object) -> bool:
    """Whether it was made for an object of this kind and name and lost its owner, as by `kubectl delete --cascade=orphan`:
    it is taken back."""
    labels, metadata = wanted["metadata"]["labels"], live["metadata"]
    ours = labels.items() <= (metadata.get("labels") or {}).items()
    return ours and not metadata.get("ownerReferences") and not being_deleted(live)


def _marked(owner: api.Resource, wanted: Object, live: Object) -> bool:
    labels = live["metadata"].get("labels") or {}
    return owned_by(live, owner.metadata.uid) and wanted["metadata"]["labels"].items() <= labels.items()


def _check_ours(owner: api.Resource, live: Object) -> None:
    """An object that exists is ours by its owner reference only. Raises RefusedError for somebody else's, BusyError for what
    is about to go."""
    if owned_by(live, owner.metadata.uid):
        if being_deleted(live):
            keepers = conditions.some(finalizers_of(live), 5)
            waits = f" and waits for {keepers}, its finalizers" if keepers else ""
            raise BusyError(f"{live['kind']} {name_of(live)} is being deleted{waits}; another is made once it is gone")
        return
    controller = controller_of(live)
    if controller and (controller.get("kind"), controller.get("name")) == (owner.kind, owner.metadata.name):
        raise BusyError(f"{live['kind']} {name_of(live)} belongs to a deleted {owner.kind} of the same name")
    whose = f"{controller['kind']} {controller['name']}" if controller else "somebody else"
    message = (
        f"{live['kind']} {name_of(live)} exists and belongs to {whose}; it is left alone. Delete or rename it, or choose"
        f" another name for this {owner.kind}"
    )
    raise RefusedError(Refusal(Reason.NAME_CONFLICT, message, live["kind"]))


def _merge_patch(old: Any, new: Object) -> Object:
    """RFC 7396: what turns old into new."""
    patch: Object = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            if changes := _merge_patch(before, value):
                patch[name] = changes
        elif before != value:
            patch[name] = value
    return patch
