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
    ObservedStatus,
    OwnName,
    SecretRef,
    SeenName,
    Spec,
    Status,
    Time,
)
from .exposure import DisruptionBudget, HttpRoute, Ingress, Monitoring, NetworkPolicy
from .placement import PlacedPods, TopologySpread

SeenMetric = Annotated[str, StringConstraints(max_length=64)]
Words = Annotated[str, StringConstraints(max_length=1024)]


class CheckpointRef(Spec):
    """A checkpoint of a TrainingJob; `best` is resolved once the job is complete."""

    training_job: OwnName
    name: Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = (
        "best"
    )


class Access(Spec):
    """Who may ask."""

    api_keys_secret_ref: SecretRef | None = None


Bound = Annotated[float, Field(ge=-1_000_000, le=1_000_000)]
GateMetric = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
GateLabel = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Floor(Spec):
    """What a metric of the candidate must reach, over all labels or of one."""

    metric: GateMetric
    label: GateLabel | None = None
    at_least: Bound | None = None
    at_most: Bound | None = None


class Gate(Spec):
    """What a checkpoint must show before it gets traffic."""

    floors: Annotated[tuple[Floor, ...], Field(min_length=1, max_length=16)] | None = None
    not_worse_than_live: bool = False
    metric: GateMetric | None = None
    at_least: Bound | None = None
    at_most: Bound | None = None
    tolerance: Annotated[float, Field(ge=0, le=1_000_000)] | None = None

    @property
    def bounds(self) -> tuple[Floor, ...]:
        """The floors, and the one that metric, atLeast and atMost say in short."""
        if self.metric is None or (self.at_least is None and self.at_most is None):
            return self.floors or ()
        return (*(self.floors or ()), Floor(metric=self.metric, at_least=self.at_least, at_most=self.at_most))


class Rollout(Spec):
    """How one checkpoint takes over from another, and when it is taken back."""

    strategy: Literal["Rolling", "Replace"] = "Rolling"
    deadline_seconds: Annotated[int, Field(ge=10, le=86_400)] = 1_200
    watch_seconds: Annotated[int, Field(ge=0, le=86_400)] = 300


class DeploymentSpec(PlacedPods):
    """Which checkpoint to serve, and how."""

    model_service: OwnName
    checkpoint: CheckpointRef | None = None
    follow: Literal["ModelService"] | None = None
    gate: Gate | None = None
    rollout: Rollout = Rollout()
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    autoscaling: Autoscaling | None = None
    thresholds: Annotated[Mapping[str, Annotated[float, Field(ge=0, le=1)]], Field(max_length=1000)] | None = None
    precision: Literal["Auto", "Float32"] = "Auto"
    truncation: Literal["Right", "Left", "Refuse"] | None = None
    examples: Literal["Shown", "Hidden"] = "Shown"
    access: Access | None = None
    disruption_budget: DisruptionBudget | None = None
    network_policy: NetworkPolicy | None = None
    monitoring: Monitoring | None = None
    ingress: Ingress | None = None
    http_route: HttpRoute | None = None
    topology_spread_constraints: Annotated[tuple[TopologySpread, ...], Field(max_length=8)] | None = None


class CandidateCheckpoint(Status):
    """What the spec asks for, as long as it is not what is served."""

    training_job: SeenName
    checkpoint: CheckpointName
    digest: Digest | None = None


class LiveCheckpoint(CandidateCheckpoint):
    """What is served now, and how it came to be."""

    since: Time | None = None
    metric: SeenMetric | None = None
    value: float | None = None
    reason: Annotated[str, StringConstraints(max_length=64)] | None = None
    message: Words | None = None


class PastCheckpoint(LiveCheckpoint):
    """What was served before."""

    until: Time | None = None


class MeasuredValue(Status):
    """A metric of the candidate that the gate asks for."""

    metric: SeenMetric
    label: Annotated[str, StringConstraints(max_length=128)] | None = None
    value: float | None = None
    message: Words | None = None


class Comparison(Status):
    """The candidate beside the live checkpoint, on test rows that both were measured on."""

    metric: SeenMetric | None = None
    rows: Count | None = None
    candidate_rows: Count | None = None
    candidate: float | None = None
    live: float | None = None
    lead: float | None = None
    lead_at_least: float | None = None
    message: Words | None = None


class GateResult(Status):
    """What was measured for the gate, once for each candidate and what it would replace."""

    candidate: Digest
    live: Digest | None = None
    rows: Count | None = None
    measured_on: Literal["Validation", "Test"] | None = None
    values: Annotated[tuple[MeasuredValue, ...], Field(max_length=17)] | None = None
    comparison: Comparison | None = None
    message: Words | None = None
    job: SeenName | None = None
    measured_at: Time | None = None


class DeploymentStatus(ObservedStatus):
    """Where it answers, what is live, and what was."""

    url: Annotated[str, StringConstraints(max_length=512)] | None = None
    live: LiveCheckpoint | None = None
    candidate: CandidateCheckpoint | None = None
    gate: GateResult | None = None
    history: Annotated[tuple[PastCheckpoint, ...], Field(max_length=20)] | None = None
    replicas: Count | None = None
    ready_replicas: Count | None = None
    label_selector: Annotated[str, StringConstraints(max_length=1024)] | None = None


class Deployment(Object):
    """See crds/deployments.yaml."""

    kind: Literal["Deployment"] = "Deployment"
    spec: DeploymentSpec
    status: DeploymentStatus = DeploymentStatus()
