"""Which Kubernetes resources the operator reads or writes, and the few facts it takes from any object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

Object = dict[str, Any]  # Kubernetes' own shape, as JSON

GROUP = "winnow.dev"
API_VERSION = f"{GROUP}/v1alpha1"
MANAGED_BY = "app.kubernetes.io/managed-by"
PART_OF = "app.kubernetes.io/part-of"
IN_USE = f"{GROUP}/in-use"  # the finalizer of a Dataset that a running job reads
OURS = f"{MANAGED_BY}=winnow"  # the label selector of every child that is watched


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """A kind of object at the API server. The kind alone is not enough: Deployment exists twice."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True
    selector: str = ""  # what is listed and watched of it; empty: all

    @property
    def group(self) -> str:
        return self.api_version.partition("/")[0] if "/" in self.api_version else ""

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]


MODEL_SERVICE = Resource(API_VERSION, "ModelService", "modelservices")
DATASET = Resource(API_VERSION, "Dataset", "datasets")
TRAINING_JOB = Resource(API_VERSION, "TrainingJob", "trainingjobs")
DEPLOYMENT = Resource(API_VERSION, "Deployment", "deployments")
KINDS = (MODEL_SERVICE, DATASET, TRAINING_JOB, DEPLOYMENT)

JOB = Resource("batch/v1", "Job", "jobs", selector=OURS)
POD = Resource("v1", "Pod", "pods", selector=OURS)
CLAIM = Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims", selector=OURS)
SERVICE = Resource("v1", "Service", "services", selector=OURS)
APPS_DEPLOYMENT = Resource("apps/v1", "Deployment", "deployments", selector=OURS)
STORAGE_CLASS = Resource("storage.k8s.io/v1", "StorageClass", "storageclasses", namespaced=False)
CONFIG_MAP = Resource("v1", "ConfigMap", "configmaps", selector=OURS)
AUTOSCALER = Resource("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", selector=OURS)
BUDGET = Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", selector=OURS)
NETWORK_POLICY = Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", selector=OURS)
INGRESS = Resource("networking.k8s.io/v1", "Ingress", "ingresses", selector=OURS)
AROUND = (AUTOSCALER, BUDGET, NETWORK_POLICY, INGRESS)  # what a Deployment may have around its pods
WATCHED = (*KINDS, JOB, POD, CLAIM, SERVICE, APPS_DEPLOYMENT, CONFIG_MAP, STORAGE_CLASS, *AROUND)

# Kinds of other projects, which a cluster may have, get later, or lose: guests.py looks after them.
SCALED_OBJECT = Resource("keda.sh/v1alpha1", "ScaledObject", "scaledobjects", selector=OURS)
SERVICE_MONITOR = Resource("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors", selector=OURS)
HTTP_ROUTE = Resource("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes", selector=OURS)
GUESTS = (SCALED_OBJECT, SERVICE_MONITOR, HTTP_ROUTE)

EVENT = Resource("events.k8s.io/v1", "Event", "events")
TOLD = Resource("v1", "Event", "events")  # the same ones, as they can be asked for by what they are about
LEASE = Resource("coordination.k8s.io/v1", "Lease", "leases")
ALL = (*WATCHED, *GUESTS, EVENT, TOLD, LEASE)

_BY_TYPE = {(resource.api_version, resource.kind): resource for resource in ALL}


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One object of ours, as the work queue names it."""

    resource: Resource
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.resource.kind}/{self.namespace}/{self.name}"


def resource_of(obj: Object) -> Resource:
    """Raises KeyError for a kind that the operator has no business with."""
    return _BY_TYPE[obj["apiVersion"], obj["kind"]]


def name_of(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def namespace_of(obj: Object) -> str:
    return str(obj["metadata"].get("namespace", ""))


def uid_of(obj: Object) -> str:
    return str(obj["metadata"].get("uid", ""))


def key_of(obj: Object) -> Key:
    return Key(resource_of(obj), namespace_of(obj), name_of(obj))


def being_deleted(obj: Object) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def finalizers_of(obj: Object) -> list[str]:
    return cast(list[str], obj["metadata"].get("finalizers") or [])


def controller_of(obj: Object) -> Object | None:
    """The owner reference of the controller, or None."""
    references = cast(list[Object], obj["metadata"].get("ownerReferences", []))
    return next((reference for reference in references if reference.get("controller")), None)


def owned_by(obj: Object, owner_uid: str) -> bool:
    controller = controller_of(obj)
    return controller is not None and controller.get("uid") == owner_uid


def status_of(obj: Object) -> Object:
    return cast(Object, obj.get("status") or {})


def condition_of(obj: Object, type_: str) -> Object | None:
    conditions = cast(list[Object], status_of(obj).get("conditions") or [])
    return next((condition for condition in conditions if condition.get("type") == type_), None)


def is_true(obj: Object, type_: str) -> bool:
    condition = condition_of(obj, type_)
    return condition is not None and condition.get("status") == "True"


def newest(objects: Iterable[Object]) -> Object | None:
    """The one created last; the name decides between equals, so that the answer never depends on chance."""
    return max(objects, key=lambda obj: (obj["metadata"].get("creationTimestamp", ""), name_of(obj)), default=None)
