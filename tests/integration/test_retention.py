"""Checkpoints that retention does not keep, on a real API server: marked, removed by a Job, told, and missed by a Deployment."""

from __future__ import annotations

import pytest
from integration_client import DEPLOYMENT, JOB, MODEL_SERVICE, TRAINING_JOB, Object
from integration_cluster import Cluster
from integration_manifests import deployment, model_service
from integration_pods import message

COLLECT_SECONDS = 60.0  # marks stand for half a minute

pytestmark = pytest.mark.usefixtures("operator")


def checkpoint(job: Object, name: str) -> Object:
    return next(one for one in job["status"]["checkpoints"] if one["name"] == name)


async def test_a_checkpoint_goes_once_nobody_needs_it_and_a_deployment_that_names_it_says_so(cluster: Cluster) -> None:
    await cluster.ready_rows()
    first = {"trainingJob": "v1", "name": "epoch-1"}
    await cluster.apply(model_service(retention={"checkpointsPerJob": 1}), deployment("user", checkpoint=first))
    await cluster.trained()
    named = lambda obj: checkpoint(obj, "epoch-1")["deployedBy"] == ["user"]  # noqa: E731
    job = await cluster.until("its Deployment to be told", TRAINING_JOB, named, name="v1")
    assert "unneededSince" not in checkpoint(job, "epoch-1")
    await cluster.quiet(TRAINING_JOB, name="v1")

    await cluster.delete(DEPLOYMENT, "user")
    marked = lambda obj: "unneededSince" in checkpoint(obj, "epoch-1")  # noqa: E731
    await cluster.until("the mark", TRAINING_JOB, marked, name="v1")
    pod = await cluster.pod_of(MODEL_SERVICE, "spam", seconds=COLLECT_SECONDS)
    command = pod.container["command"]
    place = f"v1-{job['metadata']['uid'][:8]}/epoch-1"
    assert command[command.index("--remove-checkpoint") + 1] == place
    assert command.count("--remove-checkpoint") == 1
    await pod.start()
    await pod.end(0, message(kind="collect", state="Done", message="", freedBytes=90_000_001, kept=[]))
    removed = lambda obj: checkpoint(obj, "epoch-1").get("removed") is True  # noqa: E731
    told = await cluster.until("the removal to be told", TRAINING_JOB, removed, name="v1")
    assert "unneededSince" not in checkpoint(told, "epoch-1")
    assert checkpoint(told, "epoch-2")["best"]
    service = await cluster.get(MODEL_SERVICE, "spam")
    assert service["status"]["collected"]["checkpoints"] == [place]
    assert "85.8 MiB" in service["status"]["collected"]["message"]
    await cluster.until_gone(JOB, service["status"]["collected"]["job"])

    await cluster.apply(deployment("late", checkpoint=first))
    says = "was removed from storage by spec.retention of ModelService spam; it has: epoch-2"
    await cluster.expect(DEPLOYMENT, "late", "Ready", status="False", reason="CheckpointRemoved", says=says)
    await cluster.quiet(TRAINING_JOB, name="v1")
    assert await cluster.jobs_of(MODEL_SERVICE, "spam") == []
