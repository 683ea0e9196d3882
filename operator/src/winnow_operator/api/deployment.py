"""Deployment (winnow.dev): a chosen checkpoint, served."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from .autoscaling import Autoscaling
from .common import (
    CheckpointName,
    Count,
    Digest,
    Object,
    ObjectName,
    ObservedStatus,
    OwnName,
    SeenName,
    Spec,
    Status,
    Time,
)
from .exposure import DisruptionBudget, HttpRoute, Ingress, Monitoring, NetworkPolicy
from .placement import PlacedPods, TopologySpread


class CheckpointRef(Spec):
    """A checkpoint of a TrainingJob; `best` is resolved once the job is complete."""

    training_job: OwnName
    name: Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = (
        "best"
    )


class SecretRef(Spec):
    """A Secret in the same namespace; pods mount it, the operator never reads it."""

    name: ObjectName


class Access(Spec):
    """Who may ask."""

    api_keys_secret_ref: SecretRef | None = None


class DeploymentSpec(PlacedPods):
    """Which checkpoint to serve, and how."""

    model_service: OwnName
    checkpoint: CheckpointRef
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    autoscaling: Autoscaling | None = None
    thresholds: Annotated[Mapping[str, Annotated[float, Field(ge=0, le=1)]], Field(max_length=1000)] | None = None
    access: Access | None = None
    disruption_budget: DisruptionBudget | None = None
    network_policy: NetworkPolicy | None = None
    monitoring: Monitoring | None = None
    ingress: Ingress | None = None
    http_route: HttpRoute | None = None
    topology_spread_constraints: Annotated[tuple[TopologySpread, ...], Field(max_length=8)] | None = None


class LiveCheckpoint(Status):
    """What is served now."""

    training_job: SeenName
    checkpoint: CheckpointName
    digest: Digest | None = None
    since: Time | None = None


class PastCheckpoint(LiveCheckpoint):
    """What was served before."""

    until: Time | None = None


class DeploymentStatus(ObservedStatus):
    """Where it answers, what is live, and what was."""

    url: Annotated[str, StringConstraints(max_length=512)] | None = None
    live: LiveCheckpoint | None = None
    history: Annotated[tuple[PastCheckpoint, ...], Field(max_length=20)] | None = None
    replicas: Count | None = None
    ready_replicas: Count | None = None
    label_selector: Annotated[str, StringConstraints(max_length=1024)] | None = None


class Deployment(Object):
    """See crds/deployments.yaml."""

    kind: Literal["Deployment"] = "Deployment"
    spec: DeploymentSpec
    status: DeploymentStatus = DeploymentStatus()
