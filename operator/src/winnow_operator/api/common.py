"""What the four kinds share: bounded strings, metadata, conditions, base models and the subset of a pod that users may set."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints
from pydantic.alias_generators import to_camel

# Child objects add up to eleven characters to a name, and labels hold 63.
NAME_LENGTH = 52
TEN_YEARS_SECONDS = 315_360_000


def _whole_seconds(value: datetime) -> datetime:
    return value.astimezone(UTC).replace(microsecond=0)


def _rfc3339(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


# Kubernetes' own times have whole seconds; anything finer would make an unchanged status look changed.
Time = Annotated[datetime, AfterValidator(_whole_seconds), PlainSerializer(_rfc3339, when_used="json")]

ObjectName = Annotated[str, StringConstraints(min_length=1, max_length=253)]
OwnName = Annotated[
    str, StringConstraints(min_length=1, max_length=NAME_LENGTH, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
]
Path = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
ImageReference = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[!-~]+$")]
ServerUrl = Annotated[str, StringConstraints(min_length=8, max_length=1024, pattern=r"^https?://[!-~]+$")]
Region = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[-a-z0-9]+$")]
SeenName = Annotated[str, StringConstraints(max_length=253)]
CheckpointName = Annotated[str, StringConstraints(max_length=63)]
Digest = Annotated[str, StringConstraints(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")]
Summary = Annotated[str, StringConstraints(max_length=256)]
Count = Annotated[int, Field(ge=0)]
QuantityText = Annotated[
    str, StringConstraints(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$")
]
Quantities = Annotated[Mapping[str, int | QuantityText], Field(max_length=16)]
MetricValues = Annotated[Mapping[str, float], Field(max_length=64)]


class Spec(BaseModel):
    """A part of a spec: frozen and strict about names."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


class Status(BaseModel):
    """A part of a status: frozen, and patient with what another version wrote."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class Metadata(Status):
    """The part of metadata that Winnow reads."""

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    finalizers: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}


class Condition(Status):
    """One observation, as metav1.Condition has it."""

    type: Annotated[str, StringConstraints(max_length=316, pattern=r"^[A-Z][A-Za-z]*$")]
    status: Literal["True", "False", "Unknown"]
    observed_generation: Count | None = None
    last_transition_time: Time
    reason: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Z][A-Za-z]*$")]
    message: Annotated[str, StringConstraints(max_length=32768)]


Conditions = Annotated[tuple[Condition, ...], Field(max_length=16)]


class ObservedStatus(Status):
    """What the status of every kind has."""

    conditions: Conditions | None = None
    observed_generation: Count | None = None
    summary: Summary | None = None

    def condition(self, type_: str) -> Condition | None:
        """The condition of this type, or None before the first visit."""
        return next((condition for condition in self.conditions or () if condition.type == type_), None)

    def is_true(self, type_: str) -> bool:
        """Whether the condition of this type stands at True."""
        condition = self.condition(type_)
        return condition is not None and condition.status == "True"


class ImageModel(Spec):
    """A model in an OCI image, mounted as an image volume."""

    reference: ImageReference
    path: Path = "/model"


class VolumeModel(Spec):
    """A model in an existing volume."""

    claim_name: ObjectName
    path: Path = "/"


class SecretKeyRef(Spec):
    """A key of a Secret in the same namespace; the operator passes it on and never reads it."""

    name: ObjectName
    key: Annotated[str, StringConstraints(min_length=1, max_length=253)] = "token"


class HubRepository(Spec):
    """What names a repository of the Hugging Face Hub."""

    repo: Annotated[
        str,
        StringConstraints(
            min_length=1, max_length=193, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$"
        ),
    ]
    revision: Annotated[
        str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
    ] = "main"
    token_secret_ref: SecretKeyRef | None = None
    endpoint: ServerUrl | None = None


class HuggingFaceModel(HubRepository):
    """A model of the Hugging Face Hub."""


class SecretRef(Spec):
    """A Secret of the same namespace; the operator passes its name on and never reads it."""

    name: ObjectName


class S3Prefix(Spec):
    """A bucket of an S3 server, all of it or what is below a prefix."""

    uri: Annotated[
        str,
        StringConstraints(
            min_length=8, max_length=512, pattern=r"^s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](/[-._a-zA-Z0-9]+)*/?$"
        ),
    ]
    endpoint: ServerUrl | None = None
    region: Region | None = None


class S3Model(S3Prefix):
    """A model in a bucket."""

    secret_ref: SecretRef | None = None


class BaseModelSource(Spec):
    """Where a model comes from; a CEL rule allows exactly one."""

    image: ImageModel | None = None
    persistent_volume_claim: VolumeModel | None = None
    hugging_face: HuggingFaceModel | None = None
    s3: S3Model | None = None


class CheckpointSource(Spec):
    """A checkpoint of another TrainingJob, to go on from."""

    training_job: OwnName
    name: Annotated[str, StringConstraints(max_length=63, pattern=r"^(best|epoch-[1-9][0-9]{0,3})$")] = "best"


class TrainingBaseModel(BaseModelSource):
    """What a training starts from; a CEL rule allows exactly one."""

    checkpoint: CheckpointSource | None = None


class StoredCheckpoint(Spec):
    """A checkpoint by its folder in storage."""

    run: SeenName
    checkpoint: CheckpointName


class AdapterBase(BaseModelSource):
    """The model that an adapter stands on: exactly one, as it was when the training started."""

    stored: StoredCheckpoint | None = None


class Resources(Spec):
    """As in a container."""

    limits: Quantities | None = None
    requests: Quantities | None = None


class Toleration(Spec):
    """As in a pod."""

    key: Annotated[str, StringConstraints(max_length=317)] | None = None
    operator: Literal["Equal", "Exists"] | None = (
        None  # no default: inside a list, GitOps tools would show it as a difference
    )
    value: Annotated[str, StringConstraints(max_length=63)] | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int, Field(ge=0, le=TEN_YEARS_SECONDS)] | None = None


class KeyRef(Spec):
    """A key of a Secret or ConfigMap in the same namespace; the kubelet reads it, the operator never does."""

    name: ObjectName
    key: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    optional: bool | None = None


class EnvSource(Spec):
    """Where the value of a variable comes from; a CEL rule allows exactly one."""

    secret_key_ref: KeyRef | None = None
    config_map_key_ref: KeyRef | None = None


class EnvVar(Spec):
    """An environment variable; a CEL rule allows either a value or where it comes from."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    value: Annotated[str, StringConstraints(max_length=4096)] | None = None
    value_from: EnvSource | None = None


class PodSettings(Spec):
    """The subset of a pod that TrainingJob and Deployment expose."""

    resources: Resources | None = None
    node_selector: (
        Annotated[Mapping[str, Annotated[str, StringConstraints(max_length=63)]], Field(max_length=32)] | None
    ) = None
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] | None = None
    priority_class_name: ObjectName | None = None
    runtime_class_name: ObjectName | None = None
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64)] | None = None


class Object(Status):
    """An object of one of our kinds; only its metadata is everyone's."""

    api_version: Literal["winnow.dev/v1alpha1"] = "winnow.dev/v1alpha1"
    metadata: Metadata
