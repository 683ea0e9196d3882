"""Which replica works: the one that holds the Lease. The others wait, ready to take over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from winnow_operator.kube import ApiError
from winnow_operator.resources import LEASE, Object, Resource

log = logging.getLogger(__name__)
# As in client-go's leader election: a dead leader is replaced after 15 s, a live one that cannot renew for 10 s stops itself
# before that.
DURATION_SECONDS = 15.0
RENEW_SECONDS = 10.0
RETRY_SECONDS = 2.0


class LeaseLostError(Exception):
    """Another replica may be working: this one has to stop at once."""


class Leases(Protocol):
    """The little that is asked of the API server here."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None: ...
    async def create(self, resource: Resource, obj: Object) -> Object: ...
    async def replace(self, resource: Resource, obj: Object) -> Object: ...


class Lease:
    def __init__(
        self, kube: Leases, *, namespace: str, name: str, holder: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kube, self._namespace, self._name, self._holder = kube, namespace, name, holder
        self._clock = clock
        self._lease: Object = {}
        self._seen_change = clock()  # of somebody else's Lease, by our own clock: those of two nodes may differ
        self.renewed: float | None = None  # None while another replica leads

    async def acquire(self) -> None:
        """Returns once this replica leads."""
        while not await self._try():  # noqa: ASYNC110  (the API server tells nobody when a Lease runs out)
            await asyncio.sleep(RETRY_SECONDS)
        log.info("Lease acquired", extra={"lease": f"{self._namespace}/{self._name}", "holder": self._holder})

    async def keep(self) -> None:
        """Renews for ever. Raises LeaseLostError."""
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            held = await self._renew()
            if not held and self._is_others():
                raise LeaseLostError(f"Replica {self._lease['spec'].get('holderIdentity')} took the Lease")

    async def _renew(self) -> bool:
        """One attempt in the seconds that are left. Raises LeaseLostError when there are none."""
        too_late = LeaseLostError(f"The Lease could not be renewed for {RENEW_SECONDS:.0f} s")
        if self._left() <= 0:
            raise too_late
        try:
            async with asyncio.timeout(self._left()):
                held = await self._try()
        except TimeoutError:
            raise too_late from None
        if self._left() <= 0:  # the process stood still in the midst of it, and another replica may have taken over
            raise too_late
        return held

    def _left(self) -> float:
        """Seconds until this replica has to stop."""
        return RENEW_SECONDS - (self._clock() - (self.renewed or 0.0))

    async def release(self) -> None:
        """So that the next replica need not wait."""
        if self.renewed is None:
            return
        self.renewed = None
        self._lease["spec"].update(holderIdentity="", leaseDurationSeconds=1)
        try:
            await self._kube.replace(LEASE, self._lease)
        except ApiError as err:
            log.warning("Lease not released, it runs out by itself", extra={"error": str(err)})

    async def _try(self) -> bool:
        """One attempt to take or renew it. False also when the API server cannot be reached, or refuses a leader: for a moment
        after its own start it knows nobody's rights."""
        try:
            return await self._take()
        except ApiError as err:
            if err.status in (401, 403) and self.renewed is None:
                raise
            log.warning("Lease not updated", extra={"error": str(err)})
            return False

    async def _take(self) -> bool:
        found = await self._kube.get(LEASE, self._namespace, self._name)
        wrote, now = self._clock(), datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        if found is None:
            metadata = {"name": self._name, "namespace": self._namespace}
            lease = {
                "apiVersion": LEASE.api_version,
                "kind": LEASE.kind,
                "metadata": metadata,
                "spec": self._spec(now, {}),
            }
            self._lease = await self._kube.create(LEASE, lease)
        else:
            self._notice(found)
            if self._is_others() and not self._ran_out():
                return False
            self._lease = await self._kube.replace(LEASE, {**found, "spec": self._spec(now, found.get("spec") or {})})
        self.renewed = wrote  # not when the answer came: others count from what was written
        return True

    def _notice(self, found: Object) -> None:
        if found["metadata"]["resourceVersion"] != (self._lease.get("metadata") or {}).get("resourceVersion"):
            self._seen_change = self._clock()
        self._lease = found

    def _is_others(self) -> bool:
        holder = (self._lease.get("spec") or {}).get("holderIdentity")
        return bool(holder) and holder != self._holder

    def _ran_out(self) -> bool:
        return self._clock() - self._seen_change > DURATION_SECONDS

    def _spec(self, now: str, old: Object) -> Object:
        mine = old.get("holderIdentity") == self._holder
        return {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": int(DURATION_SECONDS),
            "acquireTime": old.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions", 0)) + (0 if mine else 1),
        }
