"""The operator may end at any moment and come back, or another replica may take over: nothing is done twice, nothing is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest_asyncio
from integration_client import (
    APPS_DEPLOYMENT,
    COLLECTED_SECONDS,
    DATASET,
    DEPLOYMENT,
    JOB,
    LEASE,
    MODEL_SERVICE,
    POD,
    SERVICE,
    TRAINING_JOB,
    WAIT_SECONDS,
    Object,
)
from integration_cluster import Cluster, checkpoint, epoch, imported, trained
from integration_manifests import dataset, deployment, model_service, training_job
from integration_operator import Operator

TAKE_OVER_SECONDS = 17.0 + WAIT_SECONDS  # the Lease of a dead leader runs out after 15 s, and is looked at every 2 s


@pytest_asyncio.fixture(loop_scope="session")
async def mortal(operator: Operator) -> AsyncIterator[Operator]:
    """The operator, for a test that kills it; the tests after this one find it alive."""
    yield operator
    if not operator.running:
        await operator.start()


@asynccontextmanager
async def down(operator: Operator) -> AsyncIterator[None]:
    """What happens in the block happens while no operator runs. It comes back as its container would: under the same name."""
    await operator.kill()
    yield
    await operator.start()


async def test_each_life_goes_on_when_its_turning_point_fell_into_an_absence(
    cluster: Cluster, mortal: Operator
) -> None:
    async with down(mortal):
        await cluster.apply(model_service(), dataset(), training_job(), deployment())
    await cluster.bind_storage()
    rows_pod = await cluster.pod_of(DATASET, "rows")
    async with down(mortal):
        await rows_pod.start()
        await rows_pod.end(0, imported())
    await cluster.expect(DATASET, "rows", "Ready", reason="Verified")
    train_pod = await cluster.pod_of(TRAINING_JOB, "v1")
    await train_pod.start()
    await cluster.expect(TRAINING_JOB, "v1", "Running")
    async with down(mortal):
        await train_pod.end(0, trained())
    await cluster.expect(TRAINING_JOB, "v1", "Complete")
    server = await cluster.pod_of(DEPLOYMENT, "web")
    async with down(mortal):
        await server.start()
    await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live", says="epoch-2")
    for kind, name in ((DATASET, "rows"), (TRAINING_JOB, "v1")):
        assert len(await cluster.jobs_of(kind, name)) == 1
    assert [len(await cluster.find_all(kind)) for kind in (APPS_DEPLOYMENT, SERVICE)] == [1, 1]


async def test_an_operator_that_dies_right_after_creating_a_job_does_not_create_another(
    cluster: Cluster, mortal: Operator
) -> None:
    await cluster.ready_rows()
    for number in range(2):
        name = f"v{number}"
        await cluster.apply(training_job(name))

        def created(jobs: list[Object], name: str = name) -> bool | None:
            return any(job["metadata"]["name"].startswith(f"{name}-") for job in jobs) or None

        await cluster.until_all(f"the Job of {name}", JOB, created)
        async with down(mortal):
            pass
        pod = await cluster.pod_of(TRAINING_JOB, name)
        await pod.start()
        await pod.end(0, trained())
        await cluster.expect(TRAINING_JOB, name, "Complete")
        assert len(await cluster.jobs_of(TRAINING_JOB, name)) == 1


async def test_a_result_that_was_recorded_outlives_its_job_and_its_dataset(cluster: Cluster, mortal: Operator) -> None:
    await cluster.ready_rows()
    await cluster.trained()
    async with down(mortal):
        for job in await cluster.find_all(JOB):
            await cluster.delete(JOB, job["metadata"]["name"])
            await cluster.until_gone(JOB, job["metadata"]["name"])
        await cluster.delete(DATASET, "rows")
        await cluster.apply(deployment())
    pod = await cluster.pod_of(DEPLOYMENT, "web")
    await pod.start()
    await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live", says="epoch-2")
    assert await cluster.find_all(JOB) == []


async def test_what_is_made_anew_under_an_old_name_begins_a_new_life(cluster: Cluster, mortal: Operator) -> None:
    await cluster.ready_rows()
    old = await cluster.trained()
    async with down(mortal):
        await cluster.delete(TRAINING_JOB, "v1")
        await cluster.until_gone(TRAINING_JOB, "v1")
        await cluster.apply(training_job())
    pod = await cluster.pod_of(TRAINING_JOB, "v1")
    job = await cluster.get(TRAINING_JOB, "v1")
    assert "checkpoints" not in job.get("status", {})
    run = pod.container["command"][pod.container["command"].index("--run") + 1]
    assert run == f"v1-{job['metadata']['uid'][:8]}" != f"v1-{old['metadata']['uid'][:8]}"


async def test_an_edit_taken_back_while_nobody_looked_changes_nothing(cluster: Cluster, mortal: Operator) -> None:
    await cluster.ready_rows()
    await cluster.trained()
    await cluster.apply(deployment())
    pod = await cluster.pod_of(DEPLOYMENT, "web")
    await pod.start()
    await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live")
    before = await cluster.get(APPS_DEPLOYMENT, "web")
    async with down(mortal):
        await cluster.change(DEPLOYMENT, "web", checkpoint={"name": "epoch-1"})
        await cluster.change(DEPLOYMENT, "web", checkpoint={"name": "best"})
    web = await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live", says="epoch-2")
    assert "history" not in web["status"]
    assert (await cluster.get(APPS_DEPLOYMENT, "web"))["metadata"]["generation"] == before["metadata"]["generation"]


async def test_a_suspension_that_was_asked_for_in_an_absence_is_carried_out(cluster: Cluster, mortal: Operator) -> None:
    await cluster.ready_rows()
    pod = await cluster.training()
    async with down(mortal):
        await cluster.change(TRAINING_JOB, "v1", suspend=True)
    await cluster.until_told_to_end(pod)
    await pod.end(143)
    await pod.disappear()
    await cluster.expect(TRAINING_JOB, "v1", "Suspended", reason="Suspended", seconds=COLLECTED_SECONDS)


async def test_a_training_out_of_memory_is_ended_however_late_the_operator_looks(
    cluster: Cluster, mortal: Operator
) -> None:
    await cluster.ready_rows()
    first = await cluster.training()
    async with down(mortal):
        await first.end(137, reason="OOMKilled")
        second = await cluster.pod_of(TRAINING_JOB, "v1", but_not=[first.name], seconds=40)
        await second.start()
    await cluster.expect(TRAINING_JOB, "v1", "Failed", reason="OutOfMemory", says="limits.memory")
    await cluster.until_told_to_end(second)
    await second.disappear()
    async with down(mortal):
        pass
    job = await cluster.expect(TRAINING_JOB, "v1", "Failed", reason="OutOfMemory")
    assert job["status"]["failure"]["exitCode"] == 137
    await cluster.until_no_job_of(TRAINING_JOB, "v1")


async def test_of_two_replicas_one_works_and_the_other_takes_over(
    cluster: Cluster, mortal: Operator, operators_kubeconfig: Path, tmp_path: Path
) -> None:
    second = Operator(operators_kubeconfig, tmp_path / "log", mortal.namespace)
    await second.start()
    try:
        assert await second.metric("winnow_leader") == 0
        assert (await second.get("/readyz"))[0] == 200  # ready to take over
        await cluster.ready_rows()
        pod = await cluster.training()
        await mortal.kill()
        await pod.end(0, trained())
        await cluster.apply(training_job("v2"))
        await cluster.expect(TRAINING_JOB, "v1", "Complete", seconds=TAKE_OVER_SECONDS)
        await cluster.pod_of(TRAINING_JOB, "v2")
        lease = await cluster.client.get(LEASE, mortal.namespace, "winnow-operator")
        assert lease is not None
        assert lease["spec"]["holderIdentity"] == second.pod_name
        assert await second.metric("winnow_leader") == 1
        await mortal.start()  # it comes back as the one that stands by
        await cluster.quiet(JOB)
        assert await mortal.metric("winnow_leader") == 0
        assert [len(await cluster.jobs_of(TRAINING_JOB, name)) for name in ("v1", "v2")] == [1, 1]
    finally:
        assert await second.stop() == 0
    # A leader that is told to end hands over at once: else the Lease is its own for 15 s more.
    lease = await cluster.client.get(LEASE, mortal.namespace, "winnow-operator")
    assert lease is not None
    assert lease["spec"]["holderIdentity"] != second.pod_name
    await cluster.apply(deployment())
    await cluster.pod_of(DEPLOYMENT, "web")


async def test_told_to_end_the_operator_ends_well_and_soon(mortal: Operator) -> None:
    async with asyncio.timeout(10):
        assert await mortal.stop() == 0


async def test_progress_that_was_told_before_a_restart_is_not_forgotten(cluster: Cluster, mortal: Operator) -> None:
    await cluster.ready_rows()
    await cluster.apply(training_job(maxRestarts=2))
    pod = await cluster.pod_of(TRAINING_JOB, "v1")
    await pod.end(
        20,
        trained(
            state="Failed",
            reason="StorageUnavailable",
            bestCheckpoint="epoch-1",
            epochs=[epoch(1, 0.9)],
            checkpoints=[checkpoint(1)],
        ),
    )
    await cluster.until("epoch 1", TRAINING_JOB, lambda job: job.get("status", {}).get("epochs"), name="v1")
    async with down(mortal):
        await cluster.delete(POD, pod.name)
    service = await cluster.until(
        "the board", MODEL_SERVICE, lambda found: found["status"].get("leaderboard"), name="spam"
    )
    assert service["status"]["leaderboard"][0]["trainingJob"] == "v1"
    job = await cluster.get(TRAINING_JOB, "v1")
    assert [entry["metrics"]["f1"] for entry in job["status"]["epochs"]] == [0.9]
