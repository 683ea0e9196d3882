"""Going on from a checkpoint: what is waited for, what the pod is told, and what is kept."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from operator_scene import (
    CONFIG,
    DIGEST,
    NOW,
    OTHER_DIGEST,
    completed,
    conditions_of,
    deployment,
    imported,
    message_of,
    model_service,
    seen_again,
    training_job,
    uid,
)

from winnow_operator import api
from winnow_operator.kinds.training_job import plan
from winnow_operator.observed import DeploymentSeen, TrainingJobSeen
from winnow_operator.plan import Create
from winnow_operator.policies.checkpoint import resolve
from winnow_operator.resources import Object

CHILD = training_job("v2", baseModel={"checkpoint": {"trainingJob": "v1"}})
RUN = f"v1-{uid('v1')[:8]}"
S3 = {"s3": {"uri": "s3://classifiers/mail", "secretRef": {"name": "keys"}}}


def seen(child: api.TrainingJob = CHILD, parent: api.TrainingJob | None = None, **more: Any) -> TrainingJobSeen:
    service = more.pop("service", model_service())
    return TrainingJobSeen(child, service, imported(), parent=parent, **more)


def manifest(decided: Any) -> Object:
    settings = next(child.obj for child in decided.children if isinstance(child, Create))
    return yaml.safe_load(settings["data"]["job.yaml"])["spec"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("parent", "reason", "words", "final"),
    [
        pytest.param(None, "TrainingJobNotFound", "TrainingJob v1 does not exist", False, id="not there yet"),
        pytest.param(training_job(), "CheckpointNotReady", "v1 has not ended", False, id="still running"),
        pytest.param(
            completed(spec={"modelService": "other"}),
            "TrainingJobOfAnotherModelService",
            "belongs to ModelService other",
            True,
            id="of another ModelService",
        ),
        pytest.param(
            completed(bestCheckpoint="epoch-7"),
            "CheckpointNotFound",
            "names no best checkpoint",
            True,
            id="no best one",
        ),
    ],
)
def test_a_job_waits_for_the_checkpoint_that_it_goes_on_from(
    parent: api.TrainingJob | None, reason: str, words: str, final: bool
) -> None:
    decided = plan(seen(parent=parent), NOW, CONFIG)
    assert decided.children == ()
    assert conditions_of(decided.status)["Accepted"] == ("False", reason)
    assert words in message_of(decided.status, "Accepted")
    assert ("Stalled" in conditions_of(decided.status)) == final


def test_a_job_cannot_go_on_from_itself() -> None:
    own = training_job("v2", baseModel={"checkpoint": {"trainingJob": "v2"}})
    assert "itself" in message_of(plan(seen(own, own), NOW, CONFIG).status, "Accepted")


def test_the_pod_is_told_the_checkpoint_by_folder_and_digest_and_gets_what_its_adapter_stands_on() -> None:
    decided = plan(seen(parent=completed()), NOW, CONFIG)
    source = manifest(decided)["baseModel"]["checkpoint"]
    assert source == {
        "trainingJob": "v1",
        "name": "epoch-2",
        "run": RUN,
        "digest": OTHER_DIGEST,
        "baseModel": "/base/model",
    }
    job = [child.obj for child in decided.children if isinstance(child, Create)][1]
    assert {"name": "base", "image": {"reference": "docker.io/winnow/base-minilm:dev"}} in (
        job["spec"]["template"]["spec"]["volumes"]
    )
    assert decided.status["continuedFrom"]["run"] == RUN


def test_a_whole_model_needs_no_base_model_beside_it() -> None:
    decided = plan(seen(parent=completed(spec={"method": "Full"})), NOW, CONFIG)
    assert "baseModel" not in manifest(decided)["baseModel"]["checkpoint"]
    assert "adapterBase" not in decided.status["continuedFrom"]


def test_what_a_run_began_with_outlives_the_other_job() -> None:
    begun = plan(seen(parent=completed()), NOW, CONFIG).status
    again = seen_again(CHILD, {**begun, "startTime": "2026-11-23T11:58:00Z"})
    decided = plan(seen(again, None), NOW, CONFIG)
    assert manifest(decided)["baseModel"]["checkpoint"]["digest"] == OTHER_DIGEST


@pytest.mark.parametrize(
    ("storage", "where"),
    [
        pytest.param({"persistentVolumeClaim": {"size": "20Gi"}}, "/storage", id="volume"),
        pytest.param(S3, "s3://classifiers/mail", id="bucket"),
    ],
)
def test_an_adapter_on_a_full_checkpoint_is_served_on_that(storage: Object, where: str) -> None:
    service = model_service(storage=storage)
    came = plan(seen(parent=completed(spec={"method": "Full"}), service=service), NOW, CONFIG).status["continuedFrom"]
    child = completed("v2", spec={"baseModel": {"checkpoint": {"trainingJob": "v1"}}}, continuedFrom=came)
    web = deployment(checkpoint={"trainingJob": "v2"})
    served = resolve(DeploymentSeen(web, service, child))
    assert served.base_model == {"stored": {"run": RUN, "checkpoint": "epoch-2"}}  # type: ignore[union-attr]
    grandchild = training_job("v3", baseModel={"checkpoint": {"trainingJob": "v2", "name": "epoch-1"}})
    source = manifest(plan(seen(grandchild, child, service=service), NOW, CONFIG))["baseModel"]["checkpoint"]
    assert source["baseModel"] == f"{where}/runs/{RUN}/checkpoints/epoch-2"


def test_who_goes_on_from_a_checkpoint_is_told_and_so_it_is_kept() -> None:
    came = {"trainingJob": "v1", "checkpoint": "epoch-1", "digest": DIGEST, "run": RUN}
    child = training_job("v2", status={"continuedFrom": came})
    decided = plan(TrainingJobSeen(completed(), model_service(), children=(child,)), NOW, CONFIG)
    assert [found.get("continuedBy") for found in decided.status["checkpoints"]] == [["v2"], None]
