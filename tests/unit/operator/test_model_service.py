"""ModelService: its volume in words, its counts and its board."""

from __future__ import annotations

from typing import Any

import pytest
from operator_scene import (
    CONFIG,
    NOW,
    OTHER_DIGEST,
    completed,
    conditions_of,
    dataset,
    deployment,
    kstatus,
    message_of,
    model_service,
    owner_reference,
    training_job,
)

from winnow_operator.kinds.model_service import LEAVING_SECONDS, plan, references
from winnow_operator.observed import ModelServiceSeen
from winnow_operator.plan import Apply, Reference
from winnow_operator.resources import CLAIM, Object

MINE = {"persistentVolumeClaim": {"claimName": "mine"}}
BUCKET = {"s3": {"uri": "s3://winnow/mail", "secretRef": {"name": "keys"}}}


def storage_class(name: str, *, mode: str = "Immediate", default: bool = False) -> Object:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    metadata = {"name": name, "annotations": annotations}
    return {"metadata": metadata, "provisioner": f"{name}.example.com", "volumeBindingMode": mode}


def claim(phase: str, class_name: str | None = None) -> Object:
    spec = {"storageClassName": class_name} if class_name is not None else {}
    return {"metadata": {"name": "spam-storage"}, "spec": spec, "status": {"phase": phase}}


STATES = [
    pytest.param(claim("Bound"), (), "True", "StorageReady", "Current", "spam-storage", id="bound"),
    pytest.param(None, (), "False", "StoragePending", "InProgress", "created", id="not there yet"),
    pytest.param(claim("Lost"), (), "False", "StorageLost", "Failed", "lost", id="lost"),
    pytest.param(
        claim("Pending", "fast"),
        (storage_class("slow"),),
        "False",
        "StorageClassNotFound",
        "Failed",
        "fast does not exist; the cluster has: slow",
        id="no such class",
    ),
    pytest.param(
        claim("Pending"),
        (storage_class("slow"),),
        "False",
        "NoDefaultStorageClass",
        "Failed",
        "no default",
        id="no default class",
    ),
    pytest.param(
        claim("Pending"),
        (storage_class("local", mode="WaitForFirstConsumer", default=True),),
        "True",
        "WaitingForFirstConsumer",
        "Current",
        "local",
        id="made for the first pod",
    ),
    pytest.param(
        claim("Pending", "fast"),
        (storage_class("fast"),),
        "False",
        "StoragePending",
        "InProgress",
        "fast.example.com",
        id="a provisioner that takes its time",
    ),
    pytest.param(
        claim("Pending", ""),
        (),
        "False",
        "StoragePending",
        "InProgress",
        "PersistentVolume that fits",
        id="bound by hand",
    ),
]


@pytest.mark.parametrize(("found", "classes", "ready", "reason", "state", "says"), STATES)
def test_the_volume_is_told_in_words(
    found: Object | None, classes: Any, ready: str, reason: str, state: str, says: str
) -> None:
    decided = plan(ModelServiceSeen(model_service(), found, classes), NOW, CONFIG)
    assert conditions_of(decided.status)["Ready"] == (ready, reason)
    assert says in message_of(decided.status, "Ready")
    assert kstatus(model_service(), decided.status) == state
    assert [type(child) for child in decided.children] == [Apply]


def test_a_claim_of_the_users_is_used_and_not_written() -> None:
    obj = model_service(storage=MINE)
    assert references(obj) == (Reference(CLAIM, "mine"),)
    waiting = plan(ModelServiceSeen(obj, None), NOW, CONFIG)
    assert (waiting.children, conditions_of(waiting.status)["Ready"][1]) == ((), "ClaimNotFound")
    assert waiting.requeue_after is not None
    bound = plan(ModelServiceSeen(obj, claim("Bound")), NOW, CONFIG)
    assert (bound.status["storage"], bound.status["storageClaim"], bound.requeue_after) == ("mine", "mine", None)


def test_a_claim_of_the_users_that_is_being_deleted_is_waited_for() -> None:
    obj, mine = model_service(storage=MINE), claim("Bound")
    mine["metadata"] = {"name": "mine", "deletionTimestamp": "2026-11-23T11:59:00Z"}
    decided = plan(ModelServiceSeen(obj, mine), NOW, CONFIG)
    assert conditions_of(decided.status)["Ready"] == ("False", "StorageBeingDeleted")
    assert "`kubectl describe pvc mine`" in message_of(decided.status, "Ready")
    assert (decided.children, decided.requeue_after) == ((), LEAVING_SECONDS)


