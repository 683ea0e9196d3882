"""A Dataset's end on a real API server: it waits for the trainings that read it, in words, and its rows go when nothing refers to them."""

from __future__ import annotations

import asyncio

import pytest
from integration_client import DATASET, EVENT, JOB, MODEL_SERVICE, NAMESPACE, QUOTA, TRAINING_JOB, Object, RefusedError
from integration_cluster import DIGEST, Cluster, condition, imported, trained
from integration_manifests import dataset, training_job
from integration_operator import Operator
from integration_pods import Pod, message
from test_restarts import down, mortal

__all__ = ["mortal"]  # the fixture

IN_USE = "winnow.dev/in-use"
OTHER_DIGEST = f"sha256:{'c' * 64}"
MARK_SECONDS = 30.0  # what is marked stays that long
COLLECT_SECONDS = 2 * MARK_SECONDS

pytestmark = pytest.mark.usefixtures("operator")


def stored(service: Object) -> list[tuple[str, str | None]]:
    """(Dataset, digest) of what a ModelService knows to be in storage."""
    return [(entry["dataset"], entry.get("digest")) for entry in service["status"]["stored"]]


def marks(service: Object) -> list[str]:
    return [entry["unreferencedSince"] for entry in service["status"]["stored"] if "unreferencedSince" in entry]


def held(obj: Object) -> bool:
    return IN_USE in obj["metadata"].get("finalizers", [])


async def running(cluster: Cluster, name: str = "v1", **spec: object) -> Pod:
    await cluster.apply(training_job(name, **spec))
    pod = await cluster.pod_of(TRAINING_JOB, name)
    await pod.start()
    await cluster.expect(TRAINING_JOB, name, "Running")
    return pod


async def events_about(cluster: Cluster, name: str, reason: str) -> list[str]:
    found = [event for event in await cluster.find_all(EVENT) if event["reason"] == reason]
    return [event["note"] for event in found if event["regarding"]["name"] == name]


async def test_a_dataset_waits_for_the_training_that_reads_it(cluster: Cluster) -> None:
    await cluster.ready_rows()
    assert not held(await cluster.get(DATASET, "rows"))
    pod = await running(cluster)
    await cluster.until("the finalizer", DATASET, held, name="rows")
    await cluster.delete(DATASET, "rows")
    waits = await cluster.expect(DATASET, "rows", "Terminating", reason="InUse", says="TrainingJob v1 reads its rows")
    assert condition(waits, "Ready")["status"] == "True"  # type: ignore[index]
    assert waits["status"]["summary"] == "Deleting: InUse by v1"
    # A job that would start now does not.
    await cluster.apply(training_job("v2"))
    await cluster.expect(
        TRAINING_JOB, "v2", "Accepted", status="False", reason="DatasetBeingDeleted", says="is being deleted"
    )
    assert await cluster.jobs_of(TRAINING_JOB, "v2") == []
    await pod.end(0, trained())
    await cluster.until_gone(DATASET, "rows")
    await cluster.expect(TRAINING_JOB, "v1", "Complete")
    await cluster.expect(TRAINING_JOB, "v2", "Accepted", status="False", reason="DatasetNotFound")
    assert len(await events_about(cluster, "rows", "InUse")) == 1


@pytest.mark.parametrize("how", ["suspended", "deleted"])
async def test_it_goes_when_the_training_is_suspended_or_deleted(cluster: Cluster, how: str) -> None:
    await cluster.ready_rows()
    pod = await running(cluster)
    await cluster.delete(DATASET, "rows")
    await cluster.expect(DATASET, "rows", "Terminating", reason="InUse")
    if how == "suspended":
        await cluster.change(TRAINING_JOB, "v1", suspend=True)
        await cluster.until("the pod's end", JOB, lambda obj: "deletionTimestamp" in obj["metadata"], name="")
        assert held(await cluster.get(DATASET, "rows"))  # the pod still writes its resume point
        await pod.end(143, message(kind="train", state="Stopped"))
        await pod.disappear()
    else:
        await cluster.delete(TRAINING_JOB, "v1")
    await cluster.until_gone(DATASET, "rows")


