"""The Service in front of a Deployment's pods: port 80, named like the Deployment."""

from __future__ import annotations

from winnow_operator import api
from winnow_operator.build import common
from winnow_operator.resources import Object


def service(deployment: api.Deployment) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": common.metadata(deployment, deployment.metadata.name),
        "spec": {
            "selector": common.selector(deployment),
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def url(deployment: api.Deployment) -> str:
    return f"http://{deployment.metadata.name}.{deployment.metadata.namespace}.svc"
