"""A cluster at rest: no writes, no repeated events, nothing of the user's touched, no secret told; and what others change is put right."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from integration_client import (
    APPS_DEPLOYMENT,
    CLAIM,
    CONFIG_MAP,
    DATASET,
    DEPLOYMENT,
    EVENT,
    JOB,
    MODEL_SERVICE,
    OURS,
    SERVICE,
    TRAINING_JOB,
    Kind,
    Object,
)
from integration_cluster import Cluster, epoch, imported, trained
from integration_manifests import dataset, deployment, model_service, training_job
from integration_operator import CANARY, Operator
from integration_pods import ProgressServer

CHILDREN = (JOB, CLAIM, CONFIG_MAP, SERVICE, APPS_DEPLOYMENT)


# Values that Kubernetes' own types drop, so that what comes back is not what was sent.
DROPPED: Object = {
    "env": [{"name": "EMPTY", "value": ""}],
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "value": ""}],
    "resources": {"limits": {}, "requests": {"cpu": "0.0001"}},
}


async def finished(cluster: Cluster, **spec: Any) -> None:
    """All four kinds at their goal."""
    await cluster.ready_rows()
    await cluster.trained()
    await cluster.apply(deployment(**spec))
    pod = await cluster.pod_of(DEPLOYMENT, "web")
    await pod.start()
    await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live")
    counted = lambda found: (found["status"].get("leaderboard") or [{}])[0].get("deployed")  # noqa: E731
    await cluster.until("the board", MODEL_SERVICE, counted, name="spam")
    await cluster.until(
        "deployedBy", TRAINING_JOB, lambda found: found["status"]["checkpoints"][1].get("deployedBy"), name="v1"
    )


async def versions(cluster: Cluster, kinds: tuple[Kind, ...]) -> dict[str, str]:
    return {
        f"{kind.kind} {obj['metadata']['name']}": obj["metadata"]["resourceVersion"]
        for kind in kinds
        for obj in await cluster.find_all(kind)
    }


@pytest.mark.parametrize("spec", [pytest.param({}, id="as usual"), pytest.param(DROPPED, id="values that are dropped")])
async def test_at_rest_nothing_is_written_however_often_one_looks(
    cluster: Cluster, operator: Operator, spec: Object
) -> None:
    await finished(cluster, **spec)
    looks = await operator.metric("winnow_reconcile_total")
    for kind, name in ((MODEL_SERVICE, "spam"), (DATASET, "rows"), (TRAINING_JOB, "v1"), (DEPLOYMENT, "web")):
        await cluster.look_again(kind, name)
    before = await versions(cluster, (*OURS, *CHILDREN))
    for kind in OURS:
        await cluster.quiet(kind)
    assert await versions(cluster, (*OURS, *CHILDREN)) == before
    assert await operator.metric("winnow_reconcile_total") >= looks + len(OURS)


async def test_a_restart_at_rest_writes_nothing(cluster: Cluster, operator: Operator) -> None:
    await finished(cluster)
    before = await versions(cluster, (*OURS, *CHILDREN))
    await operator.kill()
    await operator.start()
    for kind in OURS:
        await cluster.quiet(kind)
    assert await operator.metric("winnow_reconcile_total") >= len(OURS)
    assert await versions(cluster, (*OURS, *CHILDREN)) == before


@pytest.mark.usefixtures("operator")
async def test_events_tell_each_turning_point_once(cluster: Cluster) -> None:
    await finished(cluster)
    wanted = {
        ("ModelService", "StorageReady"),
        ("Dataset", "Verified"),
        ("TrainingJob", "TrainingComplete"),
        ("Deployment", "Live"),
    }

    def ours(found: list[Object]) -> list[Object] | None:
        told = [event for event in found if event["reportingController"] == "winnow.dev/operator"]
        return told if wanted <= {(event["regarding"]["kind"], event["reason"]) for event in told} else None

    told = await cluster.until_all("the events", EVENT, ours)  # they come after the status that they tell of
    count = Counter(
        (event["regarding"]["kind"], event["regarding"]["name"], event["reason"], event["note"]) for event in told
    )
    assert {what: number for what, number in count.items() if number > 1} == {}
    assert {event["type"] for event in told} == {"Normal"}


@pytest.mark.usefixtures("operator")
async def test_of_the_users_objects_only_status_is_written(cluster: Cluster) -> None:
    await finished(cluster)
    # But for the finalizer of a Dataset while a training reads it; no trace of that stays.
    await cluster.until("it to be off", DATASET, lambda obj: "finalizers" not in obj["metadata"], name="rows")
    for kind in OURS:
        for obj in await cluster.find_all(kind):
            metadata = obj["metadata"]
            assert not metadata.keys() & {"finalizers", "labels", "annotations", "ownerReferences"}, metadata["name"]
            others = [entry for entry in metadata["managedFields"] if entry["manager"] != "user"]
            assert others
            assert {entry.get("subresource") for entry in others} == {"status"}


@pytest.mark.usefixtures("operator")
async def test_what_others_change_in_children_is_put_right(cluster: Cluster) -> None:
    await finished(cluster)
    patch = cluster.client.patch
    await patch(APPS_DEPLOYMENT, cluster.namespace, "web", {"spec": {"replicas": 5}})
    await cluster.until("one replica", APPS_DEPLOYMENT, lambda found: found["spec"]["replicas"] == 1, name="web")
    await patch(SERVICE, cluster.namespace, "web", {"spec": {"selector": {"winnow.dev/name": "other"}}})
    await cluster.until(
        "its selector", SERVICE, lambda found: found["spec"]["selector"]["winnow.dev/name"] == "web", name="web"
    )
    port = {"name": "http", "port": 81, "targetPort": "http"}
    await patch(SERVICE, cluster.namespace, "web", {"spec": {"ports": [port]}})
    await cluster.until(
        "its port", SERVICE, lambda found: [port["port"] for port in found["spec"]["ports"]] == [80], name="web"
    )
    for other in ({"type": "NodePort"}, {"type": "LoadBalancer"}, {"type": "ExternalName", "externalName": "else"}):
        await patch(SERVICE, cluster.namespace, "web", {"spec": other})
        inside = await cluster.until(
            "its type", SERVICE, lambda found: found["spec"]["type"] == "ClusterIP", name="web"
        )
        assert "nodePort" not in inside["spec"]["ports"][0] and inside["spec"]["clusterIP"]
    await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live")
    uid = (await cluster.get(SERVICE, "web"))["metadata"]["uid"]
    await cluster.delete(SERVICE, "web")
    await cluster.until("another Service", SERVICE, lambda found: found["metadata"]["uid"] != uid, name="web")


@pytest.mark.usefixtures("operator")
async def test_what_others_change_in_ways_that_do_not_go_with_ours_is_put_right(cluster: Cluster) -> None:
    await finished(cluster)
    before = await cluster.get(APPS_DEPLOYMENT, "web")
    await cluster.client.patch(APPS_DEPLOYMENT, cluster.namespace, "web", {"metadata": {"annotations": {"team": "x"}}})
    container = template(before)["spec"]["containers"][0]
    home, *others = container["env"]
    readiness = {name: value for name, value in container["readinessProbe"].items() if name != "httpGet"}
    edited = {
        **container,
        "env": [{"name": home["name"], "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, *others],
        "readinessProbe": {**readiness, "tcpSocket": {"port": "http"}},
    }
    spec = {
        "containers": [edited],
        "volumes": [{"name": "storage", "emptyDir": {}}, *template(before)["spec"]["volumes"][1:]],
    }
    await cluster.client.patch(APPS_DEPLOYMENT, cluster.namespace, "web", {"spec": {"template": {"spec": spec}}})
    child = await cluster.until(
        "as it was", APPS_DEPLOYMENT, lambda found: template(found) == template(before), name="web"
    )
    assert child["metadata"]["annotations"]["team"] == "x"
    await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live")
    # What is dropped from the spec later goes.
    await cluster.change(DEPLOYMENT, "web", env=[{"name": "LATER", "value": "1"}])
    await cluster.until("more", APPS_DEPLOYMENT, lambda found: "LATER" in json.dumps(template(found)), name="web")
    await cluster.change(DEPLOYMENT, "web", env=None)
    await cluster.until("no more", APPS_DEPLOYMENT, lambda found: template(found) == template(before), name="web")


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize(
    "taken_off",
    [
        pytest.param({"labels": {"app.kubernetes.io/managed-by": None}}, id="a label"),
        pytest.param({"labels": {"winnow.dev/name": "other"}}, id="whose it is"),
        pytest.param({"ownerReferences": None}, id="its owner"),
    ],
)
async def test_a_batch_job_whose_marks_are_taken_off_gets_them_back_and_its_end_is_told(
    cluster: Cluster, taken_off: Object
) -> None:
    await cluster.ready_rows()
    pod = await cluster.training()
    (batch,) = await cluster.jobs_of(TRAINING_JOB, "v1")
    await cluster.client.patch(JOB, cluster.namespace, batch["metadata"]["name"], {"metadata": taken_off})
    await pod.end(0, trained())
    await cluster.expect(TRAINING_JOB, "v1", "Complete")
    (again,) = await cluster.jobs_of(TRAINING_JOB, "v1")
    for marks in ("uid", "labels", "ownerReferences"):
        assert again["metadata"][marks] == batch["metadata"][marks]


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize(
    "taken_off",
    [
        pytest.param({"ownerReferences": None}, id="its owner"),
        pytest.param({"labels": {"app.kubernetes.io/managed-by": "other"}}, id="the label that the watch goes by"),
    ],
)
async def test_a_training_whose_batch_job_lost_a_mark_can_be_suspended_while_it_runs(
    cluster: Cluster, taken_off: Object
) -> None:
    await cluster.ready_rows()
    pod = await cluster.training()
    (batch,) = await cluster.jobs_of(TRAINING_JOB, "v1")
    name = batch["metadata"]["name"]
    await cluster.client.patch(JOB, cluster.namespace, name, {"metadata": taken_off})

    def marked(job: Object) -> bool:
        return all(job["metadata"].get(mark) == batch["metadata"][mark] for mark in ("labels", "ownerReferences"))

    await cluster.until("its mark", JOB, marked, name=name)
    await cluster.expect(TRAINING_JOB, "v1", "Running", reason="Training")
    await cluster.change(TRAINING_JOB, "v1", suspend=True)
    await cluster.until_told_to_end(pod)


@pytest.mark.usefixtures("operator")
async def test_a_service_account_that_is_taken_off_leaves_the_pods_as_they_were(cluster: Cluster) -> None:
    await finished(cluster)
    before = template(await cluster.get(APPS_DEPLOYMENT, "web"))
    assert not before["spec"].keys() & {"serviceAccountName", "serviceAccount"}
    await cluster.change(DEPLOYMENT, "web", serviceAccountName="other")
    await cluster.until(
        "the other", APPS_DEPLOYMENT, lambda found: template(found)["spec"]["serviceAccountName"] == "other", name="web"
    )
    await cluster.change(DEPLOYMENT, "web", serviceAccountName=None)
    await cluster.until("none", APPS_DEPLOYMENT, lambda found: template(found) == before, name="web")


def template(found: Object) -> Object:
    pods: Object = found["spec"]["template"]
    return pods


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("kind", [SERVICE, APPS_DEPLOYMENT], ids=lambda kind: kind.plural)
async def test_labels_that_say_whose_a_child_is_are_put_back(cluster: Cluster, kind: Kind) -> None:
    await finished(cluster)
    edited = {"metadata": {"labels": {"winnow.dev/name": "other"}}}
    await cluster.client.patch(kind, cluster.namespace, "web", edited)
    await cluster.until(
        "the label", kind, lambda found: found["metadata"]["labels"]["winnow.dev/name"] == "web", name="web"
    )


@pytest.mark.usefixtures("operator")
async def test_what_others_add_to_children_stays(cluster: Cluster) -> None:
    await finished(cluster)
    note = {"metadata": {"annotations": {"team": "ours"}}}
    await cluster.client.patch(SERVICE, cluster.namespace, "web", note)
    await cluster.quiet(SERVICE)
    assert (await cluster.get(SERVICE, "web"))["metadata"]["annotations"]["team"] == "ours"


async def test_secrets_and_rows_are_told_nowhere(cluster: Cluster, operator: Operator) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hf"}, "stringData": {"token": CANARY}}
    hub = {"huggingFace": {"repo": "owner/model", "tokenSecretRef": {"name": "hf"}}}
    row = json.dumps({"prompt": CANARY, "completion": 1})
    await cluster.apply(secret, model_service(baseModel=hub), dataset(source={"inline": row}))
    await cluster.bind_storage()
    pod = await cluster.pod_of(DATASET, "rows")
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}}
    assert token in pod.container["env"]  # the kubelet reads it, nobody else
    await pod.start()
    await pod.end(0, imported())
    await cluster.apply(training_job(env=[{"name": "KEY", "value": CANARY}]))
    pod = await cluster.pod_of(TRAINING_JOB, "v1")
    async with ProgressServer(state="Running", epoch=1, totalEpochs=2, epochs=[epoch(1, 0.9)], secret=CANARY) as server:
        await pod.start(server.ip)
        await cluster.until("progress", TRAINING_JOB, lambda job: job["status"].get("epochs"), name="v1")
    await pod.end(0, trained(secret=CANARY))
    await cluster.expect(TRAINING_JOB, "v1", "Complete")
    statuses: list[Object] = [obj["status"] for kind in OURS for obj in await cluster.find_all(kind)]
    told = (
        json.dumps([statuses, await cluster.find_all(EVENT)])
        + operator.log.read_text()
        + (await operator.get("/metrics"))[1]
    )
    assert len(statuses) == 3
    assert CANARY not in told
