"""What only a real kubelet can show: images that cannot be pulled, memory that runs out, volumes that do not bind."""

from __future__ import annotations

from e2e_support import (
    Cluster,
    condition,
    dataset,
    deployment,
    model_service,
    short_rows,
    training_job,
)


def failed(cluster: Cluster, name: str, seconds: int = 180) -> dict[str, str]:
    return cluster.says("trainingjob", name, "Failed", seconds=seconds, status="True")


def test_rows_that_are_wrong_are_named(cluster: Cluster) -> None:
    broken = '{"prompt": "fine", "completion": 1}\n{"prompt": "two", "completion": 2}\n{"prompt": "cut\n{"prompt": "no completion"}\n'
    cluster.apply(
        model_service("mail"),
        dataset("broken", "mail", broken),
        dataset("empty", "mail", "\n"),
        dataset("single", "mail", [{"prompt": f"text {i}", "completion": 1} for i in range(30)]),
        training_job("from-broken", "mail", trainingDataset="broken", testDataset=None),
        training_job("from-single", "mail", trainingDataset="single", testDataset=None),
    )
    status = cluster.until(
        "the problems", lambda: (s := cluster.get("wds", "broken").get("status", {})).get("problems") and s, seconds=120
    )
    assert [problem["line"] for problem in status["problems"]] == [2, 3, 4]
    assert "0 or 1" in status["problems"][0]["message"]
    assert condition({"status": status}, "Ready")["reason"] == "InvalidRows"
    cluster.says("wds", "empty", "Ready", reason="EmptyDataset")
    cluster.says("tj", "from-broken", "Accepted", reason="DatasetFailed")
    cluster.says("tj", "from-single", "Accepted", reason="SingleClass")


def test_a_base_model_that_is_not_there_is_named(cluster: Cluster) -> None:
    unknown = {"image": {"reference": "docker.io/winnow/no-such-model:dev", "path": "/model"}}
    wrong_path = {"image": {"reference": "docker.io/winnow/base-minilm:dev", "path": "/elsewhere"}}
    rows = short_rows(40)
    cluster.apply(
        model_service("mail"),
        dataset("train", "mail", rows),
        training_job("unknown", "mail", baseModel=unknown, testDataset=None),
        training_job("wrong-path", "mail", baseModel=wrong_path, testDataset=None),
    )
    assert "/elsewhere" in failed(cluster, "wrong-path")["message"]
    cluster.until(
        "the missing image to be named",
        lambda: "no-such-model" in str(cluster.get("tj", "unknown").get("status", {}).get("conditions")),
        seconds=120,
    )


def test_a_container_killed_for_memory_says_so(cluster: Cluster) -> None:
    small = {"requests": {"memory": "120Mi"}, "limits": {"memory": "120Mi"}}
    cluster.apply(
        model_service("mail"),
        dataset("train", "mail", short_rows(40)),
        training_job("small", "mail", testDataset=None, resources=small, maxRestarts=0),
    )
    said = failed(cluster, "small")
    assert said["reason"] == "OutOfMemory"
    assert "120Mi" in said["message"] or "memory" in said["message"]


def test_a_volume_that_cannot_bind_is_explained(cluster: Cluster) -> None:
    service = model_service("mail")
    service["spec"]["storage"]["persistentVolumeClaim"]["storageClassName"] = "no-such-class"
    cluster.apply(service)
    said = cluster.says("ms", "mail", "Ready", status="False")
    assert "no-such-class" in said["message"]


def test_a_service_of_someone_else_is_left_alone(cluster: Cluster) -> None:
    cluster.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "mail"}, "spec": {"ports": [{"port": 81}]}}
    )
    cluster.apply(
        model_service("mail"),
        dataset("train", "mail", short_rows(40)),
        training_job(
            "v1", "mail", method="HeadOnly", testDataset=None, parameters={"numTrainEpochs": 1, "maxSeqLength": 32}
        ),
        deployment("mail", "mail", "v1"),
    )
    cluster.says("wdep", "mail", "Ready", seconds=240, reason="NameConflict")
    assert cluster.get("service", "mail")["spec"]["ports"][0]["port"] == 81
