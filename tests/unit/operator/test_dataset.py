"""Dataset: what plan() makes of what it sees."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from operator_scene import (
    CONFIG,
    DIGEST,
    NOW,
    condition,
    conditions_of,
    dataset,
    imported,
    job_of,
    kstatus,
    later,
    message_of,
    model_service,
    pod_of,
)

from winnow_operator import api
from winnow_operator.build.import_job import import_job
from winnow_operator.kinds.dataset import plan, references
from winnow_operator.observed import DatasetSeen
from winnow_operator.plan import Create, Delete, Reference, Refusal
from winnow_operator.reasons import Reason
from winnow_operator.resources import CLAIM, CONFIG_MAP, Object

SERVICE = model_service()
FROM_CONFIG_MAP = dataset(source={"configMap": {"name": "mail", "key": "rows.csv"}})
READY: Object = {
    "kind": "import",
    "state": "Ready",
    "digest": DIGEST,
    "taskDetail": "Binary",
    "rows": 4,
    "labels": [["ham", 3], ["spam", 1]],
    "labelCount": 2,
    "tokens": {"mean": 12.5, "p50": 11, "p95": 20, "p99": 24, "max": 25},
    "duplicates": 1,
    "conflicts": 0,
    "skippedRows": 0,
    "warnings": [{"code": "FewExamples", "message": "label spam has 1 positive"}],
    "problems": [],
    "problemCount": 0,
}


def wanted_job(obj: Any, **more: Any) -> Object:
    """The Job that plan() would create, as its controller keeps it."""
    job = job_of(obj, **more)
    job["metadata"]["name"] = import_job(obj, SERVICE, CONFIG)[1]["metadata"]["name"]
    return job


def ended(obj: Any, exit_code: int, said: Any, **more: Any) -> DatasetSeen:
    job = wanted_job(obj, outcome="Complete" if exit_code == 0 else "Failed")
    return DatasetSeen(obj, SERVICE, (job,), (pod_of(job, exit_code=exit_code, said=said, **more),))


def test_without_its_model_service_it_waits() -> None:
    decided = plan(DatasetSeen(dataset(), None), NOW, CONFIG)
    assert decided.children == ()
    assert conditions_of(decided.status)["Ready"] == ("False", "ModelServiceNotFound")
    assert kstatus(dataset(), decided.status) == "InProgress"


def test_the_job_of_an_import_that_went_well_goes_after_an_hour() -> None:
    """It would count against a quota of Jobs for as long as the Dataset is there."""
    obj = imported()
    job = wanted_job(obj, outcome="Complete")
    seen = DatasetSeen(obj, SERVICE, (job,), (pod_of(job, exit_code=0),))
    (ended_at,) = (one["lastTransitionTime"] for one in job["status"]["conditions"] if one["type"] == "Complete")
    at = datetime.fromisoformat(ended_at)
    early = plan(seen, at + timedelta(minutes=20), CONFIG)
    assert (early.children, early.requeue_after) == ((), 2_400)
    late = plan(seen, at + timedelta(hours=1), CONFIG)
    assert (late.children, late.requeue_after) == ((Delete(job),), None)
    gone = plan(DatasetSeen(obj, SERVICE), at + timedelta(hours=2), CONFIG)
    assert (gone.children, conditions_of(gone.status)) == ((), {"Ready": ("True", "Verified")})


def test_the_job_of_an_import_that_failed_stays() -> None:
    """It is what keeps the import from being tried again, and what a person deletes to have it so."""
    seen = ended(
        dataset(), 20, {"kind": "import", "state": "Failed", "reason": "StorageUnavailable", "message": "down"}
    )
    assert plan(seen, NOW + timedelta(days=1), CONFIG).children == ()


def test_rows_whose_model_service_is_gone_are_not_ready_and_are_imported_anew_when_it_returns() -> None:
    """They lay in its volume; the Job that stored them there must not speak for a new volume."""
    obj = imported()
    job = wanted_job(obj, outcome="Complete")
    decided = plan(DatasetSeen(obj, None, (job,)), NOW, CONFIG)
    assert decided.children == (Delete(job),)
    assert "digest" not in decided.status


def test_an_import_is_created_with_its_settings_first() -> None:
    decided = plan(DatasetSeen(dataset(), SERVICE), NOW, CONFIG)
    assert [(type(child), child.obj["kind"]) for child in decided.children] == [(Create, "ConfigMap"), (Create, "Job")]


@pytest.mark.parametrize(
    ("source", "reference"),
    [
        pytest.param({"configMap": {"name": "mail", "key": "a"}}, Reference(CONFIG_MAP, "mail"), id="config map"),
        pytest.param({"persistentVolumeClaim": {"claimName": "d", "path": "a"}}, Reference(CLAIM, "d"), id="claim"),
    ],
)
def test_a_source_that_is_missing_is_waited_for(source: Object, reference: Reference) -> None:
    obj = dataset(source=source)
    assert references(obj) == (reference,)
    decided = plan(DatasetSeen(obj, SERVICE, lookups={reference: None}), NOW, CONFIG)
    assert decided.children == ()
    assert decided.requeue_after is not None
    assert conditions_of(decided.status)["Ready"] == ("False", "SourceUnreachable")
    assert kstatus(obj, decided.status) == "InProgress"
    assert plan(DatasetSeen(obj, SERVICE, lookups={reference: {}}), NOW, CONFIG).children != ()


def test_what_the_import_found_stands_in_the_status() -> None:
    status = plan(ended(dataset(), 0, READY), NOW, CONFIG).status
    assert conditions_of(status) == {"Ready": ("True", "Verified")}
    assert status["labels"] == [
        {"name": "ham", "positives": 3, "share": 0.75},
        {"name": "spam", "positives": 1, "share": 0.25},
    ]
    assert (status["digest"], status["rows"], status["summary"]) == (DIGEST, 4, "Ready: 4 rows")
    assert status["warnings"] == READY["warnings"]


def test_a_single_row_is_told_as_one() -> None:
    status = plan(ended(dataset(), 0, READY | {"rows": 1, "labels": [["ham", 1]]}), NOW, CONFIG).status
    assert status["summary"] == "Ready: 1 row"


HUB = dataset(source={"huggingFace": {"repo": "acme/mail", "split": "train"}})


def test_the_commit_of_the_hub_stands_in_the_status_also_of_wrong_rows() -> None:
    pinned = {"revision": "0123456789abcdef0123456789abcdef01234567"}
    status = plan(ended(HUB, 0, {**READY, "source": pinned}), NOW, CONFIG).status
    assert (status["source"], status["rows"]) == (pinned, 4)
    said = {"kind": "import", "state": "Failed", "reason": "InvalidRows", "message": "1 row", "source": pinned}
    assert plan(ended(HUB, 11, said), NOW, CONFIG).status["source"] == pinned
    assert "source" not in plan(ended(dataset(), 0, READY), NOW, CONFIG).status


def test_a_pod_cannot_put_anything_else_there() -> None:
    status = plan(ended(HUB, 0, {**READY, "source": {"revision": "main"}}), NOW, CONFIG).status
    assert conditions_of(status)["Ready"] == ("False", "ImportFailed")


def test_messages_do_not_name_the_pods_folders() -> None:
    said = {
        "kind": "import",
        "state": "Failed",
        "reason": "InvalidRows",
        "message": "/source/rows-x1/a/train.csv is odd",
    }
    for obj in (
        HUB,
        dataset(source={"s3": {"uri": "s3://bucket/a"}}),
        dataset(source={"http": {"url": "https://example.com/a", "sha256": "a" * 64}}),
    ):
        assert message_of(plan(ended(obj, 11, said), NOW, CONFIG).status, "Ready") == "a/train.csv is odd"


def test_once_imported_it_stays_so_whatever_becomes_of_its_job() -> None:
    obj = imported(spec={"source": {"configMap": {"name": "gone", "key": "a"}}})
    decided = plan(DatasetSeen(obj, SERVICE, lookups={Reference(CONFIG_MAP, "gone"): None}), NOW, CONFIG)
    assert decided.children == ()
    assert conditions_of(decided.status) == {"Ready": ("True", "Verified")}
    assert decided.status["digest"] == DIGEST


FAILURES = [
    pytest.param(11, {"reason": "InvalidRows", "message": "2 rows are wrong"}, "InvalidRows", "2 rows", id="rows"),
    pytest.param(11, {"reason": "EmptyDataset", "message": "no rows"}, "EmptyDataset", "no rows", id="empty"),
    pytest.param(20, {"reason": "StorageFull", "message": "no space"}, "StorageFull", "import again", id="full"),
    pytest.param(
        10,
        {"reason": "SourceUnreachable", "message": "/source/rows.csv is not there"},
        "SourceUnreachable",
        "ConfigMap mail, key rows.csv is not there",
        id="source in the user's words",
    ),
    pytest.param(
        1, {"reason": "InternalError", "message": "oh"}, "ImportFailed", "oh", id="a reason that is none of ours"
    ),
]


@pytest.mark.parametrize(("exit_code", "said", "reason", "says"), FAILURES)
def test_an_import_that_failed_says_why(exit_code: int, said: Object, reason: str, says: str) -> None:
    seen = ended(FROM_CONFIG_MAP, exit_code, {"state": "Failed", **said})
    decided = plan(seen, NOW, CONFIG)
    assert decided.children == ()
    assert conditions_of(decided.status) == {"Ready": ("False", reason), "Stalled": ("True", reason)}
    assert says in message_of(decided.status, "Ready")
    assert kstatus(FROM_CONFIG_MAP, decided.status) == "Failed"


HINT = "; name a file, a folder or a glob such as *.jsonl.gz"
KEYS = [
    pytest.param(f"a.csv, b.csv{HINT}", "it has a.csv, b.csv; delete Job", id="others"),
    pytest.param(f"nothing that could be read{HINT}", "it has none; delete Job", id="none"),
    pytest.param("a.csv", "it has a.csv; delete Job", id="without a hint"),
]


@pytest.mark.parametrize(("there", "says"), KEYS)
def test_of_a_config_map_without_the_key_those_there_are_named(there: str, says: str) -> None:
    message = f"/source/rows.csv does not exist: /source holds {there}"
    said = {"state": "Failed", "reason": "SourceUnreachable", "message": message}
    told = message_of(plan(ended(FROM_CONFIG_MAP, 10, said), NOW, CONFIG).status, "Ready")
    assert told.startswith(f"ConfigMap mail has no key rows.csv; {says}")


def test_a_folder_of_a_volume_is_named_as_the_user_names_it() -> None:
    obj = dataset(source={"persistentVolumeClaim": {"claimName": "mail", "path": "/2026/*.csv"}})
    said = {
        "state": "Failed",
        "reason": "SourceUnreachable",
        "message": "/source/2026/*.csv does not exist: /source holds 2025/",
    }
    claim = "PersistentVolumeClaim mail, path /"
    message = message_of(plan(ended(obj, 10, said), NOW, CONFIG).status, "Ready")
    assert f"{claim}2026/*.csv does not exist: {claim} holds 2025/" in message


IN_WORDS = [
    pytest.param(
        "rows is empty; supported are JSONL", "spec.source.inline is empty; supported are JSONL", id="inline rows"
    ),
    pytest.param(
        "Base model /base/model has no config.json.",
        "Base model image docker.io/winnow/base-minilm:dev, path /model has no config.json.",
        id="the base model",
    ),
]


@pytest.mark.parametrize(("said", "told"), IN_WORDS)
def test_an_import_fails_in_the_users_words(said: str, told: str) -> None:
    failed = ended(dataset(), 10, {"state": "Failed", "reason": "InvalidConfiguration", "message": said})
    assert message_of(plan(failed, NOW, CONFIG).status, "Ready") == told


def test_advice_for_trainings_is_not_given_to_imports() -> None:
    decided = plan(ended(dataset(), 137, "", reason="OOMKilled"), NOW, CONFIG)
    assert conditions_of(decided.status)["Ready"] == ("False", "OutOfMemory")
    assert "perDeviceTrainBatchSize" not in message_of(decided.status, "Ready")


def test_problems_and_warnings_are_cut_to_what_the_crd_keeps() -> None:
    problems = [{"line": number, "message": "x" * 5_000} for number in range(50)]
    said = {"state": "Failed", "reason": "InvalidRows", "message": "m", "problems": problems, "problemCount": 900}
    status = plan(ended(dataset(), 11, said), NOW, CONFIG).status
    assert (len(status["problems"]), status["problemCount"]) == (20, 900)
    assert max(len(problem["message"]) for problem in status["problems"]) == 1_024


def test_a_failed_import_is_tried_again_when_what_it_uses_has_changed() -> None:
    """The wrong base model of a ModelService is mended: the Job that is wanted now is another one."""
    seen = ended(dataset(), 10, {"state": "Failed", "reason": "BaseModelInvalid", "message": "no tokenizer.json"})
    mended = model_service(baseModel={"image": {"reference": "docker.io/winnow/base-minilm:better", "path": "/model"}})
    decided = plan(DatasetSeen(seen.obj, mended, seen.jobs, seen.pods), NOW, CONFIG)
    assert decided.children == (Delete(seen.jobs[0]),)
    assert conditions_of(decided.status)["Ready"] == ("False", "Importing")


def test_a_job_that_is_seen_to_end_before_its_pod_is_not_judged_yet() -> None:
    """Jobs and pods come from two watches."""
    job = wanted_job(dataset(), outcome="Complete")
    running = DatasetSeen(dataset(), SERVICE, (job,), (pod_of(job, phase="Running"),))
    early = plan(running, later(5), CONFIG)
    assert (conditions_of(early.status)["Ready"][1], early.requeue_after) == ("Importing", 1)
    late = plan(running, later(60), CONFIG)
    assert conditions_of(late.status)["Ready"] == ("False", "Importing")
    assert late.children == (Delete(job),)  # its pod was deleted: the import is made again


def test_a_last_word_that_is_none_is_for_a_person() -> None:
    status = plan(ended(dataset(), 0, "Traceback: boom"), NOW, CONFIG).status
    assert conditions_of(status)["Ready"] == ("False", "ImportFailed")
    assert "delete Job" in message_of(status, "Ready")


@pytest.mark.parametrize(
    ("pod", "reason", "stuck"),
    [
        pytest.param({"waiting": ("ErrImagePull", "not found")}, "ImagePullFailed", True, id="image"),
        pytest.param(
            {"waiting": ("CreateContainerConfigError", "secret hf not found")}, "ContainerNotCreated", True, id="secret"
        ),
        pytest.param({"unschedulable": "3 nodes had taints"}, "Unschedulable", False, id="no node: it may pass"),
    ],
)
def test_an_import_that_does_not_start_says_why(pod: Any, reason: str, stuck: bool) -> None:
    job = wanted_job(dataset())
    status = plan(DatasetSeen(dataset(), SERVICE, (job,), (pod_of(job, **pod),)), NOW, CONFIG).status
    assert conditions_of(status)["Ready"] == ("False", reason)
    assert (pod.get("unschedulable") or pod["waiting"][1]) in message_of(status, "Ready")
    assert kstatus(dataset(), status) == ("Failed" if stuck else "InProgress")


def test_the_words_for_an_image_do_not_change_between_failure_and_back_off() -> None:
    """They alternate every few seconds: status must not."""
    job = wanted_job(dataset())
    words = set()
    for waiting in (
        ("ErrImagePull", "not found"),
        ("ImagePullBackOff", 'Back-off pulling image "x": ErrImagePull: not found'),
    ):
        seen = DatasetSeen(dataset(), SERVICE, (job,), (pod_of(job, waiting=waiting),))
        words.add(message_of(plan(seen, NOW, CONFIG).status, "Ready"))
    assert len(words) == 1


def test_a_refused_job_is_told() -> None:
    refusal = Refusal(Reason.API_REFUSED, "exceeded quota")
    decided = plan(DatasetSeen(dataset(), SERVICE, refusal=refusal), NOW, CONFIG)
    assert conditions_of(decided.status)["Stalled"] == ("True", "ApiRefused")


def test_news_are_told_once() -> None:
    first = plan(DatasetSeen(dataset(), None), NOW, CONFIG)
    assert [(event.type, event.reason) for event in first.events] == [("Normal", "ModelServiceNotFound")]
    told = dataset(status={"conditions": [condition("Ready", "False", "ModelServiceNotFound")]})
    assert plan(DatasetSeen(told, None), NOW, CONFIG).events == ()


UPLOAD: Object = {"upload": {"sizeBytes": 10, "sha256": "0" * 64, "fileName": "my mail.jsonl"}}
COMMAND = "kubectl winnow upload 'my mail.jsonl' --model-service spam --name rows -n ml"


def with_pod(obj: Any, *, ready: bool, **more: Any) -> DatasetSeen:
    job = wanted_job(obj)
    pod = pod_of(job, **more)
    pod["status"]["conditions"] = [{"type": "Ready", "status": str(ready)}]
    return DatasetSeen(obj, SERVICE, (job,), (pod,))


def test_an_import_that_waits_for_its_file_says_how_to_send_it() -> None:
    obj = dataset(source=UPLOAD)
    for seen in (
        DatasetSeen(obj, SERVICE, (wanted_job(obj),)),
        with_pod(obj, ready=False, phase="Running"),
        with_pod(obj, ready=False, exit_code=143),
    ):
        status = plan(seen, NOW, CONFIG).status
        assert conditions_of(status)["Ready"] == ("False", "AwaitingUpload")
        assert message_of(status, "Ready") == f"The import waits for the file: {COMMAND}"
        assert kstatus(obj, status) == "InProgress"


def test_an_import_that_has_its_file_is_one_like_any_other() -> None:
    obj = dataset(source=UPLOAD)
    status = plan(with_pod(obj, ready=True, phase="Running"), NOW, CONFIG).status
    assert conditions_of(status)["Ready"] == ("False", "Importing")
    assert message_of(status, "Ready") == "The rows are being read and checked"


@pytest.mark.parametrize(
    ("exit_code", "reason"), [(10, "UploadAbandoned"), (10, "StorageFull"), (20, "StorageUnavailable")]
)
def test_an_upload_that_failed_for_no_fault_of_its_rows_says_how_to_try_again(exit_code: int, reason: str) -> None:
    said = {"kind": "import", "state": "Failed", "reason": reason, "message": "Something passed"}
    status = plan(ended(dataset(source=UPLOAD), exit_code, said), NOW, CONFIG).status
    assert conditions_of(status)["Ready"] == ("False", reason)
    assert message_of(status, "Ready") == f"Something passed; to try again: {COMMAND}"


def test_an_uploaded_file_is_called_as_its_owner_calls_it() -> None:
    said = {
        "kind": "import",
        "state": "Failed",
        "reason": "EmptyDataset",
        "message": "/storage/uploads/rows-0a1b2c3d/rows has no rows",
    }
    status = plan(ended(dataset(source=UPLOAD), 11, said), NOW, CONFIG).status
    assert message_of(status, "Ready") == "my mail.jsonl has no rows"


def test_rows_in_the_volume_of_an_earlier_model_service_are_imported_again() -> None:
    """Deleted and applied again while no operator ran: nobody saw the volume go."""
    stored = imported()
    since = NOW.replace(hour=11, minute=30)

    def made(at: datetime, **spec: Any) -> api.ModelService:
        found = model_service(**spec)
        return found.model_copy(update={"metadata": found.metadata.model_copy(update={"creation_timestamp": at})})

    same = plan(DatasetSeen(stored, made(since - timedelta(hours=1))), NOW, CONFIG)
    assert conditions_of(same.status)["Ready"] == ("True", "Verified")
    clocks_differ = plan(DatasetSeen(stored, made(since + timedelta(minutes=2))), NOW, CONFIG)
    assert conditions_of(clocks_differ.status)["Ready"] == ("True", "Verified")
    anew = plan(DatasetSeen(stored, made(since + timedelta(minutes=6))), NOW, CONFIG)
    assert conditions_of(anew.status)["Ready"] == ("False", "Importing")
    assert "digest" not in anew.status
    brought = {"storage": {"persistentVolumeClaim": {"claimName": "mine"}}}
    kept = plan(DatasetSeen(stored, made(since + timedelta(minutes=6), **brought)), NOW, CONFIG)
    assert conditions_of(kept.status)["Ready"] == ("True", "Verified")
