"""Two pods of one TrainingJob come to the result of one, also when one of them is lost on the way."""

from __future__ import annotations

from typing import Any

import pytest
from e2e_support import BASE_TINY_LLAMA, Cluster, dataset, model_service, short_rows, training_job

EPOCHS = 10
# Eight rows a step in both: by two pods of four each, and by one that does it in two parts.
ROWS_OF_A_STEP: dict[str, Any] = {"numTrainEpochs": EPOCHS, "learningRate": 1e-4, "maxSeqLength": 64}
PODS = "winnow.dev/kind=TrainingJob,winnow.dev/name="


def pod_of(cluster: Cluster, job: str, index: int) -> str | None:
    """The newest pod with that number, if it runs."""
    pods = cluster.list("pods", f"{PODS}{job},batch.kubernetes.io/job-completion-index={index}")
    newest = max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
    return str(newest["metadata"]["name"]) if newest and newest["status"]["phase"] == "Running" else None


def test_two_pods_train_to_the_result_of_one_and_go_on_together_when_one_is_lost(cluster: Cluster) -> None:
    cluster.apply(
        model_service("mail", BASE_TINY_LLAMA),
        dataset("train", "mail", short_rows(480), labels=["ham", "spam"]),
        dataset("test", "mail", short_rows(41, start=1000), labels=["ham", "spam"]),
    )
    cluster.wait("wds", "train", "Ready")
    cluster.wait("wds", "test", "Ready")
    for name, spec, accumulation in (("two", {"nodes": 2}, 1), ("one", {}, 2)):
        parameters = {**ROWS_OF_A_STEP, "perDeviceTrainBatchSize": 4, "gradientAccumulationSteps": accumulation}
        metrics = {"functions": ["log_loss"]}  # few, so that the final word has room for those of every epoch
        cluster.apply(training_job(name, "mail", method="Full", parameters=parameters, metrics=metrics, **spec))
    assert "2 pods have to run on one node" in cluster.says("tj", "two", "Accepted", status="True")["message"]

    first = cluster.until("the first pod to run", lambda: pod_of(cluster, "two", 0))
    cluster.until("the second epoch", lambda: "epoch-2" in cluster.run("logs", first, check=False), seconds=120)
    lost = pod_of(cluster, "two", 1)
    assert lost is not None
    cluster.run("delete", "pod", lost, "--grace-period=0", "--force")
    again = cluster.until("the first pod to follow", lambda: (pod := pod_of(cluster, "two", 0)) != first and pod)
    done = cluster.wait("trainingjob", "two", "Complete", seconds=180)["status"]
    log = cluster.run("logs", again)
    assert "Resumed" in log
    assert '"processes":2' in log
    # Lost or, where the kubelet still gets to ask the other one to stop, agreed to stop: both end the pod uncounted.
    ended = cluster.get("pod", first)["status"]["containerStatuses"][0]["state"]["terminated"]
    assert ended["exitCode"] in (21, 143)

    alone = cluster.wait("trainingjob", "one", "Complete", seconds=180)["status"]
    assert [epoch["epoch"] for epoch in done["epochs"]] == list(range(1, EPOCHS + 1))
    for ours, theirs in zip(done["epochs"], alone["epochs"], strict=True):
        assert ours["trainLoss"] == pytest.approx(theirs["trainLoss"], abs=5e-3)
        assert ours["metrics"]["log_loss"] == pytest.approx(theirs["metrics"]["log_loss"], abs=1e-2)
    assert done["datasets"]["trainingRows"] == 480

    (place,) = cluster.list("services", f"{PODS}two")
    assert place["metadata"]["ownerReferences"][0]["name"] == "two"
    cluster.run("delete", "tj", "two")
    cluster.until("the Service to go", lambda: not cluster.list("services", f"{PODS}two"))
