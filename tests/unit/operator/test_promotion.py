"""Promotion: the gate, what is taken back, whom a Deployment follows, and what its history tells."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from operator_scene import (
    CONFIG,
    DIGEST,
    NOW,
    OTHER_DIGEST,
    beside,
    completed,
    conditions_of,
    deployment,
    kstatus,
    later,
    message_of,
    model_service,
    pod_of,
    raw,
    seen_again,
    uid,
)

from winnow_operator import api
from winnow_operator.build.rollout_memory import Memory
from winnow_operator.build.served import Served
from winnow_operator.kinds.deployment import plan
from winnow_operator.observed import DeploymentSeen
from winnow_operator.plan import Create, Delete, Event, Plan, Refusal
from winnow_operator.reasons import Reason
from winnow_operator.resources import Object

FLOORS = {"floors": [{"metric": "f1_macro", "atLeast": 0.9}, {"metric": "recall", "label": "spam", "atLeast": 0.95}]}
BOTH = {**FLOORS, "notWorseThanLive": True}
THIRD_DIGEST = f"sha256:{'c' * 64}"


def spec(**fields: Any) -> Object:
    found: Object = api.to_raw(deployment(**fields))["spec"]
    return found


class World:
    """A Deployment and what is around it, from visit to visit: what a plan wants is there at the next one."""

    def __init__(self, *jobs: api.TrainingJob, **fields: Any) -> None:
        self.seconds = 0.0
        self.generation = 0
        self.status: Object = {}
        self.child: Object | None = None
        self.pods: tuple[Object, ...] = ()
        self.jobs: list[Object] = []
        self.job_pods: list[Object] = []
        self.trainings = jobs or (completed(),)
        self.change(**fields)

    def change(self, **fields: Any) -> None:
        self.generation += 1
        if "follow" in fields:
            wanted: Object = {"modelService": "spam", **fields}
        else:
            wanted = spec(**fields)
        self.obj = api.Deployment.model_validate(
            raw("Deployment", "web", wanted, self.status, generation=self.generation)
        )

    def to(self, checkpoint: str, job: str = "v1", **fields: Any) -> None:
        self.change(checkpoint={"trainingJob": job, "name": checkpoint}, **fields)

    def seen(self) -> DeploymentSeen:
        obj = seen_again(self.obj, self.status)
        chosen = self.obj.spec.checkpoint
        named = chosen.training_job if chosen else "v1"
        return DeploymentSeen(
            obj,
            model_service(),
            self.job(named),
            child=self.child,
            pods=self.pods,
            live_job=self.job((self.status.get("live") or {}).get("trainingJob")),
            rivals=self.trainings if obj.spec.follow else (),
            jobs=tuple(self.jobs),
            job_pods=tuple(self.job_pods),
        )

    def job(self, name: str | None) -> api.TrainingJob | None:
        return next((job for job in self.trainings if job.metadata.name == name), None)

    def visit(self) -> Plan:
        decided = plan(self.seen(), later(self.seconds), CONFIG)
        for child in decided.children:
            obj = child.obj
            if isinstance(child, Create):
                if all(job["metadata"]["name"] != obj["metadata"]["name"] for job in self.jobs):
                    self.jobs.append({**obj, "metadata": {**obj["metadata"], "uid": uid(obj["metadata"]["name"])}})
            elif isinstance(child, Delete):
                self.jobs.remove(obj)
            elif obj["kind"] == "Deployment":
                self._apply(obj)
        self.status = decided.status
        self.plan = decided
        return decided

    def _apply(self, obj: Object) -> None:
        before = self.child
        if before and {key: before[key] for key in ("spec",)} == {"spec": obj["spec"]}:
            self.child = {**before, "metadata": {**before["metadata"], **obj["metadata"]}}
            return
        generation = before["metadata"]["generation"] + 1 if before else 1
        counts = {"replicas": 1, "readyReplicas": 1} if before else {}
        status = {**counts, "observedGeneration": generation, "updatedReplicas": 0}
        metadata = {**obj["metadata"], "generation": generation, "resourceVersion": "20", "uid": "c"}
        self.child = {**obj, "metadata": metadata, "status": status}

    def roll_out(self) -> None:
        """The pods of what is wanted come up, those before leave."""
        self.visit()
        assert self.child is not None
        counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 1)
        self.child = {**self.child, "status": {**self.child["status"], **counts, "conditions": []}}
        self.settle()

    def settle(self) -> None:
        for _ in range(5):
            before = self.status
            self.visit()
            if self.status == before:
                return
        raise AssertionError("it does not come to rest")

    def measured(self, exit_code: int = 0, **told: Any) -> None:
        """The gate's Job ends, with f1_macro and recall of spam, and a lead."""
        (job,) = self.jobs
        usual: Object = {
            "state": "Done",
            "rows": 200,
            "measuredOn": "Test",
            "values": [{"value": 0.93}, {"value": 0.96}],
            "comparison": {
                "metric": "f1",
                "rows": 200,
                "candidateRows": 200,
                "candidate": 0.93,
                "live": 0.92,
                "lead": 0.01,
                "leadAtLeast": -0.004,
            },
        }
        outcome = "Complete" if exit_code == 0 else "Failed"
        ended = {"type": outcome, "status": "True", "lastTransitionTime": "2026-11-23T12:00:00Z"}
        job["status"] = {"conditions": [ended]}
        self.job_pods = [pod_of(job, exit_code=exit_code, said={**usual, **told})]

    def crash(
        self, checkpoint_digest: str, exit_code: int = 1, said: Any = "boom", at: float | None = None, **fields: Any
    ) -> None:
        """at: the second in which it ended; None: now."""
        labels = {"metadata": {"name": "web-rs", "uid": "rs", "labels": {}}}
        when = later(self.seconds if at is None else at)
        pod = pod_of(labels, exit_code=exit_code, said=said, ended_at=when, **fields)
        pod["metadata"]["annotations"] = {"winnow.dev/checkpoint-digest": checkpoint_digest}
        self.pods = (pod,)

    def came_up_again(self) -> None:
        """The pod that crashed was restarted by the kubelet and is ready."""
        (pod,) = self.pods
        (container,) = pod["status"]["containerStatuses"]
        container.update(lastState=container["state"], state={"running": {}}, restartCount=1)
        pod["status"].update(phase="Running", conditions=[{"type": "Ready", "status": "True"}])

    @property
    def served(self) -> str:
        assert self.child is not None
        served = Served.of(self.child)
        assert served is not None
        return served.checkpoint

    def says(self, kind: str = "Promoted") -> tuple[str, str]:
        return conditions_of(self.status)[kind]


