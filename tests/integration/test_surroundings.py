"""Autoscalers, budgets, policies, monitors and routes on a real API server: made when asked for, removed when not, and never fought over.

KEDA, the Prometheus operator and the Gateway API are there as their CRDs only, with the fields that matter here; what their controllers do is played.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio
from integration_client import (
    APPS_DEPLOYMENT,
    AROUND,
    AUTOSCALER,
    BUDGET,
    CRD,
    DEPLOYMENT,
    GUESTS,
    HTTP_ROUTE,
    INGRESS,
    NETWORK_POLICY,
    SCALED_OBJECT,
    SERVICE,
    SERVICE_MONITOR,
    WAIT_SECONDS,
    Client,
    Kind,
    Object,
    RefusedError,
)
from integration_cluster import Cluster, condition, kstatus
from integration_manifests import deployment
from integration_operator import Operator

pytestmark = pytest.mark.usefixtures("operator")

SCALED: dict[str, Any] = {"autoscaling": {"minReplicas": 1, "maxReplicas": 4}}
OWN: dict[str, Any] = {
    **SCALED,
    "disruptionBudget": {"maxUnavailable": 1},
    "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"team": "ml"}}}]},
    "ingress": {"host": "ml.example", "path": "/spam", "annotations": {"team": "ml"}},
}
FOREIGN: dict[str, Any] = {
    **SCALED,
    "monitoring": {"serviceMonitor": {"labels": {"release": "prometheus"}}},
    "httpRoute": {"parentRefs": [{"name": "public"}], "hostnames": ["spam.example"]},
}
WOKEN: dict[str, Any] = {
    "autoscaling": {"minReplicas": 0, "maxReplicas": 4, "wakeOnRequest": True},
    "networkPolicy": {},
    "monitoring": {"serviceMonitor": {}},
}
WAKER = Kind("v1", "DeploymentWaker", "pods")  # as the labels of its pods have it
# The parts of their schemas that what we write must fit.
TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
TEXTS = {"type": "object", "additionalProperties": TEXT}


def record(required: tuple[str, ...] = (), **properties: Object) -> Object:
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


def array(items: Object) -> Object:
    return {"type": "array", "items": items}


OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
SPECS = {
    SCALED_OBJECT: record(
        ("scaleTargetRef", "triggers"),
        scaleTargetRef=record(("name",), apiVersion=TEXT, kind=TEXT, name=TEXT),
        minReplicaCount=WHOLE,
        maxReplicaCount=WHOLE,
        pollingInterval=WHOLE,
        cooldownPeriod=WHOLE,
        initialCooldownPeriod=WHOLE,
        advanced=record(horizontalPodAutoscalerConfig=record(behavior=OPEN)),
        triggers=array(record(("type", "metadata"), type=TEXT, metadata=TEXTS)),
    ),
    SERVICE_MONITOR: record(
        ("selector", "endpoints"),
        selector=record(matchLabels=TEXTS),
        endpoints=array(record(port=TEXT, path=TEXT, interval=TEXT)),
    ),
    HTTP_ROUTE: record(
        parentRefs=array(
            record(
                ("name",),
                group=TEXT | {"default": "gateway.networking.k8s.io"},
                kind=TEXT | {"default": "Gateway"},
                name=TEXT,
                namespace=TEXT,
                sectionName=TEXT,
            )
        ),
        hostnames=array(TEXT),
        rules=array(
            record(
                matches=array(record(path=record(type=TEXT, value=TEXT))),
                backendRefs=array(
                    record(
                        ("name",), group=TEXT | {"default": ""}, name=TEXT, port=WHOLE, weight=WHOLE | {"default": 1}
                    )
                ),
            )
        ),
    ),
}


def crd(kind: Kind) -> Object:
    group, _, version = kind.api_version.partition("/")
    schema = record(apiVersion=TEXT, kind=TEXT, metadata={"type": "object"}, spec=SPECS[kind], status=OPEN)
    names = {"kind": kind.kind, "plural": kind.plural, "singular": kind.kind.lower(), "listKind": f"{kind.kind}List"}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{group}",
            # This group is Kubernetes' own: without a word of approval the API server would not take it.
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": names,
            "versions": [served | {"subresources": {"status": {}}}],
        },
    }


async def install(client: Client, *kinds: Kind) -> None:
    for kind in kinds:
        await client.apply(crd(kind))
    plurals = {kind.plural for kind in kinds}

    def established(found: list[Object]) -> bool:
        ready = {
            each["spec"]["names"]["plural"]
            for each in found
            for told in each.get("status", {}).get("conditions") or []
            if (told["type"], told["status"]) == ("Established", "True")
        }
        return plurals <= ready

    await client.until(CRD, "", established)
    for kind in kinds:
        await _served(client, kind)


async def _served(client: Client, kind: Kind) -> None:
    """An established kind is refused for a moment (429) while its storage is set up."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            with suppress(RefusedError):
                await client.raw(kind.path())
                return
            await asyncio.sleep(0.1)  # nothing tells when it is over


