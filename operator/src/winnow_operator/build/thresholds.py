"""The thresholds of a Deployment as its pods see them: a file in a ConfigMap that changes in place, so that no pod restarts."""

from __future__ import annotations

import json

from winnow_operator import api
from winnow_operator.build import common
from winnow_operator.resources import Object

FILE = "thresholds.json"


def name(deployment: api.Deployment) -> str:
    return f"{deployment.metadata.name}-thresholds"


def thresholds(deployment: api.Deployment) -> Object:
    """There without thresholds too: a pod that mounts it gets the first ones without a restart."""
    content = json.dumps(dict(deployment.spec.thresholds or {}), sort_keys=True, ensure_ascii=False)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": common.metadata(deployment, name(deployment)),
        "data": {FILE: content},
    }
