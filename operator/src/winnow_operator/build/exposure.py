"""What lies around a Deployment's pods: a budget for disruptions, a network policy, a monitor, ways in from outside."""

from __future__ import annotations

from winnow_operator import api
from winnow_operator.build import common, waker
from winnow_operator.build.server_deployment import PORT
from winnow_operator.resources import (
    BUDGET,
    GROUP,
    HTTP_ROUTE,
    INGRESS,
    NETWORK_POLICY,
    SERVICE_MONITOR,
    Object,
    Resource,
)


def disruption_budget(deployment: api.Deployment, wanted: api.DisruptionBudget) -> Object:
    selector = {"matchLabels": common.selector(deployment)}
    # A pod that does not serve anyway must not keep a node from being drained.
    spec = {"selector": selector, "unhealthyPodEvictionPolicy": "AlwaysAllow", **api.to_raw(wanted)}
    return _made(BUDGET, deployment, spec)


def network_policy(deployment: api.Deployment, wanted: api.NetworkPolicy) -> Object:
    # An empty list would let everybody in: without words it is the pods of the namespace.
    peers = [api.to_raw(peer) for peer in wanted.from_ or ()] or [{"podSelector": {}}]
    pods: Object = {"matchLabels": common.selector(deployment)}
    if waker.asked_for(deployment):
        peers.append({"podSelector": {"matchLabels": waker.selector(deployment)}})
        kinds = [deployment.kind, waker.KIND]
        pods = {
            "matchLabels": {f"{GROUP}/name": deployment.metadata.name},
            "matchExpressions": [{"key": f"{GROUP}/kind", "operator": "In", "values": kinds}],
        }
    spec = {
        "podSelector": pods,
        "policyTypes": ["Ingress"],
        "ingress": [{"from": peers, "ports": [{"port": PORT, "protocol": "TCP"}]}],
    }
    return _made(NETWORK_POLICY, deployment, spec)


def service_monitor(deployment: api.Deployment, wanted: api.ServiceMonitor) -> Object:
    endpoint = {"port": "http", "path": "/metrics", **({"interval": wanted.interval} if wanted.interval else {})}
    spec = {"selector": {"matchLabels": common.selector(deployment)}, "endpoints": [endpoint]}
    monitor = _made(SERVICE_MONITOR, deployment, spec)
    monitor["metadata"]["labels"] = {**(wanted.labels or {}), **monitor["metadata"]["labels"]}
    return monitor


def ingress(deployment: api.Deployment, wanted: api.Ingress) -> Object:
    backend = {"service": {"name": deployment.metadata.name, "port": {"name": "http"}}}
    rule: Object = {"http": {"paths": [{"path": wanted.path, "pathType": "Prefix", "backend": backend}]}}
    spec: Object = {"rules": [{"host": wanted.host, **rule} if wanted.host else rule]}
    if wanted.class_name:
        spec["ingressClassName"] = wanted.class_name
    if wanted.tls_secret_name:
        spec["tls"] = [{"hosts": [wanted.host], "secretName": wanted.tls_secret_name}]
    made = _made(INGRESS, deployment, spec)
    if wanted.annotations:
        made["metadata"]["annotations"] = dict(wanted.annotations)
    return made


def http_route(deployment: api.Deployment, wanted: api.HttpRoute) -> Object:
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": wanted.path}}],
        "backendRefs": [{"name": deployment.metadata.name, "port": 80}],
    }
    spec: Object = {"parentRefs": [api.to_raw(parent) for parent in wanted.parent_refs], "rules": [rule]}
    if wanted.hostnames:
        spec["hostnames"] = list(wanted.hostnames)
    return _made(HTTP_ROUTE, deployment, spec)


def _made(resource: Resource, deployment: api.Deployment, spec: Object) -> Object:
    metadata = common.metadata(deployment, deployment.metadata.name)
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "spec": spec}
