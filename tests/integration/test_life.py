"""The life of each kind, from its manifest to its end, on a real API server with real controllers; only pods are played."""

from __future__ import annotations

import asyncio
from itertools import permutations

import pytest
from integration_client import (
    APPS_DEPLOYMENT,
    CLAIM,
    COLLECTED_SECONDS,
    CONFIG_MAP,
    DATASET,
    DEPLOYMENT,
    JOB,
    MODEL_SERVICE,
    POD,
    SERVICE,
    TRAINING_JOB,
    Object,
)
from integration_cluster import DIGEST, Cluster, checkpoint, condition, epoch, kstatus, trained
from integration_manifests import ROWS, dataset, deployment, model_service, training_job
from integration_operator import Operator
from integration_pods import Pod, ProgressServer, message

pytestmark = pytest.mark.usefixtures("operator")


def owner(obj: Object) -> tuple[str, str]:
    (reference,) = obj["metadata"]["ownerReferences"]
    assert reference["controller"]
    assert reference["blockOwnerDeletion"]
    return reference["kind"], reference["name"]


async def live(cluster: Cluster, name: str = "web", *, played: tuple[str, ...] = ()) -> Pod:
    """Play one server pod of a Deployment until it is ready."""
    pod = await cluster.pod_of(DEPLOYMENT, name, but_not=played)
    await pod.start()
    return pod


async def test_a_model_service_makes_its_volume_and_is_ready_once_that_is_bound(cluster: Cluster) -> None:
    await cluster.apply(model_service())
    waiting = await cluster.expect(MODEL_SERVICE, "spam", "Ready", status="False", reason="StoragePending")
    assert kstatus(waiting) == "InProgress"
    claim = await cluster.get(CLAIM, "spam-storage")
    assert owner(claim) == ("ModelService", "spam")
    assert claim["spec"]["resources"]["requests"] == {"storage": "1Gi"}
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    await cluster.bind_storage()
    ready = await cluster.expect(MODEL_SERVICE, "spam", "Ready", reason="StorageReady")
    assert kstatus(ready) == "Current"
    assert ready["status"]["storageClaim"] == "spam-storage"


async def test_a_model_service_uses_a_claim_that_the_user_brings_and_leaves_it_alone(cluster: Cluster) -> None:
    await cluster.apply(model_service(storage={"persistentVolumeClaim": {"claimName": "mine"}}))
    missing = await cluster.expect(MODEL_SERVICE, "spam", "Ready", status="False", reason="ClaimNotFound", says="mine")
    assert kstatus(missing) == "InProgress"
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "by-hand",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    await cluster.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "mine"}, "spec": spec}
    )
    await cluster.bind_storage("mine")
    await cluster.look_again(MODEL_SERVICE, "spam")  # by itself it would, after 15 s
    await cluster.expect(MODEL_SERVICE, "spam", "Ready", reason="StorageReady")
    await cluster.delete(MODEL_SERVICE, "spam")
    await cluster.until_gone(MODEL_SERVICE, "spam")
    assert "ownerReferences" not in (await cluster.get(CLAIM, "mine"))["metadata"]


