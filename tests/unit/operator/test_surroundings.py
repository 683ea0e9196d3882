"""What a Deployment has around its pods: made when asked for and possible, removed when not, and said in conditions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from operator_scene import CONFIG, NOW, completed, conditions_of, deployment, message_of, model_service

from winnow_operator import api, drift
from winnow_operator.kinds.deployment import plan
from winnow_operator.observed import DeploymentSeen
from winnow_operator.plan import Apply, Delete
from winnow_operator.resources import (
    GUESTS,
    HTTP_ROUTE,
    SCALED_OBJECT,
    SERVICE_MONITOR,
    Object,
    Resource,
)

SCALED: dict[str, Any] = {"autoscaling": {"minReplicas": 1, "maxReplicas": 4}}
WINDOW = {"start": "0 8 * * 1-5", "end": "0 18 * * 1-5", "minReplicas": 2}
ROUTED: dict[str, Any] = {"httpRoute": {"parentRefs": [{"name": "public"}]}}
EVERYTHING: dict[str, Any] = {
    **SCALED,
    **ROUTED,
    "disruptionBudget": {"maxUnavailable": 1},
    "networkPolicy": {},
    "monitoring": {"serviceMonitor": {}},
    "ingress": {"host": "spam.example"},
}


def serving(obj: api.Deployment, *guests: Resource, around: tuple[Object, ...] = ()) -> DeploymentSeen:
    """A deployment whose pods are there."""
    seen = DeploymentSeen(obj, model_service(), completed(), guests=frozenset(guests), around=around)
    workload = plan(seen, NOW, CONFIG).children[2].obj
    child = {**workload, "metadata": {**workload["metadata"], "generation": 1, "uid": "c"}}
    ready = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}
    return replace(seen, child=child | {"status": ready})


def made(seen: DeploymentSeen, status: Object | None = None) -> tuple[Object, ...]:
    """What the plan applies around the pods, as the API server would keep it."""
    return tuple(
        {**obj, "metadata": {**obj["metadata"], "uid": obj["kind"], "resourceVersion": "5"}, "status": status or {}}
        for obj in applied(seen)
    )


def applied(seen: DeploymentSeen) -> list[Object]:
    return [child.obj for child in plan(seen, NOW, CONFIG).children[3:] if isinstance(child, Apply)]


def removed(seen: DeploymentSeen) -> list[str]:
    return [child.obj["kind"] for child in plan(seen, NOW, CONFIG).children if isinstance(child, Delete)]


def kinds(seen: DeploymentSeen) -> list[str]:
    return [obj["kind"] for obj in applied(seen)]


def test_without_a_word_nothing_is_made_and_nothing_is_said() -> None:
    seen = serving(deployment(), *GUESTS)
    assert applied(seen) == []
    assert conditions_of(plan(seen, NOW, CONFIG).status).keys() == {"Available", "Progressing", "Promoted", "Ready"}


def test_nothing_leads_to_pods_that_are_not_there_yet() -> None:
    seen = serving(deployment(**EVERYTHING), *GUESTS)
    assert applied(replace(seen, child=None)) == []


@pytest.mark.parametrize(
    ("guests", "kinds_made"),
    [
        pytest.param(
            (),
            ["PodDisruptionBudget", "NetworkPolicy", "HorizontalPodAutoscaler", "Ingress"],
            id="a bare cluster: its own kinds",
        ),
        pytest.param(
            GUESTS,
            ["PodDisruptionBudget", "NetworkPolicy", "ScaledObject", "ServiceMonitor", "Ingress", "HTTPRoute"],
            id="with KEDA, the Prometheus operator and the Gateway API",
        ),
    ],
)
def test_what_is_asked_for_is_made_where_it_is_possible(guests: tuple[Resource, ...], kinds_made: list[str]) -> None:
    assert kinds(serving(deployment(**EVERYTHING), *guests)) == kinds_made


def test_what_is_not_asked_for_any_more_is_removed() -> None:
    around = made(serving(deployment(**EVERYTHING), *GUESTS))
    seen = serving(deployment(disruptionBudget={"maxUnavailable": 1}), *GUESTS, around=around)
    assert sorted(removed(seen)) == ["HTTPRoute", "Ingress", "NetworkPolicy", "ScaledObject", "ServiceMonitor"]
    assert kinds(seen) == ["PodDisruptionBudget"]


def test_what_is_being_deleted_is_not_deleted_again() -> None:
    (policy,) = made(serving(deployment(networkPolicy={})))
    policy["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    assert removed(serving(deployment(), around=(policy,))) == []


def test_when_keda_comes_the_other_autoscaler_goes_first() -> None:
    obj = deployment(**SCALED)
    seen = serving(obj, SCALED_OBJECT, around=made(serving(obj)))
    last = plan(seen, NOW, CONFIG).children[3:]
    assert [(type(child), child.obj["kind"]) for child in last] == [
        (Delete, "HorizontalPodAutoscaler"),
        (Apply, "ScaledObject"),
    ]


def test_a_schedule_waits_for_keda_in_words_and_nothing_scales_meanwhile() -> None:
    obj = deployment(autoscaling={"maxReplicas": 4, "schedule": [WINDOW]})
    seen = serving(obj)
    assert applied(seen) == []
    status = plan(seen, NOW, CONFIG).status
    assert conditions_of(status)["Autoscaled"] == ("False", "KindNotInstalled")
    assert "KEDA" in message_of(status, "Autoscaled")
    assert conditions_of(status)["Ready"] == ("True", "Live")


def condition(type_: str, status: str, reason: str = "", message: str = "") -> Object:
    return {"type": type_, "status": status, "reason": reason, "message": message}


def parent(*told: Object) -> Object:
    return {"parents": [{"parentRef": {"name": "public"}, "conditions": list(told)}]}


TOLD = [
    pytest.param(SCALED, (), {}, "Autoscaled", ("Unknown", "AutoscalerStarting"), "nothing yet", id="a new autoscaler"),
    pytest.param(
        SCALED,
        (),
        {"conditions": [condition("ScalingActive", "True", "ValidMetricFound")]},
        "Autoscaled",
        ("True", "Autoscaling"),
        "HorizontalPodAutoscaler web chooses from 1 to 4 replicas, for 4096 waiting tokens each",
        id="an autoscaler that works",
    ),
    pytest.param(
        SCALED,
        (),
        {"conditions": [condition("ScalingActive", "False", "FailedGetPodsMetric", "no custom metrics API")]},
        "Autoscaled",
        ("False", "MetricUnavailable"),
        "no custom metrics API",
        id="no adapter for custom metrics",
    ),
    pytest.param(
        SCALED,
        (),
        {"conditions": [condition("ScalingActive", "False", "ScalingDisabled", "zero")]},
        "Autoscaled",
        ("False", "ScaledToZero"),
        "set to 1 or more",
        id="scaled to zero by hand",
    ),
    pytest.param(
        SCALED,
        (),
        {"conditions": [condition("AbleToScale", "False", "FailedGetScale", "no scale of Deployment web")]},
        "Autoscaled",
        ("False", "MetricUnavailable"),
        "HorizontalPodAutoscaler web does not scale: no scale of Deployment web",
        id="an autoscaler that may not scale",
    ),
    pytest.param(
        SCALED,
        (),
        {
            "conditions": [
                condition("AbleToScale", "False", "FailedUpdateScale", "the webhook refuses it"),
                condition("ScalingActive", "True", "ValidMetricFound"),
            ]
        },
        "Autoscaled",
        ("False", "MetricUnavailable"),
        "the webhook refuses it",
        id="an autoscaler that could scale once",
    ),
    pytest.param(
        SCALED,
        (SCALED_OBJECT,),
        {"conditions": [condition("Ready", "False", "TriggerError", "no such host")]},
        "Autoscaled",
        ("False", "MetricUnavailable"),
        "ScaledObject web does not scale: no such host",
        id="KEDA does not",
    ),
    pytest.param(
        SCALED,
        (SCALED_OBJECT,),
        {"conditions": [condition("Ready", "True", "ScaledObjectReady")]},
        "Autoscaled",
        ("True", "Autoscaling"),
        "ScaledObject web",
        id="KEDA works",
    ),
    pytest.param(
        {"monitoring": {"serviceMonitor": {}}},
        (),
        {},
        "Monitored",
        ("False", "KindNotInstalled"),
        "Prometheus operator",
        id="no Prometheus operator",
    ),
    pytest.param(
        {"monitoring": {"serviceMonitor": {}}},
        (SERVICE_MONITOR,),
        {},
        "Monitored",
        ("True", "Monitored"),
        "/metrics",
        id="monitored",
    ),
    pytest.param(ROUTED, (), {}, "Exposed", ("False", "KindNotInstalled"), "Gateway API", id="no Gateway API"),
    pytest.param(
        ROUTED, (HTTP_ROUTE,), {}, "Exposed", ("Unknown", "RoutePending"), "No Gateway has taken", id="no Gateway"
    ),
    pytest.param(
        ROUTED,
        (HTTP_ROUTE,),
        parent(condition("Accepted", "True"), condition("ResolvedRefs", "True")),
        "Exposed",
        ("True", "Exposed"),
        "taken by 1 Gateway",
        id="a Gateway took it",
    ),
    pytest.param(
        ROUTED,
        (HTTP_ROUTE,),
        parent(condition("Accepted", "False", "NotAllowedByListeners", "not from this namespace")),
        "Exposed",
        ("False", "RouteNotAccepted"),
        "Gateway public does not take the HTTPRoute: not from this namespace",
        id="a Gateway refuses it",
    ),
    pytest.param(
        {"ingress": {"host": "ml.example", "path": "/spam", "tlsSecretName": "tls"}},
        (),
        {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}},
        "Exposed",
        ("True", "Exposed"),
        "https://ml.example/spam/ here, at 192.0.2.7",
        id="an Ingress with an address",
    ),
    pytest.param(
        {"ingress": {}},
        (),
        {"loadBalancer": {"ingress": [{"hostname": "lb.example"}]}},
        "Exposed",
        ("True", "Exposed"),
        "http://lb.example/ here, at lb.example",
        id="an Ingress that is known by a name",
    ),
    pytest.param(
        {"ingress": {}} | ROUTED,
        (),
        {},
        "Exposed",
        ("False", "KindNotInstalled"),
        "Ingress web leads http://*/ here, without an address yet",
        id="the worst of two ways, with words about both",
    ),
]


@pytest.mark.parametrize(("spec", "guests", "status", "type_", "wanted", "says"), TOLD)
def test_a_condition_says_how_it_stands(
    spec: Object, guests: tuple[Resource, ...], status: Object, type_: str, wanted: tuple[str, str], says: str
) -> None:
    obj = deployment(**spec)
    around = made(serving(obj, *guests), status)
    found = plan(serving(obj, *guests, around=around), NOW, CONFIG).status
    assert conditions_of(found)[type_] == wanted
    assert says in message_of(found, type_)
    assert conditions_of(found)["Ready"] == ("True", "Live")  # serving does not depend on any of it


def test_a_target_that_the_api_server_writes_shorter_is_no_difference() -> None:
    (scaler,) = applied(serving(deployment(autoscaling={"maxReplicas": 2, "targetQueuedTokens": 5000})))
    kept = drift.stamped(scaler)
    kept["spec"]["metrics"][0]["pods"]["target"]["averageValue"] = "5k"
    assert not drift.differs(scaler, kept)
