"""From a checkpoint to live traffic and back, on the real API server: the gate, a rollback by itself and by hand, whom a Deployment follows."""

from __future__ import annotations

from typing import Any

import pytest
from integration_client import (
    APPS_DEPLOYMENT,
    COLLECTED_SECONDS,
    DEPLOYMENT,
    JOB,
    MODEL_SERVICE,
    POD,
    TRAINING_JOB,
    Object,
)
from integration_cluster import Cluster, checkpoint, condition, epoch, kstatus, trained
from integration_manifests import deployment, training_job
from integration_operator import Operator
from integration_pods import Pod, message

pytestmark = pytest.mark.usefixtures("operator")
GATE = {"floors": [{"metric": "recall", "label": "spam", "atLeast": 0.95}], "notWorseThanLive": True}
FIRST, SECOND = ({"trainingJob": "v1", "name": f"epoch-{number}"} for number in (1, 2))


async def gate_pod(cluster: Cluster, but_not: tuple[str, ...] = ()) -> Pod:
    """The next pod that measures."""

    def fresh(pods: list[Object]) -> Object | None:
        found = [pod for pod in pods if pod["metadata"]["name"] not in but_not]
        return found[0] if found else None

    selector = "winnow.dev/kind=DeploymentGate,winnow.dev/name=web"
    return Pod(cluster.client, await cluster.until_all("a pod of the gate", POD, fresh, selector=selector))


def measured(recall: float = 0.97, lead_at_least: float = -0.01, **told: Any) -> str:
    comparison = {
        "metric": "f1",
        "rows": 200,
        "candidateRows": 200,
        "candidate": 0.93,
        "live": 0.92,
        "lead": 0.01,
        "leadAtLeast": lead_at_least,
    }
    usual = {"rows": 200, "measuredOn": "Test", "values": [{"value": recall}], "comparison": comparison}
    return message(kind="compare", state="Done", **{**usual, **told})


async def serve(cluster: Cluster, chosen: Object, **spec: Any) -> Pod:
    """A Deployment whose pod answers."""
    await cluster.ready_rows()
    await cluster.trained()
    await cluster.apply(deployment(checkpoint=chosen, **spec))
    pod = await cluster.pod_of(DEPLOYMENT, "web")
    await pod.start()
    await cluster.expect(DEPLOYMENT, "web", "Promoted", reason="Promoted")
    return pod


async def live(cluster: Cluster) -> str:
    name: str = (await cluster.get(DEPLOYMENT, "web"))["status"]["live"]["checkpoint"]
    return name


async def test_a_checkpoint_goes_live_through_the_gate_and_is_watched(cluster: Cluster) -> None:
    old = await serve(cluster, FIRST, rollout={"watchSeconds": 5})
    await cluster.change(DEPLOYMENT, "web", checkpoint=SECOND, gate=GATE)
    await cluster.expect(DEPLOYMENT, "web", "Promoted", status="Unknown", reason="Judging")
    pod = await gate_pod(cluster)
    assert "--live-digest" in pod.container["command"]
    service_selector = {"winnow.dev/kind": "Deployment", "winnow.dev/name": "web"}
    labels = (await cluster.get(POD, pod.name))["metadata"]["labels"]
    assert not service_selector.items() <= labels.items(), "the Service would send it requests"
    job = await cluster.until("deployedBy", TRAINING_JOB, _used_by_web, name="v1")
    assert [found.get("deployedBy") for found in job["status"]["checkpoints"]] == [["web"], ["web"]]
    await pod.end(0, measured())
    new = await cluster.pod_of(DEPLOYMENT, "web", but_not=[old.name])
    await new.start()
    await cluster.expect(DEPLOYMENT, "web", "Promoted", status="Unknown", reason="Watching", says="crash before")
    web = await cluster.expect(DEPLOYMENT, "web", "Promoted", says="recall of spam 0.97 is at least 0.95")
    assert web["status"]["live"]["checkpoint"] == "epoch-2"
    assert web["status"]["history"][0]["checkpoint"] == "epoch-1"
    assert web["status"]["gate"]["comparison"]["leadAtLeast"] == -0.01
    await until_the_gates_job_is_gone(cluster)


def _used_by_web(job: Object) -> bool:
    return all(found.get("deployedBy") for found in job["status"]["checkpoints"])


def _name(obj: Object) -> str:
    name: str = obj["metadata"]["name"]
    return name


async def until_the_gates_job_is_gone(cluster: Cluster) -> None:
    def gone(jobs: list[Object]) -> bool | None:
        return all("gate" not in _name(job) for job in jobs) or None

    await cluster.until_all("the gate's job to go", JOB, gone, seconds=COLLECTED_SECONDS)


async def test_a_refused_checkpoint_leaves_the_live_one_and_another_bound_lets_it_through(
    cluster: Cluster, operator: Operator
) -> None:
    old = await serve(cluster, FIRST)
    await cluster.change(DEPLOYMENT, "web", checkpoint=SECOND, gate=GATE)
    await (await gate_pod(cluster)).end(0, measured(recall=0.9))
    web = await cluster.expect(
        DEPLOYMENT, "web", "Promoted", status="False", reason="GateFailed", says="recall of spam 0.9 is below 0.95"
    )
    assert kstatus(web) == "Failed"
    assert condition(web, "Available")["status"] == "True"  # type: ignore[index]
    assert await live(cluster) == "epoch-1"
    await until_the_gates_job_is_gone(cluster)
    await operator.kill()
    await operator.start()
    await cluster.quiet(JOB)
    assert await live(cluster) == "epoch-1"
    floors = [{"metric": "recall", "label": "spam", "atLeast": 0.9}]
    await cluster.change(DEPLOYMENT, "web", gate={"floors": floors})
    await (await cluster.pod_of(DEPLOYMENT, "web", but_not=[old.name])).start()
    await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live", says="epoch-2")


