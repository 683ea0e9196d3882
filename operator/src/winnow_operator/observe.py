"""From the store to what a decision looks at. Memory only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from winnow_operator import api, report
from winnow_operator import pods as job_pods
from winnow_operator.build import waker
from winnow_operator.build.common import storage_claim
from winnow_operator.build.training_job import writes_to
from winnow_operator.kinds import collection
from winnow_operator.observed import DatasetSeen, DeploymentSeen, ModelServiceSeen, TrainingJobSeen
from winnow_operator.policies import following, in_use, leaders, lineage, retention, storage
from winnow_operator.resources import (
    APPS_DEPLOYMENT,
    AROUND,
    CLAIM,
    DATASET,
    DEPLOYMENT,
    GROUP,
    GUESTS,
    JOB,
    MODEL_SERVICE,
    POD,
    SERVICE,
    STORAGE_CLASS,
    TRAINING_JOB,
    Key,
    Object,
    being_deleted,
    controller_of,
    name_of,
    owned_by,
    uid_of,
)
from winnow_operator.store import Store

Pulled = Callable[[Key], report.Training | None]
P = TypeVar("P", api.ModelService, api.Dataset, api.TrainingJob)


def model_service(store: Store, obj: api.ModelService, brought: Object | None = None) -> ModelServiceSeen:
    """`brought` is the claim of the user's, which the store does not know."""
    namespace, name = obj.metadata.namespace, obj.metadata.name
    claim = brought or _claim(store, obj)
    jobs, pods = _jobs_and_pods(store, Key(MODEL_SERVICE, namespace, name), obj.metadata.uid)
    sharing = {service.metadata.name for service in _sharing(store, obj)}
    stored_by = tuple(
        found
        for found in store.models(api.Dataset, DATASET, namespace, leaving=True)
        if found.spec.model_service in sharing
    )
    trainings = tuple(store.models(api.TrainingJob, TRAINING_JOB, namespace))
    return ModelServiceSeen(
        obj=obj,
        claim=claim,
        storage_classes=tuple(sorted(store.all(STORAGE_CLASS), key=name_of)),
        datasets=tuple(
            found for found in store.models(api.Dataset, DATASET, namespace) if found.spec.model_service == name
        ),
        training_jobs=tuple(found for found in trainings if found.spec.model_service == name),
        deployments=tuple(
            found for found in store.models(api.Deployment, DEPLOYMENT, namespace) if found.spec.model_service == name
        ),
        jobs=jobs,
        pods=pods,
        stored_by=stored_by,
        referenced=collection.referenced(stored_by, (job for job in trainings if job.spec.model_service in sharing)),
        importing=any(collection.importing(found, _import_jobs(store, found)) for found in stored_by),
        bases=lineage.bases(trainings, _servers(store, namespace)),
        holders=storage.holders(claim, store.within(POD, namespace)) if claim and storage.leaving(claim, obj) else (),
    )


def dataset(store: Store, obj: api.Dataset) -> DatasetSeen:
    jobs, pods = _jobs_and_pods(store, Key(DATASET, obj.metadata.namespace, obj.metadata.name), obj.metadata.uid)
    service = _service(store, obj)
    readers = _readers(store, obj) if in_use.held(obj) else ()
    collecting = service is not None and obj.status.digest is None and _collecting(store, service)
    return DatasetSeen(obj, service, jobs, pods, readers, collecting, _storage_leaving(store, obj))