async def uninstall(client: Client, *kinds: Kind) -> None:
    for kind in kinds:
        await client.delete(CRD, "", crd(kind)["metadata"]["name"])
    gone = {crd(kind)["metadata"]["name"] for kind in kinds}
    await client.until(CRD, "", lambda found: not gone & {each["metadata"]["name"] for each in found} or None)


@pytest_asyncio.fixture(loop_scope="session")
async def guests(client: Client) -> AsyncIterator[None]:
    """The kinds of KEDA, the Prometheus operator and the Gateway API, for one test."""
    await install(client, *GUESTS)
    yield
    await uninstall(client, *GUESTS)


async def serving(cluster: Cluster, **spec: Any) -> None:
    await cluster.ready_rows()
    await cluster.trained()
    await cluster.apply(deployment(**spec))
    pod = await cluster.pod_of(DEPLOYMENT, "web")
    await pod.start()
    await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live")


async def there(cluster: Cluster, *kinds: Kind) -> dict[Kind, Object]:
    return {kind: await cluster.until("it to be made", kind, bool, name="web") for kind in kinds}


async def say(cluster: Cluster, kind: Kind, status: Object) -> None:
    """What a controller would write."""
    await cluster.client.patch(kind, cluster.namespace, "web", {"status": status}, "status")


