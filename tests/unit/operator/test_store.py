"""What is kept of the cluster, and who is looked at again when it changes."""

from __future__ import annotations

from typing import Any

import pytest
from operator_scene import DIGEST, job_of, labels_of, model_service, pod_of, raw, training_job

from winnow_operator import api
from winnow_operator.resources import (
    APPS_DEPLOYMENT,
    CLAIM,
    DATASET,
    DEPLOYMENT,
    GUESTS,
    IN_USE,
    JOB,
    MODEL_SERVICE,
    POD,
    STORAGE_CLASS,
    TRAINING_JOB,
    Key,
    Object,
    Resource,
)
from winnow_operator.routes import GATHER_SECONDS, visits
from winnow_operator.store import Store

SERVICE = raw(
    "ModelService",
    "spam",
    {"baseModel": {"huggingFace": {"repo": "a/b"}}, "storage": {"persistentVolumeClaim": {"claimName": "mine"}}},
)
ROWS = raw("Dataset", "rows", {"modelService": "spam", "source": {"inline": "a"}})
JOB_V1 = raw("TrainingJob", "v1", {"modelService": "spam", "trainingDataset": "rows"})
WEB = raw("Deployment", "web", {"modelService": "spam", "checkpoint": {"trainingJob": "v1"}})


def newer(obj: Object, version: str = "99", **fields: Any) -> Object:
    return {**obj, **fields, "metadata": {**obj["metadata"], "resourceVersion": version}}


def filled(*objects: Object) -> Store:
    store = Store()
    for obj in objects or (SERVICE, ROWS, JOB_V1, WEB):
        store.put(obj)
    return store


def key(resource: Any, name: str) -> Key:
    return Key(resource, "ml", name)


def test_an_older_version_is_no_news() -> None:
    """A watch may tell late what a write has told already."""
    store = filled(newer(JOB_V1, "20"))
    _, news = store.put(newer(JOB_V1, "15"))
    assert not news
    kept = store.get(TRAINING_JOB, "ml", "v1")
    assert kept is not None
    assert kept["metadata"]["resourceVersion"] == "20"


def test_versions_are_numbers() -> None:
    assert filled(newer(JOB_V1, "9")).put(newer(JOB_V1, "10"))[1]


def test_another_object_of_the_same_name_is_news_if_it_is_newer() -> None:
    again = {**JOB_V1, "metadata": {**JOB_V1["metadata"], "uid": "another", "resourceVersion": "20"}}
    store = filled(JOB_V1)
    assert store.put(again)[1]
    assert store.remove(JOB_V1) is None  # the deletion of the first comes late: the second stays
    assert not store.put(newer(JOB_V1, "15"))[1]  # and so does a list that was begun before it
    kept = store.get(TRAINING_JOB, "ml", "v1")
    assert kept is not None
    assert kept["metadata"]["uid"] == "another"


def test_what_is_gone_is_not_brought_back_by_what_comes_late() -> None:
    store = filled(JOB_V1)
    store.remove(newer(JOB_V1, "30"))
    assert not store.put(newer(JOB_V1, "20"))[1]
    assert store.get(TRAINING_JOB, "ml", "v1") is None
    assert store.put(newer(JOB_V1, "31"))[1]  # its labels were off for a while: the watch calls that a deletion


def test_only_so_many_deletions_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("winnow_operator.store.GONE", 1)
    store = filled()
    store.remove(newer(JOB_V1, "30"))
    store.remove(newer(ROWS, "31"))
    assert store.put(newer(JOB_V1, "20"))[1]
    assert not store.put(newer(ROWS, "20"))[1]


def test_bookkeeping_is_not_kept() -> None:
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "stays"}
    store = filled({**ROWS, "metadata": {**ROWS["metadata"], "managedFields": [{}], "annotations": annotations}})
    kept = store.get(DATASET, "ml", "rows")
    assert kept is not None
    assert "managedFields" not in kept["metadata"]
    assert kept["metadata"]["annotations"] == {"mine": "stays"}


def test_children_are_found_by_their_labels_until_they_are_gone() -> None:
    job = job_of(training_job())
    store = filled(JOB_V1, job)
    assert [found["metadata"]["name"] for found in store.children(JOB, key(TRAINING_JOB, "v1"))] == [
        job["metadata"]["name"]
    ]
    store.remove(job)
    assert store.children(JOB, key(TRAINING_JOB, "v1")) == ()


