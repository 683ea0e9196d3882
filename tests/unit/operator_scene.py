"""The operator's unit tests: objects as the API server would send them, a world in memory that keeps what a plan wants, and a loop whose clock jumps."""

from __future__ import annotations

import asyncio
import json
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import NAMESPACE_DNS, uuid5

from winnow_operator import api
from winnow_operator.plan import Config
from winnow_operator.resources import Object

T = TypeVar("T")

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
CONFIG = Config(trainer_image="docker.io/winnow/trainer:dev", server_image="docker.io/winnow/server:dev")
DIGEST = f"sha256:{'a' * 64}"
OTHER_DIGEST = f"sha256:{'b' * 64}"
LABELS = {
    "app.kubernetes.io/managed-by": "winnow",
    "app.kubernetes.io/part-of": "winnow",
}


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def uid(name: str) -> str:
    """The same for the same name, and as random as a real one."""
    return str(uuid5(NAMESPACE_DNS, name))


def raw(kind: str, name: str, spec: Object, status: Object | None = None, **metadata: Any) -> Object:
    return {
        "apiVersion": "winnow.dev/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "ml",
            "uid": uid(name),
            "generation": 1,
            "resourceVersion": "10",
            "creationTimestamp": "2026-11-23T11:00:00Z",
            **metadata,
        },
        "spec": spec,
        **({"status": status} if status is not None else {}),
    }


def model_service(name: str = "spam", *, status: Object | None = None, **spec: Any) -> api.ModelService:
    wanted = {
        "baseModel": {"image": {"reference": "docker.io/winnow/base-minilm:dev", "path": "/model"}},
        "storage": {"persistentVolumeClaim": {"size": "20Gi"}},
        **spec,
    }
    return api.ModelService.model_validate(raw("ModelService", name, wanted, status))


def dataset(name: str = "rows", *, status: Object | None = None, **spec: Any) -> api.Dataset:
    wanted = {"modelService": "spam", "source": {"inline": '{"prompt": "Win", "completion": 1}\n'}, **spec}
    return api.Dataset.model_validate(raw("Dataset", name, wanted, status))


def imported(name: str = "rows", *, digest: str = DIGEST, task: str = "Binary", **more: Any) -> api.Dataset:
    """A dataset whose rows are stored."""
    labels = more.pop("labels", ["ham", "spam"])
    spec = more.pop("spec", {})
    status = {
        "conditions": [condition("Ready", "True", "Verified")],
        "digest": digest,
        "rows": 4460,
        "taskDetail": task,
        "labels": [{"name": label, "positives": 10, "share": 0.5} for label in labels],
        "labelCount": len(labels),
        **more,
    }
    return dataset(name, status=status, **spec)


def with_metadata(obj: api.Dataset, **metadata: Any) -> api.Dataset:
    """The same object with finalizers, a deletionTimestamp …"""
    content = api.to_raw(obj)
    return api.Dataset.model_validate({**content, "metadata": {**content["metadata"], **metadata}})


def training_job(name: str = "v1", *, status: Object | None = None, **spec: Any) -> api.TrainingJob:
    wanted = {"modelService": "spam", "trainingDataset": "rows", **spec}
    return api.TrainingJob.model_validate(raw("TrainingJob", name, wanted, status))


def completed(name: str = "v1", *, best: str = "epoch-2", **more: Any) -> api.TrainingJob:
    """A training job that is complete, with two checkpoints."""
    spec = more.pop("spec", {})
    status = {
        "conditions": [condition("Complete", "True", "TrainingComplete")],
        "completionTime": "2026-11-23T11:50:00Z",
        "bestCheckpoint": best,
        "primaryMetric": "f1",
        "higherIsBetter": True,
        "epochs": [
            {"epoch": number, "checkpoint": f"epoch-{number}", "metrics": {"f1": 0.9 + number / 100}}
            for number in (1, 2)
        ],
        "checkpoints": [
            {"name": "epoch-1", "epoch": 1, "digest": DIGEST},
            {"name": "epoch-2", "epoch": 2, "digest": OTHER_DIGEST},
        ],
        **more,
    }
    return training_job(name, status=status, **spec)


def deployment(name: str = "web", *, status: Object | None = None, **spec: Any) -> api.Deployment:
    wanted = {"modelService": "spam", "checkpoint": {"trainingJob": "v1"}, **spec}
    return api.Deployment.model_validate(raw("Deployment", name, wanted, status))


def condition(type_: str, status: str, reason: str, message: str = "", since: str = "2026-11-23T11:30:00Z") -> Object:
    return {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}


def seen_again(obj: api.Resource, status: Object) -> Any:
    """The object as the API server sends it after its status was written."""
    return type(obj).model_validate({**api.to_raw(obj), "status": json.loads(json.dumps(status))})