async def test_what_is_asked_for_is_made_and_goes_with_its_field(cluster: Cluster) -> None:
    await serving(cluster, **OWN)
    made = await there(cluster, *AROUND)
    target = {"apiVersion": "winnow.dev/v1alpha1", "kind": "Deployment", "name": "web"}
    assert made[AUTOSCALER]["spec"]["scaleTargetRef"] == target
    assert made[BUDGET]["spec"]["maxUnavailable"] == 1
    assert made[INGRESS]["metadata"]["annotations"]["team"] == "ml"
    for obj in made.values():
        assert obj["metadata"]["ownerReferences"][0]["kind"] == "Deployment"
    workload = await cluster.get(APPS_DEPLOYMENT, "web")
    command = workload["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[command.index("--path-prefix") + 1] == "/spam"
    await cluster.expect(DEPLOYMENT, "web", "Exposed", reason="Exposed", says="http://ml.example/spam/")
    await cluster.change(DEPLOYMENT, "web", networkPolicy=None, autoscaling=None)
    await cluster.until_gone(NETWORK_POLICY, "web")
    await cluster.until_gone(AUTOSCALER, "web")
    left = await cluster.until("no word of it", DEPLOYMENT, lambda web: not condition(web, "Autoscaled"), name="web")
    assert condition(left, "Exposed")
    await there(cluster, BUDGET, INGRESS)


async def test_at_rest_nothing_is_written_and_what_others_change_is_put_right(cluster: Cluster) -> None:
    await serving(cluster, **OWN)
    made = await there(cluster, *AROUND)
    await cluster.look_again(DEPLOYMENT, "web")
    await cluster.quiet(NETWORK_POLICY)
    assert {kind: (await cluster.get(kind, "web"))["metadata"]["generation"] for kind in (INGRESS, BUDGET)} == {
        kind: made[kind]["metadata"]["generation"] for kind in (INGRESS, BUDGET)
    }
    await cluster.client.patch(BUDGET, cluster.namespace, "web", {"spec": {"maxUnavailable": 3}})
    await cluster.until("one again", BUDGET, lambda found: found["spec"]["maxUnavailable"] == 1, name="web")
    await cluster.delete(INGRESS, "web")
    uid = made[INGRESS]["metadata"]["uid"]
    await cluster.until("another Ingress", INGRESS, lambda found: found["metadata"]["uid"] != uid, name="web")


async def test_the_number_of_an_autoscaler_stays(cluster: Cluster) -> None:
    """The HorizontalPodAutoscaler's controller writes through the scale subresource of our kind; nobody takes it back."""
    await serving(cluster, **SCALED)
    await there(cluster, AUTOSCALER)
    await cluster.client.patch(DEPLOYMENT, cluster.namespace, "web", {"spec": {"replicas": 3}}, "scale")
    await cluster.until("three pods", APPS_DEPLOYMENT, lambda found: found["spec"]["replicas"] == 3, name="web")
    # Applied again as it stands in git, without replicas.
    await cluster.apply(deployment(**SCALED, thresholds={"spam": 0.7}))
    await cluster.expect(DEPLOYMENT, "web", "Progressing", reason="RollingOut")  # looked at, as it is now
    assert (await cluster.get(DEPLOYMENT, "web"))["spec"]["replicas"] == 3
    assert (await cluster.get(APPS_DEPLOYMENT, "web"))["spec"]["replicas"] == 3


async def test_a_cluster_without_custom_metrics_says_so(cluster: Cluster) -> None:
    """By the real controller of HorizontalPodAutoscalers."""
    await serving(cluster, **SCALED)
    await cluster.expect(
        DEPLOYMENT, "web", "Autoscaled", status="False", reason="MetricUnavailable", says="clf_queue_tokens", seconds=60
    )
    assert (condition(await cluster.get(DEPLOYMENT, "web"), "Ready") or {})["status"] == "True"


async def test_an_autoscaler_of_the_users_is_left_alone_in_words(cluster: Cluster) -> None:
    spec = {"maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"}}
    await cluster.apply(
        {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": spec}
    )
    await cluster.ready_rows()
    await cluster.trained()
    await cluster.apply(deployment(**SCALED))
    says = "HorizontalPodAutoscaler web exists and belongs to somebody else"
    await cluster.expect(DEPLOYMENT, "web", "Autoscaled", status="False", reason="NameConflict", says=says)
    await (await cluster.pod_of(DEPLOYMENT, "web")).start()
    await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live")
    assert (await cluster.get(AUTOSCALER, "web"))["spec"]["maxReplicas"] == 2


async def test_what_is_installed_later_is_used_then_and_missed_in_words_before(
    cluster: Cluster, client: Client, operator: Operator
) -> None:
    await serving(cluster, **FOREIGN)
    await there(cluster, AUTOSCALER)
    for type_, what in (("Monitored", "Prometheus operator"), ("Exposed", "Gateway API")):
        await cluster.expect(DEPLOYMENT, "web", type_, status="False", reason="KindNotInstalled", says=what)
    await install(client, *GUESTS)
    try:
        made = await there(cluster, *GUESTS)
        await cluster.until_gone(AUTOSCALER, "web")
        assert made[SCALED_OBJECT]["spec"]["triggers"][0]["type"] == "metrics-api"
        await cluster.expect(DEPLOYMENT, "web", "Monitored", reason="Monitored")
        await say(cluster, SCALED_OBJECT, {"conditions": [{"type": "Ready", "status": "True"}]})
        await cluster.expect(DEPLOYMENT, "web", "Autoscaled", reason="Autoscaling", says="ScaledObject")
        told = [{"type": "Accepted", "status": "False", "message": "no such listener"}]
        await say(cluster, HTTP_ROUTE, {"parents": [{"parentRef": {"name": "public"}, "conditions": told}]})
        await cluster.expect(
            DEPLOYMENT, "web", "Exposed", status="False", reason="RouteNotAccepted", says="no such listener"
        )
    finally:
        await uninstall(client, *GUESTS)
    await there(cluster, AUTOSCALER)
    await cluster.expect(DEPLOYMENT, "web", "Monitored", status="False", reason="KindNotInstalled")
    assert (await operator.get("/healthz"))[0] == 200


@pytest.mark.usefixtures("guests")
async def test_kinds_of_others_are_put_right_kept_over_a_restart_and_removed(
    cluster: Cluster, operator: Operator
) -> None:
    await serving(cluster, **FOREIGN)
    made = await there(cluster, *GUESTS)
    await cluster.client.patch(SCALED_OBJECT, cluster.namespace, "web", {"spec": {"maxReplicaCount": 40}})
    await cluster.until("four", SCALED_OBJECT, lambda found: found["spec"]["maxReplicaCount"] == 4, name="web")
    await operator.kill()
    await operator.start()
    for kind in (SERVICE_MONITOR, HTTP_ROUTE):
        await cluster.quiet(kind)
        found = await cluster.get(kind, "web")
        assert found["metadata"]["resourceVersion"] == made[kind]["metadata"]["resourceVersion"]
    await say(cluster, SCALED_OBJECT, {"conditions": [{"type": "Ready", "status": "False", "message": "trouble"}]})
    await cluster.expect(DEPLOYMENT, "web", "Autoscaled", status="False", says="trouble")
    await cluster.change(DEPLOYMENT, "web", autoscaling=None, monitoring=None, httpRoute=None)
    for kind in GUESTS:
        await cluster.until_gone(kind, "web")


@pytest.mark.usefixtures("guests")
async def test_at_zero_the_service_leads_to_the_waker_and_back_when_a_pod_is_ready(cluster: Cluster) -> None:
    """As KEDA would scale it; the real controllers make the pods, and EndpointSlices of what the Service selects."""

    async def leads_to(kind: str) -> None:
        def selects(found: Object) -> bool:
            return bool(found["spec"]["selector"]["winnow.dev/kind"] == kind)

        await cluster.until(f"the Service to lead to {kind}", SERVICE, selects, name="web")

    async def scale(replicas: int) -> None:
        await cluster.client.patch(DEPLOYMENT, cluster.namespace, "web", {"spec": {"replicas": replicas}}, "scale")

    await cluster.ready_rows()
    await cluster.trained()
    await cluster.apply(deployment(replicas=0, **WOKEN))
    await cluster.expect(DEPLOYMENT, "web", "Ready", status="False", reason="WakerStarting")
    waker = await cluster.pod_of(WAKER, "web")
    await waker.start("10.244.0.8")
    asleep = await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Asleep", says="requests are held")
    assert kstatus(asleep) == "Current"
    await leads_to("DeploymentWaker")
    scaler = (await there(cluster, SCALED_OBJECT))[SCALED_OBJECT]
    assert scaler["spec"]["minReplicaCount"] == 0
    assert ["clf_recently_used" in trigger["metadata"]["valueLocation"] for trigger in scaler["spec"]["triggers"]] == [
        False,
        True,
    ]

    await scale(1)
    starting = await cluster.expect(DEPLOYMENT, "web", "Ready", status="False", reason="RollingOut")
    assert kstatus(starting) == "InProgress"
    server = await cluster.pod_of(DEPLOYMENT, "web")
    await leads_to("DeploymentWaker")
    await server.start()
    await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Live")
    await leads_to("Deployment")
    await cluster.quiet(SERVICE)

    await scale(0)
    await leads_to("DeploymentWaker")
    await cluster.expect(DEPLOYMENT, "web", "Ready", reason="Asleep")
    assert (await cluster.get(APPS_DEPLOYMENT, "web"))["spec"]["replicas"] == 0
    assert (await cluster.get(DEPLOYMENT, "web"))["status"]["live"]["checkpoint"] == "epoch-2"

    await cluster.change(DEPLOYMENT, "web", autoscaling={"minReplicas": 1, "wakeOnRequest": False})
    await cluster.until(
        "its end", APPS_DEPLOYMENT, lambda obj: "deletionTimestamp" in obj["metadata"], name="web-waker"
    )
    assert await cluster.get(SERVICE, "web-pods")  # by which it sends on what it holds
    await waker.disappear()
    await cluster.until_gone(APPS_DEPLOYMENT, "web-waker")
    await cluster.until_gone(SERVICE, "web-pods")
    await leads_to("Deployment")