async def test_a_dataset_is_imported_once_and_says_what_it_found(cluster: Cluster) -> None:
    await cluster.apply(model_service(), dataset(labels=["ham", "spam"]))
    importing = await cluster.expect(DATASET, "rows", "Ready", status="False", reason="Importing")
    assert kstatus(importing) == "InProgress"
    pod = await cluster.pod_of(DATASET, "rows")
    assert pod.container["command"][:4] == ["python", "-m", "winnow_trainer", "import"]
    assert pod.container["image"] == "docker.io/winnow/trainer:dev"
    settings = [found for found in await cluster.find_all(CONFIG_MAP) if "dataset.yaml" in found["data"]]
    assert [(owner(found), found["data"]["rows"]) for found in settings] == [(("Dataset", "rows"), ROWS)]
    ready = await cluster.import_rows()
    assert kstatus(ready) == "Current"
    assert condition(ready, "Ready")["reason"] == "Verified"  # type: ignore[index]
    told = {
        name: value
        for name, value in ready["status"].items()
        if name not in ("conditions", "observedGeneration", "summary")
    }
    assert told == {
        "taskDetail": "Binary",
        "rows": 4460,
        "digest": DIGEST,
        "labels": [
            {"name": "ham", "positives": 3857, "share": 0.864798},
            {"name": "spam", "positives": 603, "share": 0.135202},
        ],
        "labelCount": 2,
        "tokens": {"mean": 80.5, "p50": 60, "p95": 200, "p99": 400, "max": 900},
        "duplicates": 214,
        "conflicts": 3,
        "skippedRows": 0,
        "problemCount": 0,
    }
    (job,) = await cluster.jobs_of(DATASET, "rows")
    await cluster.delete(JOB, job["metadata"]["name"])
    await cluster.until_gone(JOB, job["metadata"]["name"])
    await cluster.look_again(DATASET, "rows")
    await cluster.quiet(JOB)
    assert await cluster.jobs_of(DATASET, "rows") == []


async def test_validation_rows_choose_and_the_board_shows_their_value(cluster: Cluster) -> None:
    await cluster.ready_rows("rows", "test", "dev")
    await cluster.apply(training_job(testDataset="test", validationDataset="dev"))
    pod = await cluster.pod_of(TRAINING_JOB, "v1")
    await pod.start()
    epochs = [
        {**epoch(1, 0.95), "validationMetrics": {"f1": 0.8}},
        {**epoch(2, 0.93), "validationMetrics": {"f1": 0.85}},
    ]
    warning = {"code": "MissingLabels", "message": 'no validation row has the label "c"'}
    rows = {"trainingRows": 4000, "testRows": 400, "validationRows": 60, "validationOverlap": 2}
    await pod.end(0, trained(epochs=epochs, selectedOn="Validation", warnings=[warning], **rows))
    status = (await cluster.expect(TRAINING_JOB, "v1", "Complete"))["status"]
    assert (status["bestCheckpoint"], status["bestMetric"]) == ("epoch-2", "f1 0.8500 on validation rows")
    assert status["checkpoints"][1]["validationMetrics"] == {"f1": 0.85}
    assert status["datasets"].items() >= rows.items()
    assert (status["datasets"]["validation"]["name"], status["datasets"]["warnings"]) == ("dev", [warning])
    service = await cluster.until(
        "the board", MODEL_SERVICE, lambda service: service["status"].get("leaderboard"), name="spam"
    )
    (entry,) = service["status"]["leaderboard"]
    assert (entry["checkpoint"], entry["value"], entry["selectedOn"]) == ("epoch-2", 0.85, "Validation")


