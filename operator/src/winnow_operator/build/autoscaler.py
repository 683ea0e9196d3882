"""The autoscaler of a Deployment: a HorizontalPodAutoscaler, or a ScaledObject where KEDA is installed.

Both scale our own kind through its scale subresource, so that `spec.replicas` stays the one place where the number of pods is
written (ADR 75).
"""

from __future__ import annotations

from winnow_operator import api
from winnow_operator.build import common
from winnow_operator.build.server_deployment import PORT
from winnow_operator.resources import AUTOSCALER, DEPLOYMENT, SCALED_OBJECT, Object

METRIC = "clf_queue_tokens"  # a gauge of the server: tokens that wait
USED_METRIC = "clf_recently_used"  # a gauge of each pod: 1 within a minute of a request
MOST_REPLICAS = 1000  # that a Deployment may have
POLL_SECONDS = 15  # as often as the HorizontalPodAutoscaler's controller looks


def autoscaler(deployment: api.Deployment, wanted: api.Autoscaling) -> Object:
    metric = {"metric": {"name": METRIC}, "target": {"type": "AverageValue", "averageValue": _target(wanted)}}
    return {
        "apiVersion": AUTOSCALER.api_version,
        "kind": AUTOSCALER.kind,
        "metadata": common.metadata(deployment, deployment.metadata.name),
        "spec": {
            "scaleTargetRef": _scaled(deployment),
            "minReplicas": wanted.min_replicas,
            "maxReplicas": wanted.max_replicas,
            "metrics": [{"type": "Pods", "pods": metric}],
            "behavior": _behavior(wanted),
        },
    }


def scaled_object(deployment: api.Deployment, wanted: api.Autoscaling) -> Object:
    name, namespace = deployment.metadata.name, deployment.metadata.namespace

    def of_pods(metric: str, target: str) -> Object:
        """The sum over all pods behind the Service, or of the waker, held against the target by AverageValue: KEDA's default."""
        metadata = {
            # The pods' own port, not the Service's: KEDA asks each endpoint behind it.
            "url": f"http://{name}.{namespace}.svc:{PORT}/metrics",
            "format": "prometheus",
            "valueLocation": f'{metric}{{model_name="{name}"}}',
            "targetValue": target,
            "aggregateFromKubeServiceEndpoints": "true",
            "aggregationType": "sum",
        }
        return {"type": "metrics-api", "metadata": metadata}

    queue = of_pods(METRIC, _target(wanted))
    # A queue is empty between requests too. What was used lately keeps the last pod, and asks for no second one.
    used = [of_pods(USED_METRIC, str(MOST_REPLICAS))] if wanted.wake_on_request else []
    windows = [
        {
            "type": "cron",
            "metadata": {
                "timezone": window.time_zone or "UTC",
                "start": window.start,
                "end": window.end,
                "desiredReplicas": str(window.min_replicas),
            },
        }
        for window in wanted.schedule or ()
    ]
    return {
        "apiVersion": SCALED_OBJECT.api_version,
        "kind": SCALED_OBJECT.kind,
        "metadata": common.metadata(deployment, name),
        "spec": {
            "scaleTargetRef": _scaled(deployment),
            "minReplicaCount": wanted.min_replicas,
            "maxReplicaCount": wanted.max_replicas,
            "pollingInterval": POLL_SECONDS,
            "cooldownPeriod": wanted.scale_down_stabilization_seconds,
            **_first_pod(wanted),
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(wanted)}},
            "triggers": [queue, *used, *windows],
        },
    }


def _scaled(deployment: api.Deployment) -> Object:
    return {"apiVersion": DEPLOYMENT.api_version, "kind": DEPLOYMENT.kind, "name": deployment.metadata.name}


def _first_pod(wanted: api.Autoscaling) -> Object:
    """Otherwise KEDA takes the very first pod away at once, before it has shown that it comes up."""
    return {"initialCooldownPeriod": wanted.scale_down_stabilization_seconds} if wanted.wake_on_request else {}


def _target(wanted: api.Autoscaling) -> str:
    return str(wanted.target_queued_tokens)


def _behavior(wanted: api.Autoscaling) -> Object:
    return {"scaleDown": {"stabilizationWindowSeconds": wanted.scale_down_stabilization_seconds}}
