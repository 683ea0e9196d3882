"""The autoscaler of a Deployment: a HorizontalPodAutoscaler, or a ScaledObject where KEDA is installed.

Both scale our own kind through its scale subresource, so that `spec.replicas` stays the one place where the number of pods is written (ADR 75).
"""

from __future__ import annotations

from winnow_operator import api
from winnow_operator.build import common
from winnow_operator.build.server_deployment import PORT
from winnow_operator.resources import AUTOSCALER, DEPLOYMENT, SCALED_OBJECT, Object

METRIC = "clf_queue_tokens"  # a gauge of the server: tokens that wait
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
    queue = {
        "type": "metrics-api",
        # The sum over all pods, held against the target by AverageValue: KEDA's default.
        "metadata": {
            # The pods' own port, not the Service's: KEDA asks each endpoint behind it.
            "url": f"http://{name}.{namespace}.svc:{PORT}/metrics",
            "format": "prometheus",
            "valueLocation": f'{METRIC}{{model_name="{name}"}}',
            "targetValue": _target(wanted),
            "aggregateFromKubeServiceEndpoints": "true",
            "aggregationType": "sum",
        },
    }
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
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(wanted)}},
            "triggers": [queue, *windows],
        },
    }


def _scaled(deployment: api.Deployment) -> Object:
    return {"apiVersion": DEPLOYMENT.api_version, "kind": DEPLOYMENT.kind, "name": deployment.metadata.name}


def _target(wanted: api.Autoscaling) -> str:
    return str(wanted.target_queued_tokens)


def _behavior(wanted: api.Autoscaling) -> Object:
    return {"scaleDown": {"stabilizationWindowSeconds": wanted.scale_down_stabilization_seconds}}
