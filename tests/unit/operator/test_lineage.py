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
    job_of,
    message_of,
    model_service,
    seen_again,
    training_job,
    uid,
)

from winnow_operator import api, observe
from winnow_operator.build.rollout_memory import Memory
from winnow_operator.build.served import Served
from winnow_operator.build.server_deployment import server_deployment
from winnow_operator.kinds import model_service as services
from winnow_operator.kinds.training_job import plan
from winnow_operator.observed import DeploymentSeen, ModelServiceSeen, TrainingJobSeen
from winnow_operator.plan import Create
from winnow_operator.policies import lineage
from winnow_operator.policies.checkpoint import resolve
from winnow_operator.resources import TRAINING_JOB, Key, Object
from winnow_operator.routes import visits
from winnow_operator.store import Store

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


def test_a_job_that_was_made_anew_is_gone_on_from_unless_the_run_was_created_before() -> None:
    begun = plan(seen(parent=completed()), NOW, CONFIG).status
    anew = completed(checkpoints=[{"name": "epoch-2", "epoch": 2, "digest": DIGEST}])
    for jobs, digest in (((job_of(CHILD),), OTHER_DIGEST), ((), DIGEST)):
        decided = plan(seen(seen_again(CHILD, begun), anew, jobs=jobs), NOW, CONFIG)
        assert decided.status["continuedFrom"]["digest"] == digest


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
    stood_on = api.StoredCheckpoint(run=RUN, checkpoint="epoch-2")
    assert served.base_model == api.AdapterBase(stored=stood_on)  # type: ignore[union-attr]
    grandchild = training_job("v3", baseModel={"checkpoint": {"trainingJob": "v2", "name": "epoch-1"}})
    source = manifest(plan(seen(grandchild, child, service=service), NOW, CONFIG))["baseModel"]["checkpoint"]
    assert source["baseModel"] == f"{where}/runs/{RUN}/checkpoints/epoch-2"


def read(obj: Object) -> Object:
    """As the API server has it."""
    metadata = {"uid": uid(obj["metadata"]["name"]), "resourceVersion": "7", **obj["metadata"]}
    return {**obj, "metadata": metadata}


WEB = deployment(checkpoint={"trainingJob": "v2"})


def kept_for(parent: api.TrainingJob, *others: Object) -> list[str]:
    """The checkpoints of the ended parent that retention does not mark, with these objects in the cluster."""
    store = Store()
    service = model_service(retention={"checkpointsPerJob": 1})
    for obj in (api.to_raw(service), api.to_raw(parent), api.to_raw(WEB), *others):
        store.put(read(obj))
    decided = plan(observe.training_job(store, parent, lambda _: None), NOW, CONFIG)
    return [found["name"] for found in decided.status["checkpoints"] if "unneededSince" not in found]


STOOD_ON = {"trainingJob": "v1", "checkpoint": "epoch-1", "digest": DIGEST, "run": RUN}


def test_what_a_served_adapter_stands_on_is_kept_when_its_own_job_is_deleted() -> None:
    parent = completed(spec={"method": "Full"})
    child = completed("v2", spec={"baseModel": {"checkpoint": {"trainingJob": "v1"}}}, continuedFrom=STOOD_ON)
    assert kept_for(parent) == ["epoch-2"]
    assert kept_for(parent, api.to_raw(child)) == ["epoch-1", "epoch-2"]
    served = resolve(DeploymentSeen(WEB, model_service(), child))
    assert isinstance(served, Served)
    server = server_deployment(WEB, model_service(), served, image="server")
    assert kept_for(parent, server) == ["epoch-1", "epoch-2"]
    on_an_image = resolve(DeploymentSeen(WEB, model_service(), completed("v2")))
    assert isinstance(on_an_image, Served)
    assert kept_for(parent, server_deployment(WEB, model_service(), on_an_image, image="server")) == ["epoch-2"]
    nobodys = {**server, "metadata": {**server["metadata"], "ownerReferences": []}}
    assert kept_for(parent, nobodys) == ["epoch-2"]  # anybody may write labels and annotations
    other = Served("v7", "epoch-1", DIGEST, "v7-0", None)
    rolled_on = server_deployment(WEB, model_service(), other, Memory(fallback=served), image="server")
    assert kept_for(parent, rolled_on) == ["epoch-1", "epoch-2"]  # a rollback would load it
    gone_on = server_deployment(WEB, model_service(), other, image="server")
    assert kept_for(parent, gone_on) == ["epoch-2"]

    store = Store()
    store.put(read(api.to_raw(parent)))
    assert Key(TRAINING_JOB, "ml", "v1") in {key for key, _ in visits(store, gone_on, rolled_on)}
    # What was marked before is not removed either.
    marked = seen_again(
        parent,
        {
            **api.to_raw(parent.status),
            "checkpoints": [{"name": "epoch-1", "epoch": 1, "digest": DIGEST, "unneededSince": "2026-11-23T11:00:00Z"}],
        },
    )
    for bases, starts in ((frozenset(), True), (lineage.bases((), [server]), False)):
        claim = {"metadata": {"name": "spam-storage"}, "spec": {}, "status": {"phase": "Bound"}}
        scene = ModelServiceSeen(
            model_service(retention={"checkpointsPerJob": 1}), claim, training_jobs=(marked,), bases=bases
        )
        assert any(isinstance(made, Create) for made in services.plan(scene, NOW, CONFIG).children) is starts


def test_what_an_adapter_stands_on_is_kept_for_a_job_that_goes_on_from_the_adapter() -> None:
    came = {
        **STOOD_ON,
        "trainingJob": "v2",
        "run": "v2-0",
        "adapterBase": {"stored": {"run": RUN, "checkpoint": "epoch-1"}},
    }
    grandchild = training_job("v3", status={"continuedFrom": came})
    assert kept_for(completed(spec={"method": "Full"}), api.to_raw(grandchild)) == ["epoch-1", "epoch-2"]


def test_who_goes_on_from_a_checkpoint_is_told_and_so_it_is_kept() -> None:
    came = {"trainingJob": "v1", "checkpoint": "epoch-1", "digest": DIGEST, "run": RUN}
    child = training_job("v2", status={"continuedFrom": came})
    decided = plan(TrainingJobSeen(completed(), model_service(), children=(child,)), NOW, CONFIG)
    assert [found.get("continuedBy") for found in decided.status["checkpoints"]] == [["v2"], None]