def test_a_child_whose_labels_name_another_owner_is_nobody_elses() -> None:
    job = job_of(training_job())
    store = filled(JOB_V1, job)
    store.put(
        {**job, "metadata": {**job["metadata"], "resourceVersion": "99", "labels": labels_of(training_job("v2"))}}
    )
    assert store.children(JOB, key(TRAINING_JOB, "v1")) == ()
    assert len(store.children(JOB, key(TRAINING_JOB, "v2"))) == 1


def test_what_a_fresh_list_lacks_is_named() -> None:
    store = filled()
    assert [obj["metadata"]["name"] for obj in store.missing_from(TRAINING_JOB, [])] == ["v1"]
    assert store.missing_from(TRAINING_JOB, [JOB_V1]) == []


def test_an_object_that_does_not_fit_the_types_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    store = filled(raw("Dataset", "odd", {"modelService": "spam", "source": {}, "fromTheFuture": 1}))
    assert store.model(api.Dataset, key(DATASET, "odd")) is None
    assert "does not fit" in caplog.text


def visited(store: Store, new: Object | None, old: Object | None) -> dict[str, float]:
    return {f"{found.resource.kind}/{found.name}": seconds for found, seconds in visits(store, new, old)}


def test_a_child_leads_to_its_owner() -> None:
    job = job_of(training_job())
    assert visited(filled(), job, None) == {"TrainingJob/v1": 0}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "ml", "labels": labels_of(training_job())},
    }
    assert visited(filled(), None, pod) == {"TrainingJob/v1": 0}


@pytest.mark.parametrize("resource", [POD, JOB, CLAIM, APPS_DEPLOYMENT, *GUESTS], ids=lambda resource: resource.kind)
def test_an_object_with_our_label_that_names_no_owner_concerns_nobody(resource: Resource) -> None:
    """Anybody may write that label."""
    labels = {"app.kubernetes.io/managed-by": "winnow"}
    metadata = {"name": "mine", "namespace": "ml", "labels": labels}
    obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "spec": {}}
    assert visited(filled(), obj, None) == visited(filled(), None, obj) == {}


def test_a_training_that_ends_leads_to_the_rows_that_it_read() -> None:
    running, done = job_of(training_job()), newer(job_of(training_job(), outcome="Complete"))
    assert visited(filled(), done, running) == {"TrainingJob/v1": 0, "Dataset/rows": 0}
    assert visited(filled(), None, running) == {"TrainingJob/v1": 0, "Dataset/rows": 0}
    assert visited(filled(), newer(done, "100"), done) == {"TrainingJob/v1": 0}
    assert visited(filled(), None, JOB_V1)["Dataset/rows"] == 0


def test_a_collection_that_ends_leads_to_datasets_that_may_wait_for_it() -> None:
    collecting = job_of(model_service())
    assert visited(filled(), None, collecting) == {"ModelService/spam": 0, "Dataset/rows": 0}
    stored = filled(newer(ROWS, status={"digest": DIGEST}))
    assert visited(stored, None, collecting) == {"ModelService/spam": 0}


def test_a_model_service_leads_to_all_that_name_it() -> None:
    assert visited(filled(), SERVICE, None) == {
        "ModelService/spam": 0,
        "Dataset/rows": 0,
        "TrainingJob/v1": 0,
        "Deployment/web": 0,
    }


def test_the_counts_of_a_model_service_concern_nobody_else() -> None:
    counted = newer(SERVICE, status={"datasets": 3})
    assert visited(filled(), counted, SERVICE) == {"ModelService/spam": 0}


def test_a_dataset_leads_to_the_jobs_that_use_it() -> None:
    assert visited(filled(), ROWS, None) == {
        "Dataset/rows": 0,
        "TrainingJob/v1": 0,
        "ModelService/spam": GATHER_SECONDS,
    }


def test_a_dataset_does_not_lead_to_jobs_that_have_ended() -> None:
    ended = newer(JOB_V1, status={"completionTime": "2026-11-23T12:00:00Z"})
    assert visited(filled(ended), ROWS, None).keys() == {"Dataset/rows", "ModelService/spam"}


def test_the_finalizer_of_a_dataset_leads_to_no_job() -> None:
    held = newer(ROWS)
    held["metadata"] = {**held["metadata"], "finalizers": [IN_USE]}
    assert "TrainingJob/v1" not in visited(filled(), held, ROWS)


