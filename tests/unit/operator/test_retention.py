"""Retention: the best checkpoints of an ended job stay, and all that Deployments need; the others are marked, removed, told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from operator_scene import (
    CONFIG,
    DIGEST,
    NOW,
    condition,
    conditions_of,
    deployment,
    job_of,
    message_of,
    model_service,
    pod_of,
    seen_again,
    training_job,
)

from winnow_operator import api
from winnow_operator.build.collect_job import collect_job
from winnow_operator.build.training_job import run_name
from winnow_operator.kinds import deployment as deployments
from winnow_operator.kinds import model_service as services
from winnow_operator.kinds import training_job as jobs
from winnow_operator.observed import DeploymentSeen, ModelServiceSeen, TrainingJobSeen
from winnow_operator.plan import Create, Delete
from winnow_operator.resources import Object

CLAIM = {"metadata": {"name": "spam-storage"}, "spec": {}, "status": {"phase": "Bound"}}
TWO = model_service(retention={"checkpointsPerJob": 2})
AGO, THEN = "2026-11-23T11:59:00Z", "2026-11-23T12:00:00Z"
VALUES = {1: 0.7, 2: 0.9, 3: 0.9, 4: 0.8}


def ended(*, higher: bool = True, marks: dict[str, Object] | None = None, **more: Any) -> api.TrainingJob:
    """A complete job with four checkpoints, the second and third of which are equal."""
    status = {
        "conditions": [condition("Complete", "True", "TrainingComplete")],
        "completionTime": "2026-11-23T11:50:00Z",
        "bestCheckpoint": "epoch-2" if higher else "epoch-1",
        "primaryMetric": "f1" if higher else "log_loss",
        "higherIsBetter": higher,
        "epochs": [
            {"epoch": n, "checkpoint": f"epoch-{n}", "metrics": {"f1": value, "log_loss": value}}
            for n, value in VALUES.items()
        ],
        "checkpoints": [
            {"name": f"epoch-{n}", "epoch": n, "digest": DIGEST, **(marks or {}).get(f"epoch-{n}", {})} for n in VALUES
        ],
        **more,
    }
    return training_job(status=status)


def names(status: Object, field: str) -> list[str]:
    return [checkpoint["name"] for checkpoint in status["checkpoints"] if field in checkpoint]


def after(job: api.TrainingJob, service: api.ModelService | None = TWO, *users: api.Deployment) -> Object:
    return jobs.plan(TrainingJobSeen(job, service, deployments=users), NOW, CONFIG).status


def test_what_was_removed_while_a_deployment_came_to_name_it_is_told() -> None:
    job = ended()
    gone = model_service(
        retention={"checkpointsPerJob": 2},
        status={"collected": {"job": "c", "time": THEN, "message": "m", "checkpoints": [f"{run_name(job)}/epoch-4"]}},
    )
    names_it = deployment(checkpoint={"trainingJob": "v1", "name": "epoch-4"})
    assert names(after(job, gone, names_it), "removed") == ["epoch-4"]


def test_a_removal_that_has_not_begun_is_called_off_when_a_deployment_names_the_checkpoint() -> None:
    job = ended(marks={"epoch-4": {"unneededSince": AGO}})
    seen = ModelServiceSeen(TWO, CLAIM, training_jobs=(job,))
    (made,) = [child.obj for child in services.plan(seen, NOW, CONFIG).children if isinstance(child, Create)]
    made = {**made, "metadata": {**made["metadata"], "uid": "c"}}
    running = replace(seen, jobs=(made,))
    assert Delete(made) not in services.plan(running, NOW, CONFIG).children
    names_it = deployment(checkpoint={"trainingJob": "v1", "name": "epoch-4"})
    needed = replace(running, deployments=(names_it,))
    assert Delete(made) in services.plan(needed, NOW, CONFIG).children
    assert Delete(made) not in services.plan(replace(running, training_jobs=()), NOW, CONFIG).children, (
        "its job is gone"
    )
    begun = replace(needed, pods=(pod_of(made, phase="Running"),))
    assert Delete(made) not in services.plan(begun, NOW, CONFIG).children


def test_the_best_stay_and_of_equal_ones_the_earlier() -> None:
    assert names(after(ended()), "unneededSince") == ["epoch-1", "epoch-4"]
    assert names(after(ended(), model_service(retention={"checkpointsPerJob": 1})), "unneededSince") == [
        *("epoch-1", "epoch-3", "epoch-4")
    ]
    assert names(after(ended(higher=False)), "unneededSince") == ["epoch-2", "epoch-3"]
    three = model_service(retention={"checkpointsPerJob": 3})
    assert names(after(ended(higher=False), three), "unneededSince") == ["epoch-3"]
    assert names(after(ended(primaryMetric=None, bestCheckpoint="epoch-4")), "unneededSince") == ["epoch-1", "epoch-2"]


def test_what_has_no_value_goes_before_the_worst_that_has_one() -> None:
    epochs = [
        {"epoch": n, "checkpoint": f"epoch-{n}", "metrics": {} if n == 3 else {"log_loss": value}}
        for n, value in VALUES.items()
    ]
    assert names(after(ended(higher=False, epochs=epochs)), "unneededSince") == ["epoch-2", "epoch-3"]
    three = model_service(retention={"checkpointsPerJob": 3})
    assert names(after(ended(higher=False, epochs=epochs), three), "unneededSince") == ["epoch-3"]


def test_nothing_is_marked_without_retention_or_before_the_end() -> None:
    assert names(after(ended(), model_service()), "unneededSince") == []
    assert names(after(ended(), None), "unneededSince") == []
    running = ended(completionTime=None, conditions=[])
    assert names(after(running), "unneededSince") == []


LIVE = {"trainingJob": "v1", "checkpoint": "epoch-4"}


@pytest.mark.parametrize(
    "user",
    [
        pytest.param(deployment(checkpoint={"trainingJob": "v1", "name": "epoch-4"}), id="named"),
        pytest.param(deployment(checkpoint={"trainingJob": "v2"}, status={"live": LIVE}), id="served still"),
        pytest.param(deployment(checkpoint={"trainingJob": "v2"}, status={"history": [LIVE]}), id="served last"),
        pytest.param(
            deployment(checkpoint=None, follow="ModelService", status={"live": LIVE}), id="served to a follower"
        ),
    ],
)
def test_what_a_deployment_needs_stays(user: api.Deployment) -> None:
    assert names(after(ended(), TWO, user), "unneededSince") == ["epoch-1"]
    marked = ended(marks={"epoch-4": {"unneededSince": AGO}})
    assert "epoch-4" not in names(after(marked, TWO, user), "unneededSince")  # the mark goes again


def test_what_was_served_before_the_last_is_no_more_than_any_other() -> None:
    last = {"trainingJob": "v0", "checkpoint": "epoch-1"}
    user = deployment(checkpoint={"trainingJob": "v2"}, status={"history": [last, LIVE]})
    assert names(after(ended(), TWO, user), "unneededSince") == ["epoch-1", "epoch-4"]


def collecting(job: api.TrainingJob, *users: api.Deployment, **more: Any) -> ModelServiceSeen:
    return ModelServiceSeen(more.pop("obj", TWO), CLAIM, training_jobs=(job,), deployments=users, **more)


def command_of(seen: ModelServiceSeen) -> list[str]:
    made = [child.obj for child in services.plan(seen, NOW, CONFIG).children if isinstance(child, Create)]
    return made[0]["spec"]["template"]["spec"]["containers"][0]["command"] if made else []


MARKED = ended(marks={"epoch-1": {"unneededSince": AGO}, "epoch-4": {"unneededSince": THEN}})
PLACE = "v1-" + MARKED.metadata.uid[:8]


def test_a_job_removes_what_has_been_marked_for_a_while() -> None:
    command = command_of(collecting(MARKED))
    assert command[command.index("--remove-checkpoint") + 1] == f"{PLACE}/epoch-1"
    assert command.count("--remove-checkpoint") == 1  # the other mark is new
    taken = deployment(checkpoint={"trainingJob": "v1", "name": "epoch-1"})
    assert command_of(collecting(MARKED, taken)) == []
    assert command_of(collecting(MARKED, importing=True)) == []


def test_what_was_removed_is_told_by_the_service_and_then_by_the_job() -> None:
    made = collect_job(TWO, (), NOW, "trainer", checkpoints=(f"{PLACE}/epoch-1",))
    batch = job_of(TWO, outcome="Complete")
    annotations = made["metadata"]["annotations"]
    batch = {**batch, "metadata": {**batch["metadata"], "annotations": annotations}}
    said = {"state": "Done", "freedBytes": 90_000_000, "message": "1 checkpoint removed", "kept": []}
    seen = collecting(MARKED, jobs=(batch,), pods=(pod_of(batch, exit_code=0, said=said),))
    decided = services.plan(seen, NOW, CONFIG)
    collected = decided.status["collected"]
    assert collected["checkpoints"] == [f"{PLACE}/epoch-1"]
    assert (
        collected["message"]
        == f"Removed from storage checkpoints that retention does not keep, 85.8 MiB: {PLACE}/epoch-1"
    )
    service = seen_again(TWO, json.loads(json.dumps(decided.status)))
    assert command_of(collecting(MARKED, obj=service)) == []  # the job does not know yet

    status = after(MARKED, service)
    assert names(status, "removed") == ["epoch-1"]
    assert names(status, "unneededSince") == ["epoch-4"]
    again = seen_again(MARKED, status)
    assert names(after(again, model_service()), "removed") == ["epoch-1"]  # for good


def test_a_deployment_that_names_what_is_gone_says_so() -> None:
    gone = ended(marks={"epoch-1": {"removed": True}})
    obj = deployment(checkpoint={"trainingJob": "v1", "name": "epoch-1"})
    decided = deployments.plan(DeploymentSeen(obj, TWO, gone), NOW, CONFIG)
    assert conditions_of(decided.status)["Ready"] == ("False", "CheckpointRemoved")
    assert conditions_of(decided.status)["Stalled"] == ("True", "CheckpointRemoved")
    assert message_of(decided.status, "Ready") == (
        "Checkpoint epoch-1 of TrainingJob v1 was removed from storage by spec.retention of ModelService spam; "
        "it has: epoch-2, epoch-3, epoch-4"
    )
    assert decided.children == ()