async def test_a_training_tells_its_progress_and_its_epochs_and_completes(cluster: Cluster) -> None:
    await cluster.ready_rows("rows", "test")
    await cluster.apply(training_job(testDataset="test"))
    pod = await cluster.pod_of(TRAINING_JOB, "v1")
    starting = await cluster.expect(TRAINING_JOB, "v1", "Accepted")
    assert kstatus(starting) == "InProgress"
    assert pod.container["command"][:4] == ["python", "-m", "winnow_trainer", "train"]
    first = {
        "state": "Running",
        "percent": 41.5,
        "epoch": 2,
        "totalEpochs": 3,
        "step": 120,
        "totalSteps": 300,
        "etaSeconds": 200,
        "tokensPerSecond": 2300.0,
        "loss": 0.21,
        "learningRate": 1e-4,
        "overlap": 12,
        "primaryMetric": "f1",
        "higherIsBetter": True,
        "bestCheckpoint": "epoch-1",
        "epochs": [epoch(1, 0.95)],
        "checkpoints": [checkpoint(1)],
    }
    async with ProgressServer(**first) as server:
        await pod.start(server.ip)
        running = await cluster.until(
            "progress", TRAINING_JOB, lambda job: job["status"].get("bestCheckpoint"), name="v1"
        )
    assert kstatus(running) == "Current"  # as for a batch/v1 Job: a tool that waits does not wait for hours
    status = running["status"]
    assert status["summary"] == "Running: epoch 2/3"
    assert (
        status["progress"].items()
        >= {"percent": 41.5, "epoch": 2, "totalEpochs": 3, "eta": "3m20s", "etaSeconds": 200}.items()
    )
    assert status["epochs"] == [
        {"epoch": 1, "checkpoint": "epoch-1", "trainLoss": 0.6, "metrics": {"accuracy": 0.98, "f1": 0.95}}
    ]
    assert (status["bestCheckpoint"], status["bestMetric"]) == ("epoch-1", "f1 0.9500")
    assert status["datasets"] == {
        "training": {"name": "rows", "digest": DIGEST},
        "test": {"name": "test", "digest": DIGEST},
        "overlap": 12,
    }
    # The last message drops what does not fit: epoch 1 stays as it was told before.
    said = trained(
        bestCheckpoint="epoch-3",
        epochs=[epoch(2, 0.96), epoch(3, 0.9721)],
        checkpoints=[checkpoint(1), checkpoint(2), checkpoint(3)],
    )
    await pod.end(0, said)
    done = await cluster.expect(TRAINING_JOB, "v1", "Complete", reason="TrainingComplete")
    assert kstatus(done) == "Current"
    status = done["status"]
    assert status["summary"] == "Complete"
    assert status["progress"]["percent"] == 100
    assert "eta" not in status["progress"]
    assert [entry["metrics"]["f1"] for entry in status["epochs"]] == [0.95, 0.96, 0.9721]
    assert [(entry["name"], entry["best"]) for entry in status["checkpoints"]] == [
        ("epoch-1", False),
        ("epoch-2", False),
        ("epoch-3", True),
    ]
    assert (status["bestCheckpoint"], status["bestMetric"]) == ("epoch-3", "f1 0.9721")
    assert {"Running": "False", "Failed": "False", "Suspended": "False"}.items() <= {
        found["type"]: found["status"] for found in status["conditions"]
    }.items()
    assert len(await cluster.jobs_of(TRAINING_JOB, "v1")) == 1


async def test_the_termination_message_alone_leads_to_the_right_status(cluster: Cluster) -> None:
    await cluster.ready_rows()
    done = await cluster.trained()  # its pod never answered /progress
    assert [entry["epoch"] for entry in done["status"]["epochs"]] == [1, 2]
    assert done["status"]["bestMetric"] == "f1 0.9721"


