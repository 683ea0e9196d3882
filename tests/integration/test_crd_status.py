"""What the API server keeps and shows of the status of the four kinds."""

from __future__ import annotations

import pytest
from integration_client import (
    CRD,
    DATASET,
    DEPLOYMENT,
    MODEL_SERVICE,
    OURS,
    TRAINING_JOB,
    Client,
    Kind,
    Object,
    kind_of,
)
from integration_cluster import Cluster
from integration_manifests import dataset, deployment, model_service, training_job


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.kind)
async def test_a_crd_is_established_and_its_schema_structural(client: Client, kind: Kind) -> None:
    crd = await client.get(CRD, "", f"{kind.plural}.winnow.dev")
    assert crd is not None
    conditions = {condition["type"]: condition["status"] for condition in crd["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}


BASE_MODEL: Object = {
    "image": {"reference": "docker.io/winnow/base-minilm:dev", "path": "/model"},
    "persistentVolumeClaim": {"claimName": "models", "path": "/"},
    "huggingFace": {
        "repo": "a/b",
        "revision": "main",
        "tokenSecretRef": {"name": "hf", "key": "token"},
        "endpoint": "https://hub.example",
    },
    "s3": {
        "uri": "s3://winnow/mail",
        "secretRef": {"name": "keys"},
        "endpoint": "https://s3.example",
        "region": "eu",
    },
}

STATUS: dict[Kind, Object] = {
    MODEL_SERVICE: {
        "datasets": 1,
        "trainingJobs": 1,
        "deployments": 0,
        "storage": "spam-storage",
        "storageClaim": "spam-storage",
        "stored": [
            {"dataset": "spam-train", "digest": f"sha256:{'a' * 64}", "unreferencedSince": "2026-11-24T00:00:00Z"}
        ],
        "collected": {
            "job": "spam-collect-1",
            "time": "2026-11-24T00:00:00Z",
            "datasets": 1,
            "checkpoints": ["v1-0b6a4f1e/epoch-2"],
            "freedBytes": 10,
            "message": "Removed from storage what deleted datasets left there",
        },
        "leaderboard": [
            {
                "trainingJob": "v1",
                "checkpoint": "epoch-1",
                "metric": "f1",
                "value": 0.97,
                "selectedOn": "Validation",
                "deployed": False,
            }
        ],
        "summary": "Ready",
    },
    DATASET: {
        "source": {"revision": "a" * 40},
        "taskDetail": "Binary",
        "rows": 2,
        "digest": f"sha256:{'a' * 64}",
        "labels": [{"name": "ham", "positives": 1, "share": 0.5}, {"name": "spam", "positives": 1, "share": 0.5}],
        "labelCount": 2,
        "tokens": {"mean": 4.5, "p50": 4, "p95": 5, "p99": 5, "max": 5},
        "format": "OpenAI fine-tuning",
        "nearDuplicates": 2,
        "duplicates": 0,
        "conflicts": 0,
        "warnings": [{"code": "FewExamples", "message": "m"}],
        "problems": [{"line": 17, "column": 42, "message": "m"}],
        "problemCount": 1,
        "skippedRows": 1,
        "summary": "Ready",
    },
    TRAINING_JOB: {
        "startTime": "2026-01-02T03:04:05Z",
        "completionTime": "2026-01-02T03:04:05Z",
        "progress": {
            "percent": 41.5,
            "epoch": 2,
            "totalEpochs": 3,
            "step": 120,
            "totalSteps": 300,
            "etaSeconds": 95,
            "eta": "1m35s",
            "tokensPerSecond": 2300,
            "loss": 0.21,
            "learningRate": 0.0001,
            "updatedAt": "2026-01-02T03:04:05Z",
        },
        "epochs": [
            {
                "epoch": 1,
                "checkpoint": "epoch-1",
                "trainLoss": 0.3,
                "metrics": {"f1": 0.95},
                "validationMetrics": {"f1": 0.94},
            }
        ],
        "checkpoints": [
            {
                "name": "epoch-1",
                "epoch": 1,
                "digest": f"sha256:{'b' * 64}",
                "sizeBytes": 5_000_000_000,
                "metrics": {"f1": 0.95},
                "validationMetrics": {"f1": 0.94},
                "best": True,
                "unneededSince": "2026-11-24T00:00:00Z",
                "removed": True,
                "deployedBy": ["web"],
                "continuedBy": ["v2"],
            }
        ],
        "baseModel": BASE_MODEL,
        "continuedFrom": {
            "trainingJob": "v0",
            "checkpoint": "epoch-2",
            "digest": f"sha256:{'b' * 64}",
            "run": "v0-12345678",
            "adapterBase": {**BASE_MODEL, "stored": {"run": "v-00000000", "checkpoint": "epoch-1"}},
        },
        "bestCheckpoint": "epoch-1",
        "bestMetric": "f1 0.9500",
        "primaryMetric": "f1",
        "higherIsBetter": True,
        "selectedOn": "Validation",
        "datasets": {
            "training": {"name": "rows", "digest": f"sha256:{'a' * 64}"},
            "test": {"name": "test", "digest": f"sha256:{'a' * 64}"},
            "validation": {"name": "dev", "digest": f"sha256:{'a' * 64}"},
            "trainingRows": 700,
            "testRows": 88,
            "validationRows": 40,
            "overlap": 12,
            "validationOverlap": 1,
            "warnings": [{"code": "Overlap", "message": "m"}],
        },
        "failure": {"reason": "OutOfMemory", "message": "m", "exitCode": 12},
        "summary": "Failed: OutOfMemory",
    },
    DEPLOYMENT: {
        "url": "http://web.ml.svc",
        "live": {
            "trainingJob": "v1",
            "checkpoint": "epoch-1",
            "digest": f"sha256:{'b' * 64}",
            "since": "2026-01-02T03:04:05Z",
            "metric": "f1",
            "value": 0.95,
            "reason": "Promoted",
            "message": "m",
        },
        "candidate": {"trainingJob": "v2", "checkpoint": "epoch-2", "digest": f"sha256:{'a' * 64}"},
        "gate": {
            "candidate": f"sha256:{'a' * 64}",
            "live": f"sha256:{'b' * 64}",
            "rows": 200,
            "measuredOn": "Test",
            "values": [
                {"metric": "f1_macro", "value": 0.93},
                {"metric": "recall", "label": "spam", "message": "no row has the label"},
            ],
            "comparison": {
                "metric": "f1",
                "rows": 200,
                "candidateRows": 210,
                "candidate": 0.93,
                "live": 0.92,
                "lead": 0.01,
                "leadAtLeast": -0.005,
                "message": "m",
            },
            "message": "m",
            "job": "web-gate-0a1b2c3d",
            "measuredAt": "2026-01-02T03:04:05Z",
        },
        "history": [
            {
                "trainingJob": "v0",
                "checkpoint": "epoch-3",
                "digest": f"sha256:{'c' * 64}",
                "since": "2026-01-02T03:04:05Z",
                "until": "2026-01-02T03:04:05Z",
                "metric": "f1",
                "value": 0.9,
                "reason": "RolledBack",
                "message": "m",
            }
        ],
        "replicas": 1,
        "readyReplicas": 1,
        "labelSelector": "winnow.dev/name=web",
        "summary": "Live",
    },
}
CONDITION = {
    "type": "Ready",
    "status": "True",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-01-02T03:04:05Z",
    "reason": "Live",
    "message": "m",
}


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.kind)
async def test_no_status_field_is_pruned(cluster: Cluster, kind: Kind) -> None:
    manifest = next(m for m in (model_service(), dataset(), training_job(), deployment()) if kind_of(m) == kind)
    await cluster.apply(manifest)
    status = {**STATUS[kind], "conditions": [CONDITION], "observedGeneration": 1}
    written = await cluster.client.patch(
        kind, cluster.namespace, manifest["metadata"]["name"], {"status": status}, "status"
    )
    assert written["status"] == status
    schema = (await cluster.client.get(CRD, "", f"{kind.plural}.winnow.dev") or {})["spec"]["versions"][0]["schema"]
    assert schema["openAPIV3Schema"]["properties"]["status"]["properties"].keys() == status.keys()


DASHBOARD = {
    MODEL_SERVICE: {"Ready": "True", "Reason": "Live", "Datasets": 1, "Jobs": 1, "Best": "v1", "Score": 0.97},
    DATASET: {"Ready": "True", "Reason": "Live", "Task": "Binary", "Rows": 2, "Labels": 2},
    TRAINING_JOB: {
        "Status": "Failed: OutOfMemory",
        "Progress %": 41.5,
        "ETA": "1m35s",
        "Epoch": 2,
        "Best": "f1 0.9500",
        "Checkpoint": "epoch-1",
    },
    DEPLOYMENT: {
        "Ready": "True",
        "Reason": "Live",
        "Live": "v1",
        "Checkpoint": "epoch-1",
        "Replicas": 1,
        "URL": "http://web.ml.svc",
    },
}


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.kind)
async def test_kubectl_get_reads_like_a_dashboard(cluster: Cluster, kind: Kind) -> None:
    manifest = next(m for m in (model_service(), dataset(), training_job(), deployment()) if kind_of(m) == kind)
    await cluster.apply(manifest)
    (row,) = await cluster.client.table(kind, cluster.namespace)  # nothing observed yet: no column breaks
    assert row["Name"] == manifest["metadata"]["name"]
    status = {**STATUS[kind], "conditions": [CONDITION]}
    # An operator that an earlier test started writes its own status over this one: whoever is read first counts.
    for _ in range(20):
        await cluster.client.patch(kind, cluster.namespace, manifest["metadata"]["name"], {"status": status}, "status")
        (row,) = await cluster.client.table(kind, cluster.namespace)
        shown = {name: cell for name, cell in row.items() if name not in ("Name", "Age")}
        if shown == DASHBOARD[kind]:
            break
    assert shown == DASHBOARD[kind]


async def test_a_deployment_can_be_scaled_like_any_other(cluster: Cluster) -> None:
    await cluster.apply(deployment())
    scale = await cluster.client.patch(DEPLOYMENT, cluster.namespace, "web", {"spec": {"replicas": 3}}, "scale")
    assert scale["spec"]["replicas"] == 3
    assert (await cluster.get(DEPLOYMENT, "web"))["spec"]["replicas"] == 3