@pytest.mark.parametrize("went_live", [False, True], ids=["as it starts", "in its first minutes"])
async def test_a_checkpoint_whose_server_crashes_is_taken_back_and_stays_out(
    cluster: Cluster, operator: Operator, went_live: bool
) -> None:
    old = await serve(cluster, FIRST)
    await cluster.change(DEPLOYMENT, "web", checkpoint=SECOND)
    new = await cluster.pod_of(DEPLOYMENT, "web", but_not=[old.name])
    await new.start(ready=went_live)
    if went_live:
        await cluster.expect(DEPLOYMENT, "web", "Promoted", status="Unknown", reason="Watching")
    await new.crash(139, "Segmentation fault")
    says = "v1/epoch-2 was taken back and v1/epoch-1 serves: The server ended with exit code 139: Segmentation fault"
    await cluster.expect(DEPLOYMENT, "web", "Promoted", status="False", reason="RolledBack", says=says)
    if went_live:
        again = await cluster.pod_of(DEPLOYMENT, "web", but_not=[old.name, new.name])
        await again.start()
    web = await cluster.until(
        "epoch-1 to be live", DEPLOYMENT, lambda web: web["status"]["live"]["checkpoint"] == "epoch-1", name="web"
    )
    await cluster.until("the bad one to leave", POD, lambda pod: pod["metadata"]["deletionTimestamp"], name=new.name)
    story = [web["status"]["live"], *web["status"].get("history", [])]
    expected = ["RolledBack", "Promoted", "Promoted"] if went_live else ["Promoted"]
    assert [entry["reason"] for entry in story] == expected
    await operator.kill()
    await operator.start()
    await cluster.change(DEPLOYMENT, "web", replicas=2)
    child = await cluster.until("two", APPS_DEPLOYMENT, lambda child: child["spec"]["replicas"] == 2, name="web")
    assert checkpoint(1)["digest"] in child["spec"]["template"]["spec"]["containers"][0]["command"]
    await cluster.expect(DEPLOYMENT, "web", "Promoted", status="False", reason="RolledBack")


async def test_a_rollback_by_hand_waits_for_no_gate(cluster: Cluster) -> None:
    old = await serve(cluster, FIRST, rollout={"watchSeconds": 0})
    await cluster.change(DEPLOYMENT, "web", checkpoint=SECOND)
    new = await cluster.pod_of(DEPLOYMENT, "web", but_not=[old.name])
    await new.start()
    await cluster.expect(DEPLOYMENT, "web", "Promoted", reason="Promoted", says="epoch-2")
    strict = {"floors": [{"metric": "accuracy", "atLeast": 1}]}
    await cluster.change(DEPLOYMENT, "web", gate=strict)
    await cluster.change(DEPLOYMENT, "web", checkpoint={"name": "epoch-1"})
    await (await cluster.pod_of(DEPLOYMENT, "web", but_not=[old.name, new.name])).start()
    web = await cluster.expect(DEPLOYMENT, "web", "Promoted", reason="Promoted", says="epoch-1")
    assert web["status"]["live"]["reason"] == "RolledBackByHand"
    assert all("gate" not in _name(job) for job in await cluster.find_all(JOB))


async def test_a_deployment_follows_the_leaderboard_through_the_gate(cluster: Cluster) -> None:
    await cluster.ready_rows()
    await cluster.trained()
    floors = [{"metric": "accuracy", "atLeast": 0.9}]
    manifest = deployment(follow="ModelService", gate={"floors": floors}, rollout={"watchSeconds": 0})
    del manifest["spec"]["checkpoint"]
    await cluster.apply(manifest)
    first = await gate_pod(cluster)
    await first.end(0, measured(comparison=None))
    old = await cluster.pod_of(DEPLOYMENT, "web")
    await old.start()
    await cluster.expect(DEPLOYMENT, "web", "Promoted", reason="Promoted", says="v1/epoch-2")
    # A better one comes, and is not let through; then one that is.
    for name, f1, accuracy, outcome in (("v2", 0.98, 0.5, "GateFailed"), ("v3", 0.99, 0.95, "")):
        await cluster.apply(training_job(name))
        pod = await cluster.pod_of(TRAINING_JOB, name)
        await pod.start()
        own = {**checkpoint(2), "digest": f"sha256:{name[1] * 64}"}
        await pod.end(0, trained(epochs=[epoch(1, 0.5), epoch(2, f1)], checkpoints=[checkpoint(1), own]))
        judging = await gate_pod(cluster, but_not=(first.name,))
        await judging.end(0, measured(recall=accuracy, comparison=None))
        first = judging
        if outcome:
            web = await cluster.expect(DEPLOYMENT, "web", "Promoted", status="False", reason=outcome, says="v2/epoch-2")
            assert condition(web, "Ready")["status"] == "True"  # type: ignore[index]
            assert web["status"]["live"]["trainingJob"] == "v1"
    await (await cluster.pod_of(DEPLOYMENT, "web", but_not=[old.name])).start()
    await cluster.expect(DEPLOYMENT, "web", "Promoted", reason="Promoted", says="v3/epoch-2")
    await cluster.until(
        "the leaderboard to name what is deployed",
        MODEL_SERVICE,
        lambda spam: (
            [(one["trainingJob"], one["value"], one["deployed"]) for one in spam["status"]["leaderboard"]]
            == [("v3", 0.99, True), ("v2", 0.98, False), ("v1", 0.9721, False)]
        ),
        name="spam",
    )
