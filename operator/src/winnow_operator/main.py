"""Puts the parts together: wait for the CRDs, lead, fill the store, watch and work; leave in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from typing import Any, NoReturn

import kopf

from winnow_operator import handlers, logs, settings
from winnow_operator.executor import Executor
from winnow_operator.guests import Guests
from winnow_operator.inbox import Inbox
from winnow_operator.kube import ApiError, Kube, connect
from winnow_operator.lease import Lease, LeaseLostError
from winnow_operator.metrics import Metrics
from winnow_operator.probes import Probes
from winnow_operator.progress import ProgressPoller
from winnow_operator.queue import WorkQueue
from winnow_operator.reconcile import WORKERS, Reconciler
from winnow_operator.resources import API_VERSION, GROUP, KINDS
from winnow_operator.settings import Settings, SettingsError
from winnow_operator.store import Store

log = logging.getLogger(__name__)
LEASE = "winnow-operator"
START_RETRY_SECONDS = 2.0


class WatchEndedError(Exception):
    """A watch ended: without it nothing is known any more."""


class Operator:
    """One replica, from its start to its end."""

    def __init__(self, chosen: Settings, kube: Kube, metrics: Metrics) -> None:
        self._chosen, self._kube, self._metrics = chosen, kube, metrics
        self._missing: str | None = "the API server or the CRDs are not there yet"
        self.lease = Lease(kube, namespace=chosen.namespace, name=LEASE, holder=chosen.instance)
        self.stop = asyncio.Event()

    def missing(self) -> str | None:
        """What keeps this replica from being ready. One that stands by is ready: a rolling update waits for the new replica,
        which cannot lead before the old one is gone."""
        return self._missing

    async def run(self) -> None:
        """For ever. Raises LeaseLostError, WatchEndedError, alone or in a group."""
        self._heed_signals()
        await self._wait_for_crds()
        self._missing = None
        await self.lease.acquire()
        self._missing = "the store is being filled"
        self._metrics.leader.set(1)
        await self._lead()

    async def _lead(self) -> None:
        store, queue = Store(), WorkQueue()
        inbox = Inbox(store, queue, self._metrics)
        poller = ProgressPoller(inbox.revisit, self._metrics, self._chosen.progress_seconds)
        executor = Executor(self._kube, store, inbox, self._metrics, instance=self._chosen.instance)
        reconciler = Reconciler(store, queue, executor, self._kube, poller, self._metrics, self._chosen.config)
        self._metrics.follow_queue(queue.depth, queue.oldest_seconds)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.lease.keep(), name="lease")
                await inbox.prime(self._kube)
                guests = Guests(self._kube, store, inbox, self._chosen.guest_seconds)
                await guests.prime()
                self._missing = None
                group.create_task(executor.post_events(queue.idle), name="events")
                group.create_task(inbox.resync(self._kube), name="resync")
                group.create_task(guests.keep_looking(), name="guests")
                for number in range(WORKERS):
                    group.create_task(reconciler.work(), name=f"worker {number}")
                group.create_task(self._watch(inbox), name="watch")
        finally:
            queue.close()
            await poller.close()

    async def _watch(self, inbox: Inbox) -> NoReturn:
        before = asyncio.all_tasks()
        watching = await kopf.spawn_tasks(
            registry=handlers.registry(inbox), settings=handlers.settings(), standalone=True, clusterwide=True
        )
        self._heed_signals()  # kopf has put its own handlers in their place
        try:
            ended, _ = await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
            why = await asyncio.gather(*ended, return_exceptions=True)
            raise WatchEndedError(f"The watches ended: {', '.join(map(str, why))}")
        finally:
            # Before the rest: kopf leaves them running where one of them failed, and one that is cancelled together with what it waits
            # for takes that for a pause and goes on for ever, while this replica leads and hears of nothing.
            await _cancel({task for task in asyncio.all_tasks() - before if task.get_name().startswith("watcher for ")})
            await _cancel(set(watching))

    async def _wait_for_crds(self) -> None:
        """Without a limit: the kubelet restarts a program that gives up after ever longer pauses, and API server and CRDs may
        be there at any moment."""
        while (missing := await self._not_there()) is not None:
            if missing != self._missing:
                log.warning("Waiting for the API server and the CRDs", extra={"why": missing})
            self._missing = missing
            await asyncio.sleep(START_RETRY_SECONDS)

    async def _not_there(self) -> str | None:
        try:
            why = await self._missing_crds()
        except ApiError as err:
            return str(err)
        return f"{why}. Install them with the chart, or with `kubectl apply -f crds/`" if why else None

    async def _missing_crds(self) -> str | None:
        # The list of groups follows the CRDs with a delay, and kopf reads it just once: it would never watch a kind that is
        # not there yet.
        groups = await self._kube.request("GET", "/apis")
        if not any(
            version["groupVersion"] == API_VERSION for group in groups["groups"] for version in group["versions"]
        ):
            return f"no CRDs of {API_VERSION} are installed"
        served = await self._kube.request("GET", f"/apis/{API_VERSION}")
        absent = {resource.plural for resource in KINDS} - {resource["name"] for resource in served["resources"]}
        return f"the CRDs of {', '.join(sorted(absent))} in {GROUP} are not installed" if absent else None

    def _heed_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop.set)


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def tell_all_but_generators(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A handler for the loop's exceptions, without those of asynchronous generators that are closed at its end: kopf leaves
    generators of watches open, and Python 3.11 closes an inner one before its outer one, which then fails."""
    if "asyncgen" not in context:
        loop.default_exception_handler(context)


async def run(chosen: Settings) -> int:
    """The exit status."""
    asyncio.get_running_loop().set_exception_handler(tell_all_but_generators)
    metrics = Metrics(time.monotonic)
    kube = await connect(metrics)
    operator = Operator(chosen, kube, metrics)
    probes = Probes(metrics, renewed=lambda: operator.lease.renewed, ready=operator.missing)
    await probes.serve(chosen.http_port)
    beat = asyncio.create_task(probes.beat(), name="beat")
    stopped = asyncio.create_task(operator.stop.wait(), name="stop")
    working = asyncio.create_task(operator.run(), name="operator")
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        status = 0 if operator.stop.is_set() else 1
        working.cancel()
        (end,) = await asyncio.gather(working, return_exceptions=True)
        if isinstance(end, BaseException) and not isinstance(end, asyncio.CancelledError):
            status = max(status, _say(end, operator.lease))
        return status
    finally:
        beat.cancel()
        stopped.cancel()
        await operator.lease.release()
        await probes.close()
        await kube.close()


def _say(end: BaseException, lease: Lease) -> int:
    """Why it ended, in one line."""
    causes = end.exceptions if isinstance(end, BaseExceptionGroup) else (end,)
    for cause in causes:
        if isinstance(cause, LeaseLostError):
            lease.renewed = None  # another replica's by now: not ours to release
        known = isinstance(cause, LeaseLostError | WatchEndedError | ApiError)
        log.error(str(cause) or type(cause).__name__, exc_info=None if known else cause)
    return 1


def main() -> None:
    try:
        chosen = settings.read(os.environ)
    except SettingsError as err:
        sys.exit(f"winnow_operator: {err}")
    logs.configure(chosen.log_level)
    sys.exit(asyncio.run(run(chosen)))
