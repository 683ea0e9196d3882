"""The Service that clients use: port 80, named like the Deployment, in front of its pods, or of the waker while none is ready."""

from __future__ import annotations

from winnow_operator import api
from winnow_operator.build import common, waker
from winnow_operator.resources import Object


def service(deployment: api.Deployment, *, asleep: bool = False) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": common.metadata(deployment, deployment.metadata.name),
        "spec": {
            "type": "ClusterIP",  # the default, said so that another one that is set by hand differs
            "selector": waker.selector(deployment) if asleep else common.selector(deployment),
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def url(deployment: api.Deployment) -> str:
    return f"http://{deployment.metadata.name}.{deployment.metadata.namespace}.svc"
