"""Rows fetched within a real network: from an S3 server and a web server in pods, and a Hub on this machine, which has a base model too; refused until the chart allows their addresses."""

from __future__ import annotations

import hashlib
import json
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from e2e_support import (
    ROOT,
    S3_IMAGE,
    Cluster,
    allowed,
    condition,
    dataset,
    deployment,
    manifest,
    model_service,
    short_rows,
    training_job,
)
from tiny_hub import TinyHub, parquet

WEB_IMAGE = "docker.io/winnow/trainer:dev"  # has Python, and with it a web server
ROWS = "".join(json.dumps(row) + "\n" for row in short_rows(60))
KEYS = {"AWS_ACCESS_KEY_ID": "e2e", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20)}


def server(name: str, image: str, command: list[str], env: list[dict[str, Any]], place: str) -> list[dict[str, Any]]:
    """A pod with the rows as a file, and its Service on port 80."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": name,
                        "image": image,
                        "command": command,
                        "env": env,
                        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                        # By subPath a key is a file; otherwise it is a link, which no bucket has.
                        "volumeMounts": [{"name": "rows", "mountPath": place, "subPath": "rows.jsonl"}],
                    }
                ],
                "volumes": [{"name": "rows", "configMap": {"name": "rows"}}],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8000}]},
        },
    ]


def fetched(name: str, **source: Any) -> dict[str, Any]:
    return manifest("Dataset", name, {"modelService": "mail", "source": source})


@pytest.mark.usefixtures("s3_image")
def test_rows_from_a_bucket_and_from_a_web_server(cluster: Cluster) -> None:
    root = {"AWS_ACCESS_KEY_ID": "ROOT_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY": "ROOT_SECRET_KEY"}
    env = [{"name": root[key], "valueFrom": {"secretKeyRef": {"name": "keys", "key": key}}} for key in KEYS]
    s3 = ["/versitygw", "--port", ":8000", "posix", "--nometa", "/data"]
    cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows"}, "data": {"rows.jsonl": ROWS}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": KEYS},
        *server("s3", S3_IMAGE, s3, env, "/data/bucket/mail/part-1.jsonl"),
        *server(
            "web", WEB_IMAGE, ["python", "-m", "http.server", "8000", "--directory", "/data"], [], "/data/rows.jsonl"
        ),
        model_service("mail"),
    )
    for name in ("s3", "web"):
        cluster.wait("pod", name, "Ready")
    bucket = {"uri": "s3://bucket/mail/*.jsonl", "endpoint": f"http://s3.{cluster.namespace}.svc"}
    digest = hashlib.sha256(ROWS.encode()).hexdigest()
    web = f"http://web.{cluster.namespace}.svc/rows.jsonl"
    cluster.apply(
        fetched("bucket", s3={**bucket, "secretRef": {"name": "keys"}}),
        fetched("web", http={"url": web, "sha256": digest}),
    )
    for name in ("bucket", "web"):
        said = cluster.says("wds", name, "Ready", status="False", reason="SourceUnreachable")
        assert "which is not public" in said["message"]
        assert "fetch.allowedNetworks" in said["message"]

    with allowed(cluster, *(cluster.get("service", name)["spec"]["clusterIP"] for name in ("s3", "web"))):
        ready = [cluster.wait("wds", name, "Ready")["status"] for name in ("bucket", "web")]
        assert [status["rows"] for status in ready] == [60, 60]
        assert ready[0]["digest"] == ready[1]["digest"]
        cluster.apply(
            fetched("no-keys", s3={**bucket, "secretRef": {"name": "none"}}),
            fetched("no-match", s3={**bucket, "uri": "s3://bucket/mail/*.csv", "secretRef": {"name": "keys"}}),
            fetched("other", http={"url": web, "sha256": "0" * 64}),
        )
        for name, words in {
            "no-keys": "Secret none has no AWS_ACCESS_KEY_ID",
            "no-match": "holds part-1.jsonl",
            "other": f"has the SHA-256 {digest}",
        }.items():
            cluster.says("wds", name, "Stalled", status="True")
            assert words in condition(cluster.get("wds", name), "Ready")["message"]
        log = cluster.run("logs", "-l", "winnow.dev/name=bucket", "--tail=-1")
        assert KEYS["AWS_SECRET_ACCESS_KEY"] not in log


TOKEN = "hf_" + secrets.token_hex(16)


def test_rows_of_a_gated_dataset_of_the_hub(cluster: Cluster) -> None:
    """The Hub itself cannot be asked from a test: this one answers as it does, with a redirect to another server for large files."""
    node = cluster.list("nodes")[0]["status"]["addresses"][0]["address"]
    hub = TinyHub(node)
    rows = short_rows(60)
    columns = {"sentence": [row["prompt"] for row in rows], "class": [row["completion"] for row in rows]}
    classes = datasets.ClassLabel(names=["ham", "spam"])
    content = parquet(columns, {"sentence": datasets.Value("string"), "class": classes})
    repository = hub.repository("acme/mail", tokens=(TOKEN,), gated=True)
    commit = repository.commit({"README.md": "# Mail", "data/train-00000-of-00001.parquet": content})
    source = {
        "repo": "acme/mail",
        "split": "train",
        "textColumn": "sentence",
        "labelColumn": "class",
        "endpoint": hub.url,
    }
    cluster.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub"}, "stringData": {"token": TOKEN}},
        model_service("mail"),
    )
    with hub.running(), allowed(cluster, node):
        cluster.apply(
            fetched("let-in", huggingFace={**source, "tokenSecretRef": {"name": "hub"}}),
            fetched("kept-out", huggingFace=source),
        )
        status = cluster.wait("wds", "let-in", "Ready")["status"]
        assert (status["rows"], status["source"]["revision"]) == (60, commit)
        assert [label["name"] for label in status["labels"]] == ["ham", "spam"]
        cluster.says("wds", "kept-out", "Stalled", status="True")
        assert "tokenSecretRef" in condition(cluster.get("wds", "kept-out"), "Ready")["message"]
    assert hub.cdn_requests and not any("authorization" in headers for _, headers in hub.cdn_requests)
    assert TOKEN not in cluster.run("logs", "-l", "winnow.dev/name=let-in", "--tail=-1")


def test_a_gated_base_model_of_a_mirror_is_trained_and_served(cluster: Cluster, tmp_path: Path) -> None:
    """One within the company, as this machine is for the pods."""
    node = cluster.list("nodes")[0]["status"]["addresses"][0]["address"]
    subprocess.run([sys.executable, ROOT / "images/base-tiny-llama/prepare.py", tmp_path], check=True)
    files = {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()}
    hub = TinyHub(node)
    commit = hub.repository("acme/llama", kind="models", tokens=(TOKEN,), gated=True).commit(files)
    base = {"huggingFace": {"repo": "acme/llama", "endpoint": hub.url, "tokenSecretRef": {"name": "hub"}}}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub"}, "stringData": {"token": TOKEN}},
        model_service("llama", base),
        dataset("early", "llama", short_rows(20)),
    )
    warnings = cluster.wait("wds", "early", "Ready")["status"]["warnings"]
    (said,) = [warning["message"] for warning in warnings if warning["code"] == "NoTokenLengths"]
    assert f"the address {node}, which is not public" in said and "fetch.allowedNetworks" in said

    quick = {"numTrainEpochs": 1, "maxSeqLength": 64, "perDeviceTrainBatchSize": 16, "gradientAccumulationSteps": 1}
    with hub.running(), allowed(cluster, node):
        cluster.apply(
            dataset("train", "llama", short_rows(40), labels=["ham", "spam"]),
            training_job("l1", "llama", testDataset=None, testSplit={"percent": 20}, parameters=quick),
            deployment("llama", "llama", "l1"),
        )
        assert cluster.wait("wds", "train", "Ready")["status"]["tokens"]["max"] > 0
        job = cluster.wait("trainingjob", "l1", "Complete", seconds=240)
        cluster.wait("deployments.winnow.dev", "llama", "Ready", seconds=240)
    assert job["status"]["baseModel"]["huggingFace"]["endpoint"] == hub.url
    (server,) = cluster.get("deployments.apps", "llama")["spec"]["template"]["spec"]["containers"]
    assert {"name": "HF_ENDPOINT", "value": hub.url} in server["env"]
    assert f"/api/models/acme/llama/tree/{commit}" in {path.partition("?")[0] for path, _ in hub.requests}
    assert {headers.get("authorization") for _, headers in hub.requests} == {f"Bearer {TOKEN}"}
    assert hub.cdn_requests and not any("authorization" in headers for _, headers in hub.cdn_requests)
