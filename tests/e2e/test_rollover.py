"""Moving live traffic from one checkpoint to another, and what happens when the next one is broken."""

from __future__ import annotations

import json
from typing import Any

from e2e_support import (
    ROOT,
    Cluster,
    dataset,
    deployment,
    model_service,
    restricted_pod,
    short_rows,
    training_job,
)

# Runs in a pod of the cluster, so that each request goes pod → Service → pod.
LOAD = (ROOT / "benchmarks" / "rollover_load.py").read_text()
REQUESTS, CLIENTS, PAUSE_SECONDS = 1_000_000, 4, 0.05


def load_pod(name: str, host: str, seconds: int, checkpoints: int) -> dict[str, Any]:
    arguments = map(str, (REQUESTS, CLIENTS, PAUSE_SECONDS, seconds, checkpoints))
    return restricted_pod(name, ["python3", "-c", LOAD, host, *arguments])


def load_result(cluster: Cluster, pod: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(cluster.finished_pod(pod).splitlines()[-1])
    return result


def test_a_rollover_under_load_fails_no_request_and_a_broken_checkpoint_never_goes_live(cluster: Cluster) -> None:
    quick = {"numTrainEpochs": 2, "maxSeqLength": 64, "perDeviceTrainBatchSize": 16, "gradientAccumulationSteps": 1}
    cluster.apply(
        model_service("mail"),
        dataset("train", "mail", short_rows(64)),
        dataset("test", "mail", short_rows(16, start=1000)),
        training_job("v1", "mail", method="HeadOnly", parameters=quick),
        deployment("mail", "mail", "v1", "epoch-1"),
    )
    cluster.wait("deployments.winnow.dev", "mail", "Ready", seconds=300)
    first = cluster.get("wdep", "mail")["status"]["live"]

    cluster.apply(load_pod("load", "mail", seconds=240, checkpoints=2))
    cluster.until("load to run", lambda: cluster.get("pod", "load")["status"]["phase"] == "Running")
    cluster.apply(deployment("mail", "mail", "v1", "epoch-2"))
    cluster.until("epoch-2 to be live", lambda: cluster.live("mail").get("checkpoint") == "epoch-2", seconds=240)
    result = load_result(cluster, "load")
    assert result["failed"] == 0, result
    assert result["requests"] > 300
    assert len(result["checkpoints"]) == 2, "the load was to see both checkpoints"
    history = cluster.get("wdep", "mail")["status"]["history"]
    assert [(entry["checkpoint"], entry["digest"]) for entry in history] == [("epoch-1", first["digest"])]

    # One byte of the weights changed in storage: the server refuses it, and the live one goes on.
    pod = cluster.list("pods", "winnow.dev/kind=Deployment,winnow.dev/name=mail")[0]
    claim = next(
        v["persistentVolumeClaim"]["claimName"] for v in pod["spec"]["volumes"] if "persistentVolumeClaim" in v
    )
    cluster.apply(damage_pod("damage", claim, "v1", "epoch-1"))
    cluster.finished_pod("damage")
    cluster.apply(deployment("mail", "mail", "v1", "epoch-1"))
    stalled = cluster.says("wdep", "mail", "Stalled", seconds=180)
    assert "model.safetensors" in stalled["message"]
    assert cluster.live("mail")["checkpoint"] == "epoch-2"
    cluster.apply(load_pod("load-again", "mail", seconds=5, checkpoints=1))
    assert load_result(cluster, "load-again")["failed"] == 0


def damage_pod(name: str, claim: str, job: str, checkpoint: str) -> dict[str, Any]:
    """Flips one byte in the middle of a checkpoint's weights, through the ModelService's own volume."""
    program = (
        "import glob\n"
        f"path, = glob.glob('/storage/runs/{job}-*/checkpoints/{checkpoint}/model.safetensors')\n"
        "with open(path, 'r+b') as f:\n"
        "    f.seek(0, 2); middle = f.tell() // 2; f.seek(middle); byte = f.read(1); f.seek(middle); f.write(bytes([byte[0] ^ 1]))\n"
    )
    mounts = [{"name": "storage", "mountPath": "/storage"}]
    pod = restricted_pod(name, ["python3", "-c", program], volumeMounts=mounts)
    pod["spec"]["volumes"] = [{"name": "storage", "persistentVolumeClaim": {"claimName": claim}}]
    return pod
