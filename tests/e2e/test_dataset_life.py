"""A dataset's life on a real kubelet: an import that is killed, a deletion that waits, rows that go from the volume."""

from __future__ import annotations

from e2e_support import Cluster, condition, dataset, model_service, short_rows, training_job

LONG = {"numTrainEpochs": 200, "maxSeqLength": 32}
NON_ROOT = {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "runAsNonRoot": True}


def stored(cluster: Cluster, number: int, claim: str = "mail-storage") -> list[str]:
    """The folders of datasets in the volume, as a pod sees them."""
    name = f"look-{number}"
    container = {
        "name": "main",
        "image": "docker.io/winnow/busybox:1",
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", "ls -A /storage/datasets"],
        "volumeMounts": [{"name": "storage", "mountPath": "/storage", "readOnly": True}],
    }
    volumes = [{"name": "storage", "persistentVolumeClaim": {"claimName": claim}}]
    spec = {"restartPolicy": "Never", "securityContext": NON_ROOT, "containers": [container], "volumes": volumes}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    return cluster.finished_pod(name).split()


def digest(cluster: Cluster, name: str) -> str:
    return str(cluster.wait("dataset", name, "Ready")["status"]["digest"]).removeprefix("sha256:")


def test_an_import_whose_pod_is_killed_ends_ready(cluster: Cluster) -> None:
    cluster.apply(model_service("mail"), dataset("rows", "mail", short_rows(400)))
    selector = "winnow.dev/kind=Dataset,winnow.dev/name=rows"
    for _ in range(2):
        pod = cluster.until("an import pod", lambda: cluster.list("pods", selector))[-1]["metadata"]["name"]
        cluster.run("delete", "pod", pod, "--grace-period=0", "--force")
    ready = cluster.wait("dataset", "rows", "Ready")
    assert ready["status"]["rows"] == 400
    # What a killed import was writing is nobody's rows, and goes with the imports of another day.
    whole = [name for name in stored(cluster, 1) if not name.startswith(".tmp-")]
    assert whole == [digest(cluster, "rows")]


def test_a_deletion_waits_for_the_training_and_the_rows_go_when_nothing_refers_to_them(cluster: Cluster) -> None:
    rows = short_rows(200)
    cluster.apply(
        model_service("mail"),
        dataset("read", "mail", rows),
        dataset("same", "mail", rows),
        dataset("other", "mail", short_rows(40, start=1_000)),
        training_job("v1", "mail", method="HeadOnly", trainingDataset="read", testDataset=None, parameters=LONG),
    )
    shared = digest(cluster, "read")
    assert digest(cluster, "other") != shared
    assert digest(cluster, "same") == shared
    cluster.wait("trainingjob", "v1", "Running")
    cluster.run("delete", "dataset", "read", "other", "--wait=false")
    said = cluster.says("dataset", "read", "Terminating", status="True", reason="InUse")
    assert "TrainingJob v1 reads its rows" in said["message"]
    assert condition(cluster.get("dataset", "read"), "Ready")["status"] == "True"

    def gone(resource: str, name: str) -> bool:
        return not cluster.run("get", resource, name, "--ignore-not-found", "-o", "name").strip()

    def collected(count: int) -> bool:
        left = cluster.get("modelservice", "mail")["status"].get("stored", [])
        return len(left) == count

    cluster.until("the rows of `other` to be collected", lambda: collected(2), seconds=180)
    assert stored(cluster, 1) == [shared]
    cluster.run("patch", "trainingjob", "v1", "--type=merge", "-p", '{"spec": {"suspend": true}}')
    cluster.until("`read` to go", lambda: gone("dataset", "read"), seconds=180)
    cluster.run("delete", "trainingjob", "v1")
    cluster.until("what `read` left to be collected", lambda: collected(1), seconds=180)
    assert stored(cluster, 2) == [shared]  # `same` has these rows too
    cluster.run("delete", "dataset", "same")
    cluster.until("all to be collected", lambda: collected(0), seconds=180)
    assert stored(cluster, 3) == []
    assert "Collected" in cluster.run("get", "events", "-o", "jsonpath={.items[*].reason}")
