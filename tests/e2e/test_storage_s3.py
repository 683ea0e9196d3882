"""A ModelService whose storage is a bucket: imported, trained by pods of which one is deleted, served, and no volume anywhere."""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from typing import Any

import pytest
from e2e_support import (
    BASE_MINILM,
    S3_IMAGE,
    Cluster,
    allowed,
    condition,
    dataset,
    deployment,
    manifest,
    short_rows,
    training_job,
)
from minio import Minio

KEYS = {"AWS_ACCESS_KEY_ID": "e2e", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20)}
QUICK = {"numTrainEpochs": 6, "maxSeqLength": 64, "perDeviceTrainBatchSize": 16, "gradientAccumulationSteps": 1}
ROWS = 2000  # a training that is still on its way when its first epoch is known
PODS = "winnow.dev/kind=TrainingJob,winnow.dev/name=v1"


def s3_server() -> list[dict[str, Any]]:
    """A pod, and its Service on port 80."""
    root = {"AWS_ACCESS_KEY_ID": "ROOT_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY": "ROOT_SECRET_KEY"}
    restricted = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    container = {
        "name": "s3",
        "image": S3_IMAGE,
        "command": ["/versitygw", "--port", ":8000", "posix", "--sidecar", "/metadata", "/data"],
        "env": [{"name": root[key], "valueFrom": {"secretKeyRef": {"name": "keys", "key": key}}} for key in KEYS],
        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "bucket", "mountPath": "/data"},
            {"name": "metadata", "mountPath": "/metadata"},
        ],
    }
    volumes = [{"name": "bucket", "emptyDir": {}}, {"name": "metadata", "emptyDir": {}}]
    pod = {"securityContext": restricted, "containers": [container], "volumes": volumes}
    ports = [{"port": 80, "targetPort": 8000}]
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": KEYS},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "s3", "labels": {"app": "s3"}}, "spec": pod},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "s3"},
            "spec": {"selector": {"app": "s3"}, "ports": ports},
        },
    ]


def in_bucket(cluster: Cluster, name: str, secret: str) -> dict[str, Any]:
    endpoint = f"http://s3.{cluster.namespace}.svc"
    s3 = {"uri": f"s3://bucket/{name}", "endpoint": endpoint, "secretRef": {"name": secret}}
    return manifest("ModelService", name, {"baseModel": BASE_MINILM, "storage": {"s3": s3}})


@pytest.mark.usefixtures("s3_image")
def test_a_model_service_lives_in_a_bucket(cluster: Cluster) -> None:
    cluster.apply(*s3_server())
    cluster.wait("pod", "s3", "Ready")
    address = cluster.get("service", "s3")["spec"]["clusterIP"]
    key_id, secret = KEYS.values()
    Minio(address, key_id, secret, secure=False, region="us-east-1").make_bucket("bucket")
    cluster.apply(
        in_bucket(cluster, "mail", "keys"), dataset("train", "mail", short_rows(ROWS), labels=["ham", "spam"])
    )
    assert "which is not public" in cluster.says("wds", "train", "Stalled", status="True")["message"]

    with allowed(cluster, address):
        everything_in_a_bucket(cluster)


def everything_in_a_bucket(cluster: Cluster) -> None:
    cluster.apply(
        dataset("test", "mail", short_rows(40, start=1000), labels=["ham", "spam"]),
        training_job("v1", "mail", method="Full", parameters={**QUICK, "learningRate": 3e-4}),
        deployment("mail", "mail", "v1"),
        in_bucket(cluster, "other", "none"),
        dataset("no-keys", "other", short_rows(40)),
    )

    def epochs() -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = cluster.get("tj", "v1").get("status", {}).get("epochs", [])
        return told

    assert cluster.wait("wds", "train", "Ready")["status"]["rows"] == ROWS
    cluster.until("the first epoch", epochs, seconds=300)
    pod = cluster.list("pods", PODS)[0]["metadata"]["name"]
    cluster.run("delete", "pod", pod, "--wait=false")
    done = cluster.wait("trainingjob", "v1", "Complete", seconds=400)["status"]
    assert [epoch["epoch"] for epoch in done["epochs"]] == list(range(1, QUICK["numTrainEpochs"] + 1))
    log = cluster.run("logs", "-l", PODS, "--tail=-1")
    assert "Resumed" in log
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in log

    cluster.wait("deployments.winnow.dev", "mail", "Ready", seconds=240)
    body = json.dumps({"input": ["You won a free prize, claim your cash now"]}).encode()
    address = f"{cluster.service_address('mail')}/v1/classify"
    request = urllib.request.Request(address, body, {"content-type": "application/json"})

    def answered() -> Any:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.URLError:  # the node's rules for a new Service come a moment after its endpoints
            return None

    assert cluster.until("an answer", answered, seconds=30)["data"][0]["label"] == "spam"

    status = cluster.get("ms", "mail")["status"]
    assert (status["storage"], "storageClaim" in status) == ("s3://bucket/mail", False)
    assert cluster.run("get", "persistentvolumeclaims", "-o", "name") == ""
    cluster.says("wds", "no-keys", "Stalled", status="True", reason="StorageUnavailable")
    assert "spec.storage.s3.secretRef" in condition(cluster.get("wds", "no-keys"), "Ready")["message"]