def live(**fields: Any) -> World:
    """epoch-1 is live."""
    world = World(checkpoint={"trainingJob": "v1", "name": "epoch-1"}, **{**fields, "gate": None})
    world.roll_out()
    assert world.says() == ("True", "Promoted")
    return world


# The gate


def test_a_checkpoint_that_passes_goes_live_and_its_numbers_are_told() -> None:
    world = live()
    world.to("epoch-2", gate=BOTH)
    world.visit()
    assert (world.served, world.says(), world.says("Ready")) == (
        "epoch-1",
        ("Unknown", "Judging"),
        ("False", "Judging"),
    )
    assert world.status["candidate"] == {"trainingJob": "v1", "checkpoint": "epoch-2", "digest": OTHER_DIGEST}
    command = world.jobs[0]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert [command[at + 1] for at, word in enumerate(command) if word == "--value"] == ["f1_macro", "recall[spam]"]
    assert command[command.index("--live-digest") + 1] == DIGEST
    assert command[command.index("--metric") + 1] == "f1"
    world.measured()
    world.visit()
    assert world.served == "epoch-2"
    world.roll_out()
    assert world.jobs == []
    assert (world.says(), world.says("Ready")) == (("Unknown", "Watching"), ("True", "Live"))
    assert world.plan.requeue_after == 300
    world.seconds = 300
    world.settle()
    assert world.says() == ("True", "Promoted")
    numbers = message_of(world.status, "Promoted")
    assert "on 200 test rows f1_macro 0.93 is at least 0.9; recall of spam 0.96 is at least 0.95" in numbers
    assert (
        "that of v1/epoch-1 0.92; with 95 % confidence it is at most 0.004 worse, and 0.02 worse is tolerated"
        in numbers
    )
    assert world.status["live"]["message"] in numbers
    assert "candidate" not in world.status


REFUSED = [
    pytest.param(
        {"values": [{"value": 0.93}, {"value": 0.9}]}, "recall of spam 0.9 is below 0.95", id="a floor of a label"
    ),
    pytest.param(
        {"values": [{"value": 0.93}, {"message": "no row has the label"}]}, "no row", id="what is not defined"
    ),
    pytest.param({"values": [{"value": 0.93}]}, "recall of spam is not known", id="what was not told"),
    pytest.param(
        {
            "comparison": {
                "metric": "f1",
                "rows": 50,
                "candidateRows": 80,
                "candidate": 0.9,
                "live": 0.92,
                "lead": -0.02,
                "leadAtLeast": -0.05,
            }
        },
        "on the 50 of its 80 test rows that both have answered f1 is 0.9, that of v1/epoch-1 0.92; with 95 % confidence"
        " it is at most 0.05 worse, but only 0.02 worse is tolerated",
        id="worse than live",
    ),
    pytest.param({"comparison": {"metric": "f1", "message": "other labels"}}, "other labels", id="not comparable"),
    pytest.param({"comparison": None}, "it was not told", id="no comparison was told"),
]


@pytest.mark.parametrize(("told", "says"), REFUSED)
def test_a_checkpoint_that_does_not_pass_is_refused_with_its_numbers_and_the_live_one_goes_on(
    told: Object, says: str
) -> None:
    world = live()
    world.to("epoch-2", gate=BOTH)
    world.visit()
    world.measured(**told)
    world.settle()
    assert (world.served, world.says(), world.says("Stalled")) == (
        "epoch-1",
        ("False", "GateFailed"),
        ("True", "GateFailed"),
    )
    assert says in message_of(world.status, "Promoted")
    assert world.status["live"]["checkpoint"] == "epoch-1"
    assert world.status["summary"] == "Stalled: GateFailed; live: v1/epoch-1"
    assert kstatus(world.obj, world.status) == "Failed"
    assert world.jobs == []


def test_a_result_is_kept_and_other_bounds_are_held_against_it() -> None:
    world = live()
    world.to("epoch-2", gate={"floors": [{"metric": "f1_macro", "atLeast": 0.95}]})
    world.visit()
    world.measured(values=[{"value": 0.93}])
    world.settle()
    assert world.says() == ("False", "GateFailed")
    world.to("epoch-2", gate={"floors": [{"metric": "f1_macro", "atLeast": 0.92}]})
    world.visit()
    assert (world.served, world.jobs) == ("epoch-2", [])


def test_what_was_measured_is_kept_to_six_digits_as_everywhere() -> None:
    world = live()
    world.to("epoch-2", gate={"metric": "f1_macro", "atLeast": 0.9, "notWorseThanLive": True})
    world.visit()
    numbers = {"candidate": 0.44862155388471175, "live": 2 / 3, "lead": -0.21804511278195488, "leadAtLeast": -1 / 3}
    comparison = {"metric": "f1_macro", "rows": 200, "candidateRows": 200, **numbers}
    world.measured(values=[{"value": 0.44862155388471175}], comparison=comparison)
    world.settle()
    kept = world.status["gate"]
    rounded = {"candidate": 0.448622, "live": 0.666667, "lead": -0.218045, "leadAtLeast": -0.333333}
    assert {name: kept["comparison"][name] for name in numbers} == rounded
    assert kept["values"] == [{"metric": "f1_macro", "value": 0.448622}]


def test_one_metric_is_bounded_and_compared_in_short() -> None:
    world = live()
    world.to("epoch-2", gate={"metric": "f1_macro", "atLeast": 0.9, "notWorseThanLive": True})
    world.visit()
    command = world.jobs[0]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert [command[at + 1] for at, word in enumerate(command) if word == "--value"] == ["f1_macro"]
    assert command[command.index("--metric") + 1] == "f1_macro"
    comparison = {"metric": "f1_macro", "rows": 200, "candidateRows": 200, "candidate": 0.89, "live": 0.88}
    world.measured(values=[{"value": 0.89}], comparison={**comparison, "lead": 0.01, "leadAtLeast": 0.0})
    world.settle()
    assert (world.served, world.says()) == ("epoch-1", ("False", "GateFailed"))
    assert "on 200 test rows f1_macro 0.89 is below 0.9" in message_of(world.status, "Promoted")
    assert "with 95 % confidence it is no worse, and 0.02 worse is tolerated" in message_of(world.status, "Promoted")
    world.to("epoch-2", gate={"metric": "f1_macro", "atLeast": 0.85, "notWorseThanLive": True})
    world.visit()
    assert world.served == "epoch-2"


