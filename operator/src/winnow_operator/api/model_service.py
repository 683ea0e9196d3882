"""ModelService: one classification problem, its default base model and its storage."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from .common import (
    BaseModelSource,
    CheckpointName,
    Count,
    Digest,
    Object,
    ObjectName,
    ObservedStatus,
    S3Prefix,
    SecretRef,
    SeenName,
    Spec,
    Status,
    Time,
)


class StorageClaim(Spec):
    """Either a new claim (size) or an existing one (claim_name); a CEL rule allows exactly one."""

    size: Annotated[str, StringConstraints(min_length=1, max_length=32)] | None = None
    storage_class_name: ObjectName | None = None
    access_modes: (
        Annotated[
            tuple[Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"], ...], Field(min_length=1, max_length=3)
        ]
        | None
    ) = None
    claim_name: ObjectName | None = None


class S3Storage(S3Prefix):
    """A bucket that is written."""

    secret_ref: SecretRef


class Storage(Spec):
    """Where rows and checkpoints live; a CEL rule allows exactly one."""

    persistent_volume_claim: StorageClaim | None = None
    s3: S3Storage | None = None


class Retention(Spec):
    """Which checkpoints of an ended job stay."""

    checkpoints_per_job: Annotated[int, Field(ge=1, le=1000)]


class ModelServiceSpec(Spec):
    """What the problem is, which model it starts from and where its data lives."""

    description: Annotated[str, StringConstraints(max_length=1024)] | None = None
    task_type: Literal["Classification"] = "Classification"
    base_model: BaseModelSource
    retention: Retention | None = None
    storage: Storage


class LeaderboardEntry(Status):
    """The best checkpoint of one training job."""

    training_job: SeenName
    checkpoint: CheckpointName
    metric: Annotated[str, StringConstraints(max_length=64)]
    value: float
    selected_on: Literal["Validation", "Test"] | None = None
    deployed: bool


class StoredRows(Status):
    """What a Dataset put into storage, remembered until it is collected."""

    dataset: SeenName
    digest: Digest | None = None
    unreferenced_since: Time | None = None


class Collected(Status):
    """The last collection."""

    job: SeenName
    time: Time
    checkpoints: (
        Annotated[tuple[Annotated[str, StringConstraints(max_length=253)], ...], Field(max_length=100)] | None
    ) = None
    datasets: Count | None = None
    freed_bytes: Count | None = None
    message: Annotated[str, StringConstraints(max_length=1024)]


class ModelServiceStatus(ObservedStatus):
    """Counts, the claim in use and the board."""

    datasets: Count | None = None
    training_jobs: Count | None = None
    deployments: Count | None = None
    storage: Annotated[str, StringConstraints(max_length=512)] | None = None
    storage_claim: SeenName | None = None
    leaderboard: Annotated[tuple[LeaderboardEntry, ...], Field(max_length=10)] | None = None
    stored: Annotated[tuple[StoredRows, ...], Field(max_length=1000)] | None = None
    collected: Collected | None = None


class ModelService(Object):
    """See crds/modelservices.yaml."""

    kind: Literal["ModelService"] = "ModelService"
    spec: ModelServiceSpec
    status: ModelServiceStatus = ModelServiceStatus()