def conditions_of(status: Object) -> dict[str, tuple[str, str]]:
    """(status, reason) by type."""
    return {found["type"]: (found["status"], found["reason"]) for found in status["conditions"]}


def message_of(status: Object, type_: str) -> str:
    return next(str(found["message"]) for found in status["conditions"] if found["type"] == type_)


def kstatus(obj: api.Resource, status: Object) -> str:
    """What Flux and `helm --wait` make of it: sigs.k8s.io/cli-utils, pkg/kstatus/status/generic.go."""
    by_type = conditions_of(status)
    if status["observedGeneration"] != obj.metadata.generation or "Reconciling" in by_type:
        return "InProgress"
    if "Stalled" in by_type:
        return "Failed"
    return "InProgress" if by_type.get("Ready", ("True", ""))[0] != "True" else "Current"


def job_of(
    owner: api.Resource, *, outcome: str = "", reason: str = "", ended: datetime | None = None, **spec: Any
) -> Object:
    """A batch Job as its controller keeps it. `outcome` is Complete or Failed."""
    name = f"{owner.metadata.name}-0a1b2c3d"
    conditions = []
    if outcome:
        at = (ended or NOW).strftime("%Y-%m-%dT%H:%M:%SZ")
        conditions = [{"type": outcome, "status": "True", "reason": reason, "message": "", "lastTransitionTime": at}]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": "ml",
            "uid": uid(name),
            "resourceVersion": "11",
            "creationTimestamp": "2026-11-23T11:40:00Z",
            "labels": labels_of(owner),
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": spec,
        "status": {"startTime": "2026-11-23T11:40:00Z", "conditions": conditions},
    }


def owner_reference(owner: api.Resource) -> Object:
    return {
        "apiVersion": "winnow.dev/v1alpha1",
        "kind": owner.kind,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def labels_of(owner: api.Resource) -> dict[str, str]:
    return {**LABELS, "winnow.dev/kind": owner.kind, "winnow.dev/name": owner.metadata.name}


def beside(pod: Object, **state: Any) -> Object:
    """The pod with a container of a mesh beside ours, which the kubelet names first: it sorts them by name."""
    pod["status"]["containerStatuses"].insert(0, {"name": "linkerd-proxy", "image": "mesh", **state})
    return pod


def pod_of(
    job: Object,
    *,
    number: int = 1,
    phase: str = "Pending",
    exit_code: int | None = None,
    said: str | Object = "",
    reason: str = "",
    waiting: tuple[str, str] | None = None,
    unschedulable: str = "",
    disrupted: bool = False,
    index: int | None = None,
    ended_at: datetime | None = None,
) -> Object:
    """A pod as the kubelet keeps it: pending, running, ended with an exit code, or waiting for a (reason, message)."""
    state: Object = {}
    if exit_code is not None:
        phase = "Succeeded" if exit_code == 0 else "Failed"
        message = said if isinstance(said, str) else json.dumps(said)
        default = "Completed" if exit_code == 0 else "Error"
        at = {"finishedAt": ended_at.strftime("%Y-%m-%dT%H:%M:%SZ")} if ended_at else {}
        state = {"terminated": {"exitCode": exit_code, "reason": reason or default, "message": message, **at}}
    elif waiting:
        state = {"waiting": {"reason": waiting[0], "message": waiting[1]}}
    elif phase == "Running":
        state = {"running": {}}
    conditions = []
    if unschedulable:
        conditions = [{"type": "PodScheduled", "status": "False", "message": unschedulable}]
    if disrupted:
        conditions = [{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}]
    name = f"{job['metadata']['name']}-{number}"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "ml",
            "uid": uid(name),
            "resourceVersion": "12",
            "creationTimestamp": f"2026-11-23T11:40:{number:02d}Z",
            "labels": job["metadata"]["labels"]
            | ({} if index is None else {"batch.kubernetes.io/job-completion-index": str(index)}),
            "ownerReferences": [
                {"kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"], "controller": True}
            ],
        },
        "spec": {"containers": [{"name": "trainer", "ports": [{"name": "progress", "containerPort": 8081}]}]},
        "status": {
            "phase": phase,
            "podIP": "10.0.0.7",
            "conditions": conditions,
            "containerStatuses": [{"name": "trainer", "image": "docker.io/winnow/trainer:dev", "state": state}],
        },
    }


class _JumpingSelector(selectors.SelectSelector):
    """Instead of waiting for a timer, the clock is put forward to it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("Everything waits and no timer is set: the test would hang")
        self.now += timeout
        return super().select(0)


class _JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result, in no time: for tests about waiting that open no sockets."""
    with asyncio.Runner(loop_factory=_JumpingLoop) as runner:
        return runner.run(main)
