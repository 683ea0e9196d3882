"""Deployment: which checkpoint, and what plan() makes of its rollout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from operator_scene import (
    CONFIG,
    DIGEST,
    NOW,
    OTHER_DIGEST,
    completed,
    conditions_of,
    deployment,
    imported,
    kstatus,
    labels_of,
    later,
    message_of,
    model_service,
    pod_of,
    seen_again,
    training_job,
)

from winnow_operator import api
from winnow_operator.build.served import Served
from winnow_operator.kinds.deployment import plan
from winnow_operator.observed import DeploymentSeen
from winnow_operator.plan import Apply, Refusal
from winnow_operator.policies.checkpoint import Missing, resolve
from winnow_operator.reasons import Reason
from winnow_operator.resources import Object

RUNNING = {"summary": "Running: epoch 2/3", "checkpoints": [{"name": "epoch-1", "epoch": 1, "digest": DIGEST}]}
FAILED = {
    "completionTime": "2026-11-23T11:00:00Z",
    "failure": {"reason": "OutOfMemory"},
    "bestCheckpoint": "epoch-1",
    "checkpoints": [{"name": "epoch-1", "epoch": 1, "digest": DIGEST}],
}


def seeing(obj: api.Deployment | None = None, job: api.TrainingJob | None = None, **more: Any) -> DeploymentSeen:
    return DeploymentSeen(obj or deployment(), model_service(), job or completed(), **more)


def named(name: str) -> api.Deployment:
    return deployment(checkpoint={"trainingJob": "v1", "name": name})


def child_of(seen: DeploymentSeen, *, updated: int = 1, ready: int = 1, total: int = 1, conditions: Any = ()) -> Object:
    """The apps/v1 Deployment that plan() wants, as its controller keeps it."""
    workload: Object = plan(seen, NOW, CONFIG).children[-1].obj
    metadata = {**workload["metadata"], "generation": 1, "resourceVersion": "20", "uid": "c"}
    status = {
        "observedGeneration": 1,
        "replicas": total,
        "updatedReplicas": updated,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "conditions": list(conditions),
    }
    return {**workload, "metadata": metadata, "status": status}


def server_pod(owner: api.Deployment, digest: str, **fields: Any) -> Object:
    pod = pod_of({"metadata": {"name": "web-rs", "uid": "rs", "labels": labels_of(owner)}}, **fields)
    pod["metadata"]["annotations"] = {"winnow.dev/checkpoint-digest": digest}
    return pod


def rolled_out(obj: api.Deployment | None = None, job: api.TrainingJob | None = None) -> DeploymentSeen:
    seen = seeing(obj, job)
    return replace(seen, child=child_of(seen))


def live(obj: api.Deployment | None = None) -> tuple[DeploymentSeen, Object]:
    """A deployment that serves, with its status written."""
    seen = rolled_out(obj)
    status = plan(seen, NOW, CONFIG).status
    return replace(seen, obj=seen_again(seen.obj, status)), status


MISSING = [
    pytest.param(deployment(), None, "TrainingJobNotFound", False, "v1 does not exist", id="no job: it may come"),
    pytest.param(
        deployment(),
        training_job(),
        "CheckpointNotReady",
        False,
        "v1 is not complete (not started)",
        id="its job has not started",
    ),
    pytest.param(
        deployment(),
        training_job(status=RUNNING),
        "CheckpointNotReady",
        False,
        "epoch 2/3",
        id="the best is not known before the end",
    ),
    pytest.param(
        deployment(),
        training_job(status=FAILED),
        "CheckpointNotFound",
        True,
        "it has: epoch-1",
        id="a failed job has no best",
    ),
    pytest.param(
        deployment(),
        completed(best="epoch-9"),
        "CheckpointNotFound",
        True,
        "epoch-1, epoch-2",
        id="the best is not there",
    ),
    pytest.param(
        named("epoch-2"),
        training_job(status=RUNNING),
        "CheckpointNotReady",
        False,
        "it has: epoch-1",
        id="a named one may come",
    ),
    pytest.param(
        named("epoch-7"), completed(), "CheckpointNotFound", True, "epoch-1, epoch-2", id="a named one will not come"
    ),
    pytest.param(
        deployment(),
        completed(spec={"modelService": "other"}),
        "TrainingJobOfAnotherModelService",
        True,
        "other",
        id="another ModelService's",
    ),
]


@pytest.mark.parametrize(("obj", "job", "reason", "final", "says"), MISSING)
def test_without_a_checkpoint_nothing_is_touched(
    obj: api.Deployment, job: api.TrainingJob | None, reason: str, final: bool, says: str
) -> None:
    decided = plan(DeploymentSeen(obj, model_service(), job), NOW, CONFIG)
    assert decided.children == ()
    assert conditions_of(decided.status)["Ready"] == ("False", reason)
    assert says in message_of(decided.status, "Ready")
    assert kstatus(obj, decided.status) == ("Failed" if final else "InProgress")


def test_a_named_checkpoint_is_served_while_later_epochs_run_and_even_if_they_fail() -> None:
    for status in (RUNNING, FAILED):
        served = resolve(seeing(named("epoch-1"), training_job(status=status)))
        assert not isinstance(served, Missing)
        assert (served.checkpoint, served.digest) == ("epoch-1", DIGEST)


def test_a_checkpoint_without_a_digest_is_not_served() -> None:
    unverified = completed(checkpoints=[{"name": "epoch-2", "epoch": 2}])
    found = resolve(seeing(job=unverified))
    assert isinstance(found, Missing)
    assert (found.reason, found.final) == ("CheckpointNotFound", True)


def test_only_an_adapter_gets_its_base_model_mounted() -> None:
    def volumes(method: str) -> set[str]:
        workload = plan(seeing(job=completed(spec={"method": method})), NOW, CONFIG).children[-1].obj
        return {volume["name"] for volume in workload["spec"]["template"]["spec"]["volumes"]}

    assert "base" in volumes("LoRA")
    assert "base" not in volumes("Full")


def test_the_service_is_applied_before_the_pods() -> None:
    """A name that is taken shows before a GPU is."""
    decided = plan(seeing(), NOW, CONFIG)
    assert [(type(child), child.obj["kind"]) for child in decided.children] == [
        (Apply, "Service"),
        (Apply, "ConfigMap"),
        (Apply, "Deployment"),
    ]


def test_a_rollout_that_is_done_makes_the_checkpoint_live() -> None:
    status = plan(rolled_out(), NOW, CONFIG).status
    assert conditions_of(status) == {
        "Available": ("True", "Serving"),
        "Progressing": ("True", "Live"),
        "Promoted": ("True", "Promoted"),
        "Ready": ("True", "Live"),
    }
    assert message_of(status, "Available") == "Requests are answered by 1 pod"
    assert status["live"] == {
        "trainingJob": "v1",
        "checkpoint": "epoch-2",
        "digest": OTHER_DIGEST,
        "since": "2026-11-23T12:00:00Z",
        "metric": "f1",
        "value": 0.92,
        "reason": "Promoted",
        "message": "There is no gate",
    }
    assert "candidate" not in status
    assert (status["url"], status["replicas"], status["readyReplicas"]) == ("http://web.ml.svc", 1, 1)
    assert status["labelSelector"] == "winnow.dev/kind=Deployment,winnow.dev/name=web"
    assert "history" not in status
    assert kstatus(deployment(), status) == "Current"


def test_before_the_first_pod_is_ready_nothing_is_said_to_serve() -> None:
    """The API server leaves counts of zero out."""
    seen = seeing()
    status = plan(replace(seen, child={**child_of(seen), "status": {"observedGeneration": 1}}), NOW, CONFIG).status
    assert conditions_of(status)["Available"] == ("False", "NotServing")
    assert conditions_of(status)["Ready"] == ("False", "RollingOut")
    assert (status["replicas"], status["readyReplicas"], "live" in status) == (0, 0, False)
    there = {"observedGeneration": 1, "replicas": 1}
    for counts in ({"updatedReplicas": 1}, {"readyReplicas": 1, "availableReplicas": 1}):
        status = plan(replace(seen, child={**child_of(seen), "status": {**there, **counts}}), NOW, CONFIG).status
        assert (conditions_of(status)["Ready"], "live" in status) == (("False", "RollingOut"), False)


def test_while_another_checkpoint_rolls_out_the_old_one_is_live() -> None:
    seen, first = live()
    changed = replace(seen, obj=seen_again(named("epoch-1"), first))
    rolling = plan(changed, later(5), CONFIG).status
    assert conditions_of(rolling)["Ready"] == ("False", "RollingOut")
    assert conditions_of(rolling)["Available"] == ("True", "Serving")
    assert conditions_of(rolling)["Progressing"] == ("True", "RollingOut")
    assert rolling["live"]["checkpoint"] == "epoch-2"

    done = plan(replace(changed, child=child_of(changed)), later(60), CONFIG).status
    assert done["live"]["checkpoint"] == "epoch-1"
    assert done["history"] == [{**first["live"], "until": "2026-11-23T12:01:00Z"}]
    again = plan(replace(changed, obj=seen_again(named("epoch-1"), done), child=child_of(changed)), later(99), CONFIG)
    assert again.status == done


def test_the_history_keeps_the_last_twenty() -> None:
    history = [{"trainingJob": "v0", "checkpoint": f"epoch-{number}"} for number in range(20)]
    old = {"live": {"trainingJob": "v0", "checkpoint": "epoch-99"}, "history": history}
    status = plan(rolled_out(deployment(status=old)), NOW, CONFIG).status
    assert len(status["history"]) == 20
    assert status["history"][0]["checkpoint"] == "epoch-99"


def test_a_rollout_is_not_done_while_an_old_pod_is_left_or_a_new_one_is_not_ready() -> None:
    seen = seeing(deployment(replicas=2))
    for counts in (
        {"updated": 1, "ready": 2, "total": 2},
        {"updated": 2, "ready": 2, "total": 3},
        {"updated": 2, "ready": 1, "total": 2},
    ):
        status = plan(replace(seen, child=child_of(seen, **counts)), NOW, CONFIG).status
        assert conditions_of(status)["Ready"] == ("False", "RollingOut"), counts
        assert "live" not in status


def test_an_old_pod_that_crashes_is_not_blamed_on_the_new_checkpoint() -> None:
    seen, first = live()
    changed = replace(seen, obj=seen_again(named("epoch-1"), first))
    old = server_pod(changed.obj, OTHER_DIGEST, exit_code=1)
    status = plan(replace(changed, child=child_of(changed, total=2), pods=(old,)), NOW, CONFIG).status
    assert conditions_of(status)["Ready"] == ("False", "RollingOut")


def test_a_rollout_that_exceeded_its_time_is_stalled() -> None:
    seen = seeing()
    late = {"type": "Progressing", "status": "False", "message": "ReplicaSet has timed out progressing."}
    status = plan(replace(seen, child=child_of(seen, ready=0, conditions=[late])), NOW, CONFIG).status
    words = "does not come up: No further pod became ready within 1200 s (rollout.deadlineSeconds)"
    assert message_of(status, "Stalled").endswith(words)


def test_while_some_replicas_are_not_there_the_live_checkpoint_is_not_said_to_be_started() -> None:
    one, written = live()
    three = replace(one, obj=seen_again(deployment(replicas=3), written))
    status = plan(replace(three, child=child_of(three, updated=3, total=3, ready=1)), NOW, CONFIG).status
    assert conditions_of(status)["Ready"] == ("False", "RollingOut")
    assert message_of(status, "Ready").endswith("is served by 1 of 3 replicas; pods are being started")


def test_pods_that_are_too_many_are_not_said_to_be_started() -> None:
    one, written = live()
    none = replace(one, obj=seen_again(deployment(replicas=0), written))
    status = plan(replace(none, child=child_of(none, updated=2, total=2, ready=2)), NOW, CONFIG).status
    assert message_of(status, "Ready").endswith("is served by 2 of 0 replicas; pods are being stopped")


def test_a_rollout_that_somebody_paused_says_how_it_goes_on() -> None:
    seen, _ = live(named("epoch-1"))
    child = child_of(seen, updated=0)
    child["spec"]["paused"] = True
    paused = replace(seen, obj=seen_again(named("epoch-2"), api.to_raw(seen.obj.status)), child=child)
    decided = plan(paused, NOW, CONFIG)
    assert conditions_of(decided.status)["Ready"] == ("False", "Paused")
    assert conditions_of(decided.status)["Stalled"] == ("True", "Paused")
    assert "`kubectl rollout resume deployments.apps/web -n ml`" in message_of(decided.status, "Ready")
    child["status"]["updatedReplicas"] = 1
    done = plan(replace(paused, obj=seen.obj), NOW, CONFIG)
    assert conditions_of(done.status)["Ready"] == ("True", "Live"), "there is nothing that it holds up"


def test_a_deleted_training_job_takes_nothing_down() -> None:
    seen, first = live()
    orphan = replace(seen, training_job=None)
    decided = plan(orphan, later(60), CONFIG)
    assert decided.status == first
    scaled = seen_again(deployment(replicas=3), first)
    assert plan(replace(orphan, obj=scaled), NOW, CONFIG).children[-1].obj["spec"]["replicas"] == 3


def test_without_its_training_job_it_cannot_change_to_another_checkpoint() -> None:
    seen, first = live()
    decided = plan(replace(seen, training_job=None, obj=seen_again(named("epoch-1"), first)), NOW, CONFIG)
    assert seen.child is not None
    assert Served.of(decided.children[-1].obj) == Served.of(seen.child), "what is live goes on, and can be scaled"
    assert conditions_of(decided.status)["Ready"] == ("False", "TrainingJobNotFound")
    assert conditions_of(decided.status)["Promoted"] == ("Unknown", "TrainingJobNotFound")
    assert (decided.status["live"]["checkpoint"], decided.status["url"]) == ("epoch-2", "http://web.ml.svc")


def test_scaled_to_zero_it_is_at_rest_and_remembers_what_was_live() -> None:
    seen, first = live()
    stopped = replace(seen, obj=seen_again(deployment(replicas=0), first))
    leaving = plan(replace(stopped, child=child_of(stopped, updated=1, ready=1, total=1)), NOW, CONFIG).status
    assert conditions_of(leaving)["Ready"] == ("False", "RollingOut")
    status = plan(replace(stopped, child=child_of(stopped, updated=0, ready=0, total=0)), NOW, CONFIG).status
    assert conditions_of(status)["Ready"] == ("True", "ScaledToZero")
    assert conditions_of(status)["Available"] == ("False", "NotServing")
    assert status["live"]["checkpoint"] == "epoch-2"
    assert kstatus(stopped.obj, status) == "Current"


def test_what_is_chosen_while_it_is_scaled_to_zero_is_not_live_before_a_pod_serves_it() -> None:
    seen, first = live()
    to_epoch_1: dict[str, Any] = {"checkpoint": {"trainingJob": "v1", "name": "epoch-1"}}
    stopped = replace(seen, obj=seen_again(deployment(replicas=0, **to_epoch_1), first))
    status = plan(replace(stopped, child=child_of(stopped, updated=0, ready=0, total=0)), NOW, CONFIG).status
    assert (conditions_of(status)["Ready"], conditions_of(status)["Promoted"]) == (
        ("True", "ScaledToZero"),
        ("Unknown", "ScaledToZero"),
    )
    assert (status["live"]["checkpoint"], status["candidate"]["checkpoint"]) == ("epoch-2", "epoch-1")
    up = replace(stopped, obj=seen_again(deployment(**to_epoch_1), status))
    assert plan(replace(up, child=child_of(up)), NOW, CONFIG).status["live"]["checkpoint"] == "epoch-1"


def test_a_name_that_is_taken_is_told() -> None:
    refusal = Refusal(Reason.NAME_CONFLICT, "Service web exists and belongs to somebody else")
    status = plan(seeing(refusal=refusal), NOW, CONFIG).status
    assert conditions_of(status)["Stalled"] == ("True", "NameConflict")


def test_thresholds_change_in_place_and_start_no_pod() -> None:
    plain = plan(seeing(), NOW, CONFIG)
    with_thresholds = plan(seeing(deployment(thresholds={"spam": 0.7})), NOW, CONFIG)
    assert plain.children[1].obj["data"] == {"thresholds.json": "{}"}
    assert with_thresholds.children[1].obj["data"] == {"thresholds.json": '{"spam": 0.7}'}
    assert plain.children[-1].obj["spec"]["template"] == with_thresholds.children[-1].obj["spec"]["template"]


def test_a_threshold_of_a_label_that_the_checkpoint_lacks_is_said_while_it_serves() -> None:
    for thresholds, ready in (
        (None, ("True", "Live")),
        ({"spam": 0.7}, ("True", "Live")),
        ({"spma": 0.7}, ("False", "ThresholdsDiffer")),
    ):
        seen = replace(rolled_out(deployment(thresholds=thresholds)), training=imported())
        status = plan(seen, NOW, CONFIG).status
        assert conditions_of(status)["Ready"] == ready
        assert status["live"]["checkpoint"] == "epoch-2"
    assert "labels that it lacks: spma" in message_of(status, "Ready")
    assert kstatus(seen.obj, status) == "Failed"


def test_keys_are_mounted_and_a_missing_secret_keeps_no_pod_from_saying_so() -> None:
    closed = plan(seeing(deployment(access={"apiKeysSecretRef": {"name": "keys"}})), NOW, CONFIG).children[-1].obj
    pod = closed["spec"]["template"]["spec"]
    assert {"name": "api-keys", "secret": {"secretName": "keys", "optional": True, "defaultMode": 0o440}} in pod[
        "volumes"
    ]
    command = pod["containers"][0]["command"]
    mount = next(mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "api-keys")
    assert command[command.index("--api-keys") + 1] == mount["mountPath"]
    open_to_all = plan(seeing(), NOW, CONFIG).children[-1].obj
    assert "--api-keys" not in open_to_all["spec"]["template"]["spec"]["containers"][0]["command"]
