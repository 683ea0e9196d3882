"""The volume of a ModelService: its rows, checkpoints and downloaded models."""

from __future__ import annotations

from winnow_operator import api
from winnow_operator.build import common
from winnow_operator.quantities import quantity
from winnow_operator.resources import Object


def claim(service: api.ModelService, there: Object | None = None) -> Object | None:
    """None where the user brings a claim of their own, or a bucket. `there`: the claim as it is; one that was enlarged stays
    so, since Kubernetes never makes a volume smaller."""
    wanted, name = service.spec.storage.persistent_volume_claim, common.storage_claim(service)
    if wanted is None or name is None or wanted.size is None:
        return None
    spec: Object = {
        "accessModes": list(wanted.access_modes or ("ReadWriteOnce",)),
        "resources": {"requests": {"storage": _larger(wanted.size, there)}},
    }
    if wanted.storage_class_name is not None:
        spec["storageClassName"] = wanted.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": common.metadata(service, name),
        "spec": spec,
    }


def _larger(size: str, there: Object | None) -> str:
    asked = str(there["spec"].get("resources", {}).get("requests", {}).get("storage", size)) if there else size
    return asked if quantity(asked) > quantity(size) else size
