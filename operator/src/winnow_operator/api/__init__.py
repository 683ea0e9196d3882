"""The four kinds of winnow.dev/v1alpha1 as typed values: what `crds/*.yaml` says, and a test holds the two together.

`parse(raw)` turns an object of the API server into one of the four, `to_raw(model)` turns a status back into JSON. Specs are strict, since the API server
has validated and defaulted them; statuses ignore fields that another version of the operator wrote.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from .autoscaling import Autoscaling
from .common import (
    GROUP,
    GROUP_VERSION,
    VERSION,
    AdapterBase,
    BaseModelSource,
    CheckpointSource,
    Condition,
    EnvVar,
    HuggingFaceModel,
    ImageModel,
    Metadata,
    Resources,
    S3Model,
    S3Prefix,
    SecretKeyRef,
    SecretRef,
    StoredCheckpoint,
    Toleration,
    TrainingBaseModel,
    VolumeModel,
)
from .dataset import (
    Columns,
    ConfigMapSource,
    Dataset,
    DatasetSpec,
    DatasetStatus,
    FileSource,
    HuggingFaceSource,
    ImageFileSource,
    LabelCount,
    Problem,
    Source,
    TokenLengths,
    Warning_,
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
    PastCheckpoint,
    Rollout,
)
from .exposure import DisruptionBudget, HttpRoute, Ingress, NetworkPolicy, ServiceMonitor
from .model_service import (
    Collected,
    LeaderboardEntry,
    ModelService,
    ModelServiceSpec,
    ModelServiceStatus,
    S3Storage,
    Storage,
    StorageClaim,
    StoredRows,
)
from .training_job import (
    Checkpoint,
    ContinuedFrom,
    CustomMetric,
    DatasetUse,
    Epoch,
    Failure,
    Metrics,
    Parameters,
    Progress,
    Tracking,
    TrainingJob,
    TrainingJobSpec,
    TrainingJobStatus,
    UsedDatasets,
)

__all__ = [
    "GROUP",
    "GROUP_VERSION",
    "KINDS",
    "PLURALS",
    "VERSION",
    "AdapterBase",
    "Autoscaling",
    "BaseModelSource",
    "CandidateCheckpoint",
    "Checkpoint",
    "CheckpointRef",
    "CheckpointSource",
    "Collected",
    "Columns",
    "Comparison",
    "Condition",
    "ConfigMapSource",
    "ContinuedFrom",
    "CustomMetric",
    "Dataset",
    "DatasetSpec",
    "DatasetStatus",
    "DatasetUse",
    "Deployment",
    "DeploymentSpec",
    "DeploymentStatus",
    "DisruptionBudget",
    "EnvVar",
    "Epoch",
    "Failure",
    "FileSource",
    "Floor",
    "Gate",
    "GateResult",
    "HttpRoute",
    "HuggingFaceModel",
    "HuggingFaceSource",
    "ImageFileSource",
    "ImageModel",
    "Ingress",
    "LabelCount",
    "LeaderboardEntry",
    "LiveCheckpoint",
    "MeasuredValue",
    "Metadata",
    "Metrics",
    "ModelService",
    "ModelServiceSpec",
    "ModelServiceStatus",
    "NetworkPolicy",
    "Parameters",
    "PastCheckpoint",
    "Problem",
    "Progress",
    "Resource",
    "Resources",
    "Rollout",
    "S3Model",
    "S3Prefix",
    "S3Storage",
    "SecretKeyRef",
    "SecretRef",
    "ServiceMonitor",
    "Source",
    "Storage",
    "StorageClaim",
    "StoredCheckpoint",
    "StoredRows",
    "TokenLengths",
    "Toleration",
    "Tracking",
    "TrainingBaseModel",
    "TrainingJob",
    "TrainingJobSpec",
    "TrainingJobStatus",
    "UsedDatasets",
    "VolumeModel",
    "Warning_",
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
PLURALS: Mapping[str, str] = {
    "ModelService": "modelservices",
    "Dataset": "datasets",
    "TrainingJob": "trainingjobs",
    "Deployment": "deployments",
}


def parse(raw: Mapping[str, Any]) -> Resource:
    """The object that the API server sent. Raises pydantic.ValidationError where it does not fit the CRD, which only a foreign CRD can cause."""
    return KINDS[raw["kind"]].model_validate(raw)


def to_raw(model: BaseModel) -> dict[str, Any]:
    """As Kubernetes writes it: camelCase, times in whole seconds of UTC, nothing for what is unset."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
