"""What deleted Datasets left in storage: remembered, marked, removed when things are quiet, told once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from operator_scene import (
    CONFIG,
    DIGEST,
    NOW,
    OTHER_DIGEST,
    completed,
    condition,
    conditions_of,
    dataset,
    imported,
    job_of,
    later,
    message_of,
    model_service,
    pod_of,
    seen_again,
    training_job,
    with_metadata,
)

from winnow_operator.build.collect_job import Left, collect_job, left_by
from winnow_operator.kinds import dataset as datasets
from winnow_operator.kinds.collection import MARK, importing, referenced
from winnow_operator.kinds.model_service import plan
from winnow_operator.observed import DatasetSeen, ModelServiceSeen
from winnow_operator.plan import Create, Delete, Plan, Refusal, Turn
from winnow_operator.reasons import Reason
from winnow_operator.resources import Object

CLAIM = {"metadata": {"name": "spam-storage"}, "spec": {}, "status": {"phase": "Bound"}}
PLACE = "PersistentVolumeClaim ml/spam-storage"
AGO = "2026-11-23T11:59:00Z"
GONE = {"dataset": "old", "digest": DIGEST}
MARKED = {**GONE, "unreferencedSince": AGO}


def seen(*stored: Object, present: tuple[Any, ...] = (), **more: Any) -> ModelServiceSeen:
    """A ModelService whose status knows what is stored, with the Datasets that are present."""
    obj = model_service(status={"stored": list(stored), **more.pop("status", {})})
    known = {"stored_by": present, "referenced": referenced(present, ()), **more}
    return ModelServiceSeen(obj, CLAIM, datasets=present, **known)


def jobs_made(decided: Plan) -> list[Object]:
    return [child.obj for child in decided.children if isinstance(child, Create) and child.obj["kind"] == "Job"]


def command(job: Object) -> list[str]:
    found: list[str] = job["spec"]["template"]["spec"]["containers"][0]["command"]
    return found


def collecting(*left: Left, **more: Any) -> Object:
    """A collect Job, as its controller keeps it."""
    made = collect_job(model_service(), left, NOW, "trainer")
    job = job_of(model_service(), **more)
    annotations = made["metadata"]["annotations"]
    return {**job, "metadata": {**job["metadata"], "annotations": annotations, "name": made["metadata"]["name"]}}


OLD_ROWS = Left("old", DIGEST, rows=True, problems=True)


def ended(said: Object | str, exit_code: int = 0, *left: Left, **more: Any) -> ModelServiceSeen:
    job = collecting(*(left or (OLD_ROWS,)), outcome="Failed" if exit_code else "Complete")
    return seen(MARKED, jobs=(job,), pods=(pod_of(job, exit_code=exit_code, said=said),), **more)


def test_what_is_stored_is_remembered_while_its_dataset_exists() -> None:
    status = plan(seen(present=(imported(), dataset("failed"))), NOW, CONFIG).status
    assert status["stored"] == [{"dataset": "failed"}, {"dataset": "rows", "digest": DIGEST}]
    since = plan(seen({"dataset": "rows"}, present=(imported(),)), NOW, CONFIG)  # noted before it had rows
    assert (since.status["stored"], jobs_made(since)) == ([{"dataset": "rows", "digest": DIGEST}], [])


def test_what_nothing_refers_to_is_marked_first() -> None:
    decided = plan(seen(GONE), NOW, CONFIG)
    assert decided.status["stored"] == [{**GONE, "unreferencedSince": "2026-11-23T12:00:00Z"}]
    assert jobs_made(decided) == []
    assert decided.requeue_after == MARK.total_seconds()
    marked = {**GONE, "unreferencedSince": "2026-11-23T11:59:50Z"}
    assert plan(seen(marked), NOW, CONFIG).requeue_after == MARK.total_seconds() - 10


def test_the_rows_before_are_left_by_a_dataset_that_was_made_anew_with_others() -> None:
    before = {"dataset": "rows", "digest": OTHER_DIGEST}
    now = {"dataset": "rows", "digest": DIGEST}
    status = plan(seen(before, present=(imported(),)), NOW, CONFIG).status
    assert status["stored"] == [now, {**before, "unreferencedSince": "2026-11-23T12:00:00Z"}]
    (job,) = jobs_made(plan(seen(now, {**before, "unreferencedSince": AGO}, present=(imported(),)), NOW, CONFIG))
    assert command(job)[command(job).index("--remove") + 1] == OTHER_DIGEST
    assert "--remove-problems-of" not in command(job)


def test_and_removed_by_a_job_once_the_mark_has_stood_for_a_while() -> None:
    decided = plan(seen(MARKED), NOW, CONFIG)
    (job,) = jobs_made(decided)
    assert command(job)[3:] == [
        *("collect", "--storage", "/storage", "--before", AGO, "--remove", DIGEST, "--remove-problems-of", "old"),
        *("--termination-log", "/dev/termination-log"),
    ]
    assert decided.turn == Turn(alone=frozenset({PLACE}))
    assert jobs_made(plan(seen(MARKED), later(3_600), CONFIG)) == [job]  # its name is that of what it says


def test_of_a_dataset_that_never_had_rows_only_its_problems_are_removed() -> None:
    (job,) = jobs_made(plan(seen({"dataset": "failed", "unreferencedSince": AGO}), NOW, CONFIG))
    assert "--remove" not in command(job)
    assert command(job)[command(job).index("--remove-problems-of") + 1] == "failed"
    done = collecting(Left("failed", "", rows=False, problems=True), outcome="Complete")
    assert left_by(job) == left_by(done)
    gone = seen(
        {"dataset": "failed", "unreferencedSince": AGO},
        jobs=(done,),
        pods=(pod_of(done, exit_code=0, said={"state": "Done", "kept": []}),),
    )
    assert "stored" not in plan(gone, NOW, CONFIG).status


def test_a_mark_goes_when_the_rows_are_wanted_again() -> None:
    decided = plan(seen(MARKED, present=(imported("new"),)), NOW, CONFIG)
    assert jobs_made(decided)[0]["metadata"]["annotations"] == {
        "winnow.dev/left-by": json.dumps([["old", DIGEST]], separators=(",", ":"))
    }
    assert "--remove" not in command(jobs_made(decided)[0])  # only the problems of the old one: the rows are needed
    same = plan(seen(MARKED, present=(imported("old"),)), NOW, CONFIG)
    assert same.status["stored"] == [GONE]
    assert jobs_made(same) == []


@pytest.mark.parametrize(
    ("job", "needed"),
    [
        pytest.param({}, False, id="it has not begun"),
        pytest.param({"datasets": {"training": {"name": "old", "digest": DIGEST}}}, True, id="runs or is suspended"),
        pytest.param({"datasets": {"test": {"name": "old", "digest": DIGEST}}}, True, id="as test rows"),
        pytest.param(
            {"datasets": {"training": {"name": "old", "digest": DIGEST}}, "completionTime": AGO}, False, id="has ended"
        ),
    ],
)
def test_rows_of_a_training_that_has_not_ended_stay(job: Object, needed: bool) -> None:
    digests = referenced((), (training_job(status=job),))
    assert digests == ({DIGEST} if needed else set())
    decided = plan(seen(MARKED, referenced=digests), NOW, CONFIG)
    assert bool(jobs_made(decided)) != needed
    assert decided.status["stored"] == [GONE if needed else MARKED]


def test_no_collection_begins_while_an_import_runs_or_the_storage_is_not_there() -> None:
    assert jobs_made(plan(seen(MARKED, importing=True), NOW, CONFIG)) == []
    assert jobs_made(plan(replace(seen(MARKED), claim=None), NOW, CONFIG)) == []


def import_of(obj: Any = None, **job: Any) -> Object:
    return job_of(obj or dataset(), **job)


FAILED = dataset(status={"conditions": [condition("Ready", "False", "InvalidRows")]})
NO_SOURCE = dataset(status={"conditions": [condition("Ready", "False", "SourceUnreachable")]})
LOST = dataset(status={"conditions": [condition("Ready", "False", "ImportFailed")]})
STUCK = dataset(
    status={
        "conditions": [condition("Ready", "False", "ImagePullFailed"), condition("Stalled", "True", "ImagePullFailed")]
    }
)


@pytest.mark.parametrize(
    ("obj", "jobs", "expected"),
    [
        pytest.param(imported(), (), False, id="done"),
        pytest.param(dataset(), (), True, id="about to start"),
        pytest.param(NO_SOURCE, (), False, id="waits for its ConfigMap, perhaps for ever"),
        pytest.param(dataset(), (import_of(),), True, id="runs"),
        pytest.param(FAILED, (import_of(outcome="Failed"),), False, id="failed"),
        pytest.param(STUCK, (import_of(outcome="Complete"),), True, id="stored its rows, which are not recorded yet"),
        pytest.param(LOST, (import_of(outcome="Complete"),), False, id="its message was lost"),
        pytest.param(FAILED, (), True, id="its Job was deleted for another try"),
    ],
)
def test_an_import_counts_from_its_wish_to_its_record(obj: Any, jobs: Any, expected: bool) -> None:
    assert importing(obj, jobs) is expected


def test_an_import_waits_for_a_collection_and_shares_its_turn_with_other_imports() -> None:
    waits = datasets.plan(DatasetSeen(dataset(), model_service(), collecting=True), NOW, CONFIG)
    assert waits.children == ()
    assert "once storage has been cleared" in message_of(waits.status, "Ready")
    starts = datasets.plan(DatasetSeen(dataset(), model_service()), NOW, CONFIG)
    assert starts.turn == Turn(shared=frozenset({PLACE}))


def test_an_import_does_not_wait_for_a_collection_that_finds_no_node() -> None:
    job = collecting(OLD_ROWS)
    stuck = seen(MARKED, jobs=(job,), pods=(pod_of(job, unschedulable="0/1 nodes"),))
    assert plan(stuck, NOW, CONFIG).children[1:] == ()
    assert Delete(job) in plan(replace(stuck, importing=True), NOW, CONFIG).children
    for pod in (pod_of(job, phase="Running"), pod_of(job, exit_code=0)):  # the Job may be seen to end after its pod
        runs = replace(stuck, pods=(pod,), importing=True)
        assert Delete(job) not in plan(runs, NOW, CONFIG).children


def test_a_collection_that_finds_no_node_says_so() -> None:
    job = collecting(OLD_ROWS)
    taints = "0/3 nodes are available: 3 node(s) had untolerated taint {gpu: true}"
    status = plan(seen(MARKED, jobs=(job,), pods=(pod_of(job, unschedulable=taints),)), NOW, CONFIG).status
    assert conditions_of(status)["Ready"] == ("True", "StorageReady")
    assert message_of(status, "Ready").endswith(
        f"is not removed yet: Pod {job['metadata']['name']}-1 finds no node: {taints}"
    )
    refused = plan(seen(MARKED, jobs=(job,), pods_refused="exceeded quota"), NOW, CONFIG).status
    assert message_of(refused, "Ready").endswith("is not removed yet: exceeded quota")
    begun = plan(seen(MARKED, jobs=(job,), pods=(pod_of(job, phase="Running"),)), NOW, CONFIG).status
    assert message_of(begun, "Ready") == "PersistentVolumeClaim spam-storage is bound"


def test_what_was_removed_is_recorded_then_told_once_then_the_job_goes() -> None:
    before = ended({"state": "Done", "freedBytes": 3_000_000, "kept": []})
    decided = plan(before, NOW, CONFIG)
    assert "stored" not in decided.status
    assert decided.status["collected"] == {
        "job": before.jobs[0]["metadata"]["name"],
        "time": "2026-11-23T12:00:00Z",
        "datasets": 1,
        "freedBytes": 3_000_000,
        "message": "Removed from storage what deleted datasets left there, 2.9 MiB: old",
    }
    assert [(event.type, event.reason) for event in decided.events if event.reason != "StorageReady"] == [
        ("Normal", "Collected")
    ]
    again = plan(replace(before, obj=seen_again(before.obj, decided.status)), NOW, CONFIG)
    assert again.events == ()
    assert Delete(before.jobs[0]) in again.children
    assert again.status["collected"] == decided.status["collected"]


def test_a_collection_that_is_seen_to_end_before_its_pod_is_not_recorded_yet() -> None:
    """Its pod tells which rows it kept."""
    job = collecting(OLD_ROWS, outcome="Complete", ended=NOW)
    decided = plan(seen(MARKED, jobs=(job,), pods=(pod_of(job, phase="Running"),)), later(5), CONFIG)
    assert (decided.status["stored"], decided.requeue_after) == ([MARKED], 1)
    assert "collected" not in decided.status


def test_rows_that_an_import_found_again_stay_known() -> None:
    decided = plan(ended({"state": "Done", "freedBytes": 0, "kept": [DIGEST]}), NOW, CONFIG)
    assert decided.status["stored"] == [{**GONE, "unreferencedSince": "2026-11-23T12:00:00Z"}]
    assert "found the rows again" in decided.status["collected"]["message"]


def test_a_dataset_that_came_back_meanwhile_stays_known() -> None:
    back = replace(ended({"state": "Done", "kept": []}), stored_by=(imported("old"),), datasets=(imported("old"),))
    assert plan(replace(back, referenced=frozenset({DIGEST})), NOW, CONFIG).status["stored"] == [GONE]


def test_a_collection_that_failed_is_told_and_stays_for_an_hour() -> None:
    before = ended({"state": "Failed", "reason": "StorageUnavailable", "message": "read-only file system"}, 20)
    decided = plan(before, NOW, CONFIG)
    assert decided.status["stored"] == [MARKED]
    assert decided.status["collected"]["message"].startswith(
        "What deleted datasets left in storage could not be removed"
    )
    assert "read-only file system" in decided.status["collected"]["message"]
    assert ("Warning", "CollectionFailed") in [(event.type, event.reason) for event in decided.events]
    assert conditions_of(decided.status)["Ready"] == ("True", "StorageReady")
    again = plan(replace(before, obj=seen_again(before.obj, decided.status)), NOW, CONFIG)
    assert (again.children[1:], again.events) == ((), ())  # its time to live ends it, and then it is tried again
    assert before.jobs[0]["metadata"]["name"] in again.status["collected"]["job"]


@pytest.mark.parametrize("text", ["", "[1", "{}", "[[1]]"])
def test_a_job_whose_annotations_somebody_edited_is_followed_by_another(text: str) -> None:
    before = ended({"state": "Done", "kept": []})
    (job,) = before.jobs
    job["metadata"]["annotations"] = {"winnow.dev/left-by": text, "winnow.dev/checkpoints": text}
    decided = plan(before, NOW, CONFIG)
    assert decided.status["collected"]["job"] == job["metadata"]["name"]
    after = replace(before, jobs=(), pods=(), obj=seen_again(before.obj, decided.status))
    assert len(jobs_made(plan(after, NOW, CONFIG))) == 1


def test_a_job_that_is_refused_does_not_make_the_storage_unusable() -> None:
    refusal = Refusal(Reason.API_REFUSED, "exceeded quota", "Job")
    assert conditions_of(plan(replace(seen(MARKED), refusal=refusal), NOW, CONFIG).status)["Ready"][0] == "True"


def test_more_than_the_status_keeps_are_those_of_deleted_datasets_first() -> None:
    stored = [{"dataset": f"old-{number:04d}", "digest": f"sha256:{number:064x}"} for number in range(1_000)]
    status = plan(seen(*stored, present=(imported(digest=OTHER_DIGEST),)), NOW, CONFIG).status
    assert len(status["stored"]) == 1_000
    assert all("unreferencedSince" in entry for entry in status["stored"])


def test_many_are_removed_in_several_jobs() -> None:
    stored = [{**MARKED, "dataset": f"old-{number:04d}", "digest": f"sha256:{number:064x}"} for number in range(70)]
    (job,) = jobs_made(plan(seen(*stored), NOW, CONFIG))
    assert len(left_by(job)) == 30


def test_a_dataset_that_is_being_deleted_still_refers_to_its_rows() -> None:
    leaving = with_metadata(imported("old"), deletionTimestamp=AGO, finalizers=["winnow.dev/in-use"])
    decided = plan(seen(MARKED, present=(leaving,)), NOW, CONFIG)
    assert decided.status["stored"] == [GONE]


def test_rows_that_only_a_training_knows_are_noted() -> None:
    """Their Dataset was deleted before anybody looked."""
    job = training_job(status={"datasets": {"training": {"name": "old", "digest": DIGEST}}})
    decided = plan(seen({"dataset": "old"}, training_jobs=(job,), referenced=frozenset({DIGEST})), NOW, CONFIG)
    assert GONE in decided.status["stored"]


def test_an_ended_training_refers_to_nothing() -> None:
    assert referenced((imported(digest=OTHER_DIGEST),), (completed(),)) == {OTHER_DIGEST}