def training_job(store: Store, obj: api.TrainingJob, pulled: Pulled) -> TrainingJobSeen:
    namespace, spec = obj.metadata.namespace, obj.spec
    key = Key(TRAINING_JOB, namespace, obj.metadata.name)
    jobs, pods = _jobs_and_pods(store, key, obj.metadata.uid)
    source = spec.base_model.checkpoint if spec.base_model else None
    service = _service(store, obj)
    # Retention alone asks for bases, after the end: to find them takes a look at every job of the namespace.
    retained = obj.status.completion_time is not None and service is not None and service.spec.retention is not None
    return TrainingJobSeen(
        obj=obj,
        service=service,
        training=_dataset(store, namespace, spec.training_dataset),
        test=_dataset(store, namespace, spec.test_dataset),
        validation=_dataset(store, namespace, spec.validation_dataset),
        jobs=jobs,
        pods=pods,
        departed=tuple(pod for pod in store.departed(key) if _of_one(pod, jobs)),
        stray=tuple(
            pod
            for pod in store.children(POD, key)
            if not _of_one(pod, jobs) and not job_pods.over(pod) and writes_to(pod, obj) and not _job_stands(store, pod)
        ),
        pulled=pulled(key),
        deployments=tuple(
            found
            for found in store.models(api.Deployment, DEPLOYMENT, namespace)
            if retention.used((found,), obj.metadata.name)
        ),
        parent=_present(store.model(api.TrainingJob, Key(TRAINING_JOB, namespace, source.training_job)))
        if source
        else None,
        children=tuple(
            found
            for found in store.models(api.TrainingJob, TRAINING_JOB, namespace)
            if found.status.continued_from and found.status.continued_from.training_job == obj.metadata.name
        ),
        bases=lineage.bases(store.models(api.TrainingJob, TRAINING_JOB, namespace), _servers(store, namespace))
        if retained
        else frozenset(),
        storage_leaving=_storage_leaving(store, obj),
    )


def deployment(store: Store, obj: api.Deployment) -> DeploymentSeen:
    namespace, name = obj.metadata.namespace, obj.metadata.name
    child = store.get(APPS_DEPLOYMENT, namespace, name)
    rivals = _rivals(store, obj) if obj.spec.follow else ()
    job = _chosen_job(store, obj, rivals)
    jobs, job_pods = _jobs_and_pods(store, Key(DEPLOYMENT, namespace, name), obj.metadata.uid)
    of_jobs = {uid_of(pod) for pod in job_pods}
    return DeploymentSeen(
        obj=obj,
        service=_service(store, obj),
        training_job=job,
        training=_present(store.model(api.Dataset, Key(DATASET, namespace, job.spec.training_dataset)))
        if job
        else None,
        child=child if child and owned_by(child, obj.metadata.uid) else None,
        waker=_waker(store, obj),
        pods=tuple(
            pod
            for pod in store.children(POD, Key(DEPLOYMENT, namespace, name))
            if uid_of(pod) not in of_jobs and (pod["metadata"].get("labels") or {}).get(f"{GROUP}/kind") != waker.KIND
        ),
        around=tuple(
            found
            for resource in (*AROUND, *GUESTS)
            for found in store.children(resource, Key(DEPLOYMENT, namespace, name))
            if owned_by(found, obj.metadata.uid)
        ),
        guests=store.guests,
        live_job=_live_job(store, obj),
        rivals=rivals,
        jobs=jobs,
        job_pods=job_pods,
        storage_leaving=_storage_leaving(store, obj),
    )


def _waker(store: Store, obj: api.Deployment) -> tuple[Object, ...]:
    namespace = obj.metadata.namespace
    found = (
        store.get(APPS_DEPLOYMENT, namespace, waker.name(obj)),
        store.get(SERVICE, namespace, waker.pods_name(obj)),
    )
    return tuple(one for one in found if one and owned_by(one, obj.metadata.uid))


def _servers(store: Store, namespace: str) -> Iterator[Object]:
    """apps/v1 Deployments that our Deployments own: labels and annotations alone anybody could write."""
    ours = {uid_of(obj) for obj in store.within(DEPLOYMENT, namespace)}
    servers = store.within(APPS_DEPLOYMENT, namespace)
    return (obj for obj in servers if (controller_of(obj) or {}).get("uid") in ours)


def _live_job(store: Store, obj: api.Deployment) -> api.TrainingJob | None:
    live = obj.status.live
    key = Key(TRAINING_JOB, obj.metadata.namespace, live.training_job) if live else None
    return _present(store.model(api.TrainingJob, key)) if key else None


def _rivals(store: Store, obj: api.Deployment) -> tuple[api.TrainingJob, ...]:
    jobs = store.models(api.TrainingJob, TRAINING_JOB, obj.metadata.namespace)
    return tuple(job for job in jobs if job.spec.model_service == obj.spec.model_service)


def _chosen_job(store: Store, obj: api.Deployment, rivals: tuple[api.TrainingJob, ...]) -> api.TrainingJob | None:
    if obj.spec.checkpoint is not None:
        key = Key(TRAINING_JOB, obj.metadata.namespace, obj.spec.checkpoint.training_job)
        return _present(store.model(api.TrainingJob, key))
    found = following.leader(rivals, obj.status.live)
    return found.job if isinstance(found, leaders.Leader) else None


