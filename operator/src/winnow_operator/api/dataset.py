"""Dataset: a validated, immutable set of rows."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from .common import (
    Count,
    Digest,
    HubRepository,
    ImageReference,
    Object,
    ObjectName,
    ObservedStatus,
    OwnName,
    Path,
    Region,
    SecretRef,
    ServerUrl,
    Spec,
    Status,
)

INLINE_BYTES = 262_144
UPLOAD_BYTES = 1_099_511_627_776
LabelName = Annotated[str, StringConstraints(min_length=1, max_length=128)]
SeenLabelName = Annotated[str, StringConstraints(max_length=128)]
Message = Annotated[str, StringConstraints(max_length=1024)]
Sha256 = Annotated[str, StringConstraints(min_length=64, max_length=64, pattern=r"^[0-9a-f]{64}$")]
Length = Annotated[float, Field(ge=0)]


class Columns(Spec):
    """The names of a row's two fields, where the file's differ from the usual ones."""

    text: LabelName | None = None
    target: LabelName | None = None


class ConfigMapSource(Spec):
    """A key of a ConfigMap."""

    name: ObjectName
    key: Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]


class FileSource(Spec):
    """Files in a volume."""

    claim_name: ObjectName
    path: Path


class ImageFileSource(Spec):
    """Files in an OCI image."""

    reference: ImageReference
    path: Path


class HttpSource(Spec):
    """A file that a web server has."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=r"^https?://[!-~]+$")]
    sha256: Sha256


class S3Source(Spec):
    """Files in a bucket of an S3 server."""

    uri: Annotated[
        str, StringConstraints(min_length=6, max_length=1024, pattern=r"^s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](/.*)?$")
    ]
    endpoint: ServerUrl | None = None
    region: Region | None = None
    secret_ref: SecretRef | None = None


class HuggingFaceSource(HubRepository):
    """A split of a dataset repository of the Hugging Face Hub."""

    config: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = None
    split: (
        Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\[\]+/\x00-\x20\x7f-\xa0]+$")]
        | None
    ) = None
    text_column: LabelName | None = None
    label_column: LabelName | None = None


class UploadSource(Spec):
    """A file that is sent to the import pod."""

    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=1, le=UPLOAD_BYTES)]
    file_name: (
        Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^/\x00-\x1f\x7f]+$")] | None
    ) = None


class Source(Spec):
    """Where the rows are read from; a CEL rule allows exactly one."""

    inline: Annotated[str, StringConstraints(min_length=1, max_length=INLINE_BYTES)] | None = None
    config_map: ConfigMapSource | None = None
    persistent_volume_claim: FileSource | None = None
    image: ImageFileSource | None = None
    http: HttpSource | None = None
    s3: S3Source | None = None
    hugging_face: HuggingFaceSource | None = None
    upload: UploadSource | None = None


class DatasetSpec(Spec):
    """Where the rows come from and how to read them; immutable."""

    model_service: OwnName
    format: Literal["Auto", "JSONL", "JSON", "CSV", "Parquet"] = "Auto"
    task_detail: Literal["Auto", "Binary", "Multiclass", "Multilabel"] = "Auto"
    labels: Annotated[tuple[LabelName, ...], Field(min_length=1, max_length=1000)] | None = None
    columns: Columns | None = None
    source: Source
    on_invalid_rows: Literal["Fail", "Skip"] = "Fail"


class LabelCount(Status):
    """How often a label occurs."""

    name: SeenLabelName
    positives: Count
    share: Annotated[float, Field(ge=0, le=1)]


class TokenLengths(Status):
    """Lengths of rows in tokens of the base model."""

    mean: Length | None = None
    p50: Length | None = None
    p95: Length | None = None
    p99: Length | None = None
    max: Length | None = None


class Warning_(Status):  # noqa: N801  (Warning is a builtin)
    """What is usable but probably not wanted."""

    code: Annotated[str, StringConstraints(max_length=64)]
    message: Message


class Problem(Status):
    """One wrong row."""

    file: Annotated[str, StringConstraints(max_length=256)] | None = None
    line: Count | None = None
    column: Count | None = None
    message: Message


class SourcePins(Status):
    """What a source that can change meant when it was read."""

    revision: Annotated[str, StringConstraints(max_length=40, pattern=r"^[0-9a-f]{40}$")] | None = None


class DatasetStatus(ObservedStatus):
    """What the import found."""

    source: SourcePins | None = None

    format: Annotated[str, StringConstraints(max_length=64)] | None = None
    task_detail: Literal["Binary", "Multiclass", "Multilabel"] | None = None
    rows: Count | None = None
    digest: Digest | None = None
    labels: Annotated[tuple[LabelCount, ...], Field(max_length=1000)] | None = None
    label_count: Count | None = None
    tokens: TokenLengths | None = None
    duplicates: Count | None = None
    conflicts: Count | None = None
    near_duplicates: Count | None = None
    warnings: Annotated[tuple[Warning_, ...], Field(max_length=20)] | None = None
    problems: Annotated[tuple[Problem, ...], Field(max_length=20)] | None = None
    problem_count: Count | None = None
    skipped_rows: Count | None = None


class Dataset(Object):
    """See crds/datasets.yaml."""

    kind: Literal["Dataset"] = "Dataset"
    spec: DatasetSpec
    status: DatasetStatus = DatasetStatus()
