"""A Dataset stays while a running training reads it: who holds it, who lets go, and that the two never cross."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from operator_scene import (
    CONFIG,
    NOW,
    OTHER_DIGEST,
    conditions_of,
    dataset,
    imported,
    job_of,
    message_of,
    model_service,
    seen_again,
    training_job,
    with_metadata,
)

from winnow_operator import api
from winnow_operator.kinds import dataset as datasets
from winnow_operator.kinds import training_job as trainings
from winnow_operator.observe import dataset as look_at
from winnow_operator.observed import DatasetSeen, TrainingJobSeen
from winnow_operator.plan import Hold, Refusal, Release, Turn
from winnow_operator.reasons import Reason
from winnow_operator.resources import IN_USE
from winnow_operator.store import Store
from winnow_operator.turns import BusyError, Turns

SERVICE = model_service()
HELD = with_metadata(imported(), finalizers=["example.com/theirs", IN_USE])
LEAVING = with_metadata(HELD, deletionTimestamp="2026-11-23T11:59:00Z", generation=2)
RUNNING = job_of(training_job())


def names(children: Any, kind: type[Hold | Release]) -> list[str]:
    return [child.obj["metadata"]["name"] for child in children if isinstance(child, kind)]


def test_datasets_are_held_before_the_batch_job_is_created() -> None:
    seen = TrainingJobSeen(training_job(testDataset="test"), SERVICE, imported(), imported("test"))
    decided = trainings.plan(seen, NOW, CONFIG)
    assert names(decided.children, Hold) == ["rows", "test"]
    assert [child.obj["kind"] for child in decided.children] == ["Dataset", "Dataset", "ConfigMap", "Job"]
    assert decided.turn == Turn(shared=frozenset({"Dataset ml/rows", "Dataset ml/test"}))


def test_a_job_that_runs_already_holds_its_dataset_once() -> None:
    """Started by an operator that knew no finalizers."""
    seen = TrainingJobSeen(training_job(), SERVICE, imported(), jobs=(RUNNING,))
    assert names(trainings.plan(seen, NOW, CONFIG).children, Hold) == ["rows"]
    assert trainings.plan(replace(seen, training=HELD), NOW, CONFIG).children == ()
    assert trainings.plan(replace(seen, training=LEAVING), NOW, CONFIG).children == ()


def test_a_dataset_that_was_made_anew_is_not_held_for_the_rows_of_the_old_one() -> None:
    begun = training_job(status={"datasets": {"training": {"name": "rows", "digest": OTHER_DIGEST}}})
    seen = TrainingJobSeen(begun, SERVICE, imported(), jobs=(RUNNING,))
    assert trainings.plan(seen, NOW, CONFIG).children == ()


def test_no_job_starts_on_a_dataset_that_is_being_deleted() -> None:
    seen = TrainingJobSeen(training_job(), SERVICE, LEAVING)
    decided = trainings.plan(seen, NOW, CONFIG)
    assert decided.children == ()
    assert conditions_of(decided.status)["Accepted"] == ("False", "DatasetBeingDeleted")
    assert message_of(decided.status, "Accepted").startswith("trainingDataset: Dataset rows is being deleted")
    assert "Stalled" not in conditions_of(decided.status)  # another Dataset of that name may come


def test_nobody_reads_it_so_it_is_let_go() -> None:
    assert datasets.plan(DatasetSeen(HELD, SERVICE, readers=("v1",)), NOW, CONFIG).children == ()
    free = datasets.plan(DatasetSeen(HELD, SERVICE), NOW, CONFIG)
    assert names(free.children, Release) == ["rows"]
    assert free.turn == Turn(alone=frozenset({"Dataset ml/rows"}))
    assert datasets.plan(DatasetSeen(imported(), SERVICE), NOW, CONFIG).children == ()


def test_a_deletion_that_waits_says_for_whom_once() -> None:
    seen = DatasetSeen(LEAVING, SERVICE, readers=("v1", "v2"))
    decided = datasets.plan(seen, NOW, CONFIG)
    assert decided.children == ()
    assert conditions_of(decided.status) == {"Ready": ("True", "Verified"), "Terminating": ("True", "InUse")}
    assert "TrainingJobs v1, v2 read its rows" in message_of(decided.status, "Terminating")
    assert decided.status["summary"] == "Deleting: InUse by v1, v2"
    assert [(event.type, event.reason) for event in decided.events] == [("Normal", "InUse")]
    again = replace(seen, obj=seen_again(LEAVING, decided.status), readers=("v2",))
    later = datasets.plan(again, NOW, CONFIG)
    assert later.events == ()
    assert "TrainingJob v2 reads its rows" in message_of(later.status, "Terminating")


def test_a_deletion_goes_on_when_the_last_job_has_ended() -> None:
    waiting = datasets.plan(DatasetSeen(LEAVING, SERVICE, readers=("v1",)), NOW, CONFIG)
    decided = datasets.plan(DatasetSeen(seen_again(LEAVING, waiting.status), SERVICE), NOW, CONFIG)
    assert conditions_of(decided.status) == {"Ready": ("True", "Verified")}  # should another finalizer keep it
    assert names(decided.children, Release) == ["rows"]


def test_a_finalizer_that_may_not_be_taken_off_is_told() -> None:
    """As where a policy lets nobody but a GitOps tool change such objects."""
    refusal = Refusal(Reason.API_REFUSED, "The API server refused Dataset rows: admission webhook denied", "Dataset")
    decided = datasets.plan(DatasetSeen(LEAVING, SERVICE, refusal=refusal), NOW, CONFIG)
    assert names(decided.children, Release) == ["rows"]
    assert conditions_of(decided.status)["Terminating"] == ("True", "ApiRefused")
    assert message_of(decided.status, "Terminating") == (
        f"Nothing reads its rows, but finalizer {IN_USE} cannot be taken off: {refusal.message}"
    )
    assert decided.status["summary"] == "Deleting: ApiRefused"


def test_a_dataset_that_is_being_deleted_is_not_imported() -> None:
    leaving = with_metadata(dataset(), finalizers=[IN_USE], deletionTimestamp="2026-11-23T11:59:00Z")
    assert names(datasets.plan(DatasetSeen(leaving, SERVICE), NOW, CONFIG).children, Release) == ["rows"]


@pytest.mark.parametrize(
    ("job", "batch", "reads"),
    [
        pytest.param(training_job(), {}, True, id="it runs"),
        pytest.param(training_job(suspend=True), {"deletionTimestamp": "2026-11-23T12:00:00Z"}, True, id="it stops"),
        pytest.param(training_job(trainingDataset="x", testDataset="rows"), {}, True, id="as test rows"),
        pytest.param(training_job(trainingDataset="x"), {}, False, id="other rows"),
        pytest.param(training_job(), None, False, id="it waits or is suspended"),
        pytest.param(training_job(), "Complete", False, id="it is done"),
    ],
)
def test_a_job_reads_from_its_batch_job_until_that_has_ended(job: api.TrainingJob, batch: Any, reads: bool) -> None:
    store = Store()
    for obj in (SERVICE, HELD, job):
        store.put({**api.to_raw(obj), "metadata": {**api.to_raw(obj.metadata), "resourceVersion": "1"}})
    if batch is not None:
        made = job_of(job, outcome=batch if isinstance(batch, str) else "")
        store.put({**made, "metadata": {**made["metadata"], **(batch if isinstance(batch, dict) else {})}})
    assert look_at(store, HELD).readers == (("v1",) if reads else ())


HOLD = Turn(shared=frozenset({"Dataset ml/rows"}))
FREE = Turn(alone=frozenset({"Dataset ml/rows"}))
OTHER = Turn(alone=frozenset({"Dataset ml/other"}))


@pytest.mark.parametrize(
    ("first", "second", "fits"),
    [
        pytest.param(HOLD, HOLD, True, id="two trainings start on the same rows"),
        pytest.param(HOLD, FREE, False, id="a training starts while they are let go"),
        pytest.param(FREE, HOLD, False, id="they are let go while a training starts"),
        pytest.param(FREE, FREE, False, id="let go twice"),
        pytest.param(FREE, OTHER, True, id="other rows"),
    ],
)
def test_writes_about_the_same_rows_do_not_cross(first: Turn, second: Turn, fits: bool) -> None:
    turns = Turns()
    with turns.take(first):
        if fits:
            with turns.take(second):
                pass
        else:
            with pytest.raises(BusyError, match="Dataset ml/rows"), turns.take(second):
                pass
    with turns.take(first), turns.take(OTHER):
        pass
    with turns.take(second):
        pass


def test_a_turn_that_fails_is_over() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.take(HOLD):
        raise ZeroDivisionError
    with turns.take(FREE):
        pass