def test_beside_another_live_one_it_is_measured_anew() -> None:
    third = completed("v2", checkpoints=[{"name": "epoch-2", "epoch": 2, "digest": THIRD_DIGEST}])
    world = World(completed(), third, checkpoint={"trainingJob": "v1", "name": "epoch-1"})
    world.roll_out()
    world.to("epoch-2", "v2", gate={"notWorseThanLive": True})
    world.visit()
    world.measured(values=[])
    world.visit()
    assert world.served == "epoch-2"
    world.to("epoch-2")
    world.roll_out()
    world.to("epoch-2", "v2", gate={"notWorseThanLive": True})
    world.visit()
    assert (world.says(), len(world.jobs)) == (("Unknown", "Judging"), 1)
    command = world.jobs[0]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[command.index("--live-digest") + 1] == OTHER_DIGEST


def test_another_metric_is_measured_anew() -> None:
    world = live()
    world.to("epoch-2", gate={"floors": [{"metric": "f1_macro", "atLeast": 0.95}]})
    world.visit()
    world.measured(values=[{"value": 0.93}])
    world.settle()
    world.to("epoch-2", gate={"floors": [{"metric": "accuracy", "atLeast": 0.5}]})
    world.visit()
    assert (len(world.jobs), world.says()) == (1, ("Unknown", "Judging"))


def test_pods_that_somebody_deletes_come_back_with_what_was_live_whatever_the_gate_says() -> None:
    world = live()
    world.to("epoch-2", gate=FLOORS)
    world.visit()
    world.measured(values=[{"value": 0.1}, {"value": 0.1}])
    world.settle()
    world.child = None
    world.visit()
    assert (world.served, world.says()) == ("epoch-1", ("False", "GateFailed"))


def test_pods_that_somebody_deletes_come_back_while_what_is_named_is_awaited() -> None:
    world = live()
    world.to("best", "v2")
    world.child = None
    world.visit()
    assert (world.served, world.says("Ready")) == ("epoch-1", ("False", "TrainingJobNotFound"))


def test_the_first_checkpoint_has_floors_only() -> None:
    world = World(checkpoint={"trainingJob": "v1", "name": "epoch-2"}, gate=BOTH)
    world.visit()
    assert world.child is None
    assert "--live" not in world.jobs[0]["spec"]["template"]["spec"]["containers"][0]["command"]
    world.measured(comparison=None)
    world.visit()
    assert world.served == "epoch-2"
    world.roll_out()
    assert world.says() == ("True", "Promoted"), "there is nothing to go back to, so nothing is watched"


def test_a_gate_of_nothing_but_the_live_one_lets_the_first_through_without_a_job() -> None:
    world = World(gate={"notWorseThanLive": True})
    world.visit()
    assert (world.served, world.jobs) == ("epoch-2", [])


def test_a_gate_of_nothing_but_the_live_one_compares_the_next() -> None:
    world = live()
    world.to("epoch-2", gate={"notWorseThanLive": True})
    world.visit()
    assert "--value" not in world.jobs[0]["spec"]["template"]["spec"]["containers"][0]["command"]
    world.measured(values=[])
    world.roll_out()
    assert (world.served, world.status["live"]["checkpoint"]) == ("epoch-2", "epoch-2")
    assert world.status["live"]["message"].startswith("on 200 test rows f1 is 0.93, that of v1/epoch-1 0.92")


def test_what_answers_as_the_live_one_does_passes_without_any_tolerance() -> None:
    world = live()
    world.to("epoch-2", gate={"notWorseThanLive": True, "tolerance": 0})
    world.visit()
    numbers = {"candidate": 0.92, "live": 0.92, "lead": 0.0, "leadAtLeast": 0.0}
    world.measured(values=[], comparison={"metric": "f1", "rows": 200, "candidateRows": 200, **numbers})
    world.visit()
    assert world.served == "epoch-2"


def test_where_less_is_better_the_bound_is_from_above() -> None:
    world = live()
    world.to("epoch-2", gate={"floors": [{"metric": "log_loss", "atMost": 0.3}]})
    world.visit()
    world.measured(values=[{"value": 0.4}])
    world.settle()
    assert (world.served, world.says()) == ("epoch-1", ("False", "GateFailed"))
    assert "on 200 test rows log_loss 0.4 is above 0.3" in message_of(world.status, "Promoted")
    world.to("epoch-2", gate={"floors": [{"metric": "log_loss", "atMost": 0.4}]})
    world.roll_out()
    assert (world.served, world.status["live"]["message"]) == (
        "epoch-2",
        "on 200 test rows log_loss 0.4 is at most 0.4",
    )


def test_what_is_live_is_not_taken_down_by_a_gate_that_comes_later() -> None:
    world = live()
    world.to("epoch-1", gate=FLOORS)
    world.settle()
    assert (world.served, world.jobs, world.says("Ready")) == ("epoch-1", [], ("True", "Live"))


def test_the_same_bytes_of_another_job_came_through_as_they_did_before() -> None:
    """A training that is run again alike: what the live ones were let through by holds for these."""
    world = World(completed(), completed("v2"), checkpoint={"trainingJob": "v1", "name": "epoch-1"})
    world.roll_out()
    world.to("epoch-1", job="v2", gate=BOTH)
    world.roll_out()
    assert world.jobs == []
    assert (world.status["live"]["trainingJob"], world.status["live"]["message"]) == ("v2", "There is no gate")


def test_a_gate_raised_during_a_rollout_stops_it() -> None:
    world = live()
    world.to("epoch-2", gate={"floors": [{"metric": "f1_macro", "atLeast": 0.9}]})
    world.visit()
    world.measured(values=[{"value": 0.93}])
    world.settle()
    assert world.served == "epoch-2"
    world.to("epoch-2", gate={"floors": [{"metric": "f1_macro", "atLeast": 0.94}]})
    world.settle()
    assert (world.served, world.says()) == ("epoch-1", ("False", "GateFailed"))