def test_a_training_that_is_refused_leads_to_the_rows_that_are_held_for_it() -> None:
    told = {"type": "Accepted", "status": "False", "reason": "ApiRefused"}
    refused = newer(JOB_V1, status={"conditions": [told]})
    assert visited(filled(), refused, JOB_V1)["Dataset/rows"] == 0
    assert "Dataset/rows" not in visited(filled(), newer(refused, "100"), refused)


def test_rows_that_were_stored_are_noted_at_once() -> None:
    stored = newer(ROWS, status={"digest": DIGEST})
    assert visited(filled(), stored, ROWS)["ModelService/spam"] == 0
    assert visited(filled(), newer(stored, "100"), stored)["ModelService/spam"] == GATHER_SECONDS


def test_a_training_job_leads_to_deployments_when_its_checkpoints_change() -> None:
    moved = newer(JOB_V1, status={"progress": {"percent": 5}})
    assert "Deployment/web" not in visited(filled(), moved, JOB_V1)
    done = newer(JOB_V1, status={"bestCheckpoint": "epoch-1"})
    assert visited(filled(), done, JOB_V1)["Deployment/web"] == 0


def test_a_deployment_leads_to_the_jobs_whose_checkpoints_it_serves_and_served() -> None:
    before = newer(WEB, status={"live": {"trainingJob": "v0"}})
    after = newer(WEB, status={"live": {"trainingJob": "v1"}})
    found = visited(filled(), after, before)
    assert {"TrainingJob/v0", "TrainingJob/v1"} <= found.keys()


def test_a_storage_class_leads_to_every_model_service() -> None:
    obj = {"apiVersion": STORAGE_CLASS.api_version, "kind": "StorageClass", "metadata": {"name": "fast"}}
    assert visited(filled(), obj, None) == {"ModelService/spam": 0}


def test_all_of_ours_can_be_named() -> None:
    assert set(filled().our_keys()) == {
        key(MODEL_SERVICE, "spam"),
        key(DATASET, "rows"),
        key(TRAINING_JOB, "v1"),
        key(DEPLOYMENT, "web"),
    }


def test_pods_of_a_training_that_ended_are_remembered_until_its_end_is_recorded() -> None:
    job = job_of(training_job())
    pod = {**pod_of(job, exit_code=0, said={"state": "Complete"}), "kind": "Pod", "apiVersion": "v1"}
    running = newer(pod, "5", status={"phase": "Running"})
    store = filled(JOB_V1, running)
    store.remove(newer(pod, "6"))  # its end and its deletion in one event
    assert store.get(POD, "ml", pod["metadata"]["name"]) is None
    (kept,) = store.departed(key(TRAINING_JOB, "v1"))
    assert kept["status"] == pod["status"]
    store.put(newer(JOB_V1, status={"completionTime": "2026-11-23T12:00:00Z"}))
    assert store.departed(key(TRAINING_JOB, "v1")) == ()
    store.put(newer(pod, "7"))
    store.remove(newer(pod, "7"))  # cleared away later: nobody needs it
    assert store.departed(key(TRAINING_JOB, "v1")) == ()


def test_a_pod_that_was_removed_before_it_ended_has_said_nothing() -> None:
    pod = {**pod_of(job_of(training_job()), phase="Running"), "kind": "Pod", "apiVersion": "v1"}
    store = filled(JOB_V1, newer(pod, "5"))
    store.remove(newer(pod, "5"))
    assert store.departed(key(TRAINING_JOB, "v1")) == ()


def test_a_claim_that_is_deleted_or_gone_leads_to_all_that_lies_in_it() -> None:
    metadata = {"name": "spam-storage", "namespace": "ml", "labels": labels_of(model_service())}
    claim: Object = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": {}}
    leaving = {**claim, "metadata": {**metadata, "deletionTimestamp": "2026-11-23T12:00:00Z"}}
    everybody = {"ModelService/spam": 0, "Dataset/rows": 0, "TrainingJob/v1": 0, "Deployment/web": 0}
    assert visited(filled(), leaving, claim) == visited(filled(), None, leaving) == everybody
    assert visited(filled(), {**claim, "status": {"phase": "Bound"}}, claim) == {"ModelService/spam": 0}
