"""TrainingJob: what plan() makes of what it sees."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml
from operator_scene import (
    CONFIG,
    DIGEST,
    NOW,
    OTHER_DIGEST,
    beside,
    completed,
    condition,
    conditions_of,
    deployment,
    imported,
    job_of,
    kstatus,
    later,
    message_of,
    model_service,
    pod_of,
    seen_again,
    training_job,
    with_metadata,
)

from winnow_operator import pods, report
from winnow_operator.build.training_job import adapter_base
from winnow_operator.kinds.training_job import plan
from winnow_operator.observed import TrainingJobSeen
from winnow_operator.plan import Create, Delete, Hold
from winnow_operator.resources import IN_USE, Object


def ready(obj: Any = None, **more: Any) -> TrainingJobSeen:
    """Everything that a job needs is there."""
    return TrainingJobSeen(
        obj or training_job(), model_service(), with_metadata(imported(), finalizers=[IN_USE]), **more
    )


def running(obj: Any = None, **pod: Any) -> TrainingJobSeen:
    obj = obj or training_job()
    job = job_of(obj)
    return ready(obj, jobs=(job,), pods=(pod_of(job, **{"phase": "Running", **pod}),))


def ended(exit_code: int, said: Any = "", reason: str = "", obj: Any = None, job_reason: str = "") -> TrainingJobSeen:
    obj = obj or training_job()
    job = job_of(obj, outcome="Complete" if exit_code == 0 else "Failed", reason=job_reason)
    return ready(obj, jobs=(job,), pods=(pod_of(job, exit_code=exit_code, said=said, reason=reason),))


def told(**fields: Any) -> Object:
    return {"kind": "train", "state": "Complete", "primaryMetric": "f1", "higherIsBetter": True, **fields}


def epoch(number: int, f1: float) -> Object:
    return {"epoch": number, "checkpoint": f"epoch-{number}", "trainLoss": 0.5, "metrics": {"f1": f1, "roc_auc": None}}


def checkpoint(number: int) -> Object:
    return {"name": f"epoch-{number}", "epoch": number, "digest": f"sha256:{number:064x}", "sizeBytes": 1_000}


def test_an_accepted_job_starts_with_the_rows_of_its_datasets() -> None:
    seen = replace(ready(training_job(testDataset="test")), test=imported("test", digest=OTHER_DIGEST))
    decided = plan(seen, NOW, CONFIG)
    assert [type(child) for child in decided.children] == [Hold, Hold, Create, Create]
    settings, job = (child.obj for child in decided.children[2:])
    manifest = yaml.safe_load(settings["data"]["job.yaml"])["spec"]
    assert manifest["trainingDataset"].endswith(DIGEST.removeprefix("sha256:"))
    assert manifest["testDataset"].endswith(OTHER_DIGEST.removeprefix("sha256:"))
    assert job["spec"]["backoffLimit"] == 3


def test_a_run_that_goes_on_keeps_the_rows_that_it_began_with() -> None:
    """The dataset was deleted and made anew with other rows while the job was suspended."""
    begun = {
        "startTime": "2026-11-23T11:00:00Z",
        "datasets": {"training": {"name": "rows", "digest": OTHER_DIGEST}},
    }
    decided = plan(ready(training_job(status=begun)), NOW, CONFIG)
    settings, _ = (child.obj for child in decided.children)  # and no hold: these are other rows by now
    manifest = yaml.safe_load(settings["data"]["job.yaml"])["spec"]
    assert manifest["trainingDataset"].endswith(OTHER_DIGEST.removeprefix("sha256:"))
    assert decided.status["datasets"]["training"]["digest"] == OTHER_DIGEST


def test_a_job_that_has_not_begun_uses_the_rows_as_they_are_now() -> None:
    waited = {"datasets": {"training": {"name": "rows", "digest": OTHER_DIGEST}}}
    decided = plan(ready(training_job(status=waited)), NOW, CONFIG)
    assert decided.status["datasets"]["training"]["digest"] == DIGEST


def test_a_job_that_exists_is_never_created_again() -> None:
    job = job_of(training_job())
    assert plan(ready(jobs=(job,)), NOW, CONFIG).children == ()
    assert plan(running(), NOW, CONFIG).children == ()


def test_rows_that_were_changed_are_named_as_the_user_names_them() -> None:
    obj = training_job(status={"datasets": {"training": {"name": "rows", "digest": DIGEST}}})
    message = f"/storage/datasets/{'a' * 64}/rows.parquet cannot be read: no footer; import the rows again"
    status = plan(
        ended(11, {"state": "Failed", "reason": "DataInvalid", "message": message}, obj=obj), NOW, CONFIG
    ).status
    assert conditions_of(status)["Failed"] == ("True", "DataInvalid")
    assert message_of(status, "Failed").startswith(f"Dataset rows ({DIGEST}), rows.parquet cannot be read: no")


def test_a_base_model_is_named_as_the_user_names_it() -> None:
    said = {"state": "Failed", "reason": "InvalidConfiguration", "message": "Base model /base/rows has no config.json."}
    image = {"reference": "docker.io/winnow/base:1", "path": "/rows"}
    status = plan(ended(10, said, obj=training_job(baseModel={"image": image})), NOW, CONFIG).status
    told = "Base model image docker.io/winnow/base:1, path /rows has no config.json."
    assert message_of(status, "Failed") == told
    obj = training_job(baseModel={"persistentVolumeClaim": {"claimName": "models", "path": "/"}})
    said["message"] = "Base model /base has no config.json; docker.io/base is not /base-2."
    status = plan(ended(10, said, obj=obj), NOW, CONFIG).status
    told = "Base model PersistentVolumeClaim models, path / has no config.json; docker.io/base is not /base-2."
    assert message_of(status, "Failed") == told


def test_while_it_trains_it_is_neither_reconciling_nor_stalled() -> None:
    """kstatus would hold up a GitOps pipeline for hours otherwise; for a batch/v1 Job it says Current as soon as that started."""
    status = plan(running(), NOW, CONFIG).status
    assert conditions_of(status)["Running"] == ("True", "Training")
    assert kstatus(training_job(), status) == "Current"


@pytest.mark.parametrize(
    ("pod", "reason", "state"),
    [
        pytest.param({"waiting": ("ImagePullBackOff", "no such image")}, "ImagePullFailed", "Failed", id="image"),
        pytest.param({"unschedulable": "0/3 nodes have nvidia.com/gpu"}, "Unschedulable", "InProgress", id="no GPU"),
        pytest.param({}, "Starting", "InProgress", id="it takes its time"),
        pytest.param(
            {"exit_code": 20, "said": {"state": "Failed", "message": "no route to host"}},
            "Restarting",
            "InProgress",
            id="it will be tried again",
        ),
        pytest.param(
            {"exit_code": 12}, "Training", "Current", id="it has ended for good, the Job just does not say so yet"
        ),
        pytest.param({"exit_code": 0}, "Training", "Current", id="it is done, the Job just does not say so yet"),
    ],
)
def test_a_pod_that_does_not_run_says_why(pod: Any, reason: str, state: str) -> None:
    job = job_of(training_job())
    status = plan(ready(jobs=(job,), pods=(pod_of(job, **pod),)), NOW, CONFIG).status
    assert conditions_of(status)["Running"][1] == reason
    assert kstatus(training_job(), status) == state


def test_a_queue_that_holds_the_job_back_is_told() -> None:
    job = job_of(training_job(), suspend=True)
    assert conditions_of(plan(ready(jobs=(job,)), NOW, CONFIG).status)["Running"] == ("False", "Queued")


def test_a_run_that_its_queue_stops_waits_and_goes_on_without_counting_as_failed() -> None:
    """As Kueue does for a job of higher priority: it suspends the batch Job, whose pod ends, and later lets it go on."""
    job = running()
    begun = plan(replace(job, pulled=PULLED), NOW, CONFIG).status
    obj = seen_again(job.obj, begun)
    (batch,) = job.jobs
    stopped = {**batch, "spec": {**batch["spec"], "suspend": True}}
    waits = plan(replace(job, obj=obj, jobs=(stopped,), pods=(), pulled=PULLED), later(60), CONFIG)
    assert (conditions_of(waits.status)["Running"], conditions_of(waits.status)["Failed"]) == (
        ("False", "Queued"),
        ("False", "NotFailed"),
    )
    assert waits.children == ()
    assert waits.status["progress"]["percent"] == 40.0
    again = replace(job, obj=seen_again(job.obj, waits.status), pulled=PULLED)
    goes_on = plan(again, later(120), CONFIG)
    assert conditions_of(goes_on.status)["Running"] == ("True", "Training")
    assert goes_on.status["startTime"] == begun["startTime"]


def test_a_warning_of_full_storage_goes_once_there_is_room_and_others_stay() -> None:
    few = {"code": "FewExamples", "message": "spam has 3 rows"}
    full = {"code": "StorageFull", "message": "storage is full, and epoch-1 waits"}
    told = [report.Advice(**few), report.Advice(**full)]
    waits = plan(replace(running(), pulled=PULLED.model_copy(update={"warnings": told})), NOW, CONFIG).status
    assert waits["datasets"]["warnings"] == [few, full]
    unheard = replace(running(), obj=seen_again(running().obj, waits))
    assert plan(unheard, NOW, CONFIG).status["datasets"]["warnings"] == [few, full]
    goes_on = plan(replace(unheard, pulled=PULLED), NOW, CONFIG).status
    assert goes_on["datasets"]["warnings"] == [few]


def test_a_pod_that_has_to_wait_before_it_trains_is_quoted() -> None:
    said = "base model hf://meta-llama/Llama-3.1-8B is downloaded: 3.2 GiB of 15.0 GiB"
    waits = plan(replace(running(), pulled=PULLED.model_copy(update={"message": said})), NOW, CONFIG).status
    (told,) = [one["message"] for one in waits["conditions"] if one["type"] == "Running"]
    assert told.endswith(f": {said}") and told.startswith("Pod ")
    (trains,) = [
        one["message"]
        for one in plan(replace(running(), pulled=PULLED), NOW, CONFIG).status["conditions"]
        if one["type"] == "Running"
    ]
    assert trains.endswith(" trains")


def test_the_final_message_gives_the_result() -> None:
    said = told(
        bestCheckpoint="epoch-2",
        overlap=3,
        epochs=[epoch(1, 0.9), epoch(2, 0.95)],
        checkpoints=[checkpoint(1), checkpoint(2)],
    )
    status = plan(ended(0, said), NOW, CONFIG).status
    assert conditions_of(status)["Complete"] == ("True", "TrainingComplete")
    assert status["completionTime"] == "2026-11-23T12:00:00Z"
    assert status["bestMetric"] == "f1 0.9500"
    assert status["epochs"][0]["metrics"] == {"f1": 0.9}  # an undefined metric is left out
    assert [(found["name"], found["best"]) for found in status["checkpoints"]] == [
        ("epoch-1", False),
        ("epoch-2", True),
    ]
    assert status["datasets"]["overlap"] == 3
    assert status["progress"]["percent"] == 100.0
    assert kstatus(training_job(), status) == "Current"


def test_validation_rows_are_told_beside_the_test_rows_and_choose() -> None:
    rows = {"trainingRows": 70, "testRows": 20, "validationRows": 10, "overlap": 3, "validationOverlap": 1}
    warning = {"code": "MissingLabels", "message": 'no test row has the label "c"'}
    said = told(
        bestCheckpoint="epoch-1",
        selectedOn="Validation",
        **rows,
        warnings=[warning],
        epochs=[
            {"epoch": n, "checkpoint": f"epoch-{n}", "metrics": {"f1": 0.5}, "validationMetrics": {"f1": 1 - n / 10}}
            for n in (1, 2)
        ],
        checkpoints=[checkpoint(1), checkpoint(2)],
    )
    obj = training_job(validationDataset="dev")
    seen = replace(ended(0, said, obj=obj), validation=imported("dev", digest=OTHER_DIGEST))
    status = plan(seen, NOW, CONFIG).status
    assert (status["selectedOn"], status["bestMetric"]) == ("Validation", "f1 0.9000 on validation rows")
    assert (status["epochs"][1]["metrics"], status["epochs"][1]["validationMetrics"]) == ({"f1": 0.5}, {"f1": 0.8})
    assert status["checkpoints"][0]["validationMetrics"] == {"f1": 0.9}
    assert status["datasets"]["validation"] == {"name": "dev", "digest": OTHER_DIGEST}
    assert {name: status["datasets"][name] for name in rows} == rows
    assert status["datasets"]["warnings"] == [warning]
    later_on = plan(replace(seen, obj=seen_again(obj, status), pods=()), later(60), CONFIG).status
    assert later_on["datasets"] == status["datasets"]
    assert later_on["checkpoints"] == status["checkpoints"]


def test_validation_rows_reach_the_trainer() -> None:
    seen = replace(ready(training_job(validationDataset="dev")), validation=imported("dev", digest=OTHER_DIGEST))
    *held, settings, _ = plan(seen, NOW, CONFIG).children
    assert [child.obj["metadata"]["name"] for child in held][-1] == "dev"
    manifest = yaml.safe_load(settings.obj["data"]["job.yaml"])["spec"]
    assert manifest["validationDataset"].endswith(OTHER_DIGEST.removeprefix("sha256:"))


def test_what_was_told_before_is_not_forgotten() -> None:
    """The final message drops the metrics of older epochs when it does not fit."""
    known = training_job(
        status={"epochs": [{"epoch": 1, "checkpoint": "epoch-1", "metrics": {"f1": 0.9, "accuracy": 0.8}}]}
    )
    said = told(epochs=[{"epoch": 1, "checkpoint": "epoch-1", "metrics": {"f1": 0.91}}], checkpoints=[checkpoint(1)])
    assert plan(ended(0, said, obj=known), NOW, CONFIG).status["epochs"][0]["metrics"] == {"f1": 0.91, "accuracy": 0.8}


def test_what_the_final_message_left_out_is_taken_from_progress() -> None:
    """Pulled right before the end, it is in no status yet."""
    whole = [{**epoch(n, 0.9), "metrics": {"f1": 0.9, "accuracy": n / 10}} for n in (1, 2)]
    pulled = report.Training.model_validate({"state": "Running", "epochs": whole, "checkpoints": [checkpoint(1)]})
    said = told(epochs=[epoch(2, 0.91), epoch(3, 0.92)], checkpoints=[checkpoint(3)], bestCheckpoint="epoch-3")
    status = plan(replace(ended(0, said), pulled=pulled), NOW, CONFIG).status
    assert [each["metrics"] for each in status["epochs"]] == [
        {"f1": 0.9, "accuracy": 0.1},
        {"f1": 0.91, "accuracy": 0.2},
        {"f1": 0.92},
    ]
    assert [each["name"] for each in status["checkpoints"]] == ["epoch-1", "epoch-3"]


def test_a_pod_that_is_gone_has_still_said_its_last_word() -> None:
    said = told(bestCheckpoint="epoch-2", epochs=[epoch(1, 0.9), epoch(2, 0.95)], checkpoints=[checkpoint(2)])
    there = ended(0, said)
    stale = report.Training.model_validate({"state": "Running", "epochs": [epoch(1, 0.9)]})
    gone = replace(there, pods=(), departed=there.pods, pulled=stale)
    assert plan(gone, NOW, CONFIG).status == plan(there, NOW, CONFIG).status


FAILURES = [
    pytest.param(
        12,
        {"reason": "OutOfMemory", "message": "CUDA out of memory"},
        "",
        "OutOfMemory",
        "perDeviceTrainBatchSize",
        id="the trainer ran out of memory",
    ),
    pytest.param(
        137,
        "",
        "OOMKilled",
        "OutOfMemory",
        "used more memory than it may and was killed (exit code 137); a smaller parameters.perDeviceTrainBatchSize or"
        " maxSeqLength, or a higher resources.limits.memory, helps",
        id="the kernel ended it",
    ),
    pytest.param(137, "", "Error", "TooManyRestarts", "deleted by force", id="killed again and again, by whomever"),
    pytest.param(
        13, {"reason": "Diverged", "message": "loss is NaN at step 7"}, "", "Diverged", "learningRate", id="diverged"
    ),
    pytest.param(
        10,
        {"reason": "BaseModelInvalid", "message": "no config.json"},
        "",
        "BaseModelInvalid",
        "config.json",
        id="base model",
    ),
    pytest.param(10, "", "", "InvalidConfiguration", "exit code 10", id="no message, but a code of the contract"),
    pytest.param(
        20, {"reason": "StorageFull", "message": "no space"}, "", "StorageFull", "no space", id="storage, tried in vain"
    ),
    pytest.param(1, "Traceback: boom", "", "TooManyRestarts", "boom", id="a crash, with its last lines"),
]


@pytest.mark.parametrize(("exit_code", "said", "kubelet", "reason", "says"), FAILURES)
def test_a_failed_training_says_why(exit_code: int, said: Any, kubelet: str, reason: str, says: str) -> None:
    message = {"state": "Failed", **said} if isinstance(said, dict) else said
    status = plan(ended(exit_code, message, kubelet), NOW, CONFIG).status
    assert conditions_of(status)["Failed"] == ("True", reason)
    assert says in status["failure"]["message"]
    assert (status["failure"]["reason"], status["failure"]["exitCode"]) == (reason, exit_code)
    assert status["summary"] == f"Failed: {reason}"
    assert kstatus(training_job(), status) == "Failed"


def test_a_kill_for_memory_ends_the_run_though_the_job_would_try_again() -> None:
    obj = training_job()
    job = job_of(obj)
    first = pod_of(job, exit_code=137, reason="OOMKilled")
    decided = plan(ready(obj, jobs=(job,), pods=(first,)), NOW, CONFIG)
    assert (conditions_of(decided.status)["Failed"], decided.children) == (("True", "OutOfMemory"), ())
    assert decided.status["failure"]["exitCode"] == 137
    recorded = ready(seen_again(obj, decided.status), jobs=(job,), pods=(first,))
    assert plan(recorded, NOW, CONFIG).children == (Delete(job),)  # only once the end is recorded


@pytest.mark.parametrize(
    ("pod", "says"),
    [
        pytest.param({"exit_code": 137, "reason": "Error"}, "was killed", id="by force, or with its node"),
        pytest.param(
            {"exit_code": 137, "reason": "OOMKilled", "disrupted": True}, "memory", id="a node in need of memory"
        ),
    ],
)
def test_any_other_kill_is_a_restart(pod: Any, says: str) -> None:
    obj = training_job()
    job = job_of(obj)
    status = plan(ready(obj, jobs=(job,), pods=(pod_of(job, **pod),)), NOW, CONFIG).status
    assert conditions_of(status)["Running"] == ("False", "Restarting")
    assert says in message_of(status, "Running")


def test_what_a_container_beside_ours_did_is_not_taken_for_the_training() -> None:
    done = ended(0, told(bestCheckpoint="epoch-2"))
    beside(done.pods[0], state={"terminated": {"exitCode": 0, "reason": "Completed"}})
    assert "epoch-2" in message_of(plan(done, NOW, CONFIG).status, "Complete")
    goes_on = running()
    beside(goes_on.pods[0], state={"terminated": {"exitCode": 137, "reason": "OOMKilled"}})
    assert conditions_of(plan(goes_on, NOW, CONFIG).status)["Running"] == ("True", "Training")


def test_a_pod_that_others_keep_running_says_so() -> None:
    done = running(exit_code=0)
    beside(done.pods[0], state={"running": {}})["status"]["phase"] = "Running"
    assert message_of(plan(done, NOW, CONFIG).status, "Running").endswith("other containers keep the pod running")


def test_a_job_whose_pods_are_gone_still_fails_in_words() -> None:
    job = job_of(training_job(), outcome="Failed", reason="BackoffLimitExceeded", ended=NOW)
    assert plan(ready(jobs=(job,)), later(5), CONFIG).requeue_after == 1  # the pod may come yet
    status = plan(ready(jobs=(job,)), later(60), CONFIG).status
    assert conditions_of(status)["Failed"] == ("True", "JobFailed")
    assert message_of(status, "Failed") == "The pod is gone and left no message"
    job["status"]["conditions"][0]["message"] = "Job has reached the specified backoff limit"
    status = plan(ready(jobs=(job,)), later(60), CONFIG).status
    assert message_of(status, "Failed") == "Job has reached the specified backoff limit"


def test_without_a_last_word_what_was_pulled_counts() -> None:
    job = job_of(training_job(), outcome="Complete", ended=NOW)
    pulled = report.Training.model_validate(told(state="Running", bestCheckpoint="epoch-1", epochs=[epoch(1, 0.9)]))
    status = plan(ready(jobs=(job,), pulled=pulled), later(60), CONFIG).status
    assert (conditions_of(status)["Complete"][0], status["bestCheckpoint"]) == ("True", "epoch-1")
    assert [one["metrics"]["f1"] for one in status["epochs"]] == [0.9]


def test_a_run_over_its_deadline_is_recorded_before_it_is_ended() -> None:
    """A crash between the two must not start it anew."""
    obj = training_job(activeDeadlineSeconds=600)
    over = plan(running(obj), NOW, CONFIG)  # started twenty minutes ago
    assert over.children == ()
    assert conditions_of(over.status)["Failed"] == ("True", "DeadlineExceeded")
    recorded = training_job(activeDeadlineSeconds=600, status=over.status)
    seen = running(recorded)
    assert plan(seen, NOW, CONFIG).children == (Delete(seen.jobs[0]),)


def test_a_deadline_ahead_is_looked_at_again_in_time() -> None:
    assert plan(running(training_job(activeDeadlineSeconds=1_500)), NOW, CONFIG).requeue_after == 300


def test_suspending_deletes_the_job_once_and_resuming_waits_until_it_is_gone() -> None:
    seen = running(training_job(suspend=True))
    stopping = plan(seen, NOW, CONFIG)
    assert stopping.children == (Delete(seen.jobs[0]),)
    assert conditions_of(stopping.status)["Suspended"] == ("True", "Stopping")
    gone = plan(replace(seen, training=None), NOW, CONFIG).status
    assert conditions_of(gone)["Accepted"] == ("True", "Accepted"), "it was let through when its Job was made"
    going = {**seen.jobs[0], "metadata": {**seen.jobs[0]["metadata"], "deletionTimestamp": "2026-11-23T12:00:00Z"}}
    assert plan(replace(seen, jobs=(going,)), NOW, CONFIG).children == ()
    resumed = plan(replace(seen, obj=training_job(), jobs=(going,)), NOW, CONFIG)
    assert resumed.children == ()
    assert conditions_of(resumed.status)["Running"] == ("False", "Stopping")


def test_a_pod_that_is_told_to_go_is_awaited_and_may_have_lost_its_node() -> None:
    """Of a node that was lost it is never gone, since no kubelet says so, and the Job makes no other one before."""
    seen = running()
    (pod,) = seen.pods
    lost = replace(seen, pods=({**pod, "metadata": {**pod["metadata"], "deletionTimestamp": "2026-11-23T12:00:00Z"}},))
    force = f"If its node is gone for good: kubectl delete pod {pod['metadata']['name']} -n ml --force"
    told = plan(lost, NOW, CONFIG).status
    assert conditions_of(told)["Running"] == ("False", "Stopping")
    assert force in message_of(told, "Running")
    suspended = plan(replace(lost, obj=training_job(suspend=True)), NOW, CONFIG).status
    assert force in message_of(suspended, "Suspended")
    ended = {**pod_of(seen.jobs[0], exit_code=143), "metadata": lost.pods[0]["metadata"]}
    assert conditions_of(plan(replace(seen, pods=(ended,)), NOW, CONFIG).status)["Running"] == ("False", "Restarting")


def test_a_suspended_job_is_at_rest() -> None:
    status = plan(ready(training_job(suspend=True)), NOW, CONFIG).status
    assert conditions_of(status)["Suspended"] == ("True", "Suspended")
    assert kstatus(training_job(), status) == "Current"


def test_a_suspended_job_without_its_dataset_says_so_before_it_is_to_go_on() -> None:
    status = plan(replace(ready(training_job(suspend=True)), training=None), NOW, CONFIG).status
    assert conditions_of(status)["Accepted"] == ("False", "DatasetNotFound")
    assert conditions_of(status)["Suspended"] == ("True", "Suspended")


def test_a_job_that_stopped_early_is_complete_and_tells_how_far_it_came() -> None:
    words = "Stopped early after epoch 1 of 4: f1 on the validation rows did not get better. epoch-1 is the best of 1"
    said = told(reason="StoppedEarly", message=words, bestCheckpoint="epoch-1", epochs=[epoch(1, 0.9)])
    obj = training_job(
        status={"progress": {"percent": 25.0, "epoch": 1, "totalEpochs": 4, "step": 9, "totalSteps": 40}}
    )
    status = plan(ended(0, said, obj=obj), NOW, CONFIG).status
    assert conditions_of(status)["Complete"] == ("True", "StoppedEarly")
    assert (message_of(status, "Complete"), status["summary"]) == (words, "Complete")
    assert {name: status["progress"][name] for name in ("percent", "epoch", "totalEpochs", "step", "totalSteps")} == {
        "percent": 100.0,
        "epoch": 1,
        "totalEpochs": 4,
        "step": 10,
        "totalSteps": 40,
    }


ENDS: list[Any] = [
    pytest.param({}, 3, id="all epochs"),
    pytest.param({"reason": "StoppedEarly", "message": "Stopped early after epoch 2 of 3"}, 2, id="stopped early"),
]


@pytest.mark.parametrize(("how", "reached"), ENDS)
def test_a_job_that_ended_before_anybody_asked_tells_its_epochs(how: Object, reached: int) -> None:
    obj = training_job(parameters={"numTrainEpochs": 3})
    said = told(epochs=[epoch(number, 0.9) for number in range(1, reached + 1)], **how)
    progress = plan(ended(0, said, obj=obj), NOW, CONFIG).status["progress"]
    assert progress == {"percent": 100.0, "epoch": reached, "totalEpochs": 3, "updatedAt": "2026-11-23T12:00:00Z"}


def test_a_job_that_ended_while_it_was_being_suspended_has_ended() -> None:
    seen = ended(0, told(checkpoints=[checkpoint(1)]), obj=training_job(suspend=True))
    assert conditions_of(plan(seen, NOW, CONFIG).status)["Complete"] == ("True", "TrainingComplete")


def test_a_recorded_end_outlives_job_and_dataset() -> None:
    obj = completed()
    decided = plan(TrainingJobSeen(obj, None), NOW, CONFIG)
    assert decided.children == ()
    assert decided.status["bestCheckpoint"] == "epoch-2"
    assert conditions_of(decided.status)["Complete"] == ("True", "TrainingComplete")


def test_after_its_time_to_live_the_job_is_cleared_away_and_the_result_stays() -> None:
    obj = completed(spec={"ttlSecondsAfterFinished": 900})  # ended ten minutes ago
    job = job_of(obj, outcome="Complete")
    early = plan(TrainingJobSeen(obj, model_service(), jobs=(job,)), NOW, CONFIG)
    assert (early.children, early.requeue_after) == ((), 300)
    late = plan(TrainingJobSeen(obj, model_service(), jobs=(job,)), later(301), CONFIG)
    assert late.children == (Delete(job),)
    assert late.status["checkpoints"] == early.status["checkpoints"]


@pytest.mark.parametrize("ttl", [{}, {"ttlSecondsAfterFinished": 900}], ids=["for good", "for a while"])
def test_the_job_of_an_ended_training_does_not_keep_a_volume_that_is_being_deleted(ttl: Object) -> None:
    obj = completed(spec=ttl)
    job = job_of(obj, outcome="Complete")
    decided = plan(TrainingJobSeen(obj, model_service(), jobs=(job,), storage_leaving=True), NOW, CONFIG)
    assert decided.children == (Delete(job),)


def test_who_serves_a_checkpoint_is_told() -> None:
    live = deployment(status={"live": {"trainingJob": "v1", "checkpoint": "epoch-2", "digest": OTHER_DIGEST}})
    decided = plan(TrainingJobSeen(completed(), model_service(), deployments=(live,)), NOW, CONFIG)
    assert [found.get("deployedBy") for found in decided.status["checkpoints"]] == [None, ["web"]]


PULLED = report.Training(state="Running", percent=40.0, epoch=2, total_epochs=5, eta_seconds=200, loss=0.3)


def test_progress_is_told_with_an_estimate_for_people() -> None:
    progress = plan(replace(running(), pulled=PULLED), NOW, CONFIG).status["progress"]
    assert progress == {
        "percent": 40.0,
        "epoch": 2,
        "totalEpochs": 5,
        "etaSeconds": 200,
        "eta": "3m20s",
        "loss": 0.3,
        "updatedAt": "2026-11-23T12:00:00Z",
    }


@pytest.mark.parametrize(
    ("change", "seconds", "written"),
    [
        pytest.param({"percent": 40.4}, 15, False, id="half a percent can wait"),
        pytest.param({"percent": 41.0}, 15, True, id="a percent is news"),
        pytest.param({"percent": 38.0}, 15, True, id="and so is one that was lost: it went on from a resume point"),
        pytest.param({"percent": 40.4}, 30, True, id="after half a minute anything is"),
        pytest.param({"epoch": 3}, 1, True, id="a new epoch always"),
        pytest.param({}, 3_600, False, id="the same is never"),
    ],
)
def test_progress_is_written_when_it_moved(change: Any, seconds: float, written: bool) -> None:
    first = plan(replace(running(), pulled=PULLED), NOW, CONFIG).status
    again = replace(running(training_job(status=first)), pulled=PULLED.model_copy(update=change))
    second = plan(again, later(seconds), CONFIG).status
    assert (second["progress"] != first["progress"]) is written


def test_without_news_recorded_progress_stays() -> None:
    """The operator was restarted: what it pulled before is in status only."""
    recorded = {"percent": 40.0, "epoch": 2, "totalEpochs": 5, "updatedAt": "2026-11-23T11:59:00Z"}
    status = plan(running(training_job(status={"progress": recorded})), NOW, CONFIG).status
    assert status["progress"] == recorded
    assert status["summary"] == "Running: epoch 2/5"


def test_each_turning_point_is_told_once() -> None:
    first = plan(ready(), NOW, CONFIG)
    assert [event.reason for event in first.events] == ["Starting"]
    again = running(training_job(status=plan(running(), NOW, CONFIG).status))
    assert plan(again, NOW, CONFIG).events == ()
    failed = plan(ended(13), NOW, CONFIG)
    assert [(event.type, event.reason) for event in failed.events] == [("Warning", "Diverged")]


def test_a_change_after_the_end_is_observed() -> None:
    obj = completed(conditions=[condition("Complete", "True", "TrainingComplete")], observedGeneration=1)
    changed = obj.model_copy(update={"metadata": obj.metadata.model_copy(update={"generation": 2})})
    status = plan(TrainingJobSeen(changed, model_service()), NOW, CONFIG).status
    assert status["observedGeneration"] == 2
    assert message_of(status, "Complete") == ""


def together(*parts: Object, outcome: str = "") -> TrainingJobSeen:
    """Pods of two nodes, each as the arguments of pod_of."""
    obj = training_job(nodes=2)
    job = job_of(obj, outcome=outcome)
    return ready(obj, jobs=(job,), pods=tuple(pod_of(job, number=n, **pod) for n, pod in enumerate(parts, 1)))


def test_several_pods_meet_at_a_service_that_is_there_before_them() -> None:
    decided = plan(ready(training_job(nodes=2)), NOW, CONFIG)
    meeting, settings, job = (child.obj for child in decided.children if isinstance(child, Create))
    assert (meeting["kind"], meeting["spec"]["clusterIP"]) == ("Service", "None")
    assert yaml.safe_load(settings["data"]["job.yaml"])["spec"]["nodes"] == 2
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[command.index("--rendezvous") + 1] == f"{meeting['metadata']['name']}:29400"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2


@pytest.mark.parametrize(
    ("parts", "reason", "says"),
    [
        pytest.param([{"index": 0, "phase": "Running"}], "Starting", "1 of 2 pods run", id="one is not there"),
        pytest.param(
            [{"index": 0, "phase": "Running"}, {"index": 1, "unschedulable": "0/1 nodes"}],
            "Unschedulable",
            "0/1 nodes",
            id="one finds no node",
        ),
        pytest.param([{"index": n, "phase": "Running"} for n in (0, 1)], "Training", "2 pods train", id="both run"),
        pytest.param(
            [
                {"index": 0, "exit_code": 21},
                {"index": 1, "exit_code": 20},
                {"index": 0, "phase": "Running"},
                {"index": 1, "phase": "Running"},
            ],
            "Training",
            "2 pods train",
            id="both run again",
        ),
    ],
)
def test_several_pods_train_when_all_of_them_run(parts: list[Object], reason: str, says: str) -> None:
    status = plan(together(*parts), NOW, CONFIG).status
    assert conditions_of(status)["Running"][1] == reason
    assert says in message_of(status, "Running")
    assert "all 2 pods have to run on one node" in message_of(status, "Accepted")


def test_of_several_pods_the_one_that_failed_by_itself_says_why() -> None:
    parts = [
        {"index": 1, "exit_code": 12, "said": {"state": "Failed", "reason": "OutOfMemory", "message": "Too much"}},
        {"index": 0, "exit_code": 21, "said": {"state": "Failed", "reason": "PeerLost", "message": "Another"}},
    ]
    status = plan(together(*parts, outcome="Failed"), NOW, CONFIG).status
    assert (status["failure"]["reason"], status["failure"]["exitCode"]) == ("OutOfMemory", 12)


def test_a_job_of_several_pods_is_done_when_the_first_is_and_tells_what_that_told() -> None:
    parts = [
        {"index": 1, "exit_code": 20, "said": {"state": "Failed", "reason": "StorageUnavailable", "message": "Away"}},
        {"index": 0, "exit_code": 0, "said": told(bestCheckpoint="epoch-1", epochs=[epoch(1, 0.9)])},
        {"index": 1, "exit_code": 143, "said": {"state": "Stopped", "reason": "Stopped", "message": "Stopped"}},
    ]
    status = plan(together(*parts, outcome="Complete"), NOW, CONFIG).status
    assert conditions_of(status)["Complete"] == ("True", "TrainingComplete")
    assert status["bestCheckpoint"] == "epoch-1"


def test_progress_is_pulled_from_the_first_pod() -> None:
    seen = together({"index": 0, "phase": "Running"}, {"index": 1, "phase": "Running"})
    assert [bool(pods.progress_url(pod)) for pod in seen.pods] == [True, False]


def test_a_run_goes_on_with_the_base_model_that_it_began_with() -> None:
    job = running()
    begun = seen_again(job.obj, plan(job, NOW, CONFIG).status)
    other = model_service(baseModel={"image": {"reference": "docker.io/winnow/base-modernbert:dev"}})
    suspended = replace(job, obj=begun, service=other, jobs=(), pods=())
    (resumed,) = (child.obj for child in plan(suspended, NOW, CONFIG).children if child.obj["kind"] == "Job")
    volumes = resumed["spec"]["template"]["spec"]["volumes"]
    assert [volume["image"]["reference"] for volume in volumes if "image" in volume] == [
        "docker.io/winnow/base-minilm:dev"
    ]
    new = replace(suspended, obj=training_job("v2"))
    (first,) = (child.obj for child in plan(new, NOW, CONFIG).children if child.obj["kind"] == "Job")
    volumes = first["spec"]["template"]["spec"]["volumes"]
    assert [volume["image"]["reference"] for volume in volumes if "image" in volume] == [
        "docker.io/winnow/base-modernbert:dev"
    ]


def test_an_adapter_is_served_on_the_base_model_that_it_was_trained_on() -> None:
    ended = completed(baseModel={"image": {"reference": "docker.io/winnow/base-minilm:dev"}})
    other = model_service(baseModel={"image": {"reference": "docker.io/winnow/base-modernbert:dev"}})
    base = adapter_base(ended, other)
    assert base is not None
    assert base.image is not None
    assert base.image.reference == "docker.io/winnow/base-minilm:dev"


def test_the_status_of_a_thousand_epochs_is_one_that_etcd_takes() -> None:
    numbers = {f"metric_{number}": 0.123456789 for number in range(24)} | {"f1": 0.5}
    epochs = [
        report.Epoch(epoch=epoch, checkpoint=f"epoch-{epoch}", metrics=numbers, validation_metrics=numbers)
        for epoch in range(1, 1001)
    ]
    checkpoints = [report.Checkpoint(name=f"epoch-{epoch}", epoch=epoch, digest=DIGEST) for epoch in range(1, 1001)]
    told = report.Training(
        state="Running", epochs=epochs, checkpoints=checkpoints, best_checkpoint="epoch-3", primary_metric="f1"
    )
    status = plan(replace(running(), pulled=told), NOW, CONFIG).status
    assert len(json.dumps(status)) < 1_000_000
    kept = {epoch["epoch"]: epoch["metrics"] for epoch in status["epochs"]}
    assert (len(kept), len(kept[1]), len(kept[3]), len(kept[1000])) == (1000, 1, 25, 25)
    assert status["checkpoints"][0]["metrics"] == {"f1": 0.5}
