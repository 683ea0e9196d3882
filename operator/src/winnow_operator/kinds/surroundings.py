"""What a Deployment has around its pods when it asks for it: what to make, what to remove, and what to say about it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from winnow_operator import api
from winnow_operator.build import autoscaler, exposure
from winnow_operator.conditions import Condition, counted, false, true
from winnow_operator.observed import DeploymentSeen
from winnow_operator.plan import Apply, Child, Delete, Refusal
from winnow_operator.reasons import Reason
from winnow_operator.resources import (
    AUTOSCALER,
    HTTP_ROUTE,
    INGRESS,
    SCALED_OBJECT,
    SERVICE_MONITOR,
    Object,
    Resource,
    being_deleted,
    condition_of,
    resource_of,
    status_of,
)

AUTOSCALED, MONITORED, EXPOSED = "Autoscaled", "Monitored", "Exposed"
# Kinds whose refusal stands in a condition of their own: the checkpoint is served all the same.
TOLD_APART = frozenset(one.kind for one in (AUTOSCALER, SCALED_OBJECT, SERVICE_MONITOR, INGRESS, HTTP_ROUTE))


def children(seen: DeploymentSeen) -> tuple[Child, ...]:
    """First what goes: two autoscalers of one Deployment would pull in two directions, and KEDA refuses to be the second."""
    wanted = list(_wanted(seen)) if seen.child else []  # nothing leads to pods that are not there
    kinds = {resource_of(obj) for obj in wanted}
    leaving = [obj for obj in seen.around if resource_of(obj) not in kinds and not being_deleted(obj)]
    return (*map(Delete, leaving), *map(Apply, wanted))


def _wanted(seen: DeploymentSeen) -> Iterator[Object]:
    """What is asked for and possible."""
    obj, spec = seen.obj, seen.obj.spec
    if spec.disruption_budget:
        yield exposure.disruption_budget(obj, spec.disruption_budget)
    if spec.network_policy:
        yield exposure.network_policy(obj, spec.network_policy)
    if spec.autoscaling:
        if SCALED_OBJECT in seen.guests:
            yield autoscaler.scaled_object(obj, spec.autoscaling)
        elif not _needs_keda(spec.autoscaling):
            yield autoscaler.autoscaler(obj, spec.autoscaling)
    if spec.monitoring and spec.monitoring.service_monitor and SERVICE_MONITOR in seen.guests:
        yield exposure.service_monitor(obj, spec.monitoring.service_monitor)
    if spec.ingress:
        yield exposure.ingress(obj, spec.ingress)
    if spec.http_route and HTTP_ROUTE in seen.guests:
        yield exposure.http_route(obj, spec.http_route)


def conditions(seen: DeploymentSeen) -> list[Condition]:
    """One for each thing that is asked for and may be impossible or not work."""
    spec = seen.obj.spec
    found = []
    if spec.autoscaling:
        found.append(_autoscaled(seen, spec.autoscaling))
    if spec.monitoring and spec.monitoring.service_monitor:
        found.append(_monitored(seen))
    if spec.ingress or spec.http_route:
        found.append(_exposed(seen))
    return found


def _autoscaled(seen: DeploymentSeen, wanted: api.Autoscaling) -> Condition:
    if (fields := _needs_keda(wanted)) and SCALED_OBJECT not in seen.guests:
        needs = " and ".join(f"spec.autoscaling.{field}" for field in fields) + (
            " needs" if len(fields) == 1 else " need"
        )
        message = f"{needs} KEDA, whose kind ScaledObject is not installed; the replicas stay as they are"
        return false(AUTOSCALED, Reason.KIND_NOT_INSTALLED, message)
    kind = SCALED_OBJECT if SCALED_OBJECT in seen.guests else AUTOSCALER
    if (why := _refused(seen, AUTOSCALED, kind)) is not None:
        return why
    scaler = _made(seen, kind)
    # A HorizontalPodAutoscaler that cannot scale leaves the other as it was, or unsaid.
    told = ("Ready",) if kind == SCALED_OBJECT else ("AbleToScale", "ScalingActive")
    said = [condition_of(scaler, each) if scaler else None for each in told]
    working = next((one for one in said if one and one["status"] == "False"), said[-1])
    if scaler is None or working is None:
        return Condition(AUTOSCALED, None, Reason.AUTOSCALER_STARTING, "The autoscaler has said nothing yet")
    what = f"{scaler['kind']} {seen.obj.metadata.name}"
    if working["status"] == "True":
        bounds = f"from {wanted.min_replicas} to {wanted.max_replicas}"
        message = f"{what} chooses {bounds} replicas, for {wanted.target_queued_tokens} waiting tokens each"
        return true(AUTOSCALED, Reason.AUTOSCALING, message)
    if working.get("reason") == "ScalingDisabled":
        message = f"spec.replicas is 0, which turns {what} off until it is set to 1 or more"
        return false(AUTOSCALED, Reason.SCALED_TO_ZERO, message)
    words = working.get("message") or working.get("reason") or "without a reason"
    return false(AUTOSCALED, Reason.METRIC_UNAVAILABLE, f"{what} does not scale: {words}")


def _needs_keda(wanted: api.Autoscaling) -> list[str]:
    """The fields that a HorizontalPodAutoscaler knows nothing of."""
    fields = {"schedule": wanted.schedule, "wakeOnRequest": wanted.wake_on_request}
    return [name for name, value in fields.items() if value]


def _monitored(seen: DeploymentSeen) -> Condition:
    if SERVICE_MONITOR not in seen.guests:
        message = (
            "spec.monitoring.serviceMonitor needs the Prometheus operator, whose kind ServiceMonitor is not installed"
        )
        return false(MONITORED, Reason.KIND_NOT_INSTALLED, message)
    if (why := _refused(seen, MONITORED, SERVICE_MONITOR)) is not None:
        return why
    if _made(seen, SERVICE_MONITOR) is None:
        return Condition(MONITORED, None, Reason.NOT_MADE_YET, "The ServiceMonitor is not made yet")
    return true(MONITORED, Reason.MONITORED, f"ServiceMonitor {seen.obj.metadata.name} points Prometheus to /metrics")


def _exposed(seen: DeploymentSeen) -> Condition:
    """The worst of the ways in, with words about each."""
    spec = seen.obj.spec
    ways = [_through_ingress(seen, spec.ingress)] if spec.ingress else []
    ways += [_through_gateway(seen)] if spec.http_route else []
    worst = min(ways, key=lambda way: (False, None, True).index(way.status))
    return Condition(EXPOSED, worst.status, worst.reason, "; ".join(way.message for way in ways))


def _through_ingress(seen: DeploymentSeen, wanted: api.Ingress) -> Condition:
    if (why := _refused(seen, EXPOSED, INGRESS)) is not None:
        return why
    made = _made(seen, INGRESS)
    if made is None:
        return Condition(EXPOSED, None, Reason.NOT_MADE_YET, "The Ingress is not made yet")
    scheme = "https" if wanted.tls_secret_name else "http"
    entries = (status_of(made).get("loadBalancer") or {}).get("ingress") or []
    address = next((str(entry.get("hostname") or entry.get("ip")) for entry in entries), "")
    where = f"{scheme}://{wanted.host or address or '*'}{wanted.path.rstrip('/')}/"
    news = f"at {address}" if address else "without an address yet; some controllers name none"
    return true(EXPOSED, Reason.EXPOSED, f"Ingress {seen.obj.metadata.name} leads {where} here, {news}")


def _through_gateway(seen: DeploymentSeen) -> Condition:
    if HTTP_ROUTE not in seen.guests:
        message = "spec.httpRoute needs the Gateway API, whose kind HTTPRoute is not installed"
        return false(EXPOSED, Reason.KIND_NOT_INSTALLED, message)
    if (why := _refused(seen, EXPOSED, HTTP_ROUTE)) is not None:
        return why
    made = _made(seen, HTTP_ROUTE)
    parents = (status_of(made).get("parents") or []) if made else []
    if not parents:
        message = "No Gateway has taken up the HTTPRoute yet; is there one of that name?"
        return Condition(EXPOSED, None, Reason.ROUTE_PENDING, message)
    for parent in parents:
        for told in parent.get("conditions") or []:
            if told.get("type") in ("Accepted", "ResolvedRefs") and told.get("status") == "False":
                gateway = (parent.get("parentRef") or {}).get("name", "")
                message = f"Gateway {gateway} does not take the HTTPRoute: {told.get('message') or told.get('reason')}"
                return false(EXPOSED, Reason.ROUTE_NOT_ACCEPTED, message)
    return true(EXPOSED, Reason.EXPOSED, f"The HTTPRoute is taken by {counted(len(parents), 'Gateway')}")


def refusal_told_nowhere_else(seen: DeploymentSeen) -> Refusal | None:
    return next((refusal for refusal in seen.around_refused if refusal.kind not in TOLD_APART), None)


def _refused(seen: DeploymentSeen, condition: str, resource: Resource) -> Condition | None:
    refusal = next((one for one in seen.around_refused if one.kind == resource.kind), None)
    if refusal is None:
        return None
    return Condition(condition, False if refusal.final else None, refusal.reason, refusal.message)


def _made(seen: DeploymentSeen, resource: Resource) -> Object | None:
    return next((obj for obj in seen.around if resource_of(obj) == resource), None)
