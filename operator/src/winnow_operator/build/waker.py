"""The waker of a Deployment: one small pod that holds requests while no server pod is ready, and the Service by which it
reaches those that are (ADR 87)."""

from __future__ import annotations

from winnow_operator import api
from winnow_operator.build import common
from winnow_operator.build.server_deployment import KEYS, PORT, api_keys, prefixes
from winnow_operator.resources import GROUP, Object

CONTAINER = "waker"
# Not the kind of the server's pods: which of the two the Service leads to is decided by it, and their budget counts only them.
KIND = "DeploymentWaker"
# Of one request that is held; as long again may pass until its answer has been read.
HOLD_SECONDS = 120
GRACE_SECONDS = 2 * HOLD_SECONDS
RESOURCES = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}


def asked_for(deployment: api.Deployment) -> bool:
    return deployment.spec.autoscaling is not None and deployment.spec.autoscaling.wake_on_request


def name(deployment: api.Deployment) -> str:
    return f"{deployment.metadata.name}-waker"


def pods_name(deployment: api.Deployment) -> str:
    """Of the Service that leads to server pods only."""
    return f"{deployment.metadata.name}-pods"


def selector(deployment: api.Deployment) -> dict[str, str]:
    return {**common.selector(deployment), f"{GROUP}/kind": KIND}


def waker(deployment: api.Deployment, *, image: str) -> Object:
    """Of the server's image, and where the scheduler likes: what places the server's pods would keep a node with a GPU for it."""
    command = ["python", "-m", "winnow_server", "wake", "--name", deployment.metadata.name]
    command += ["--upstream", f"http://{pods_name(deployment)}.{deployment.metadata.namespace}.svc"]
    command += ["--port", str(PORT), "--hold-seconds", str(HOLD_SECONDS)]
    command += [part for prefix in prefixes(deployment) for part in ("--path-prefix", prefix)]
    keys = api_keys(deployment)
    command += ["--api-keys", KEYS] if keys else []
    probe = {"periodSeconds": 2, "timeoutSeconds": 5}
    container = common.container(
        CONTAINER,
        image,
        command,
        mounts=[{"name": "api-keys", "mountPath": KEYS, "readOnly": True}] if keys else [],
        ports=[{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        resources=RESOURCES,
        readinessProbe={"httpGet": {"path": "/v2/health/ready", "port": "http"}, **probe, "failureThreshold": 2},
        livenessProbe={"httpGet": {"path": "/v2/health/live", "port": "http"}, **probe, "failureThreshold": 15},
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(deployment, name(deployment)),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": selector(deployment)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "revisionHistoryLimit": 2,
            "template": {
                "metadata": {"labels": {**common.labels(deployment), **selector(deployment)}},
                "spec": common.pod_spec(container, keys, {}, grace_seconds=GRACE_SECONDS),
            },
        },
    }


def pods_service(deployment: api.Deployment) -> Object:
    """With an address of its own: whoever connects is refused at once while no pod is ready, which a name without addresses
    is not."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(deployment, pods_name(deployment)),
        "spec": {
            "type": "ClusterIP",
            "selector": common.selector(deployment),
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def _metadata(deployment: api.Deployment, name: str) -> Object:
    """A ServiceMonitor finds the other Service by its kind: by both it would count each pod twice."""
    metadata = common.metadata(deployment, name)
    return {**metadata, "labels": {**metadata["labels"], **selector(deployment)}}