async def test_a_training_whose_batch_job_is_refused_holds_it_quietly_and_keeps_nobody_from_deleting_it(
    cluster: Cluster,
) -> None:
    await cluster.ready_rows()
    hard = {"count/jobs.batch": "1"}  # that of the import
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "one"}, "spec": {"hard": hard}}
    await cluster.apply(quota)
    await cluster.until("the quota to hold", QUOTA, lambda found: found["status"]["used"] == hard, name="one")
    await cluster.apply(training_job())
    await cluster.expect(TRAINING_JOB, "v1", "Accepted", status="False", reason="ApiRefused", says="exceeded quota")
    await cluster.until("the finalizer", DATASET, held, name="rows")
    await cluster.quiet(DATASET, 2.0)
    await cluster.change(TRAINING_JOB, "v1", suspend=True)
    await cluster.until("it to be off", DATASET, lambda obj: not held(obj), name="rows")
    await cluster.change(TRAINING_JOB, "v1", suspend=False)
    await cluster.until("the finalizer again", DATASET, held, name="rows")
    await cluster.delete(DATASET, "rows")
    await cluster.until_gone(DATASET, "rows")
    await cluster.expect(TRAINING_JOB, "v1", "Accepted", status="False", reason="DatasetNotFound")


async def test_with_two_trainings_it_waits_for_the_last_one(cluster: Cluster) -> None:
    await cluster.ready_rows("rows", "test")
    first, second = (
        await running(cluster, "v1"),
        await running(cluster, "v2", trainingDataset="test", testDataset="rows"),
    )
    await cluster.delete(DATASET, "rows")
    await cluster.expect(DATASET, "rows", "Terminating", says="TrainingJobs v1, v2 read its rows")
    await first.end(0, trained())
    await cluster.expect(DATASET, "rows", "Terminating", says="TrainingJob v2 reads its rows")
    await second.end(0, trained())
    await cluster.until_gone(DATASET, "rows")
    await cluster.until("test to be free", DATASET, lambda obj: not held(obj), name="test")


