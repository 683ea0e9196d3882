"""Properties that hold for whatever a plan sees: deciding is a function, what was done is not done again, and the CRD keeps every status."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from operator_scene import (
    CONFIG,
    DIGEST,
    NOW,
    OTHER_DIGEST,
    completed,
    condition,
    dataset,
    deployment,
    imported,
    job_of,
    labels_of,
    model_service,
    pod_of,
    seen_again,
    training_job,
    with_metadata,
)

from winnow_operator import api, drift, report
from winnow_operator.build.collect_job import Left, collect_job
from winnow_operator.build.rollout_memory import NOTHING, Memory
from winnow_operator.build.served import Served
from winnow_operator.build.server_deployment import server_deployment
from winnow_operator.kinds import dataset as datasets
from winnow_operator.kinds import deployment as deployments
from winnow_operator.kinds import model_service as services
from winnow_operator.kinds import training_job as trainings
from winnow_operator.kinds.collection import referenced
from winnow_operator.observed import DatasetSeen, DeploymentSeen, ModelServiceSeen, Seen, TrainingJobSeen
from winnow_operator.plan import Apply, Delete, Hold, Plan, Refusal, Release
from winnow_operator.reasons import Reason
from winnow_operator.resources import IN_USE, Object

SERVED = Served("v1", "epoch-1", DIGEST, "v1-0a1b2c3d", None)
AGO = "2026-11-23T11:59:00Z"
S = TypeVar("S", ModelServiceSeen, DatasetSeen, TrainingJobSeen, DeploymentSeen)

MESSAGES = st.sampled_from(
    [
        "",
        "Traceback: boom",
        '{"state": "Failed", "reason": "Diverged", "message": "loss is NaN"}',
        '{"state": "Complete", "primaryMetric": "f1", "bestCheckpoint": "epoch-1", "overlap": 2, '
        '"epochs": [{"epoch": 1, "checkpoint": "epoch-1", "metrics": {"f1": 0.5}}], "checkpoints": [{"name": "epoch-1"}]}',
        f'{{"state": "Ready", "digest": "{DIGEST}", "rows": 2, "labels": [["a", 1]], "taskDetail": "Binary"}}',
        '{"state": "Failed", "message": "' + "x" * 3_000 + '"}',
    ]
)
REFUSALS = st.none() | st.builds(
    Refusal, st.sampled_from([Reason.NAME_CONFLICT, Reason.API_REFUSED]), st.text(max_size=40)
)
WORDS = st.sampled_from(["", "exceeded quota"])
SERVICES = st.none() | st.builds(model_service, retention=st.sampled_from([None, {"checkpointsPerJob": 1}]))
PODS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"exit_code": st.sampled_from([0, 1, 10, 11, 12, 13, 20, 137, 143]), "said": MESSAGES}),
    st.fixed_dictionaries({"phase": st.sampled_from(["Pending", "Running", "Unknown"])}),
    st.fixed_dictionaries(
        {
            "waiting": st.tuples(
                st.sampled_from(
                    ["ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError", "ContainerCreating"]
                ),
                st.text(max_size=40),
            )
        }
    ),
    st.just({"unschedulable": "0/1 nodes"}),
)
OUTCOMES = st.sampled_from(["", "Complete", "Failed"])
DATASETS = st.sampled_from(
    [
        None,
        dataset(),
        imported(),
        imported(warnings=[{"code": "SingleClass", "message": "m"}]),
        imported(spec={"modelService": "other"}),
        dataset(
            status={
                "conditions": [
                    condition("Ready", "False", "InvalidRows", "m"),
                    condition("Stalled", "True", "InvalidRows"),
                ]
            }
        ),
    ]
)


def in_the_world(obj: api.Dataset | None) -> st.SearchStrategy[api.Dataset | None]:
    """Held by a finalizer or not, being deleted or not."""
    return st.none() if obj is None else IN_THE_WORLD.map(lambda metadata: with_metadata(obj, **metadata))


PULLED = st.none() | st.builds(
    report.Training,
    state=st.just("Running"),
    percent=st.none() | st.floats(-10, 200),
    epoch=st.none() | st.integers(0, 5),
    total_epochs=st.none() | st.integers(0, 5),
    eta_seconds=st.none() | st.floats(-1, 1e6),
    learning_rate=st.none() | st.floats(-1, 1),
    loss=st.none() | st.floats(0, 1e9),
)


@st.composite
def owned(draw: st.DrawFn, owner: api.Resource) -> dict[str, Any]:
    """A batch Job of the owner, or none, with up to two pods."""
    if draw(st.booleans()):
        return {}
    ended = NOW - timedelta(seconds=draw(st.sampled_from([0, 5, 3_600])))
    job = job_of(owner, outcome=draw(OUTCOMES), ended=ended)
    if draw(st.booleans()):
        job["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    made = [
        pod_of(job, number=number, **fields) for number, fields in enumerate(draw(st.lists(PODS, max_size=2)), start=1)
    ]
    return {"jobs": (job,), "pods": tuple(made)}


IN_THE_WORLD: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {}, optional={"finalizers": st.just([IN_USE, "example.com/theirs"]), "deletionTimestamp": st.just(AGO)}
)


@st.composite
def dataset_seen(draw: st.DrawFn) -> DatasetSeen:
    obj = draw(st.sampled_from([dataset(), imported(), dataset(source={"image": {"reference": "r", "path": "/p"}})]))
    obj = with_metadata(obj, **draw(IN_THE_WORLD))
    readers = draw(st.sampled_from([(), ("v1",), ("v1", "v2")])) if obj.metadata.finalizers else ()
    collecting = draw(st.booleans())
    return DatasetSeen(
        obj,
        draw(SERVICES),
        refusal=draw(REFUSALS),
        pods_refused=draw(WORDS),
        readers=readers,
        collecting=collecting,
        storage_leaving=draw(st.booleans()),
        **draw(owned(obj)),
    )


@st.composite
def training_seen(draw: st.DrawFn) -> TrainingJobSeen:
    spec: dict[str, Any] = {"suspend": draw(st.booleans())}
    if draw(st.booleans()):
        spec["testDataset"] = "test"
    if draw(st.booleans()):
        spec["activeDeadlineSeconds"] = draw(st.sampled_from([60, 86_400]))
    obj = draw(st.sampled_from([training_job(**spec), completed(spec=spec)]))
    return TrainingJobSeen(
        obj,
        draw(SERVICES),
        draw(DATASETS.flatmap(in_the_world)),
        draw(DATASETS.flatmap(in_the_world)),
        pulled=draw(PULLED),
        storage_leaving=draw(st.booleans()),
        refusal=draw(REFUSALS),
        pods_refused=draw(WORDS),
        **draw(owned(obj)),
    )


@st.composite
def deployment_seen(draw: st.DrawFn) -> DeploymentSeen:
    live = {"trainingJob": "v1", "checkpoint": "epoch-1", "digest": DIGEST, "since": AGO}
    chosen = draw(st.sampled_from(["best", "epoch-1"]))
    obj = deployment(
        replicas=draw(st.integers(0, 2)),
        checkpoint={"trainingJob": "v1", "name": chosen},
        gate=draw(st.sampled_from([None, {"floors": [{"metric": "f1", "atLeast": 0.9}], "notWorseThanLive": True}])),
        status=draw(st.sampled_from([None, {"live": live}])),
    )
    job = draw(st.sampled_from([None, training_job(), completed(), completed(best="epoch-9")]))
    leaving = draw(st.booleans())
    seen = DeploymentSeen(
        obj, draw(SERVICES), job, refusal=draw(REFUSALS), pods_refused=draw(WORDS), storage_leaving=leaving
    )
    known = draw(st.sampled_from([SERVED, replace(SERVED, checkpoint="epoch-2", digest=OTHER_DIGEST), None]))
    if known is None or draw(st.booleans()):
        return seen
    fallback = draw(st.sampled_from([SERVED, None]))
    memory = (
        Memory("2026-11-23T11:59:00Z", fallback, {"metadata": {}, "spec": {"containers": []}}) if fallback else NOTHING
    )
    counts = st.integers(0, 2)
    status = {name: draw(counts) for name in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")}
    workload = server_deployment(obj, model_service(), known, memory, image="server")
    child = {**drift.stamped(workload), "status": {**status, "observedGeneration": 1}}
    child["metadata"]["generation"] = 1
    rs = {"metadata": {"name": "rs", "uid": "rs", "labels": labels_of(obj)}}
    pods = tuple(pod_of(rs, **fields) for fields in draw(st.lists(PODS, max_size=1)))
    for pod in pods:
        pod["metadata"]["annotations"] = {"winnow.dev/checkpoint-digest": known.digest}
    return replace(seen, child=child, pods=pods)


@st.composite
def service_seen(draw: st.DrawFn) -> ModelServiceSeen:
    phase = draw(st.sampled_from(["Bound", "Pending", "Lost", None]))
    leaving = draw(st.sampled_from([{}, {"deletionTimestamp": AGO}]))
    metadata = {"name": "spam-storage", **leaving}
    claim = {"metadata": metadata, "spec": {"storageClassName": "fast"}, "status": {"phase": phase}}
    jobs = draw(st.lists(st.sampled_from([training_job(), completed()]), max_size=12))
    present = tuple(draw(st.lists(st.sampled_from([dataset(), imported(), imported("old")]), max_size=2)))
    stored = draw(
        st.lists(
            st.fixed_dictionaries(
                {"dataset": st.sampled_from(["old", "rows", "older"])},
                optional={"digest": st.sampled_from([DIGEST, OTHER_DIGEST]), "unreferencedSince": st.just(AGO)},
            ),
            max_size=3,
            unique_by=lambda entry: (entry["dataset"], entry.get("digest")),
        )
    )
    obj = model_service(status={"stored": stored})
    collect: dict[str, Any] = draw(owned(obj))
    made = collect_job(obj, tuple(Left(entry["dataset"], entry.get("digest", "")) for entry in stored[:2]), NOW, "t")
    for job in collect.get("jobs", ()):
        job["metadata"]["annotations"] = made["metadata"]["annotations"]
    return ModelServiceSeen(
        obj,
        claim if phase else None,
        datasets=present,
        training_jobs=tuple(jobs),
        stored_by=present,
        referenced=referenced(present, ()),
        importing=draw(st.booleans()),
        refusal=draw(REFUSALS),
        pods_refused=draw(WORDS),
        **collect,
    )


ANYTHING: st.SearchStrategy[Seen] = st.one_of(dataset_seen(), training_seen(), deployment_seen(), service_seen())


def decide(seen: Seen, seconds: float = 0) -> Plan:
    now = NOW + timedelta(seconds=seconds)
    match seen:
        case ModelServiceSeen():
            return services.plan(seen, now, CONFIG)
        case DatasetSeen():
            return datasets.plan(seen, now, CONFIG)
        case TrainingJobSeen():
            return trainings.plan(seen, now, CONFIG)
        case DeploymentSeen():
            return deployments.plan(seen, now, CONFIG)


def done(seen: Seen, plan: Plan) -> Any:
    """The world after the plan was carried out, before any controller or kubelet moved."""
    after: Any = replace(seen, obj=seen_again(seen.obj, plan.status))
    for child in plan.children:
        match child:
            case Delete(obj):
                gone = {**obj, "metadata": {**obj["metadata"], "deletionTimestamp": "2026-11-23T12:00:00Z"}}
                after = replace(after, jobs=tuple(gone if job is obj else job for job in after.jobs))
            case Apply(obj) if obj["kind"] == "Deployment":
                if seen.refusal is None:
                    status = after.child["status"] if after.child else {}
                    after = replace(after, child={**drift.stamped(obj), "status": status})
            case Apply():
                pass
            case Hold(obj) | Release(obj):
                after = finalized(after, obj, held=isinstance(child, Hold))
            case _ if child.obj["kind"] == "Job":
                after = replace(after, jobs=(*after.jobs, child.obj))
    return after


def finalized(seen: Any, obj: Object, *, held: bool) -> Any:
    """The same world, with our finalizer put on a Dataset of it or taken off."""

    def changed(found: api.Dataset) -> api.Dataset:
        if found.metadata.name != obj["metadata"]["name"]:
            return found
        others = [name for name in found.metadata.finalizers if name != IN_USE]
        return with_metadata(found, finalizers=[*others, IN_USE] if held else others)

    if isinstance(seen, DatasetSeen):
        return replace(seen, obj=changed(seen.obj))
    return replace(
        seen,
        training=changed(seen.training) if seen.training else None,
        test=changed(seen.test) if seen.test else None,
    )


@given(ANYTHING)
def test_deciding_is_a_function_and_leaves_what_it_sees_alone(seen: Seen) -> None:
    before = copy.deepcopy(seen)
    assert decide(seen) == decide(seen)
    assert seen == before


@given(ANYTHING)
def test_a_status_is_kept_by_the_crd_as_it_was_written(seen: Seen) -> None:
    """tests/unit/operator/test_api_matches_crds.py holds the types and the CRDs together; here every status passes through the types."""
    status = decide(seen).status
    kept: Object = api.to_raw(seen_again(seen.obj, status).status)
    assert kept == status
    assert status["observedGeneration"] == seen.obj.metadata.generation


@given(ANYTHING)
@settings(max_examples=200)
def test_what_was_done_is_not_done_again(seen: Seen) -> None:
    """After at most three rounds with nobody else moving, nothing is left to write: the world is at rest, and looking again changes nothing."""
    for _ in range(3):
        plan = decide(seen)
        seen = done(seen, plan)
    final = decide(seen, seconds=0.5)
    assert final.status == plan.status
    assert final.events == ()
    for child in final.children:
        if isinstance(child, Apply):
            workload = seen.child if isinstance(seen, DeploymentSeen) and child.obj["kind"] == "Deployment" else None
            assert seen.refusal or workload is None or not drift.differs(child.obj, workload)
        else:
            assert seen.refusal is not None  # what is refused is asked for again, and refused again


@given(ANYTHING)
def test_a_condition_is_stalled_or_reconciling_but_not_both(seen: Seen) -> None:
    types = {found["type"]: found["status"] for found in decide(seen).status["conditions"]}
    assert not {"Stalled", "Reconciling"} <= types.keys()
    assert all(types[name] == "True" for name in ("Stalled", "Reconciling") if name in types)
