"""The four kinds as the API server tells them, and the few facts that every view takes from them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote

Object = dict[str, Any]  # Kubernetes' own shape, as JSON

API_VERSION = "winnow.dev/v1alpha1"


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    plural: str
    api: str = f"/apis/{API_VERSION}"

    def path(self, namespace: str | None, name: str = "") -> str:
        """Of one object, or of all in a namespace; in all namespaces where it is None."""
        parts = [*(["namespaces", namespace] if namespace is not None else []), self.plural, *([name] if name else [])]
        return "/".join([self.api, *(quote(part, safe="") for part in parts)])


MODEL_SERVICE = Kind("ModelService", "modelservices")
DATASET = Kind("Dataset", "datasets")
TRAINING_JOB = Kind("TrainingJob", "trainingjobs")
DEPLOYMENT = Kind("Deployment", "deployments")
POD = Kind("Pod", "pods", "/api/v1")
BATCH_JOB = Kind("Job", "jobs", "/apis/batch/v1")
KINDS = (MODEL_SERVICE, DATASET, TRAINING_JOB, DEPLOYMENT)


def name_of(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def namespace_of(obj: Object) -> str:
    return str(obj["metadata"].get("namespace", ""))


def created(obj: Object) -> str:
    return str(obj["metadata"].get("creationTimestamp", ""))


def status_of(obj: Object) -> Object:
    return cast(Object, obj.get("status") or {})


def condition(obj: Object, type_: str) -> Mapping[str, str]:
    """Empty while the operator has not written it."""
    found = cast(list[Mapping[str, str]], status_of(obj).get("conditions") or [])
    return next((each for each in found if each.get("type") == type_), {})


def is_true(obj: Object, type_: str) -> bool:
    return condition(obj, type_).get("status") == "True"
