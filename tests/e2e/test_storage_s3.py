"""A ModelService whose storage is a bucket: imported, trained by pods of which one is deleted, served, and no volume anywhere.
Beside it one whose base model is in the bucket too."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from e2e_support import (
    BASE_MINILM,
    ROOT,
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


def at(cluster: Cluster, prefix: str, secret: str) -> dict[str, Any]:
    endpoint = f"http://s3.{cluster.namespace}.svc"
    return {"s3": {"uri": f"s3://bucket/{prefix}", "endpoint": endpoint, "secretRef": {"name": secret}}}


def in_bucket(cluster: Cluster, name: str, secret: str, base: Mapping[str, Any] = BASE_MINILM) -> dict[str, Any]:
    return manifest("ModelService", name, {"baseModel": base, "storage": at(cluster, name, secret)})


def fill(client: Minio, folder: Path) -> None:
    """The bucket with a tiny Llama in it."""
    client.make_bucket("bucket")
    subprocess.run([sys.executable, ROOT / "images/base-tiny-llama/prepare.py", folder], check=True)
    for file in (folder / "model").iterdir():
        client.fput_object("bucket", f"models/llama/{file.name}", str(file))


@pytest.mark.usefixtures("s3_image")
def test_a_model_service_lives_in_a_bucket(cluster: Cluster, tmp_path: Path) -> None:
    cluster.apply(*s3_server())
    cluster.wait("pod", "s3", "Ready")
    address = cluster.get("service", "s3")["spec"]["clusterIP"]
    key_id, secret = KEYS.values()
    fill(Minio(address, key_id, secret, secure=False, region="us-east-1"), tmp_path)
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

    assert answer(cluster, "mail")["label"] == "spam"
    base_model_in_the_bucket(cluster)

    status = cluster.get("ms", "mail")["status"]
    assert (status["storage"], "storageClaim" in status) == ("s3://bucket/mail", False)
    assert cluster.run("get", "persistentvolumeclaims", "-o", "name") == ""
    cluster.says("wds", "no-keys", "Stalled", status="True", reason="StorageUnavailable")
    assert "spec.storage.s3.secretRef" in condition(cluster.get("wds", "no-keys"), "Ready")["message"]


def base_model_in_the_bucket(cluster: Cluster) -> None:
    """Import, training and server of an adapter each find it, and what keeps an import from it is said."""
    rows = {"trainingDataset": "llama-train", "testDataset": None, "testSplit": {"percent": 20}}
    cluster.apply(
        in_bucket(cluster, "llama", "keys", at(cluster, "models/llama", "keys")),
        dataset("llama-train", "llama", short_rows(40), labels=["ham", "spam"]),
        training_job("l1", "llama", parameters={**QUICK, "numTrainEpochs": 1}, **rows),
        deployment("llama", "llama", "l1"),
        in_bucket(cluster, "keyless", "keys", at(cluster, "models/llama", "none")),
        dataset("keyless-train", "keyless", short_rows(40)),
    )
    assert cluster.wait("wds", "llama-train", "Ready")["status"]["tokens"]["max"] > 0
    cluster.wait("trainingjob", "l1", "Complete", seconds=240)
    assert answer(cluster, "llama")["label"] in ("ham", "spam")
    warnings = cluster.wait("wds", "keyless-train", "Ready")["status"]["warnings"]
    (said,) = [warning["message"] for warning in warnings if warning["code"] == "NoTokenLengths"]
    assert "baseModel.s3.secretRef" in said


def answer(cluster: Cluster, name: str) -> dict[str, Any]:
    cluster.wait("deployments.winnow.dev", name, "Ready", seconds=240)
    body = json.dumps({"input": ["You won a free prize, claim your cash now"]}).encode()
    address = f"{cluster.service_address(name)}/v1/classify"
    request = urllib.request.Request(address, body, {"content-type": "application/json"})

    def answered() -> Any:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.URLError:  # the node's rules for a new Service come a moment after its endpoints
            return None

    found: dict[str, Any] = cluster.until("an answer", answered, seconds=30)["data"][0]
    return found