@pytest.mark.parametrize(
    ("exit_code", "reason"), [(10, "GateFailed"), (20, "Judging")], ids=["for good", "may pass when tried again"]
)
def test_a_measurement_that_failed_says_why_and_nothing_is_promoted(exit_code: int, reason: str) -> None:
    world = live()
    world.to("epoch-2", gate=FLOORS)
    world.visit()
    world.measured(exit_code, state="Failed", message="checkpoint.json was changed")
    world.settle()
    assert (world.served, world.says()[1], len(world.jobs)) == ("epoch-1", reason, 1)
    assert "checkpoint.json was changed" in message_of(world.status, "Promoted")
    world.jobs = []  # its time to live is over
    world.settle()
    assert len(world.jobs) == (0 if exit_code == 10 else 1)


def test_a_measurement_that_died_without_a_report_tells_its_last_lines_or_what_its_job_says() -> None:
    world = live()
    world.to("epoch-2", gate=FLOORS)
    world.visit()
    world.measured(1)
    world.job_pods = [pod_of(world.jobs[0], exit_code=1, said="ModuleNotFoundError: No module named 'mine'\n")]
    world.settle()
    assert (world.served, world.says()[1]) == ("epoch-1", "Judging")
    assert message_of(world.status, "Promoted").endswith(
        "which failed and is tried again within the hour: ModuleNotFoundError: No module named 'mine'"
    )
    world.jobs[0]["status"]["conditions"][0]["message"] = "Job has reached the specified backoff limit"
    world.job_pods, world.seconds = [], 600
    world.settle()
    assert message_of(world.status, "Promoted").endswith("hour: Job has reached the specified backoff limit")


def test_a_measurement_that_is_seen_to_end_before_its_pod_has_not_failed() -> None:
    world = live()
    world.to("epoch-2", gate=FLOORS)
    world.visit()
    world.measured()
    told, world.job_pods = world.job_pods, []
    assert world.visit().requeue_after == 1
    assert message_of(world.status, "Promoted").endswith("the gate measures it")
    world.job_pods = told
    world.visit()
    assert world.served == "epoch-2"


def test_a_measurement_that_finds_no_node_says_so() -> None:
    world = live()
    world.to("epoch-2", gate=FLOORS)
    world.visit()
    world.job_pods = [pod_of(world.jobs[0], unschedulable="0/3 nodes are available: 3 node(s) had untolerated taint")]
    world.settle()
    assert (world.served, world.says()[1]) == ("epoch-1", "Judging")
    assert "finds no node: 0/3 nodes are available: 3 node(s) had untolerated taint" in message_of(
        world.status, "Promoted"
    )


def test_a_measurement_that_gets_no_pod_says_so() -> None:
    world = live()
    world.to("epoch-2", gate=FLOORS)
    world.visit()
    status = plan(replace(world.seen(), pods_refused="exceeded quota"), NOW, CONFIG).status
    assert message_of(status, "Promoted").endswith("the gate measures it. exceeded quota")


def test_a_measurement_that_is_refused_is_nowhere_said_to_be_made() -> None:
    world = live()
    world.to("epoch-2", gate=FLOORS)
    refusal = Refusal(Reason.API_REFUSED, "The API server refused Job web-gate: exceeded quota", "Job", final=False)
    status = plan(replace(world.seen(), refusal=refusal), NOW, CONFIG).status
    assert conditions_of(status)["Promoted"] == ("Unknown", "ApiRefused")
    assert message_of(status, "Promoted") == message_of(status, "Ready") == refusal.message


def test_a_measurement_that_a_queue_holds_says_so() -> None:
    world = live()
    world.to("epoch-2", gate=FLOORS)
    world.visit()
    world.jobs[0]["spec"]["suspend"] = True
    status = plan(world.seen(), NOW, CONFIG).status
    assert message_of(status, "Promoted").endswith(
        "the gate measures it. The batch Job waits to be admitted by its queue"
    )


def test_what_measures_does_not_keep_a_volume_that_is_being_deleted() -> None:
    world = live()
    world.to("epoch-2", gate=FLOORS)
    world.visit()
    decided = plan(replace(world.seen(), storage_leaving=True), NOW, CONFIG)
    assert [child.obj for child in decided.children if isinstance(child, Delete)] == world.jobs
    world.jobs = []
    decided = plan(replace(world.seen(), storage_leaving=True), NOW, CONFIG)
    assert not any(child.obj["kind"] == "Job" for child in decided.children)


def test_scaling_goes_on_while_the_gate_holds() -> None:
    world = live()
    world.to("epoch-2", gate=FLOORS, replicas=3)
    world.visit()
    assert world.child is not None
    assert (world.served, world.child["spec"]["replicas"]) == ("epoch-1", 3)


# Taken back


CRASHES = [
    pytest.param(
        {"exit_code": 10, "said": {"state": "Failed", "message": "model.safetensors was changed"}},
        "exit code 10: model.safetensors was changed",
        id="what the server said",
    ),
    pytest.param(
        {"exit_code": 10, "said": {"state": "Failed", "message": "Base model /base/model has no config.json."}},
        "Base model image docker.io/winnow/base-minilm:dev, path /model has no config.json",
        id="the base model",
    ),
    pytest.param({"exit_code": 137, "reason": "OOMKilled"}, "limits.memory", id="memory"),
    pytest.param({"exit_code": 1, "said": "Traceback: boom"}, "exit code 1: Traceback: boom", id="its last lines"),
]


