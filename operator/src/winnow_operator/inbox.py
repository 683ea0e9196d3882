"""Where news from the API server comes in: into the store, and the objects concerned into the queue."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress

from winnow_operator.kube import ApiError, Kube
from winnow_operator.metrics import Metrics
from winnow_operator.queue import WorkQueue
from winnow_operator.resources import WATCHED, Key, Object, Resource, name_of, namespace_of, uid_of
from winnow_operator.routes import visits
from winnow_operator.store import Store

log = logging.getLogger(__name__)
RESYNC_SECONDS = 600.0
# After a watch's own list, at the start or because its version was gone: what is deleted before that list is told by nobody.
RELISTED_SECONDS = 5.0
RETRY_SECONDS = 1.0
JITTER = 0.2
SPREAD_SECONDS = 30.0


class Inbox:
    def __init__(self, store: Store, queue: WorkQueue, metrics: Metrics) -> None:
        self._store, self._queue, self._metrics = store, queue, metrics
        self._relisted = asyncio.Event()
        self._relisted.set()  # by the watches' first lists, which tell nothing where there is nothing

    def saw(self, kind: str | None, obj: Object) -> None:
        """An event of a watch; `kind` is ADDED, MODIFIED, DELETED, or None in a list with which it began."""
        self._metrics.watch_spoke(obj["kind"])
        if kind is None:
            self._relisted.set()
        if kind == "DELETED":
            self.gone(obj)
        else:
            self.kept(obj)

    def kept(self, obj: Object) -> bool:
        """Whether it was news."""
        old, news = self._store.put(obj)
        if news:
            self._visit(obj, old)
        return news

    def gone(self, obj: Object) -> None:
        old = self._store.remove(obj)
        if old is not None:
            self._visit(None, old)

    def revisit(self, key: Key) -> None:
        self._queue.add(key)

    async def prime(self, kube: Kube) -> None:
        """Fill the store before anything is decided: from a half-filled one children would be created twice.

        Tries until each kind could be listed: if we ended while the API server is busy, as after its own restart, the kubelet
        would restart us after ever longer pauses. Where there is no API server at all, the Lease ends this. Raises ApiError where
        asking again does not help.
        """
        for resource in WATCHED:
            await self._fill(kube, resource)
        for key in self._store.our_keys():
            self._queue.add(key)

    async def _fill(self, kube: Kube, resource: Resource) -> None:
        while True:
            try:
                async for obj in kube.list(resource):
                    self._store.put(obj)
                return
            except ApiError as err:
                if not err.transient:
                    raise
                log.warning("Not listed yet", extra={"kind": resource.kind, "error": str(err)})
            await asyncio.sleep(RETRY_SECONDS)

    async def resync(self, kube: Kube) -> None:
        """For ever: a fresh list, since a watch that broke does not tell what was deleted meanwhile, and a visit to everything."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_about(RESYNC_SECONDS)):
                    await self._relisted.wait()
                    await asyncio.sleep(_about(RELISTED_SECONDS))
            self._relisted.clear()
            await self.look_again(kube)

    async def look_again(self, kube: Kube) -> None:
        """A kind that cannot be listed stops neither the other lists nor the visits."""
        for resource in WATCHED:
            try:
                await self._list_again(kube, resource)
            except ApiError as err:
                log.warning("Resync failed", extra={"kind": resource.kind, "error": str(err)})
        for key in self._store.our_keys():
            self._queue.add_after(key, SPREAD_SECONDS * random.random())

    async def _list_again(self, kube: Kube, resource: Resource) -> None:
        listed = [obj async for obj in kube.list(resource)]
        for obj in listed:
            self.kept(obj)
        for obj in self._store.missing_from(resource, listed):
            # Perhaps made since the list was taken: only the API server knows.
            now = await kube.get(resource, namespace_of(obj), name_of(obj))
            if now is None or uid_of(now) != uid_of(obj):
                self.gone(obj)

    def _visit(self, new: Object | None, old: Object | None) -> None:
        """Never raises: one odd object, which may be anybody's, must not end what all others hang on."""
        try:
            for key, seconds in visits(self._store, new, old):
                if seconds:
                    self._queue.add_after(key, seconds)
                else:
                    self._queue.add(key)
        except Exception:
            about = {f"{obj['kind']}/{namespace_of(obj)}/{name_of(obj)}" for obj in (new, old) if obj}
            log.exception("Cannot tell whom this concerns. This is a bug", extra={"object": ", ".join(about)})


def _about(seconds: float) -> float:
    return seconds * (1 - JITTER + 2 * JITTER * random.random())