def test_a_bucket_needs_no_claim_and_is_named() -> None:
    decided = plan(ModelServiceSeen(model_service(storage=BUCKET), None), NOW, CONFIG)
    assert (decided.children, decided.requeue_after, references(model_service(storage=BUCKET))) == ((), None, ())
    assert conditions_of(decided.status)["Ready"] == ("True", "StorageReady")
    assert "s3://winnow/mail" in message_of(decided.status, "Ready")
    assert decided.status["storage"] == "s3://winnow/mail"
    assert decided.status.get("storageClaim") is None


def test_it_counts_what_belongs_to_it() -> None:
    seen = ModelServiceSeen(
        model_service(), claim("Bound"), (), (dataset("a"), dataset("b")), (training_job(),), (deployment(),)
    )
    status = plan(seen, NOW, CONFIG).status
    assert (status["datasets"], status["trainingJobs"], status["deployments"]) == (2, 1, 1)
    assert status["summary"] == "StorageReady: 2 datasets, 1 training job, 1 deployment"


def test_the_board_ranks_each_metric_in_its_own_direction() -> None:
    def job(name: str, metric: str, value: float, better: bool = True) -> Any:
        epochs = [{"epoch": 2, "checkpoint": "epoch-2", "metrics": {metric: value}}]
        return completed(name, primaryMetric=metric, higherIsBetter=better, epochs=epochs)

    jobs = (
        job("a", "f1", 0.91),
        job("b", "f1", 0.97),
        job("c", "log_loss", 0.4, better=False),
        job("d", "log_loss", 0.2, better=False),
        training_job("e"),
        training_job("f", status={"primaryMetric": "f1"}),
    )
    live = deployment(status={"live": {"trainingJob": "b", "checkpoint": "epoch-2", "digest": OTHER_DIGEST}})
    status = plan(ModelServiceSeen(model_service(), claim("Bound"), (), (), jobs, (live,)), NOW, CONFIG).status
    assert [(row["trainingJob"], row["value"], row["deployed"]) for row in status["leaderboard"]] == [
        ("b", 0.97, True),
        ("a", 0.91, False),
        ("d", 0.2, False),
        ("c", 0.4, False),
    ]


def test_the_board_shows_the_value_that_chose() -> None:
    epochs = [{"epoch": 2, "checkpoint": "epoch-2", "metrics": {"f1": 0.99}, "validationMetrics": {"f1": 0.9}}]
    jobs = (completed("a", selectedOn="Validation", epochs=epochs), completed("b", selectedOn="Test", epochs=epochs))
    status = plan(ModelServiceSeen(model_service(), claim("Bound"), training_jobs=jobs), NOW, CONFIG).status
    assert [(row["trainingJob"], row["value"], row["selectedOn"]) for row in status["leaderboard"]] == [
        ("b", 0.99, "Test"),
        ("a", 0.9, "Validation"),
    ]


def test_the_board_has_ten_rows() -> None:
    jobs = tuple(completed(f"job-{number:02d}") for number in range(12))
    status = plan(ModelServiceSeen(model_service(), claim("Bound"), training_jobs=jobs), NOW, CONFIG).status
    assert len(status["leaderboard"]) == 10


def test_the_volume_of_an_earlier_one_is_about_to_go_before_it_is_told_so() -> None:
    """The garbage collector deletes it a moment later."""
    found = claim("Bound")
    found["metadata"]["ownerReferences"] = [{**owner_reference(model_service()), "uid": "of-an-earlier-one"}]
    decided = plan(ModelServiceSeen(model_service(), found), NOW, CONFIG)
    assert conditions_of(decided.status)["Ready"] == ("False", "StorageBeingDeleted")
    assert (decided.children, decided.requeue_after) == ((), LEAVING_SECONDS)
    found["metadata"]["ownerReferences"] = [owner_reference(model_service())]
    own = plan(ModelServiceSeen(model_service(), found), NOW, CONFIG).status
    assert conditions_of(own)["Ready"] == ("True", "StorageReady")


def test_a_volume_that_was_enlarged_by_hand_stays_so() -> None:
    def asked(there: str) -> str:
        found = claim("Bound")
        found["spec"]["resources"] = {"requests": {"storage": there}}
        (child,) = plan(ModelServiceSeen(model_service(), found), NOW, CONFIG).children
        return str(child.obj["spec"]["resources"]["requests"]["storage"])

    assert (asked("50Gi"), asked("51200Mi"), asked("20Gi"), asked("10Gi")) == ("50Gi", "51200Mi", "20Gi", "20Gi")