@pytest.mark.parametrize(("pod", "says"), CRASHES)
@pytest.mark.parametrize("went_live", [False, True], ids=["before it is live", "in its first minutes"])
def test_a_checkpoint_whose_server_crashes_is_taken_back_and_not_tried_again(
    pod: Any, says: str, went_live: bool
) -> None:
    world = live()
    world.to("epoch-2")
    world.visit()
    if went_live:
        world.roll_out()
        assert world.status["live"]["checkpoint"] == "epoch-2"
    world.seconds = 200
    world.crash(OTHER_DIGEST, **pod)
    world.visit()
    assert world.served == "epoch-1"
    world.pods = ()
    world.roll_out()
    assert (world.says(), world.says("Ready"), world.says("Stalled")) == (
        ("False", "RolledBack"),
        ("False", "RolledBack"),
        ("True", "RolledBack"),
    )
    assert says in message_of(world.status, "Promoted")
    assert message_of(world.status, "Promoted").count("v1/epoch-2 was taken back and v1/epoch-1 serves") == 1
    assert world.status["live"]["checkpoint"] == "epoch-1"
    if went_live:
        assert world.status["live"]["reason"] == "RolledBack"
        assert [past["checkpoint"] for past in world.status["history"]] == ["epoch-2", "epoch-1"]
    world.to("epoch-2", replicas=2)  # an autoscaler's doing
    world.visit()
    assert world.served == "epoch-1"
    world.to("epoch-2", env=[{"name": "A", "value": "1"}])  # a person's
    world.visit()
    assert world.served == "epoch-2"


def test_the_crash_of_the_try_before_does_not_end_the_next_one() -> None:
    world = live()
    world.to("epoch-2")
    world.visit()
    world.seconds = 10
    world.crash(OTHER_DIGEST)
    world.settle()
    assert world.served == "epoch-1"
    world.seconds = 20
    world.to("epoch-2", env=[{"name": "A", "value": "1"}])
    world.settle()
    assert world.served == "epoch-2", "the pod that crashed has not left yet"
    world.crash(OTHER_DIGEST)
    world.visit()
    assert world.served == "epoch-1"


INNOCENT = [
    pytest.param({"exit_code": 20, "said": "storage"}, id="storage was away for a moment"),
    pytest.param({"exit_code": 143}, id="stopped"),
    pytest.param({"exit_code": 0}, id="ended"),
]


@pytest.mark.parametrize("pod", INNOCENT)
def test_what_says_nothing_against_a_checkpoint_takes_nothing_back(pod: Any) -> None:
    world = live()
    world.to("epoch-2")
    world.visit()
    world.crash(OTHER_DIGEST, **pod)
    world.settle()
    assert (world.served, world.says()) == ("epoch-2", ("Unknown", "RollingOut"))


def test_a_crash_of_a_container_beside_the_server_takes_nothing_back() -> None:
    world = live()
    world.to("epoch-2")
    world.roll_out()
    world.crash(OTHER_DIGEST, exit_code=0)
    world.came_up_again()
    beside(world.pods[0], state={"running": {}}, lastState={"terminated": {"exitCode": 1}}, restartCount=9)
    world.settle()
    assert (world.served, world.says("Ready")) == ("epoch-2", ("True", "Live"))


def test_a_kill_that_nobody_explains_is_blamed_on_the_checkpoint_the_third_time() -> None:
    world = live()
    world.to("epoch-2")
    world.roll_out()
    for restarts, served in ((1, "epoch-2"), (2, "epoch-2"), (3, "epoch-1")):
        world.crash(OTHER_DIGEST, exit_code=137, said="")
        world.pods[0]["status"]["containerStatuses"][0]["restartCount"] = restarts
        world.visit()
        assert world.served == served
    world.settle()
    assert "exit code 137" in message_of(world.status, "Promoted")


def test_a_crash_after_the_first_minutes_takes_nothing_back() -> None:
    world = live()
    world.to("epoch-2", rollout={"watchSeconds": 60})
    world.roll_out()
    world.seconds = 61
    world.settle()
    assert world.says() == ("True", "Promoted")
    world.crash(OTHER_DIGEST)
    world.settle()
    assert (world.served, world.says()) == ("epoch-2", ("True", "Promoted"))


def test_a_checkpoint_that_was_found_good_is_not_watched_again_when_the_watch_is_made_longer() -> None:
    world = live()
    world.to("epoch-2", rollout={"watchSeconds": 60})
    world.roll_out()
    world.seconds = 61
    world.settle()
    world.to("epoch-2", rollout={"watchSeconds": 3_600})
    world.seconds = 70
    world.settle()
    assert world.says() == ("True", "Promoted")
    world.crash(OTHER_DIGEST)
    world.settle()
    assert (world.served, world.says()) == ("epoch-2", ("True", "Promoted"))


def test_a_crash_that_nobody_saw_in_time_counts_still() -> None:
    """The operator was away, and the watch had not been found to be over."""
    world = live()
    world.to("epoch-2")
    world.roll_out()
    world.seconds = 4_000
    world.crash(OTHER_DIGEST, at=200)
    world.visit()
    assert world.served == "epoch-1"


def test_a_crash_of_long_ago_takes_nothing_back_whatever_the_spec_passes_through() -> None:
    world = live()
    world.to("epoch-2")
    world.roll_out()
    world.seconds = 301
    world.settle()
    world.seconds = 5_000
    world.crash(OTHER_DIGEST)
    world.came_up_again()
    world.seconds = 9_000
    world.to("epoch-22")
    world.settle()
    assert world.says() == ("False", "CheckpointNotFound")
    world.to("epoch-2")
    world.settle()
    assert (world.served, world.says()) == ("epoch-2", ("True", "Promoted"))


def test_what_a_server_died_of_once_is_not_why_another_does_not_come_up() -> None:
    world = live()
    world.crash(DIGEST)
    world.came_up_again()
    world.seconds = 5_000
    world.to("epoch-1", replicas=2)
    world.visit()
    world.visit()
    assert world.says("Ready") == ("False", "RollingOut")


def next_one_judged(gate: dict[str, Any]) -> World:
    """v1/epoch-2 went live on epoch-1, a moment ago, and v2/epoch-2 is judged."""
    third = completed("v2", checkpoints=[{"name": "epoch-2", "epoch": 2, "digest": THIRD_DIGEST}])
    world = World(completed(), third, checkpoint={"trainingJob": "v1", "name": "epoch-1"})
    world.roll_out()
    world.to("epoch-2")
    world.roll_out()
    world.seconds = 20
    world.to("epoch-2", "v2", gate=gate)
    world.visit()
    assert (world.served, world.says()) == ("epoch-2", ("Unknown", "Judging"))
    world.seconds = 30
    return world