async def test_a_dataset_that_nothing_reads_goes_at_once(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.apply(training_job(suspend=True), training_job("v2", testDataset="nowhere"))
    await cluster.expect(TRAINING_JOB, "v2", "Accepted", status="False", reason="DatasetNotFound")
    await cluster.delete(DATASET, "rows")
    await cluster.until_gone(DATASET, "rows", seconds=5)


async def test_a_finalizer_of_somebody_else_is_left_alone(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.client.patch(DATASET, cluster.namespace, "rows", {"metadata": {"finalizers": ["example.com/theirs"]}})
    pod = await running(cluster)
    await cluster.until("both", DATASET, held, name="rows")
    await cluster.delete(DATASET, "rows")
    await cluster.expect(DATASET, "rows", "Terminating")
    await pod.end(0, trained())
    free = await cluster.until("ours to come off", DATASET, lambda obj: not held(obj), name="rows")
    assert free["metadata"]["finalizers"] == ["example.com/theirs"]
    await cluster.until("the word to go", DATASET, lambda obj: condition(obj, "Terminating") is None, name="rows")
    await cluster.client.patch(DATASET, cluster.namespace, "rows", {"metadata": {"finalizers": None}})
    await cluster.until_gone(DATASET, "rows")


async def test_what_ends_while_no_operator_runs_is_let_go_when_it_is_back(cluster: Cluster, mortal: Operator) -> None:
    await cluster.ready_rows()
    pod = await running(cluster)
    async with down(mortal):
        await cluster.delete(DATASET, "rows")
        await pod.end(0, trained())
        await cluster.until("the deletion", DATASET, lambda obj: "deletionTimestamp" in obj["metadata"], name="rows")
    await cluster.until_gone(DATASET, "rows")


async def test_a_namespace_goes_though_a_training_runs_in_it(cluster: Cluster) -> None:
    await cluster.ready_rows()
    pod = await running(cluster)
    await cluster.until("the finalizer", DATASET, held, name="rows")
    await cluster.client.delete(NAMESPACE, "", cluster.namespace)
    # A namespace's pods go first, then everything else.
    await pod.end(143, message(kind="train", state="Stopped"))
    await pod.disappear()
    await cluster.until_gone(DATASET, "rows")


async def test_a_changed_spec_says_that_a_new_dataset_is_needed(cluster: Cluster) -> None:
    await cluster.ready_rows()
    with pytest.raises(
        RefusedError, match="cannot be changed once created, because trainings refer to its rows; make a new"
    ):
        await cluster.apply(dataset(labels=["ham", "spam"]))


async def test_rows_that_nothing_refers_to_are_collected_once(cluster: Cluster) -> None:
    await cluster.ready_rows("mails", "same")  # the same rows under two names
    await cluster.apply(dataset("others"))
    await cluster.import_rows("others", digest=OTHER_DIGEST)
    known = lambda obj: len(obj["status"].get("stored", [])) == 3  # noqa: E731
    await cluster.until("all to be known", MODEL_SERVICE, known, name="spam")
    # An import holds a collection off until both are due: the deletions may be seen, and so marked, a second apart.
    await cluster.apply(dataset("early"))
    early = await cluster.pod_of(DATASET, "early")
    await early.start()
    await asyncio.gather(*(cluster.delete(DATASET, name) for name in ("mails", "others")))
    await cluster.until("both to be marked", MODEL_SERVICE, lambda obj: len(marks(obj)) == 2, name="spam")
    await asyncio.sleep(MARK_SECONDS + 1)
    await early.end(0, imported())
    pod = await cluster.pod_of(MODEL_SERVICE, "spam", seconds=COLLECT_SECONDS)
    command = pod.container["command"]
    assert command[3] == "collect"
    assert [command[at + 1] for at, word in enumerate(command) if word == "--remove"] == [OTHER_DIGEST]
    assert [command[at + 1] for at, word in enumerate(command) if word == "--remove-problems-of"] == ["mails", "others"]
    await pod.start()
    # A collection whose pod does not run yet would give way to an import. A Job's count of ready pods comes a second behind the pod.
    await cluster.until("its pod to be known to run", JOB, lambda obj: obj["status"].get("ready") == 1, name=pod.job)
    # An import has to wait for it, and starts when it is done.
    await cluster.apply(dataset("late"))
    await cluster.expect(DATASET, "late", "Ready", status="False", says="once storage has been cleared")
    assert await cluster.jobs_of(DATASET, "late") == []
    await pod.end(0, message(kind="collect", state="Done", message="", freedBytes=2_048, kept=[]))
    told = await cluster.until("the record", MODEL_SERVICE, lambda obj: "collected" in obj["status"], name="spam")
    assert told["status"]["collected"]["message"] == (
        "Removed from storage what deleted datasets left there, 2.0 KiB: mails, others"
    )
    await cluster.until_gone(JOB, told["status"]["collected"]["job"])
    await cluster.import_rows("late")
    wanted = [("early", DIGEST), ("late", DIGEST), ("same", DIGEST)]
    await cluster.until("only what exists to be known", MODEL_SERVICE, lambda obj: stored(obj) == wanted, name="spam")
    await cluster.until_all("an event", EVENT, lambda found: any(e["reason"] == "Collected" for e in found) or None)
    assert len(await events_about(cluster, "spam", "Collected")) == 1


async def test_rows_of_a_suspended_training_stay_and_a_collection_outlives_its_operator(
    cluster: Cluster, mortal: Operator
) -> None:
    await cluster.ready_rows()
    pod = await running(cluster)
    await cluster.change(TRAINING_JOB, "v1", suspend=True)
    await pod.end(143, message(kind="train", state="Stopped"))
    await pod.disappear()
    await cluster.delete(DATASET, "rows")
    await cluster.until_gone(DATASET, "rows")
    unmarked = lambda obj: obj["status"]["stored"] == [{"dataset": "rows", "digest": DIGEST}]  # noqa: E731
    await cluster.until("a reference", MODEL_SERVICE, unmarked, name="spam")
    async with down(mortal):
        await cluster.delete(TRAINING_JOB, "v1")
    collector = await cluster.pod_of(MODEL_SERVICE, "spam", seconds=COLLECT_SECONDS)
    async with down(mortal):
        await collector.start()
        await collector.end(0, message(kind="collect", state="Done", message="", freedBytes=1, kept=[]))
    told = await cluster.until("the record", MODEL_SERVICE, lambda obj: "collected" in obj["status"], name="spam")
    assert "stored" not in told["status"]