async def test_the_last_word_of_a_pod_that_is_deleted_as_it_ends_counts(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.apply(training_job())
    pod = await cluster.pod_of(TRAINING_JOB, "v1")
    async with ProgressServer(state="Running", percent=50.0, epochs=[epoch(1, 0.91)]) as server:
        await pod.start(server.ip)
        await cluster.until("epoch 1", TRAINING_JOB, lambda job: job["status"].get("epochs"), name="v1")
    await cluster.client.delete(POD, pod.namespace, pod.name, grace_seconds=30)
    await pod.end(0, trained())
    await pod.disappear()
    done = await cluster.expect(TRAINING_JOB, "v1", "Complete", seconds=60)
    assert [entry["epoch"] for entry in done["status"]["epochs"]] == [1, 2]
    assert (done["status"]["bestCheckpoint"], done["status"]["bestMetric"]) == ("epoch-2", "f1 0.9721")


async def test_progress_is_pulled_again_and_again(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.apply(training_job())
    pod = await cluster.pod_of(TRAINING_JOB, "v1")
    async with ProgressServer(state="Running", percent=10.0, epoch=1, totalEpochs=3) as server:
        await pod.start(server.ip)
        await cluster.until(
            "10 %", TRAINING_JOB, lambda job: job["status"].get("progress", {}).get("percent") == 10, name="v1"
        )
        server.progress.update(percent=60.0, epoch=2)
        job = await cluster.until(
            "60 %", TRAINING_JOB, lambda job: job["status"]["progress"].get("percent") == 60, name="v1", seconds=25
        )
    assert job["status"]["summary"] == "Running: epoch 2/3"


async def test_a_deployment_serves_the_best_checkpoint_and_rolls_over_to_another(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.trained()
    await cluster.apply(deployment())
    rolling = await cluster.expect(DEPLOYMENT, "web", "Ready", status="False", reason="RollingOut")
    assert kstatus(rolling) == "InProgress"
    old = await live(cluster)
    assert old.container["command"][:3] == ["python", "-m", "winnow_server"]
    assert checkpoint(2)["digest"] in old.container["command"]
    ready = await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live")
    assert kstatus(ready) == "Current"
    status = ready["status"]
    assert status["url"] == f"http://web.{cluster.namespace}.svc"
    assert (
        status["live"].items()
        >= {"trainingJob": "v1", "checkpoint": "epoch-2", "digest": checkpoint(2)["digest"]}.items()
    )
    assert (status["replicas"], status["readyReplicas"]) == (1, 1)
    assert "history" not in status
    service = await cluster.get(SERVICE, "web")
    assert owner(service) == ("Deployment", "web")
    assert [(port["name"], port["port"]) for port in service["spec"]["ports"]] == [("http", 80)]

    await cluster.change(DEPLOYMENT, "web", checkpoint={"name": "epoch-1"})
    waiting = await cluster.expect(DEPLOYMENT, "web", "Ready", status="False", reason="RollingOut")
    assert condition(waiting, "Available")["status"] == "True"  # type: ignore[index]
    assert waiting["status"]["live"]["checkpoint"] == "epoch-2"
    await live(cluster, played=(old.name,))
    await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live", says="epoch-1")
    status = (await cluster.get(DEPLOYMENT, "web"))["status"]
    assert status["live"]["checkpoint"] == "epoch-1"
    assert [(past["checkpoint"], "until" in past) for past in status["history"]] == [("epoch-2", True)]


async def test_a_deployment_of_a_named_checkpoint_need_not_wait_for_the_end_of_the_training(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.apply(training_job(), deployment(checkpoint={"trainingJob": "v1", "name": "epoch-1"}))
    await cluster.expect(DEPLOYMENT, "web", "Ready", status="False", reason="CheckpointNotReady", says="epoch-1")
    pod = await cluster.pod_of(TRAINING_JOB, "v1")
    async with ProgressServer(
        state="Running", epoch=2, totalEpochs=3, epochs=[epoch(1, 0.9)], checkpoints=[checkpoint(1)]
    ) as server:
        await pod.start(server.ip)
        await live(cluster)
        await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live", says="epoch-1")
    job = await cluster.until(
        "deployedBy", TRAINING_JOB, lambda job: job["status"]["checkpoints"][0].get("deployedBy"), name="v1"
    )
    assert job["status"]["checkpoints"][0]["deployedBy"] == ["web"]


async def test_a_training_goes_on_from_a_checkpoint_once_the_other_job_has_ended(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.apply(training_job("v2", baseModel={"checkpoint": {"trainingJob": "v1"}}))
    await cluster.expect(TRAINING_JOB, "v2", "Accepted", status="False", reason="TrainingJobNotFound")
    await cluster.apply(training_job())
    await cluster.expect(TRAINING_JOB, "v2", "Accepted", status="False", reason="CheckpointNotReady")
    done = await cluster.trained()
    await cluster.expect(TRAINING_JOB, "v2", "Accepted", reason="Accepted")
    pod = await cluster.pod_of(TRAINING_JOB, "v2")
    assert pod.container["command"][:4] == ["python", "-m", "winnow_trainer", "train"]
    job = await cluster.get(TRAINING_JOB, "v2")
    best = done["status"]["bestCheckpoint"]
    assert job["status"]["continuedFrom"]["checkpoint"] == best
    assert job["status"]["continuedFrom"]["adapterBase"]["image"]["path"] == "/model"

    def kept(found: Object) -> bool:
        return any(entry.get("continuedBy") == ["v2"] for entry in found["status"]["checkpoints"])

    await cluster.until("continuedBy", TRAINING_JOB, kept, name="v1")
    await cluster.delete(TRAINING_JOB, "v1")
    await cluster.until_gone(TRAINING_JOB, "v1")
    await cluster.look_again(TRAINING_JOB, "v2")
    await cluster.expect(TRAINING_JOB, "v2", "Accepted", reason="Accepted")


async def test_a_deployment_is_scaled_up_down_and_to_zero(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.trained()
    await cluster.apply(deployment())
    first = await live(cluster)
    await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live")
    await cluster.client.patch(DEPLOYMENT, cluster.namespace, "web", {"spec": {"replicas": 2}}, "scale")
    await live(cluster, played=(first.name,))
    await cluster.until("two replicas", DEPLOYMENT, lambda found: found["status"].get("readyReplicas") == 2, name="web")
    scale = await cluster.client.raw(DEPLOYMENT.path(cluster.namespace, "web", "scale"))
    assert scale["status"]["replicas"] == 2
    pods = await cluster.find_all(POD, scale["status"]["selector"])
    assert len(pods) == 2
    await cluster.change(DEPLOYMENT, "web", replicas=0)
    stopped = await cluster.expect(DEPLOYMENT, "web", "Available", status="False")
    assert kstatus(stopped) in ("Current", "InProgress")
    settled = await cluster.expect(DEPLOYMENT, "web", "Ready", reason="ScaledToZero")
    assert settled["status"]["live"]["checkpoint"] == "epoch-2"
    assert (await cluster.get(APPS_DEPLOYMENT, "web"))["spec"]["replicas"] == 0


async def test_a_model_service_counts_what_belongs_to_it_and_ranks_checkpoints(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.apply(training_job("v2"))
    pod = await cluster.pod_of(TRAINING_JOB, "v2")
    await pod.start()
    await pod.end(0, trained(epochs=[epoch(1, 0.99), epoch(2, 0.98)], bestCheckpoint="epoch-1"))
    await cluster.trained("v1")
    await cluster.apply(deployment())
    await live(cluster)
    await cluster.expect(DEPLOYMENT, "web", "Ready")

    def counted(service: Object) -> bool:
        status = service["status"]
        counts = (status.get("datasets"), status.get("trainingJobs"), status.get("deployments"))
        return counts == (1, 2, 1) and [entry["deployed"] for entry in status.get("leaderboard", [])] == [False, True]

    service = await cluster.until("counts and a board", MODEL_SERVICE, counted, name="spam")
    assert service["status"]["leaderboard"] == [
        {"trainingJob": "v2", "checkpoint": "epoch-1", "metric": "f1", "value": 0.99, "deployed": False},
        {"trainingJob": "v1", "checkpoint": "epoch-2", "metric": "f1", "value": 0.9721, "deployed": True},
    ]
    await cluster.delete(TRAINING_JOB, "v2")
    await cluster.until("one job", MODEL_SERVICE, lambda found: found["status"]["trainingJobs"] == 1, name="spam")


ORDERS = [list(order) for order in permutations(["service", "rows", "job", "web"])]


@pytest.mark.parametrize("order", [ORDERS[0], ORDERS[-1], ORDERS[14]], ids="-".join)
async def test_four_manifests_converge_in_any_order(cluster: Cluster, order: list[str]) -> None:
    manifests = {"service": model_service(), "rows": dataset(), "job": training_job(), "web": deployment()}
    await cluster.apply(*(manifests[name] for name in order))
    await cluster.bind_storage()
    await cluster.import_rows()
    pod = await cluster.pod_of(TRAINING_JOB, "v1")
    await pod.start()
    await pod.end(0, trained())
    await live(cluster)
    await asyncio.gather(
        cluster.expect(MODEL_SERVICE, "spam", "Ready"),
        cluster.expect(DATASET, "rows", "Ready"),
        cluster.expect(TRAINING_JOB, "v1", "Complete"),
        cluster.expect(DEPLOYMENT, "web", "Ready"),
    )
    assert [len(await cluster.jobs_of(kind, name)) for kind, name in ((DATASET, "rows"), (TRAINING_JOB, "v1"))] == [
        1,
        1,
    ]


async def test_a_model_service_made_anew_gets_a_volume_of_its_own_once_nothing_uses_the_earlier_one(
    cluster: Cluster,
) -> None:
    await cluster.ready_rows()
    await cluster.trained()
    await cluster.apply(deployment())
    server = await live(cluster)
    earlier = (await cluster.get(CLAIM, "spam-storage"))["metadata"]["uid"]
    await cluster.delete(MODEL_SERVICE, "spam")
    await cluster.apply(model_service())
    waiting = await cluster.expect(
        MODEL_SERVICE,
        "spam",
        "Ready",
        status="False",
        reason="StorageBeingDeleted",
        says=f"waits for pods {server.name}. To let it go: delete Deployment web or scale it to 0",
        seconds=COLLECTED_SECONDS,
    )
    assert kstatus(waiting) == "Failed"
    await cluster.expect(DATASET, "rows", "Ready", status="False", reason="StorageBeingDeleted")
    await cluster.expect(DEPLOYMENT, "web", "Ready", says="is being deleted")
    await cluster.until_no_job_of(DATASET, "rows")
    await cluster.until_no_job_of(TRAINING_JOB, "v1")
    assert await cluster.find_all(JOB) == []
    await cluster.change(DEPLOYMENT, "web", replicas=0)
    await cluster.until_told_to_end(server)
    await server.disappear()
    # The garbage collector takes the earlier claim, once it knows our kinds: soon after the start of the API server it does not.
    await cluster.until(
        "a claim of its own",
        CLAIM,
        lambda claim: claim["metadata"]["uid"] != earlier,
        name="spam-storage",
        seconds=COLLECTED_SECONDS,
    )
    await cluster.expect(DATASET, "rows", "Ready", status="False", reason="Importing")


async def test_a_batch_job_that_somebody_deletes_comes_back_when_its_pod_has_ended(cluster: Cluster) -> None:
    await cluster.ready_rows()
    pod = await cluster.training()
    (batch,) = await cluster.jobs_of(TRAINING_JOB, "v1")
    await cluster.delete(JOB, batch["metadata"]["name"])
    await cluster.expect(TRAINING_JOB, "v1", "Running", status="False", reason="Stopping", says=pod.name)
    assert await cluster.jobs_of(TRAINING_JOB, "v1") == []
    await cluster.until_told_to_end(pod)
    await pod.disappear()
    await cluster.pod_of(TRAINING_JOB, "v1", but_not=[pod.name])


async def test_deleting_an_object_removes_what_was_made_for_it(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.trained()
    await cluster.apply(deployment())
    server = await live(cluster)
    await cluster.expect(DEPLOYMENT, "web", "Ready")
    await cluster.delete(DEPLOYMENT, "web")
    await cluster.until_gone(SERVICE, "web")
    await cluster.until_gone(APPS_DEPLOYMENT, "web")
    await cluster.until_told_to_end(server)
    await server.disappear()
    await cluster.delete(TRAINING_JOB, "v1")
    await cluster.delete(DATASET, "rows")
    await cluster.until_all("no Job", JOB, lambda jobs: not jobs or None, seconds=COLLECTED_SECONDS)
    await cluster.delete(MODEL_SERVICE, "spam")
    await cluster.until_gone(CLAIM, "spam-storage")

    def ours_gone(found: list[Object]) -> bool | None:
        return (
            not [settings for settings in found if "winnow.dev/kind" in settings["metadata"].get("labels", {})] or None
        )

    await cluster.until_all("no ConfigMap of ours", CONFIG_MAP, ours_gone, seconds=COLLECTED_SECONDS)


async def test_what_outlived_its_object_is_taken_back_by_one_of_the_same_name(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.trained()
    await cluster.apply(deployment())
    server = await live(cluster)
    await cluster.expect(DEPLOYMENT, "web", "Ready")
    for kind, name in ((DEPLOYMENT, "web"), (MODEL_SERVICE, "spam")):
        await cluster.client.delete(kind, cluster.namespace, name, policy="Orphan")
        await cluster.until_gone(kind, name)
    volume = (await cluster.get(CLAIM, "spam-storage"))["spec"]["volumeName"]
    await cluster.apply(model_service(), deployment())
    await cluster.expect(MODEL_SERVICE, "spam", "Ready", reason="StorageReady")
    await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live")
    assert (await cluster.get(CLAIM, "spam-storage"))["spec"]["volumeName"] == volume
    for kind, name in ((SERVICE, "web"), (APPS_DEPLOYMENT, "web")):
        uid = (await cluster.get(DEPLOYMENT, "web"))["metadata"]["uid"]
        assert [one["uid"] for one in (await cluster.get(kind, name))["metadata"]["ownerReferences"]] == [uid]
    assert "deletionTimestamp" not in (await cluster.get(POD, server.name))["metadata"], "no pod was replaced"


async def test_a_suspended_training_stops_and_goes_on_from_its_resume_point(cluster: Cluster) -> None:
    await cluster.ready_rows()
    first = await cluster.training()
    await cluster.change(TRAINING_JOB, "v1", suspend=True)
    await cluster.expect(TRAINING_JOB, "v1", "Suspended", reason="Stopping")
    await cluster.until_told_to_end(first)
    await first.end(
        143,
        message(
            kind="train", state="Stopped", reason="", message="", epochs=[epoch(1, 0.9)], checkpoints=[checkpoint(1)]
        ),
    )
    await first.disappear()
    suspended = await cluster.expect(TRAINING_JOB, "v1", "Suspended", reason="Suspended", seconds=COLLECTED_SECONDS)
    assert kstatus(suspended) == "Current"
    assert await cluster.jobs_of(TRAINING_JOB, "v1") == []
    await cluster.change(TRAINING_JOB, "v1", suspend=False)
    second = await cluster.pod_of(TRAINING_JOB, "v1", but_not=[first.name])
    assert second.container["command"] == first.container["command"]  # the same run, so it finds the resume point
    await second.start()
    await second.end(0, trained())
    await cluster.expect(TRAINING_JOB, "v1", "Complete")


async def test_a_job_applied_suspended_starts_nothing_until_it_is_set_free(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.apply(training_job(suspend=True))
    await cluster.expect(TRAINING_JOB, "v1", "Suspended", reason="Suspended")
    assert await cluster.jobs_of(TRAINING_JOB, "v1") == []
    await cluster.change(TRAINING_JOB, "v1", suspend=False)
    await cluster.pod_of(TRAINING_JOB, "v1")


async def test_a_finished_job_is_cleared_away_after_its_time_to_live_and_its_result_stays(cluster: Cluster) -> None:
    await cluster.ready_rows()
    done = await cluster.trained(ttlSecondsAfterFinished=0)
    await cluster.until_no_job_of(TRAINING_JOB, "v1")
    kept = (await cluster.get(TRAINING_JOB, "v1"))["status"]
    assert kept["checkpoints"] == done["status"]["checkpoints"]
    await cluster.apply(deployment())
    await live(cluster)
    await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live")
    assert len(await cluster.jobs_of(TRAINING_JOB, "v1")) == 0


async def test_the_operator_says_how_it_is(cluster: Cluster, operator: Operator) -> None:
    assert (await operator.get("/healthz"))[0] == 200
    assert (await operator.get("/readyz"))[0] == 200
    status, page = await operator.get("/metrics")
    assert status == 200
    assert all(name in page for name in ("reconcile_total", "queue_depth", "api_requests_total", "leader"))