def test_a_candidate_that_crashes_is_taken_back_while_the_next_one_is_judged() -> None:
    world = next_one_judged(FLOORS)
    world.crash(OTHER_DIGEST)
    world.visit()
    assert (world.served, world.says()) == ("epoch-1", ("Unknown", "Judging"))
    back = Event(
        "Warning",
        "RolledBack",
        "v1/epoch-2 was taken back and v1/epoch-1 serves: The server ended with exit code 1: boom",
    )
    assert world.plan.events == (back,)
    world.visit()
    assert not world.plan.events, "once"
    world.pods = ()
    world.measured(values=[{"value": 0.5}, {"value": 0.5}])
    world.roll_out()
    assert (world.served, world.says()) == ("epoch-1", ("False", "GateFailed"))
    assert "v1/epoch-2 was taken back and v1/epoch-1 serves" in message_of(world.status, "Promoted")
    assert (world.status["live"]["checkpoint"], world.status["live"]["reason"]) == ("epoch-1", "RolledBack")


def test_a_rollback_with_many_last_words_is_one_event() -> None:
    world = next_one_judged(BOTH)
    world.crash(OTHER_DIGEST, exit_code=12, said={"state": "Failed", "message": "x y " * 375})
    world.visit()
    assert [event.reason for event in world.plan.events] == ["RolledBack"]
    world.visit()
    world.pods = ()
    world.measured(values=[{"value": 0.5}, {"value": 0.5}])
    told = []
    for _ in range(4):
        world.visit()
        told += [event.reason for event in world.plan.events]
    assert told.count("RolledBack") == 0


def test_a_candidate_that_crashes_is_taken_back_while_the_next_one_is_awaited() -> None:
    replace_first: dict[str, Any] = {"rollout": {"strategy": "Replace"}}
    world = live(**replace_first)
    world.to("epoch-2", **replace_first)
    world.visit()
    world.to("best", "v2", **replace_first)
    world.crash(OTHER_DIGEST)
    world.visit()
    assert (world.served, world.says("Ready")) == ("epoch-1", ("False", "TrainingJobNotFound"))
    assert "v1/epoch-2 was taken back" in message_of(world.status, "Promoted")
    assert [event.reason for event in world.plan.events] == ["TrainingJobNotFound", "RolledBack"]


def test_after_a_candidate_was_taken_back_the_next_one_falls_back_to_what_was_good() -> None:
    third = completed("v2", checkpoints=[{"name": "epoch-2", "epoch": 2, "digest": THIRD_DIGEST}])
    world = World(completed(), third, checkpoint={"trainingJob": "v1", "name": "epoch-1"})
    world.roll_out()
    world.to("epoch-2")
    world.roll_out()
    world.to("epoch-2", "v2")
    world.crash(OTHER_DIGEST)
    world.visit()
    world.pods = ()
    world.visit()
    fallback = Memory.of(world.child).fallback
    assert fallback is not None
    assert (world.served, fallback.checkpoint) == ("epoch-2", "epoch-1"), "v2's, and back to v1's first if that fails"
    world.crash(THIRD_DIGEST)
    world.visit()
    assert world.served == "epoch-1"


def test_the_pods_are_taken_back_as_they_were_with_every_setting() -> None:
    world = live(env=[{"name": "A", "value": "good"}])
    assert world.child is not None
    before = world.child["spec"]["template"]
    world.to("epoch-2", env=[{"name": "A", "value": "bad"}])
    world.roll_out()
    assert world.child["spec"]["template"] != before
    world.crash(OTHER_DIGEST)
    world.visit()
    assert world.child["spec"]["template"] == before
    world.pods = ()
    world.settle()
    assert world.child["spec"]["template"] == before
    world.to("epoch-1", env=[{"name": "A", "value": "better"}])
    world.visit()
    assert world.child["spec"]["template"]["spec"]["containers"][0]["env"][-1]["value"] == "better"


def test_a_rollout_that_exceeds_its_deadline_is_taken_back_with_what_it_waits_for() -> None:
    world = live()
    world.to("epoch-2", rollout={"deadlineSeconds": 600})
    world.visit()
    assert world.child is not None
    assert world.child["spec"]["progressDeadlineSeconds"] == 600
    late = {"type": "Progressing", "status": "False", "message": "timed out"}
    old = {**late, "lastUpdateTime": "2026-11-23T11:59:00Z"}
    goes_on = {"type": "Progressing", "status": "True", "lastUpdateTime": "2026-11-23T12:09:00Z"}
    world.child["status"]["conditions"] = [goes_on]
    world.settle()
    assert world.says("Ready") == ("False", "RollingOut")
    world.child["status"]["conditions"] = [old]
    world.settle()
    assert world.served == "epoch-2", "that was the rollout before"
    world.child["status"]["conditions"] = [{**late, "lastUpdateTime": "2026-11-23T12:10:00Z"}]
    labels = {"metadata": {"name": "web-rs", "uid": "rs", "labels": {}}}
    pod = pod_of(labels, unschedulable="0/3 nodes are available: 3 Insufficient nvidia.com/gpu")
    pod["metadata"]["annotations"] = {"winnow.dev/checkpoint-digest": OTHER_DIGEST}
    world.pods = (pod,)
    world.visit()
    assert world.served == "epoch-1"
    world.settle()
    assert "within 600 s" in message_of(world.status, "Promoted")
    assert "Insufficient nvidia.com/gpu" in message_of(world.status, "Promoted")


def test_an_image_that_cannot_be_pulled_is_said_before_the_deadline() -> None:
    world = live()
    world.to("epoch-2")
    world.visit()
    labels = {"metadata": {"name": "web-rs", "uid": "rs", "labels": {}}}
    pod = pod_of(labels, waiting=("ImagePullBackOff", "no such image"))
    pod["metadata"]["annotations"] = {"winnow.dev/checkpoint-digest": OTHER_DIGEST}
    world.pods = (pod,)
    world.visit()
    assert (world.served, world.says("Ready")) == ("epoch-2", ("False", "CheckpointFailed"))
    assert "no such image" in message_of(world.status, "Stalled")


QUOTA = "exceeded quota: one, requested: pods=1, used: pods=1, limited: pods=1"


