"""Where a Deployment that wakes on request leads its clients, what it keeps beside its pods, and what it says about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from operator_scene import CONFIG, NOW, completed, conditions_of, deployment, message_of, model_service

from winnow_operator.build import waker
from winnow_operator.kinds.deployment import plan
from winnow_operator.observe import deployment as look_at
from winnow_operator.observed import DeploymentSeen
from winnow_operator.plan import Apply, Delete
from winnow_operator.resources import SCALED_OBJECT, Object
from winnow_operator.store import Store

WOKEN: dict[str, Any] = {"autoscaling": {"minReplicas": 0, "maxReplicas": 4, "wakeOnRequest": True}}
LIVE = {"trainingJob": "v1", "checkpoint": "epoch-2"}


def seen(*, asked: int, ready: int, holding: bool = True, **spec: Any) -> DeploymentSeen:
    """With so many pods asked for and ready, and a waker."""
    obj = deployment(replicas=asked, status={"live": LIVE}, **{**WOKEN, **spec})
    scene = DeploymentSeen(obj, model_service(), completed(), guests=frozenset({SCALED_OBJECT}))
    made = {child.obj["metadata"]["name"]: child.obj for child in plan(scene, NOW, CONFIG).children}
    workload = next(child.obj for child in plan(scene, NOW, CONFIG).children if child.obj["apiVersion"] == "apps/v1")
    status = {"replicas": asked, "updatedReplicas": asked, "readyReplicas": ready, "availableReplicas": ready}
    waking = kept(made["web-waker"], {"readyReplicas": 1} if holding else {}) if "web-waker" in made else None
    return replace(
        scene,
        child=kept(workload, status),
        waker=(waking, kept(made["web-pods"], {})) if waking else (),
    )


def kept(obj: Object, status: Object) -> Object:
    """As the API server has it, its controller up to date."""
    metadata = {**obj["metadata"], "generation": 1, "uid": obj["metadata"]["name"], "resourceVersion": "5"}
    return {**obj, "metadata": metadata, "status": {"observedGeneration": 1, **status}}


def leads_to(scene: DeploymentSeen) -> str:
    first = plan(scene, NOW, CONFIG).children[0].obj
    assert (first["kind"], first["metadata"]["name"]) == ("Service", "web")
    kind: str = first["spec"]["selector"]["winnow.dev/kind"]
    return kind


@pytest.mark.parametrize(
    ("asked", "ready", "kind"),
    [
        pytest.param(0, 0, "DeploymentWaker", id="asleep"),
        pytest.param(1, 0, "DeploymentWaker", id="a pod starts"),
        pytest.param(1, 1, "Deployment", id="a pod is ready: the waker is not in the way"),
        pytest.param(3, 1, "Deployment", id="one of three"),
        pytest.param(0, 1, "DeploymentWaker", id="the last pod is about to be told to go"),
    ],
)
def test_the_service_leads_to_the_waker_while_no_pod_is_ready(asked: int, ready: int, kind: str) -> None:
    assert leads_to(seen(asked=asked, ready=ready)) == kind


def test_clients_are_led_away_before_the_last_pod_is_told_to_go() -> None:
    """Children are written in their order."""
    kinds = [
        (child.obj["apiVersion"], child.obj["kind"]) for child in plan(seen(asked=0, ready=1), NOW, CONFIG).children
    ]
    assert kinds.index(("v1", "Service")) < kinds.index(("apps/v1", "Deployment"))


def test_without_a_word_the_service_leads_to_the_pods_whether_there_are_any_or_not() -> None:
    scene = seen(asked=1, ready=0, autoscaling={"maxReplicas": 4})
    assert leads_to(scene) == "Deployment"
    assert not scene.waker


def test_what_is_not_asked_for_any_more_goes() -> None:
    before = seen(asked=1, ready=1)
    scene = replace(before, obj=deployment(autoscaling={"maxReplicas": 4}, status={"live": LIVE}))

    def removed(scene: DeploymentSeen) -> list[str]:
        children = plan(scene, NOW, CONFIG).children
        return [child.obj["metadata"]["name"] for child in children if isinstance(child, Delete)]

    assert removed(scene) == ["web-waker"]
    leaving, service = scene.waker
    leaving = {**leaving, "metadata": {**leaving["metadata"], "deletionTimestamp": "2026-11-23T12:00:00Z"}}
    assert removed(replace(scene, waker=(leaving, service))) == []  # what it holds is still sent on
    assert removed(replace(scene, waker=(service,))) == ["web-pods"]
    assert leads_to(scene) == "Deployment"


def test_sleep_is_a_good_state_in_plain_words() -> None:
    status = plan(seen(asked=0, ready=0), NOW, CONFIG).status
    assert conditions_of(status)["Ready"] == ("True", "Asleep")
    assert conditions_of(status)["Available"] == ("False", "Asleep")
    assert "no pod runs, and requests are held until one does" in message_of(status, "Ready")
    assert {"Stalled", "Reconciling"} & conditions_of(status).keys() == set()
    assert status["summary"] == "Asleep, wakes on request; live: v1/epoch-2"


def test_a_waker_that_is_not_there_is_no_sleep() -> None:
    status = plan(seen(asked=0, ready=0, holding=False), NOW, CONFIG).status
    assert conditions_of(status)["Ready"] == ("False", "WakerStarting")
    assert conditions_of(status)["Reconciling"] == ("True", "WakerStarting")
    assert conditions_of(status)["Available"] == ("False", "NotServing")
    assert message_of(status, "Available") == "No pod answers requests"


def test_a_waker_whose_pods_are_refused_says_so() -> None:
    scene = seen(asked=0, ready=0, holding=False)
    deployed, service = scene.waker
    words = 'pods "web-waker-5d8f-x7k2p" is forbidden: exceeded quota: one'
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": words}
    scene = replace(scene, waker=({**deployed, "status": {"conditions": [failure]}}, service))
    told = message_of(plan(scene, NOW, CONFIG).status, "Ready")
    assert told.endswith("The API server refuses the pods of Deployment web-waker: exceeded quota: one")


def test_while_a_pod_starts_requests_are_said_to_be_held() -> None:
    status = plan(seen(asked=1, ready=0), NOW, CONFIG).status
    assert conditions_of(status)["Ready"] == ("False", "RollingOut")
    assert "held" in message_of(status, "Available")
    assert conditions_of(plan(seen(asked=1, ready=1), NOW, CONFIG).status)["Ready"] == ("True", "Live")


@pytest.mark.parametrize("more", [{}, {"schedule": [{"start": "0 8 * * *", "end": "0 9 * * *", "minReplicas": 2}]}])
def test_without_keda_nothing_scales_and_the_condition_says_why(more: dict[str, Any]) -> None:
    autoscaling = {**WOKEN["autoscaling"], **more}
    scene = replace(seen(asked=0, ready=0, autoscaling=autoscaling), guests=frozenset())
    told = plan(scene, NOW, CONFIG)
    assert conditions_of(told.status)["Autoscaled"] == ("False", "KindNotInstalled")
    fields = "schedule and spec.autoscaling.wakeOnRequest need" if more else "spec.autoscaling.wakeOnRequest needs"
    assert f"{fields} KEDA" in message_of(told.status, "Autoscaled")
    applied = {child.obj["kind"] for child in told.children if isinstance(child, Apply)}
    assert not applied & {"HorizontalPodAutoscaler", "ScaledObject"}


def test_its_objects_are_found_as_the_deployments_and_its_pods_are_no_servers() -> None:
    scene, store = seen(asked=1, ready=1), Store()
    raw = scene.obj.model_dump(mode="json", by_alias=True, exclude_none=True)
    store.put(raw)
    for obj in (*scene.waker, scene.child or {}):
        store.put(obj)
    labels = {
        "waker": waker.selector(scene.obj),
        "server": {**waker.selector(scene.obj), "winnow.dev/kind": "Deployment"},
    }
    for name, selector in labels.items():
        metadata = {"name": name, "namespace": "ml", "uid": name, "resourceVersion": "7", "labels": selector}
        store.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})
    found = look_at(store, scene.obj)
    assert {obj["metadata"]["name"] for obj in found.waker} == {"web-waker", "web-pods"}
    assert [pod["metadata"]["name"] for pod in found.pods] == ["server"]