def _service(store: Store, obj: api.Dataset | api.TrainingJob | api.Deployment) -> api.ModelService | None:
    key = Key(MODEL_SERVICE, obj.metadata.namespace, obj.spec.model_service)
    return _present(store.model(api.ModelService, key))


def _claim(store: Store, service: api.ModelService) -> Object | None:
    name = storage_claim(service)
    claim = store.get(CLAIM, service.metadata.namespace, name) if name else None
    orphaned = claim and not claim["metadata"].get("ownerReferences")  # it is taken back, as large as it has become
    ours = claim and (orphaned or owned_by(claim, service.metadata.uid) or storage.leaving(claim, service))
    return claim if ours else None


def _storage_leaving(store: Store, obj: api.Dataset | api.TrainingJob | api.Deployment) -> bool:
    """Whether the claim of its ModelService is being deleted. Also a claim that outlived its ModelService: pods that ended
    keep it."""
    key = Key(MODEL_SERVICE, obj.metadata.namespace, obj.spec.model_service)
    service = store.model(api.ModelService, key)
    claims = store.children(CLAIM, key)
    return any(
        storage.leaving(claim, service)
        for claim in claims
        if service is None or name_of(claim) == storage_claim(service)
    )


def _dataset(store: Store, namespace: str, name: str | None) -> api.Dataset | None:
    """The Dataset, also one that is being deleted: a job that is about to start says so."""
    return store.model(api.Dataset, Key(DATASET, namespace, name)) if name else None


def _sharing(store: Store, service: api.ModelService) -> Iterator[api.ModelService]:
    """ModelServices whose rows lie in the same storage, itself among them."""
    for other in store.models(api.ModelService, MODEL_SERVICE, service.metadata.namespace):
        if collection.place(other) == collection.place(service):
            yield other


def _collecting(store: Store, service: api.ModelService) -> bool:
    keys = (Key(MODEL_SERVICE, other.metadata.namespace, other.metadata.name) for other in _sharing(store, service))
    return any(job_pods.active(store.children(JOB, key)) for key in keys)


def _import_jobs(store: Store, obj: api.Dataset) -> tuple[Object, ...]:
    key = Key(DATASET, obj.metadata.namespace, obj.metadata.name)
    return tuple(job for job in store.children(JOB, key) if owned_by(job, obj.metadata.uid))


def _readers(store: Store, obj: api.Dataset) -> tuple[str, ...]:
    """TrainingJobs with a batch Job that reads its rows, or will; also one that is being deleted, until its batch Job is gone,
    and, as long as nobody wants the Dataset to go, one whose batch Job is refused."""
    namespace = obj.metadata.namespace
    found = []
    for job in store.models(api.TrainingJob, TRAINING_JOB, namespace, leaving=True):
        if in_use.reads(job, obj):
            jobs, _ = _jobs_and_pods(store, Key(TRAINING_JOB, namespace, job.metadata.name), job.metadata.uid)
            if job_pods.active(jobs) or (in_use.refused(job) and not in_use.leaving(obj)):
                found.append(job.metadata.name)
    return tuple(found)


def _present(obj: P | None) -> P | None:
    """What is being deleted counts as gone."""
    return obj if obj is not None and obj.metadata.deletion_timestamp is None else None


def _jobs_and_pods(store: Store, key: Key, uid: str) -> tuple[tuple[Object, ...], tuple[Object, ...]]:
    """Those that are really ours: labels are for finding, owner references for belonging."""
    jobs = tuple(job for job in store.children(JOB, key) if owned_by(job, uid))
    return jobs, tuple(pod for pod in store.children(POD, key) if _of_one(pod, jobs))


def _job_stands(store: Store, pod: Object) -> bool:
    """Whether the pod's batch Job is there to stay. One that lost its owner or its labels is taken back where it would be
    created, so its pods keep nothing waiting."""
    owner = controller_of(pod) or {}
    job = store.get(JOB, pod["metadata"]["namespace"], owner.get("name", ""))
    return job is not None and uid_of(job) == owner["uid"] and not being_deleted(job)


def _of_one(pod: Object, jobs: Iterable[Object]) -> bool:
    return (controller_of(pod) or {}).get("uid") in {uid_of(job) for job in jobs}