def refuse(world: World, words: str) -> None:
    """The pods of the apps/v1 Deployment, which also gets no further within its deadline."""
    assert world.child is not None
    message = f'pods "web-5db69ffc84-m2kk4" is forbidden: {words}'
    world.child["status"]["conditions"] = [
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message},
        {"type": "Progressing", "status": "False", "message": "timed out", "lastUpdateTime": "2026-11-23T12:10:00Z"},
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param(QUOTA, "Reconciling", id="a quota: there is room when others end"),
        pytest.param('violates PodSecurity "restricted:latest"', "Stalled", id="a rule"),
    ],
)
def test_pods_that_are_refused_say_nothing_against_the_checkpoint(words: str, told: str) -> None:
    world = World()
    world.visit()
    refuse(world, words)
    world.settle()
    assert (world.says("Ready"), world.says(told)) == (("False", "ApiRefused"), ("True", "ApiRefused"))
    assert message_of(world.status, "Ready").endswith(f"The API server refuses the pods of Deployment web: {words}")
    world.roll_out()
    assert (world.says("Ready"), world.says()) == (("True", "Live"), ("True", "Promoted"))


def test_while_the_gate_holds_a_checkpoint_up_the_trouble_of_the_live_ones_pods_is_told_too() -> None:
    world = live()
    world.to("epoch-2", replicas=2, gate=BOTH)
    world.visit()
    world.measured(values=[{"value": 0.93}, {"value": 0.9}])
    refuse(world, QUOTA)
    world.settle()
    assert (world.served, world.says("Ready")) == ("epoch-1", ("False", "GateFailed"))
    told = message_of(world.status, "Ready")
    assert "recall of spam 0.9 is below 0.95" in told
    assert told.endswith(
        f"Meanwhile v1/epoch-1 is served by 1 of 2 replicas: The API server refuses the pods of Deployment web: {QUOTA}"
    )
    world.crash(DIGEST, said="boom")
    world.settle()
    assert message_of(world.status, "Ready").endswith("replicas: The server ended with exit code 1: boom")


def test_a_rollout_that_a_quota_holds_up_beyond_its_deadline_is_taken_back_with_the_quotas_words() -> None:
    world = live()
    world.to("epoch-2")
    world.visit()
    refuse(world, QUOTA)
    world.visit()
    assert world.served == "epoch-1"
    assert message_of(world.status, "Promoted").endswith(QUOTA)


def test_a_pod_that_finds_no_node_is_waited_for_until_the_deadline() -> None:
    world = live()
    world.to("epoch-2")
    world.visit()
    labels = {"metadata": {"name": "web-rs", "uid": "rs", "labels": {}}}
    pod = pod_of(labels, unschedulable="0/3 nodes are available: 3 Insufficient nvidia.com/gpu")
    pod["metadata"]["annotations"] = {"winnow.dev/checkpoint-digest": OTHER_DIGEST}
    world.pods = (pod,)
    world.settle()
    assert (world.served, world.says("Ready")) == ("epoch-2", ("False", "RollingOut"))
    assert "Insufficient nvidia.com/gpu" in message_of(world.status, "Ready")


def test_the_first_checkpoint_has_nothing_to_be_taken_back_to() -> None:
    world = World()
    world.visit()
    world.crash(OTHER_DIGEST)
    world.settle()
    assert (world.served, world.says("Ready"), world.says()) == (
        "epoch-2",
        ("False", "CheckpointFailed"),
        ("False", "CheckpointFailed"),
    )


def test_nothing_is_live_to_go_back_to_when_the_first_checkpoint_is_replaced_on_its_way() -> None:
    world = World()
    world.visit()
    world.to("epoch-1")
    world.visit()
    assert (world.served, Memory.of(world.child).fallback) == ("epoch-1", None)


def test_one_candidate_after_another_falls_back_to_what_was_live() -> None:
    jobs = (completed(), completed("v2", checkpoints=[{"name": "epoch-2", "epoch": 2, "digest": THIRD_DIGEST}]))
    world = World(*jobs, checkpoint={"trainingJob": "v1", "name": "epoch-1"})
    world.roll_out()
    world.to("epoch-2")
    world.visit()
    world.to("epoch-2", "v2")
    world.visit()
    fallback = Memory.of(world.child).fallback
    assert fallback is not None
    assert (world.served, fallback.checkpoint) == ("epoch-2", "epoch-1")
    world.crash(THIRD_DIGEST)
    world.visit()
    assert world.served == "epoch-1"


def test_a_rollback_works_when_the_old_training_job_is_gone() -> None:
    jobs = (completed(), completed("v2", checkpoints=[{"name": "epoch-2", "epoch": 2, "digest": THIRD_DIGEST}]))
    world = World(*jobs, checkpoint={"trainingJob": "v1", "name": "epoch-1"})
    world.roll_out()
    world.to("epoch-2", "v2")
    world.roll_out()
    world.trainings = jobs[1:]
    world.to("epoch-1", "v1")
    world.roll_out()
    assert (world.served, world.says()[1], world.says("Ready")) == ("epoch-1", "Watching", ("True", "Live"))
    assert world.status["live"]["value"] == 0.91, "as it was when it was live"


# By hand


def test_a_rollback_by_hand_is_one_field_and_waits_for_no_gate() -> None:
    world = live()
    world.to("epoch-2", gate=BOTH)
    world.visit()
    world.measured()
    world.roll_out()
    world.seconds = 600
    world.settle()
    world.to("epoch-1", gate={"floors": [{"metric": "f1_macro", "atLeast": 0.99}]})
    world.visit()
    assert (world.served, world.jobs) == ("epoch-1", [])
    world.roll_out()
    assert world.status["live"]["reason"] == "RolledBackByHand"
    story = [world.status["live"], *world.status["history"]]
    assert [(entry["checkpoint"], entry["reason"], entry["value"]) for entry in story] == [
        ("epoch-1", "RolledBackByHand", 0.91),
        ("epoch-2", "Promoted", 0.92),
        ("epoch-1", "Promoted", 0.91),
    ]
    assert "f1_macro 0.93 is at least 0.9" in story[1]["message"]


def test_what_serves_again_has_the_value_of_its_own_job() -> None:
    world = World(rival("v1", 0.92, DIGEST), rival("v2", 0.95, OTHER_DIGEST))
    world.roll_out()
    world.to("best", "v2")
    world.roll_out()
    world.crash(OTHER_DIGEST)
    world.visit()
    world.pods = ()
    world.roll_out()
    assert (world.status["live"]["trainingJob"], world.status["live"]["value"]) == ("v1", 0.92)


