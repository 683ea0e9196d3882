"""Look, decide, act: one visit to one object, and the workers that pay them."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime

from winnow_operator import api, observe, pods, resources
from winnow_operator.conditions import not_understood, parse_time
from winnow_operator.executor import Executor, NotWrittenError, Written
from winnow_operator.kinds import dataset, deployment, model_service, training_job
from winnow_operator.kube import ApiError, Kube
from winnow_operator.metrics import Metrics
from winnow_operator.observed import DatasetSeen, DeploymentSeen, ModelServiceSeen, Seen, TrainingJobSeen
from winnow_operator.plan import Config, Event, Lookups, Plan, Reference
from winnow_operator.policies import in_use
from winnow_operator.progress import ProgressPoller
from winnow_operator.queue import WorkQueue
from winnow_operator.reasons import Reason
from winnow_operator.resources import Key, Object, name_of, namespace_of, newest, owned_by, status_of, uid_of
from winnow_operator.store import Store
from winnow_operator.turns import BusyError

log = logging.getLogger(__name__)
WORKERS = 16
VISIT_SECONDS = 60.0
SETTLE_SECONDS = 0.5  # after a conflict: the watch brings the newer version
LASTING_FAILURES = 2  # in a row, after which the status says what keeps an object back
POD_SECONDS = 10.0  # in which a Job gets its pods, or it is time to ask why not
REFUSED_SECONDS = 30.0  # between looks at whether what was refused is let through


class Reconciler:
    def __init__(
        self,
        store: Store,
        queue: WorkQueue,
        executor: Executor,
        kube: Kube,
        poller: ProgressPoller,
        metrics: Metrics,
        config: Config,
    ) -> None:
        self._store, self._queue, self._executor, self._kube = store, queue, executor, kube
        self._poller, self._metrics, self._config = poller, metrics, config
        # Since when a batch Job lacks pods that it had; None while it has them.
        self._lacking: dict[Key, datetime | None] = {}

    async def visit(self, key: Key, now: datetime) -> float | None:
        """Seconds until the next visit, None when something has to change first. Raises ApiError or BusyError."""
        seen = await self._look(key, now)
        if seen is None:
            await self._say_not_understood(key, now)
        if seen is None or (seen.obj.metadata.deletion_timestamp is not None and not _waits_for_us(seen)):
            self._poller.forget(key)
            return None  # the garbage collector follows the owner references
        plan = self._decide(seen, now)
        lasts: NotWrittenError | None = None
        try:
            written = await self._executor.write(seen.obj, plan)
        except NotWrittenError as err:
            if self._queue.failures(key) < LASTING_FAILURES or not err.status:
                raise
            written, lasts = err.written, err  # such as an admission webhook that is away
        refusals = [*((written.refusal,) if written.refusal else ()), *written.around]
        if refusals:
            for each in refusals:
                log.warning("Child refused", extra={"object": str(key), "reason": each.reason, "why": each.message})
            plan = self._decide(_refused(seen, written), now)
        elif written.anything:
            # The status follows with the next visit, which looks at the world as it is then. It comes behind the children of
            # others: of a hundred jobs that come at once, all are started before the first one's status is written.
            self._queue.let_others_first(key)
            self._queue.add(key)
            return None
        raw = self._store.get(key.resource, key.namespace, key.name)
        if raw is None:
            return None
        if await self._executor.status(raw, plan.status, plan.events):
            log.info("Status written", extra={"object": str(key), "summary": plan.status.get("summary", "")})
        if isinstance(seen, TrainingJobSeen):
            self._poller.follow(key, seen)
        if lasts is not None:
            raise lasts
        # What stands in the way carries no label of ours, so nothing tells when it is gone.
        refused = REFUSED_SECONDS if refusals or seen.pods_refused else None
        pods_due = POD_SECONDS if _lacks_pods(seen) and not seen.pods_refused else None
        waits = [seconds for seconds in (plan.requeue_after, refused, pods_due) if seconds is not None]
        return min(waits, default=None)

    async def _say_not_understood(self, key: Key, now: datetime) -> None:
        """Where there is such an object, as one of a newer version's CRDs."""
        misfit = self._store.misfit(key)
        # The result of a training that has ended stands: nothing is to be done about it.
        if misfit and "completionTime" not in status_of(misfit[0]):
            obj, why = misfit
            status = not_understood(obj, why, now)
            event = Event("Warning", Reason.NOT_UNDERSTOOD, status["conditions"][0]["message"])
            await self._executor.status(obj, status, (event,))

    async def _look(self, key: Key, now: datetime) -> Seen | None:
        seen = await self._observe(key)
        if seen is None:
            self._lacking.pop(key, None)
            return None
        job = _lacks_pods(seen)
        if job is None:
            if seen.jobs:
                self._lacking[key] = None
            return seen
        if self._lacking.get(key, now) is None:
            self._lacking[key] = now  # one was evicted, say: the next is on its way, whatever was refused before
        if not _late(job, self._lacking.get(key), now):
            return seen
        why = await self._why_no_pods(job)
        seen = await self._observe(key)  # asking took a moment, in which the world went on
        return replace(seen, pods_refused=why) if seen and _lacks_pods(seen) else seen

    async def _why_no_pods(self, job: Object) -> str:
        try:
            return pods.refused(job, await self._kube.events(namespace_of(job), uid_of(job), "FailedCreate"))
        except ApiError as err:
            # Only words: what else there is to do does not wait for them.
            log.warning("Events not read", extra={"object": f"Job/{name_of(job)}", "error": str(err)})
            return ""

    async def _observe(self, key: Key) -> Seen | None:
        match key.resource:
            case resources.MODEL_SERVICE:
                service = self._store.model(api.ModelService, key)
                if service is None:
                    return None
                if not (claims := model_service.references(service)):
                    return observe.model_service(self._store, service)
                found = await self._look_up(key.namespace, claims)
                # Asking took a moment, in which the world went on: an import may have begun.
                service = self._store.model(api.ModelService, key)
                return observe.model_service(self._store, service, found[claims[0]]) if service else None
            case resources.DATASET:
                rows = self._store.model(api.Dataset, key)
                if rows is None:
                    return None
                looked = observe.dataset(self._store, rows)
                if looked.jobs or dataset.imported(rows) or not dataset.references(rows):
                    return looked
                lookups = await self._look_up(key.namespace, dataset.references(rows))
                rows = self._store.model(api.Dataset, key)
                return replace(observe.dataset(self._store, rows), lookups=lookups) if rows else None
            case resources.TRAINING_JOB:
                job = self._store.model(api.TrainingJob, key)
                if job is None:
                    return None
                started = observe.training_job(self._store, job, self._poller.latest)
                if started.jobs or job.status.completion_time or not training_job.references(job):
                    return started
                lookups = await self._look_up(key.namespace, training_job.references(job))
                job = self._store.model(api.TrainingJob, key)
                if job is None:
                    return None
                return replace(observe.training_job(self._store, job, self._poller.latest), lookups=lookups)
            case _:
                served = self._store.model(api.Deployment, key)
                return observe.deployment(self._store, served) if served else None

    async def _look_up(self, namespace: str, references: tuple[Reference, ...]) -> Lookups:
        """Objects of the user's that are not watched. Of a ConfigMap only the metadata: the rows are none of our business."""
        return {
            reference: await self._kube.get(
                reference.resource, namespace, reference.name, metadata_only=reference.resource == resources.CONFIG_MAP
            )
            for reference in references
        }

    def _decide(self, seen: Seen, now: datetime) -> Plan:
        match seen:
            case ModelServiceSeen():
                return model_service.plan(seen, now, self._config)
            case DatasetSeen():
                return dataset.plan(seen, now, self._config)
            case TrainingJobSeen():
                return training_job.plan(seen, now, self._config)
            case DeploymentSeen():
                return deployment.plan(seen, now, self._config)

    async def work(self) -> None:
        """For ever. Nothing that goes wrong with one object keeps others waiting."""
        while True:
            key = await self._queue.get()
            started = time.monotonic()
            result = "ok"
            try:
                async with asyncio.timeout(VISIT_SECONDS):
                    again = await self.visit(key, datetime.now(UTC))
                self._queue.succeeded(key)
                if again is not None:
                    self._queue.add_after(key, again)
            except (ApiError, BusyError) as err:
                result = "retry"
                self._put_off(key, err)
            except Exception:
                result = "error"
                seconds = self._queue.retry(key)
                log.exception(
                    "Visit failed. This is a bug", extra={"object": str(key), "retrySeconds": round(seconds, 1)}
                )
            finally:
                self._queue.done(key)
                self._metrics.reconciles.labels(key.resource.kind, result).inc()
                self._metrics.reconcile_seconds.labels(key.resource.kind).observe(time.monotonic() - started)

    def _put_off(self, key: Key, err: ApiError | BusyError) -> None:
        if isinstance(err, BusyError) or (err.status == 409 and not isinstance(err, NotWrittenError)):
            self._queue.add_after(key, SETTLE_SECONDS)
            return
        seconds = self._queue.retry(key)
        log.warning("Visit put off", extra={"object": str(key), "error": str(err), "retrySeconds": round(seconds, 1)})


def _lacks_pods(seen: Seen) -> Object | None:
    """Its batch Job, if that is to run and has too few pods."""
    made = seen.job_pods if isinstance(seen, DeploymentSeen) else seen.pods
    job = newest(seen.jobs)
    return job if job and pods.too_few(job, [pod for pod in made if owned_by(pod, uid_of(job))]) else None


def _late(job: Object, lacking: datetime | None, now: datetime) -> bool:
    started = status_of(job).get("startTime")
    since = lacking or (parse_time(started) if started else None)
    return since is not None and (now - since).total_seconds() >= POD_SECONDS


def _refused(seen: Seen, written: Written) -> Seen:
    if isinstance(seen, DeploymentSeen):
        return replace(seen, refusal=written.refusal, around_refused=written.around)
    return replace(seen, refusal=written.refusal)


def _waits_for_us(seen: Seen) -> bool:
    """Whether the object is being deleted and goes only when we let it."""
    if not isinstance(seen, DatasetSeen):
        return False
    return in_use.held(seen.obj) or seen.obj.status.condition(dataset.TERMINATING) is not None
