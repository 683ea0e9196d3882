"""The four kinds of winnow.dev/v1alpha1 as typed values: what `crds/*.yaml` says, and a test holds the two together.

`parse(raw)` turns an object of the API server into one of the four, `to_raw(model)` turns a status back into JSON. Specs are
strict, since the API server has validated and defaulted them; statuses ignore fields that another version of the operator
wrote.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from .autoscaling import Autoscaling
from .common import (
    AdapterBase,
    BaseModelSource,
    Condition,
    S3Prefix,
    SecretRef,
    StoredCheckpoint,
)
from .dataset import (
    Dataset,
    DatasetStatus,
    HuggingFaceSource,
    Source,
)
from .deployment import (
    CandidateCheckpoint,
    CheckpointRef,
    Comparison,
    Deployment,
    DeploymentSpec,
    DeploymentStatus,
    Floor,
    Gate,
    GateResult,
    LiveCheckpoint,
    MeasuredValue,
    Rollout,
)
from .exposure import DisruptionBudget, HttpRoute, Ingress, NetworkPolicy, ServiceMonitor
from .model_service import (
    Collected,
    ModelService,
    StoredRows,
)
from .training_job import (
    Checkpoint,
    ContinuedFrom,
    CustomMetric,
    DatasetUse,
    Metrics,
    Progress,
    Tracking,
    TrainingJob,
    TrainingJobSpec,
    TrainingJobStatus,
)

__all__ = [
    "KINDS",
    "AdapterBase",
    "Autoscaling",
    "BaseModelSource",
    "CandidateCheckpoint",
    "Checkpoint",
    "CheckpointRef",
    "Collected",
    "Comparison",
    "Condition",
    "ContinuedFrom",
    "CustomMetric",
    "Dataset",
    "DatasetStatus",
    "DatasetUse",
    "Deployment",
    "DeploymentSpec",
    "DeploymentStatus",
    "DisruptionBudget",
    "Floor",
    "Gate",
    "GateResult",
    "HttpRoute",
    "HuggingFaceSource",
    "Ingress",
    "LiveCheckpoint",
    "MeasuredValue",
    "Metrics",
    "ModelService",
    "NetworkPolicy",
    "Progress",
    "Resource",
    "Rollout",
    "S3Prefix",
    "SecretRef",
    "ServiceMonitor",
    "Source",
    "StoredCheckpoint",
    "StoredRows",
    "Tracking",
    "TrainingJob",
    "TrainingJobSpec",
    "TrainingJobStatus",
    "parse",
    "to_raw",
]

Resource = ModelService | Dataset | TrainingJob | Deployment

KINDS: Mapping[str, type[ModelService] | type[Dataset] | type[TrainingJob] | type[Deployment]] = {
    "ModelService": ModelService,
    "Dataset": Dataset,
    "TrainingJob": TrainingJob,
    "Deployment": Deployment,
}


def parse(raw: Mapping[str, Any]) -> Resource:
    """The object that the API server sent. Raises pydantic.ValidationError where it does not fit the CRD, which only a
    foreign CRD can cause."""
    return KINDS[raw["kind"]].model_validate(raw)


def to_raw(model: BaseModel) -> dict[str, Any]:
    """As Kubernetes writes it: camelCase, times in whole seconds of UTC, nothing for what is unset."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
