"""What goes wrong becomes a condition in words: every mistake, missing thing and broken container that the operator gets to see."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from integration_client import (
    APPS_DEPLOYMENT,
    CONFIG_MAP,
    DATASET,
    DEPLOYMENT,
    JOB,
    MODEL_SERVICE,
    POD,
    QUOTA,
    SERVICE,
    TRAINING_JOB,
    Object,
)
from integration_cluster import Cluster, checkpoint, condition, epoch, failed, imported, kstatus, trained
from integration_manifests import dataset, deployment, model_service, training_job
from integration_pods import message

pytestmark = pytest.mark.usefixtures("operator")

PULL = 'failed to pull image "docker.io/winnow/trainer:dev": not found'
RETRY_SECONDS = 40.0  # the Job controller waits 10 s before a second pod


async def test_who_gets_no_pod_says_why_and_goes_on_when_there_is_room(cluster: Cluster) -> None:
    await cluster.ready_rows()
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    await cluster.apply(quota)
    await cluster.until("the quota to hold", QUOTA, lambda quota: quota["status"]["hard"], name="none")
    await cluster.apply(dataset("more"), training_job(), training_job("v2", serviceAccountName="nobody"))
    more = await cluster.expect(
        DATASET,
        "more",
        "Ready",
        status="False",
        reason="ApiRefused",
        says="exceeded quota: none",
        seconds=RETRY_SECONDS,
    )
    assert kstatus(more) == "InProgress", "there is room when others end"
    for name, words in (("v1", "exceeded quota: none"), ("v2", 'serviceaccount "nobody" not found')):
        await cluster.expect(
            TRAINING_JOB, name, "Running", status="False", reason="ApiRefused", says=words, seconds=RETRY_SECONDS
        )
    await cluster.delete(QUOTA, "none")
    pod = await cluster.pod_of(DATASET, "more", seconds=RETRY_SECONDS)
    await pod.start()
    await cluster.expect(DATASET, "more", "Ready", status="False", reason="Importing", says="being read")


# ModelService


@pytest.mark.parametrize(
    ("claim", "reason", "says"),
    [
        pytest.param(
            {"size": "1Gi", "storageClassName": "fats"},
            "StorageClassNotFound",
            "fats",
            id="a class that does not exist",
        ),
        pytest.param({"size": "1Gi"}, "NoDefaultStorageClass", "storageClassName", id="no class, and no default one"),
    ],
)
async def test_a_volume_that_cannot_be_bound_says_why(cluster: Cluster, claim: Object, reason: str, says: str) -> None:
    await cluster.apply(model_service(storage={"persistentVolumeClaim": claim}))
    service = await cluster.expect(MODEL_SERVICE, "spam", "Ready", status="False", reason=reason, says=says)
    assert kstatus(service) == "Failed"


async def test_a_claim_of_somebody_else_is_left_alone(cluster: Cluster) -> None:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "by-hand",
        "resources": {"requests": {"storage": "9Gi"}},
    }
    await cluster.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "spam-storage"}, "spec": spec},
        model_service(),
    )
    service = await cluster.expect(
        MODEL_SERVICE, "spam", "Ready", status="False", reason="NameConflict", says="spam-storage"
    )
    assert kstatus(service) == "Failed"


# Dataset


@dataclass(frozen=True)
class End:
    """How a container ended, and what the user is to read."""

    exit_code: int
    said: str
    reason: str
    says: str


PROBLEMS = [
    {"line": 17, "column": 42, "message": "completion must be 0 or 1, found 2"},
    {"line": 20, "message": "no field completion"},
]
IMPORT_ENDS = [
    pytest.param(
        End(
            11,
            failed("import", "InvalidRows", "27 rows are wrong", problems=PROBLEMS, problemCount=27),
            "InvalidRows",
            "27 rows",
        ),
        id="wrong rows",
    ),
    pytest.param(
        End(11, failed("import", "EmptyDataset", "there is no row"), "EmptyDataset", "there is no row"), id="no rows"
    ),
    pytest.param(
        End(
            10,
            failed("import", "BaseModelInvalid", "/base/model has no tokenizer.json"),
            "BaseModelInvalid",
            "tokenizer.json",
        ),
        id="a base model without a file",
    ),
    pytest.param(
        End(12, failed("import", "OutOfMemory", "a row does not fit"), "OutOfMemory", "does not fit"), id="memory"
    ),
    pytest.param(
        End(11, "Traceback (most recent call last): …", "InvalidRows", "Traceback"),
        id="no message, but a known exit code",
    ),
]


@pytest.mark.parametrize("end", IMPORT_ENDS)
async def test_an_import_that_fails_says_why_and_is_not_tried_again(cluster: Cluster, end: End) -> None:
    await cluster.apply(model_service(), dataset())
    pod = await cluster.pod_of(DATASET, "rows")
    await pod.start()
    await pod.end(end.exit_code, end.said)
    rows = await cluster.expect(DATASET, "rows", "Ready", status="False", reason=end.reason, says=end.says)
    assert kstatus(rows) == "Failed"
    assert rows["status"]["summary"] == f"Failed: {end.reason}"
    assert "digest" not in rows["status"]
    await cluster.quiet(POD)


async def test_an_import_that_is_killed_or_stopped_is_tried_again(cluster: Cluster) -> None:
    """SIGKILL alone says nothing of the rows; a kill for memory came from the node, since an import has no limit of its own."""

    async def ended_once(name: str, exit_code: int, reason: str, *, counted: int) -> None:
        first = await cluster.pod_of(DATASET, name)
        await first.start()
        await first.end(exit_code, reason=reason)
        second = await cluster.pod_of(DATASET, name, but_not=[first.name], seconds=RETRY_SECONDS)
        (job,) = await cluster.jobs_of(DATASET, name)
        assert job["status"].get("failed", 0) == counted
        await second.start()
        await second.end(0, imported())
        await cluster.expect(DATASET, name, "Ready", reason="Verified")

    await cluster.apply(model_service(), *(dataset(name) for name in ("stopped", "killed", "memory")))
    await asyncio.gather(
        ended_once("stopped", 143, "", counted=0),
        ended_once("killed", 137, "", counted=1),
        ended_once("memory", 137, "OOMKilled", counted=1),
    )


async def test_wrong_rows_are_named_by_line_and_column(cluster: Cluster) -> None:
    await cluster.apply(model_service(), dataset())
    pod = await cluster.pod_of(DATASET, "rows")
    await pod.end(11, failed("import", "InvalidRows", "27 rows are wrong", problems=PROBLEMS, problemCount=27))
    rows = await cluster.expect(DATASET, "rows", "Ready", status="False", reason="InvalidRows")
    assert rows["status"]["problems"] == PROBLEMS
    assert rows["status"]["problemCount"] == 27


async def test_skipped_rows_and_warnings_stand_in_the_status_of_a_ready_dataset(cluster: Cluster) -> None:
    await cluster.apply(model_service(), dataset(onInvalidRows="Skip"))
    warning = {"code": "FewExamples", "message": "label spam has 7 positives; 20 or more are advised"}
    rows = await cluster.import_rows(skippedRows=2, problemCount=2, problems=PROBLEMS, warnings=[warning])
    assert (rows["status"]["skippedRows"], rows["status"]["problems"], rows["status"]["warnings"]) == (
        2,
        PROBLEMS,
        [warning],
    )


async def test_a_config_map_that_is_missing_is_waited_for(cluster: Cluster) -> None:
    await cluster.apply(model_service(), dataset(source={"configMap": {"name": "rows", "key": "train.jsonl"}}))
    rows = await cluster.expect(
        DATASET, "rows", "Ready", status="False", reason="SourceUnreachable", says="ConfigMap rows"
    )
    assert kstatus(rows) == "InProgress"
    await cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows"}, "data": {"train.jsonl": "{}"}}
    )
    await cluster.import_rows()


async def test_an_import_that_a_queue_holds_says_so_and_goes_on_once_it_is_admitted(cluster: Cluster) -> None:
    await cluster.apply(model_service(), dataset())
    pod = await cluster.pod_of(DATASET, "rows")
    # As Kueue does, which may manage Jobs that name no queue: it stops a pod that was made too soon.
    await cluster.client.patch(JOB, cluster.namespace, pod.job, {"spec": {"suspend": True}})
    rows = await cluster.expect(DATASET, "rows", "Ready", status="False", reason="Queued", says="admitted by its queue")
    assert kstatus(rows) == "InProgress"
    await cluster.client.patch(JOB, cluster.namespace, pod.job, {"spec": {"suspend": False}})
    await cluster.import_rows()


async def test_an_import_whose_image_cannot_be_pulled_says_so_and_recovers(cluster: Cluster) -> None:
    await cluster.apply(model_service(), dataset())
    pod = await cluster.pod_of(DATASET, "rows")
    await pod.wait_in_vain("ErrImagePull", PULL)
    rows = await cluster.expect(
        DATASET, "rows", "Ready", status="False", reason="ImagePullFailed", says="docker.io/winnow/trainer:dev"
    )
    assert kstatus(rows) == "Failed"
    await pod.wait_in_vain(
        "ImagePullBackOff", f'Back-off pulling image "docker.io/winnow/trainer:dev": ErrImagePull: {PULL}'
    )
    await cluster.quiet(DATASET)  # the kubelet flickers between the two, the status does not
    await pod.start()
    await pod.end(0, imported())
    await cluster.expect(DATASET, "rows", "Ready", reason="Verified")


# TrainingJob: what keeps it from starting


@pytest.mark.parametrize("field", ["testDataset", "validationDataset"])
async def test_a_job_waits_for_a_dataset_that_does_not_exist(cluster: Cluster, field: str) -> None:
    await cluster.ready_rows()
    await cluster.apply(training_job(**{field: "test"}))
    job = await cluster.expect(
        TRAINING_JOB, "v1", "Accepted", status="False", reason="DatasetNotFound", says=f"{field}: Dataset test"
    )
    assert kstatus(job) == "InProgress"
    assert job["status"]["summary"] == "Waiting: DatasetNotFound"
    await cluster.apply(dataset("test"))
    await cluster.import_rows("test")
    await cluster.pod_of(TRAINING_JOB, "v1")


async def test_a_job_whose_dataset_failed_goes_on_with_a_better_one_of_the_same_name(cluster: Cluster) -> None:
    await cluster.apply(model_service(), dataset(), training_job())
    pod = await cluster.pod_of(DATASET, "rows")
    await pod.end(11, failed("import", "InvalidRows", "line 17: completion must be 0 or 1, found 2"))
    job = await cluster.expect(TRAINING_JOB, "v1", "Accepted", status="False", reason="DatasetFailed", says="line 17")
    assert kstatus(job) == "Failed"
    await cluster.delete(DATASET, "rows")
    await cluster.until_gone(DATASET, "rows")
    await cluster.apply(dataset(onInvalidRows="Skip"))
    second = await cluster.pod_of(DATASET, "rows", but_not=[pod.name])
    await second.end(0, imported())
    await cluster.expect(TRAINING_JOB, "v1", "Accepted")


REFUSALS = [
    pytest.param(
        {},
        {"warnings": [{"code": "SingleClass", "message": "all 4460 rows are ham"}]},
        "SingleClass",
        "ham",
        id="one class",
    ),
    pytest.param(
        {"metrics": {"primary": "f1"}, "validationSplit": {"percent": 20}},
        {"taskDetail": "Multiclass", "labels": [["a", 1], ["b", 1], ["c", 1]], "labelCount": 3},
        "MetricDoesNotFit",
        "f1_macro",
        id="a metric of another task",
    ),
]


@pytest.mark.parametrize(("spec", "rows", "reason", "says"), REFUSALS)
async def test_a_job_that_cannot_work_starts_nothing(
    cluster: Cluster, spec: Object, rows: Object, reason: str, says: str
) -> None:
    await cluster.apply(model_service(), dataset(), training_job(**spec))
    await cluster.import_rows(**rows)
    job = await cluster.expect(TRAINING_JOB, "v1", "Accepted", status="False", reason=reason, says=says)
    assert kstatus(job) == "Failed"
    assert await cluster.jobs_of(TRAINING_JOB, "v1") == []


async def test_test_rows_with_labels_that_the_training_rows_lack_are_refused(cluster: Cluster) -> None:
    await cluster.apply(model_service(), dataset(), dataset("test"), training_job(testDataset="test"))
    await cluster.import_rows("rows")
    await cluster.import_rows("test", labels=[["ham", 1], ["junk", 1]])
    await cluster.expect(TRAINING_JOB, "v1", "Accepted", status="False", reason="LabelsDiffer", says="junk")


async def test_the_dataset_of_another_model_service_is_refused(cluster: Cluster) -> None:
    await cluster.apply(model_service("other"), dataset(modelService="other"), model_service(), training_job())
    await cluster.import_rows()
    reason = "DatasetOfAnotherModelService"
    job = await cluster.expect(TRAINING_JOB, "v1", "Accepted", status="False", reason=reason, says="other")
    assert kstatus(job) == "Failed"
    assert await cluster.jobs_of(TRAINING_JOB, "v1") == []


# TrainingJob: how it ends

ENDS = [
    pytest.param(
        End(
            10,
            failed("train", "InvalidConfiguration", "parameters.loraTargetModules: no q_prj"),
            "InvalidConfiguration",
            "q_prj",
        ),
        id="10: bad configuration",
    ),
    pytest.param(
        End(
            10, failed("train", "BaseModelInvalid", "/base/model has no config.json"), "BaseModelInvalid", "config.json"
        ),
        id="10: no such base model",
    ),
    pytest.param(End(11, "", "DataInvalid", "exit code 11"), id="11: bad data, without a message"),
    pytest.param(
        End(12, failed("train", "OutOfMemory", "the GPU is full"), "OutOfMemory", "perDeviceTrainBatchSize"),
        id="12: GPU memory",
    ),
    pytest.param(
        End(13, failed("train", "Diverged", "the loss is NaN at step 7"), "Diverged", "step 7"), id="13: diverged"
    ),
]


@pytest.mark.parametrize("end", ENDS)
async def test_a_training_that_fails_for_good_says_why_and_is_not_tried_again(cluster: Cluster, end: End) -> None:
    await cluster.ready_rows()
    await cluster.apply(training_job())
    pod = await cluster.pod_of(TRAINING_JOB, "v1")
    await pod.start()
    await pod.end(end.exit_code, end.said)
    job = await cluster.expect(TRAINING_JOB, "v1", "Failed", reason=end.reason, says=end.says)
    assert kstatus(job) == "Failed"
    assert job["status"]["summary"] == f"Failed: {end.reason}"
    assert job["status"]["failure"].items() >= {"reason": end.reason, "exitCode": end.exit_code}.items()
    assert condition(job, "Complete")["status"] == "False"  # type: ignore[index]
    await cluster.quiet(POD)


async def test_a_training_that_is_killed_for_its_memory_says_so_and_is_not_tried_again(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.apply(training_job())
    pod = await cluster.pod_of(TRAINING_JOB, "v1")
    await pod.start()
    await pod.end(137, reason="OOMKilled")
    job = await cluster.expect(TRAINING_JOB, "v1", "Failed", reason="OutOfMemory", says="limits.memory")
    assert kstatus(job) == "Failed"
    assert job["status"]["failure"].items() >= {"reason": "OutOfMemory", "exitCode": 137}.items()
    await cluster.until_gone(POD, pod.name)
    await cluster.until_no_job_of(TRAINING_JOB, "v1")
    await cluster.quiet(POD)


async def test_what_ends_beside_the_trainer_ends_no_training(cluster: Cluster) -> None:
    await cluster.ready_rows()
    pod = await cluster.training()
    await pod.lose_company("linkerd-proxy")
    await cluster.quiet(TRAINING_JOB)
    await pod.end(0, trained())
    await cluster.expect(TRAINING_JOB, "v1", "Complete")


async def test_a_training_whose_pod_is_killed_is_tried_again_as_often_as_restarts_are_allowed(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.apply(training_job(maxRestarts=1))
    first = await cluster.pod_of(TRAINING_JOB, "v1")
    await first.start()
    await first.end(137)
    await cluster.expect(TRAINING_JOB, "v1", "Running", status="False", reason="Restarting", says="was killed")
    second = await cluster.pod_of(TRAINING_JOB, "v1", but_not=[first.name], seconds=RETRY_SECONDS)
    await second.start()
    await second.end(137)
    job = await cluster.expect(TRAINING_JOB, "v1", "Failed", reason="TooManyRestarts", says="more memory than it may")
    assert job["status"]["failure"]["exitCode"] == 137


async def test_a_storage_fault_is_tried_again_and_its_epochs_are_not_forgotten(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.apply(training_job(maxRestarts=1))
    first = await cluster.pod_of(TRAINING_JOB, "v1")
    await first.start()
    said = failed(
        "train", "StorageUnavailable", "/storage: connection reset", epochs=[epoch(1, 0.9)], checkpoints=[checkpoint(1)]
    )
    await first.end(20, said)
    job = await cluster.expect(
        TRAINING_JOB, "v1", "Running", status="False", reason="Restarting", says="connection reset"
    )
    assert [entry["name"] for entry in job["status"]["checkpoints"]] == ["epoch-1"]
    second = await cluster.pod_of(TRAINING_JOB, "v1", but_not=[first.name], seconds=RETRY_SECONDS)
    await second.start()
    await cluster.expect(TRAINING_JOB, "v1", "Running", reason="Training")
    await second.end(20, failed("train", "StorageUnavailable", "/storage: no route"))
    job = await cluster.expect(TRAINING_JOB, "v1", "Failed", reason="StorageUnavailable", says="no route")
    assert job["status"]["failure"]["exitCode"] == 20
    assert [entry["name"] for entry in job["status"]["checkpoints"]] == ["epoch-1"]


async def test_a_pod_that_was_stopped_goes_on_elsewhere_and_does_not_count_as_a_restart(cluster: Cluster) -> None:
    async def stopped_once(name: str, exit_code: int, *, disrupted: bool) -> None:
        await cluster.apply(training_job(name, maxRestarts=0))
        first = await cluster.pod_of(TRAINING_JOB, name)
        await first.start()
        await cluster.expect(TRAINING_JOB, name, "Running", reason="Training")
        said = message(kind="train", state="Stopped", reason="", message="SIGTERM")
        await first.end(exit_code, said, disrupted=disrupted)
        second = await cluster.pod_of(TRAINING_JOB, name, but_not=[first.name], seconds=RETRY_SECONDS)
        await second.start()
        await second.end(0, trained())
        await cluster.expect(TRAINING_JOB, name, "Complete")
        assert len(await cluster.jobs_of(TRAINING_JOB, name)) == 1

    await cluster.ready_rows()
    await asyncio.gather(
        stopped_once("by-sigterm", 143, disrupted=False), stopped_once("by-its-node", 137, disrupted=True)
    )


@pytest.mark.parametrize(
    ("reason", "why", "shown"),
    [
        pytest.param("ErrImagePull", PULL, "ImagePullFailed", id="an image that cannot be pulled"),
        pytest.param(
            "CreateContainerConfigError", 'secret "hf" not found', "ContainerNotCreated", id="a Secret that is missing"
        ),
    ],
)
async def test_a_training_pod_that_does_not_start_says_why_and_recovers(
    cluster: Cluster, reason: str, why: str, shown: str
) -> None:
    await cluster.ready_rows()
    await cluster.apply(training_job())
    pod = await cluster.pod_of(TRAINING_JOB, "v1")
    await pod.wait_in_vain(reason, why)
    job = await cluster.expect(
        TRAINING_JOB, "v1", "Running", status="False", reason=shown, says=why.split(":")[-1].strip()
    )
    assert kstatus(job) == "Failed"
    await pod.start()
    running = await cluster.expect(TRAINING_JOB, "v1", "Running")
    assert kstatus(running) == "Current"


async def test_a_training_pod_that_finds_no_node_says_what_is_missing(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.apply(training_job(resources={"limits": {"nvidia.com/gpu": 1}}))
    pod = await cluster.pod_of(TRAINING_JOB, "v1")
    assert pod.container["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    await pod.find_no_node("0/1 nodes are available: 1 Insufficient nvidia.com/gpu")
    job = await cluster.expect(
        TRAINING_JOB, "v1", "Running", status="False", reason="Unschedulable", says="Insufficient nvidia.com/gpu"
    )
    assert kstatus(job) == "InProgress"  # a node may come


async def test_a_training_that_takes_too_long_is_ended(cluster: Cluster) -> None:
    await cluster.ready_rows()
    pod = await cluster.training()
    await cluster.change(TRAINING_JOB, "v1", activeDeadlineSeconds=1)  # also while it runs
    job = await cluster.expect(TRAINING_JOB, "v1", "Failed", reason="DeadlineExceeded", says="1 s")
    assert kstatus(job) == "Failed"
    await cluster.until_told_to_end(pod)


# Deployment


async def test_a_deployment_waits_for_a_job_that_does_not_exist(cluster: Cluster) -> None:
    await cluster.apply(model_service(), deployment())
    web = await cluster.expect(DEPLOYMENT, "web", "Ready", status="False", reason="TrainingJobNotFound", says="v1")
    assert kstatus(web) == "InProgress"
    assert await cluster.find_all(APPS_DEPLOYMENT) == []


async def test_a_checkpoint_that_does_not_exist_is_named_with_those_that_do(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.trained()
    await cluster.apply(deployment(checkpoint={"trainingJob": "v1", "name": "epoch-7"}))
    web = await cluster.expect(
        DEPLOYMENT, "web", "Ready", status="False", reason="CheckpointNotFound", says="epoch-1, epoch-2"
    )
    assert kstatus(web) == "Failed"
    assert await cluster.find_all(APPS_DEPLOYMENT) == []


async def test_a_failed_training_has_no_best_checkpoint(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.apply(training_job(), deployment())
    pod = await cluster.pod_of(TRAINING_JOB, "v1")
    await pod.end(
        13, failed("train", "Diverged", "the loss is NaN", epochs=[epoch(1, 0.9)], checkpoints=[checkpoint(1)])
    )
    await cluster.expect(
        DEPLOYMENT, "web", "Ready", status="False", reason="CheckpointNotFound", says="it has: epoch-1"
    )


async def test_the_job_of_another_model_service_is_not_served(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.trained()
    await cluster.apply(model_service("other"), deployment(modelService="other"))
    reason = "TrainingJobOfAnotherModelService"
    web = await cluster.expect(DEPLOYMENT, "web", "Ready", status="False", reason=reason, says="spam")
    assert kstatus(web) == "Failed"


async def test_a_service_of_somebody_else_is_left_alone_until_it_is_gone(cluster: Cluster) -> None:
    theirs = {"selector": {"app": "theirs"}, "ports": [{"port": 443}]}
    await cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": theirs})
    before = await cluster.get(SERVICE, "web")
    await cluster.ready_rows()
    await cluster.trained()
    await cluster.apply(deployment())
    web = await cluster.expect(DEPLOYMENT, "web", "Ready", status="False", reason="NameConflict", says="Service web")
    assert kstatus(web) == "Failed"
    assert await cluster.find_all(APPS_DEPLOYMENT) == []
    assert await cluster.get(SERVICE, "web") == before
    await cluster.delete(SERVICE, "web")
    await cluster.look_again(DEPLOYMENT, "web")
    pod = await cluster.pod_of(DEPLOYMENT, "web")
    await pod.start()
    await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live")


BAD_SERVERS = [
    pytest.param(
        10,
        failed("serve", "CheckpointInvalid", "model.safetensors has changed"),
        "model.safetensors has changed",
        id="changed",
    ),
    pytest.param(137, "", "memory", id="killed three times"),
    pytest.param(1, "Traceback (most recent call last)", "Traceback", id="a crash without a message"),
]


@pytest.mark.parametrize(("exit_code", "said", "says"), BAD_SERVERS)
async def test_a_checkpoint_that_does_not_load_leaves_the_live_one_serving(
    cluster: Cluster, exit_code: int, said: str, says: str
) -> None:
    await cluster.ready_rows()
    await cluster.trained()
    await cluster.apply(deployment())
    old = await cluster.pod_of(DEPLOYMENT, "web")
    await old.start()
    await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live")
    await cluster.change(DEPLOYMENT, "web", checkpoint={"name": "epoch-1"})
    new = await cluster.pod_of(DEPLOYMENT, "web", but_not=[old.name])
    await new.start(ready=False)
    await new.crash(exit_code, said, restarts=3)
    web = await cluster.expect(DEPLOYMENT, "web", "Promoted", status="False", reason="RolledBack", says=says)
    assert kstatus(web) == "Failed"
    assert condition(web, "Available")["status"] == "True"  # type: ignore[index]
    assert web["status"]["live"]["checkpoint"] == "epoch-2"
    assert "deletionTimestamp" not in (await cluster.get(POD, old.name))["metadata"]
    await cluster.change(DEPLOYMENT, "web", checkpoint={"name": "epoch-2"})  # the rollback
    web = await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live", says="epoch-2")
    assert "history" not in web["status"]  # nothing else was ever live


async def test_a_server_image_that_cannot_be_pulled_says_so(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.trained()
    await cluster.apply(deployment())
    pod = await cluster.pod_of(DEPLOYMENT, "web")
    await pod.wait_in_vain("ErrImagePull", 'failed to pull image "docker.io/winnow/server:dev": not found')
    await cluster.expect(
        DEPLOYMENT, "web", "Ready", status="False", reason="CheckpointFailed", says="docker.io/winnow/server:dev"
    )


async def test_servers_that_a_quota_refuses_say_so_and_start_when_there_is_room(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.trained()
    await cluster.apply(deployment())
    old = await cluster.pod_of(DEPLOYMENT, "web")
    await old.start()
    await cluster.expect(DEPLOYMENT, "web", "Promoted", reason="Promoted")
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "one"}, "spec": {"hard": {"pods": "1"}}}
    await cluster.apply(quota)
    await cluster.until("the quota to hold", QUOTA, lambda quota: quota["status"]["hard"], name="one")
    await cluster.change(DEPLOYMENT, "web", replicas=2)
    web = await cluster.expect(
        DEPLOYMENT, "web", "Ready", status="False", reason="ApiRefused", says="exceeded quota: one"
    )
    assert kstatus(web) == "InProgress", "there is room when others end"
    assert condition(web, "Promoted")["status"] == "True"  # type: ignore[index]
    assert condition(web, "Available")["status"] == "True"  # type: ignore[index]
    assert web["status"]["live"]["checkpoint"] == "epoch-2"
    await cluster.delete(QUOTA, "one")
    await (await cluster.pod_of(DEPLOYMENT, "web", but_not=[old.name], seconds=RETRY_SECONDS)).start()
    await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live", says="2 of 2")


async def test_a_label_of_ours_on_a_foreign_object_makes_it_no_child(cluster: Cluster) -> None:
    labels = {"app.kubernetes.io/managed-by": "winnow", "winnow.dev/kind": "Dataset", "winnow.dev/name": "rows"}
    container = {"name": "importer", "image": "theirs"}
    template = {"metadata": {"labels": labels}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    theirs = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "theirs", "labels": labels},
        "spec": {"template": template},
    }
    await cluster.apply(theirs)
    foreign = await cluster.pod_of(DATASET, "rows")
    await foreign.end(0, imported())
    await cluster.apply(model_service(), dataset())
    await cluster.expect(DATASET, "rows", "Ready", status="False", reason="Importing")
    ours = await cluster.pod_of(DATASET, "rows", but_not=[foreign.name])
    await ours.end(0, imported())
    await cluster.expect(DATASET, "rows", "Ready", reason="Verified")
    assert len([found for found in await cluster.find_all(CONFIG_MAP) if "dataset.yaml" in found["data"]]) == 1
