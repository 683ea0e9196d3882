"""From a checkpoint to live traffic: through the gate under load, refused, taken back when it crashes, and back by hand."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from e2e_support import Cluster, condition, dataset, deployment, model_service, short_rows, training_job
from test_rollover import LOAD, damage_pod, load_pod

QUICK = {"numTrainEpochs": 3, "maxSeqLength": 64, "perDeviceTrainBatchSize": 16, "gradientAccumulationSteps": 1}
PODS = "winnow.dev/kind=Deployment,winnow.dev/name=mail"


class Load:
    """Requests from a pod of the cluster, for as long as the test goes on."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster, self._name = cluster, name
        pod = load_pod(name, "", 0, 0)
        pod["spec"]["containers"][0]["command"] = ["python3", "-c", LOAD, "mail", "1000000", "4", "0.05"]
        cluster.apply(pod)
        cluster.until("load", self.seen)

    def seen(self) -> dict[str, Any]:
        lines = self._cluster.run("logs", self._name, "--tail=1", check=False).strip()
        found: dict[str, Any] = json.loads(lines) if lines.startswith("{") else {}
        return found

    def end(self) -> dict[str, Any]:
        found = self.seen()
        self._cluster.run("delete", "pod", self._name, "--grace-period=0", "--force")
        return found


def test_a_checkpoint_is_promoted_refused_and_rolled_back_under_load(cluster: Cluster) -> None:
    cluster.apply(
        model_service("mail"),
        dataset("train", "mail", short_rows(64), labels=["ham", "spam"]),
        dataset("test", "mail", short_rows(40, start=1000), labels=["ham", "spam"]),
        training_job("v1", "mail", method="HeadOnly", parameters=QUICK),
    )
    quick = {"watchSeconds": 15, "deadlineSeconds": 300}
    floors = [{"metric": "f1_macro", "atLeast": 0.2}, {"metric": "recall", "label": "spam", "atLeast": 0}]
    gate = {"floors": floors, "notWorseThanLive": True, "tolerance": 1}

    def choose(checkpoint: str, watch: int = 15, **more: Any) -> None:
        spec = {"gate": gate, "rollout": {**quick, "watchSeconds": watch}, **more}
        cluster.apply(deployment("mail", "mail", "v1", checkpoint, **spec))

    choose("epoch-1")
    cluster.wait("deployments.winnow.dev", "mail", "Promoted", seconds=400)
    first = cluster.get("wdep", "mail")["status"]
    assert {value["metric"] for value in first["gate"]["values"]} == {"f1_macro", "recall"}
    assert "comparison" not in first["gate"]

    # Through the gate, beside what is live, without a failed request.
    load = Load(cluster, "load")
    choose("epoch-2")
    cluster.until("epoch-2 to be live", lambda: cluster.live("mail").get("checkpoint") == "epoch-2", seconds=240)
    cluster.says("wdep", "mail", "Promoted", status="Unknown", reason="Watching")
    promoted = cluster.says("wdep", "mail", "Promoted", status="True", seconds=60)
    assert "40 test rows" in promoted["message"]
    assert "that of v1/epoch-1" in promoted["message"]
    assert cluster.get("wdep", "mail")["status"]["gate"]["comparison"]["rows"] == 40

    # Refused: with the numbers, and nothing is started.
    before = {pod["metadata"]["uid"] for pod in cluster.list("pods", PODS)}
    choose("epoch-3", gate={"floors": [{"metric": "log_loss", "atMost": 0}]})
    refused = cluster.says("wdep", "mail", "Promoted", status="False", reason="GateFailed")
    assert "log_loss" in refused["message"]
    assert "is above 0" in refused["message"]
    assert {pod["metadata"]["uid"] for pod in cluster.list("pods", PODS)} <= before

    # Back by hand: the strict gate does not hold it up.
    choose("epoch-1", watch=0, gate={"floors": [{"metric": "log_loss", "atMost": 0}]})
    cluster.until("epoch-1 to be live", lambda: cluster.live("mail").get("checkpoint") == "epoch-1", seconds=120)
    assert cluster.live("mail")["reason"] == "RolledBackByHand"

    # One whose bytes were changed does not come up, and is taken back.
    pod = cluster.list("pods", PODS)[0]
    claims = (volume.get("persistentVolumeClaim") for volume in pod["spec"]["volumes"])
    claim = next(claim["claimName"] for claim in claims if claim)
    cluster.apply(damage_pod("damage", claim, "v1", "epoch-3"))
    cluster.finished_pod("damage")
    choose("epoch-3", gate=gate)
    taken_back = cluster.says("wdep", "mail", "Promoted", seconds=180, status="False", reason="RolledBack")
    assert "exit code 10" in taken_back["message"]
    assert "model.safetensors" in taken_back["message"]
    cluster.says("wdep", "mail", "Available", status="True")
    seen = load.end()
    assert seen["failed"] == 0, seen
    assert seen["requests"] > 300
    assert len(seen["checkpoints"]) == 2, "epoch-3 never answered"


def test_a_checkpoint_whose_server_is_killed_in_its_first_minutes_is_taken_back(cluster: Cluster) -> None:
    cluster.apply(
        model_service("mail"),
        dataset("train", "mail", short_rows(64)),
        dataset("test", "mail", short_rows(16, start=1000)),
        training_job("v1", "mail", method="HeadOnly", parameters=QUICK),
        deployment("mail", "mail", "v1", "epoch-1"),
    )
    cluster.wait("deployments.winnow.dev", "mail", "Promoted", seconds=400)
    cluster.apply(deployment("mail", "mail", "v1", "epoch-2"))
    cluster.until("epoch-2 to be live", lambda: cluster.live("mail").get("checkpoint") == "epoch-2", seconds=240)
    digest = cluster.live("mail")["digest"]

    def taken_back() -> bool:
        """Each server of it is killed, as often as it comes back."""
        if condition(cluster.get("wdep", "mail"), "Promoted").get("reason") == "RolledBack":
            return True
        for pid in servers_of(digest):
            os.kill(pid, signal.SIGKILL)
        return False

    cluster.until("it to be taken back", taken_back, seconds=200)
    cluster.until("epoch-1 to be live", lambda: cluster.live("mail").get("checkpoint") == "epoch-1", seconds=120)
    status = cluster.get("wdep", "mail")["status"]
    story = [status["live"], *status["history"]]
    assert [(entry["checkpoint"], entry["reason"]) for entry in story] == [
        ("epoch-1", "RolledBack"),
        ("epoch-2", "Promoted"),
        ("epoch-1", "Promoted"),
    ]
    assert "v1/epoch-2 was taken back and v1/epoch-1 serves" in status["live"]["message"]


def servers_of(digest: str) -> list[int]:
    """Processes on this machine, which is the cluster's node, that serve the checkpoint."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"winnow_server" in command and digest.encode() in command:
            found.append(int(folder.name))
    return found
