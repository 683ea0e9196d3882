"""Kinds of other projects: which of them the cluster has, and our objects of them.

They are listed now and then, not watched: a watch needs the kind to be there when it begins, and these come with an
installation of KEDA or of the Prometheus operator at any time, and go with it. The lists hold only what carries our label.
"""

from __future__ import annotations

import asyncio
import logging

from winnow_operator.inbox import Inbox
from winnow_operator.kube import ApiError, Kube
from winnow_operator.resources import DEPLOYMENT, GUESTS, Resource, key_of
from winnow_operator.store import Store

log = logging.getLogger(__name__)
RETRY_SECONDS = 1.0


class Guests:
    def __init__(self, kube: Kube, store: Store, inbox: Inbox, seconds: float) -> None:
        self._kube, self._store, self._inbox, self._seconds = kube, store, inbox, seconds

    async def prime(self) -> None:
        """Tries until it is known of each kind whether the cluster has it: if KEDA were taken for missing there would be two
        autoscalers. Where there is no API server at all, the Lease ends this."""
        while True:
            if await self.look():
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def keep_looking(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(self._seconds)
            await self.look()

    async def look(self) -> bool:
        """False where another try may help. Kinds that cannot be listed stay as they were: serving does not depend on any of
        them."""
        before, answered = self._store.guests, True
        for resource in GUESTS:
            try:
                await self._look_for(resource)
            except ApiError as err:
                answered &= not err.transient
                log.warning("Cannot look for a kind", extra={"kind": resource.kind, "error": str(err)})
        if self._store.guests != before:
            log.info("Kinds of other projects", extra={"installed": sorted(kind.kind for kind in self._store.guests)})
            for obj in self._store.all(DEPLOYMENT):
                self._inbox.revisit(key_of(obj))
        return answered

    async def _look_for(self, resource: Resource) -> None:
        if not await self._served(resource):
            self._store.guests -= {resource}
            for obj in self._store.missing_from(resource, ()):
                self._inbox.gone(obj)
            return
        listed = [obj async for obj in self._kube.list(resource)]
        for obj in listed:
            self._inbox.kept(obj)
        for obj in self._store.missing_from(resource, listed):
            # Perhaps made since the list was taken.
            metadata = obj["metadata"]
            if await self._kube.get(resource, metadata["namespace"], metadata["name"]) is None:
                self._inbox.gone(obj)
        self._store.guests |= {resource}

    async def _served(self, resource: Resource) -> bool:
        try:
            found = await self._kube.request("GET", f"/apis/{resource.api_version}")
        except ApiError as err:
            if err.status == 404:
                return False
            raise
        return any(served["name"] == resource.plural for served in found["resources"])