def test_what_was_taken_back_has_to_pass_the_gate_again() -> None:
    world = live()
    world.to("epoch-2")
    world.roll_out()
    world.crash(OTHER_DIGEST)
    world.visit()
    world.pods = ()
    world.roll_out()
    world.to("epoch-2", gate=FLOORS)
    world.visit()
    assert (world.served, len(world.jobs)) == ("epoch-1", 1)


# Who follows


def rival(name: str, f1: float, digest: str, **more: Any) -> api.TrainingJob:
    return completed(
        name,
        epochs=[{"epoch": 2, "checkpoint": "epoch-2", "metrics": {more.get("primaryMetric", "f1"): f1}}],
        checkpoints=[{"name": "epoch-2", "epoch": 2, "digest": digest}],
        **more,
    )


def served_job(world: World) -> str:
    served = Served.of(world.child) if world.child else None
    assert served is not None
    return served.training_job


def test_a_job_made_anew_under_the_old_name_takes_over_only_if_it_is_better() -> None:
    world = World(rival("v1", 0.92, DIGEST), follow="ModelService")
    world.roll_out()
    world.trainings = (rival("v1", 0.52, OTHER_DIGEST),)
    world.settle()
    assert (world.status["live"]["digest"], world.status["live"]["value"]) == (DIGEST, 0.92)
    world.trainings = (rival("v1", 0.95, OTHER_DIGEST),)
    world.roll_out()
    assert (world.status["live"]["digest"], world.status["live"]["value"]) == (OTHER_DIGEST, 0.95)


def test_it_follows_the_leader_through_the_gate_and_is_ready_with_what_was_let_through() -> None:
    gate = {"floors": [{"metric": "f1_macro", "atLeast": 0.9}]}
    world = World(rival("v1", 0.92, DIGEST), follow="ModelService", gate=gate)
    world.visit()
    world.measured(values=[{"value": 0.93}])
    world.roll_out()
    assert (world.status["live"]["trainingJob"], world.says("Ready")) == ("v1", ("True", "Live"))
    world.trainings = (rival("v1", 0.92, DIGEST), rival("v2", 0.95, OTHER_DIGEST))
    world.visit()
    assert (world.says(), world.says("Ready")) == (("Unknown", "Judging"), ("True", "Live"))
    world.measured(values=[{"value": 0.8}])
    world.settle()
    assert (world.status["live"]["trainingJob"], world.says()) == ("v1", ("False", "GateFailed"))
    assert world.says("Ready") == ("True", "Live"), "there is nothing that its owner has to do"
    assert "v2 is not live" in message_of(world.status, "Ready")
    assert world.child is not None
    world.child["status"].update(readyReplicas=0, availableReplicas=0)
    world.settle()
    assert world.says("Ready") == ("False", "GateFailed"), "its pod is away"


def test_a_leader_that_is_no_better_does_not_take_over_when_the_live_ones_job_is_deleted() -> None:
    world = World(rival("v1", 0.92, DIGEST), follow="ModelService")
    world.roll_out()
    world.trainings = (rival("v0", 0.8, OTHER_DIGEST),)
    world.settle()
    assert (world.status["live"]["trainingJob"], world.says("Ready")) == ("v1", ("True", "Live"))
    world.trainings = ()
    world.settle()
    assert (world.status["live"]["trainingJob"], world.says("Ready")) == ("v1", ("True", "Live"))


def test_a_leader_that_is_no_better_takes_over_when_nothing_is_left_of_what_was_live() -> None:
    world = World(rival("v1", 0.92, DIGEST), follow="ModelService")
    world.roll_out()
    world.trainings, world.child = (rival("v0", 0.8, OTHER_DIGEST),), None
    world.roll_out()
    assert (served_job(world), world.status["live"]["trainingJob"]) == ("v0", "v0")


def test_a_leader_that_is_deleted_on_its_way_leaves_what_is_live() -> None:
    world = World(rival("v1", 0.92, DIGEST), follow="ModelService")
    world.roll_out()
    for left in ((rival("v1", 0.92, DIGEST),), ()):
        world.trainings = (rival("v1", 0.92, DIGEST), rival("v2", 0.95, OTHER_DIGEST))
        world.visit()
        assert served_job(world) == "v2"
        world.trainings = left
        world.visit()
        assert (served_job(world), world.status["live"]["trainingJob"]) == ("v1", "v1")


def test_jobs_that_are_not_complete_or_judged_otherwise_do_not_lead() -> None:
    running = rival("v3", 0.99, THIRD_DIGEST, completionTime=None)
    failed = rival("v4", 0.99, THIRD_DIGEST, failure={"reason": "OutOfMemory"})
    world = World(rival("v1", 0.92, DIGEST), running, failed, follow="ModelService")
    world.roll_out()
    assert world.status["live"]["trainingJob"] == "v1"
    world.trainings = (rival("v1", 0.92, DIGEST), rival("v5", 0.99, THIRD_DIGEST, primaryMetric="accuracy"))
    world.settle()
    assert world.status["live"]["trainingJob"] == "v1"


@pytest.mark.parametrize(
    ("jobs", "reason"),
    [
        pytest.param((), "CheckpointNotReady", id="no job is complete"),
        pytest.param(
            (rival("v1", 0.9, DIGEST), rival("v2", 0.9, OTHER_DIGEST, primaryMetric="accuracy")),
            "LeaderUnclear",
            id="two metrics",
        ),
    ],
)
def test_without_a_leader_it_waits(jobs: Any, reason: str) -> None:
    world = World(completed(), follow="ModelService")
    world.trainings = jobs
    world.visit()
    assert (world.child, world.says("Ready")) == (None, ("False", reason))
    assert kstatus(world.obj, world.status) == "InProgress"


# How


def test_without_room_for_one_more_pod_an_old_one_leaves_first() -> None:
    def steps(**fields: Any) -> Object:
        children = plan(replace(World(**fields).seen()), NOW, CONFIG).children
        found: Object = children[-1].obj["spec"]["strategy"]["rollingUpdate"]
        return found

    assert steps() == {"maxUnavailable": 0, "maxSurge": 1}
    assert steps(rollout={"strategy": "Replace"}) == {"maxUnavailable": 1, "maxSurge": 0}
