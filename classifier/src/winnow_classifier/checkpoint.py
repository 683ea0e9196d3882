"""A checkpoint: a folder in the ecosystem's own form, plus checkpoint.json that names every file with its SHA-256.

It appears whole or not at all (written beside, synced, renamed), and never changes afterwards.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from winnow_classifier import base_model as base_models
from winnow_classifier.architectures import Pooling
from winnow_classifier.errors import BaseModelError, CheckpointError
from winnow_classifier.files import MANIFEST, sha256_of_files, sync
from winnow_classifier.four_bit import round_body
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.model import Classifier, load_network, merge_lora, read_config
from winnow_classifier.packing import pack
from winnow_classifier.tokens import Encoder, load_tokenizer

ADAPTER = "adapter_model.safetensors"
PROBE = list(range(1, 17))  # token ids that every vocabulary has
MERGED_TOLERANCE = 1e-3  # of a logit, absolute and relative: merged weights sum in another order in float32
SelectedOn = Literal["Validation", "Test"]  # rows


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class FileEntry(_Model):
    sha256: str
    size_bytes: int


class BaseModelEntry(_Model):
    reference: str
    digest: str


class ContinuedEntry(_Model):
    """The checkpoint that the training went on from."""

    training_job: str
    checkpoint: str
    digest: str


class SplitEntry(_Model):
    """These rows are a part of the dataset's: what was taken by this split, or what was left."""

    percent: float
    seed: int


class DatasetEntry(_Model):
    digest: str
    rows: int
    split: SplitEntry | None = None  # testSplit
    validation_split: SplitEntry | None = None  # of what testSplit left
    dropped: int | None = None  # rows left out because their text also stands in rows that are learned from


class JobEntry(_Model):
    name: str
    uid: str | None = None
    output_model_name: str | None = None


class Manifest(_Model):
    """checkpoint.json: all that is needed to serve the checkpoint, and to know where it came from."""

    format_version: Literal[1] = 1
    name: str
    epoch: int
    task_type: Literal["Classification"] = "Classification"
    task_detail: TaskDetail
    labels: tuple[str, ...]
    problem_type: str
    method: Literal["LoRA", "QLoRA", "Full", "HeadOnly"]
    architecture: str
    pooling: Pooling
    # Whether transformers' own classifier pools there too, so that the weights mean the same to every other tool.
    pools_as_transformers: bool = True
    batches: Literal["Packed", "Padded"] = "Packed"  # how texts of different lengths ran together
    prompt_template: str
    max_seq_length: int
    base_model: BaseModelEntry
    continued_from: ContinuedEntry | None = None
    training_dataset: DatasetEntry
    test_dataset: DatasetEntry | None = None
    validation_dataset: DatasetEntry | None = None
    rebalance: dict[str, Any] | None = None  # of the training rows: counts or ratios by label, as the job asked
    metrics: dict[str, float | None] = Field(default_factory=dict)  # on the test rows
    validation_metrics: dict[str, float | None] = Field(default_factory=dict)
    train_loss: float | None = None
    primary_metric: str | None = None
    higher_is_better: bool | None = None  # of the primary metric
    selected_on: SelectedOn | None = None  # whose primary metric picks the best checkpoint of the job
    # As the job names them, unset ones with what they stood for.
    parameters: dict[str, Any] = Field(default_factory=dict)
    processes: int = 1  # that each took a batch of a step
    versions: dict[str, str] = Field(default_factory=dict)
    training_job: JobEntry
    created_at: datetime
    files: dict[str, FileEntry] = Field(default_factory=dict)

    @property
    def schema_(self) -> LabelSchema:
        return LabelSchema(self.task_detail, self.labels)


@dataclass(frozen=True, slots=True)
class Published:
    manifest: Manifest
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class LoadedCheckpoint:
    manifest: Manifest
    schema: LabelSchema
    encoder: Encoder
    model: Classifier
    digest: str


def publish(
    directory: Path,
    manifest: Manifest,
    model: Classifier,
    tokenizer: PreTrainedTokenizerFast,
    artifacts: Mapping[str, bytes],
    beside: Mapping[str, bytes] | None = None,
    weights: dict[str, Tensor] | None = None,
) -> Published:
    """Write the checkpoint to `directory`, where none may stand yet. `artifacts` are further files by name; those `beside`
    are no part of the checkpoint and may be replaced later. `weights`: those of the network, where it does not hold them itself."""
    temporary = directory.parent / f".tmp-{directory.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        content, manifest = write(temporary, manifest, model, tokenizer, artifacts, beside or {}, weights)
        if not (directory / MANIFEST).exists():
            shutil.rmtree(directory, ignore_errors=True)  # what a removal that was killed left
        temporary.rename(directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)  # a full disk needs the room
        raise
    sync(directory.parent)
    return published(manifest, content)


def write(
    directory: Path,
    manifest: Manifest,
    model: Classifier,
    tokenizer: PreTrainedTokenizerFast,
    artifacts: Mapping[str, bytes],
    beside: Mapping[str, bytes],
    weights: dict[str, Tensor] | None,
) -> tuple[bytes, Manifest]:
    """All files into an empty directory, onto the disk; the last of them and what it says."""
    save_weights(model, directory, weights)
    tokenizer.save_pretrained(directory)
    for name, content in artifacts.items():
        (directory / name).write_bytes(content)
    paths = sorted(path for path in directory.iterdir() if path.is_file())
    for name, content in beside.items():
        (directory / name).write_bytes(content)
        sync(directory / name)
    files = {
        path.name: FileEntry(sha256=sha256, size_bytes=path.stat().st_size)
        for path, sha256 in zip(paths, sha256_of_files(paths), strict=True)
    }
    manifest = manifest.model_copy(update={"files": files})
    content = manifest_bytes(manifest)
    (directory / MANIFEST).write_bytes(content)
    for path in (*paths, directory / MANIFEST, directory):
        sync(path)
    return content, manifest


def save_weights(model: Classifier, directory: Path, weights: dict[str, Tensor] | None) -> None:
    """Save the network as plain transformers (or peft, for an adapter with its head) loads it."""
    if isinstance(model.network, PreTrainedModel):
        model.network.save_pretrained(directory, state_dict=weights)
    else:
        # The base's config with our labels, beside the adapter: peft alone does not keep them.
        config = copy.deepcopy(model.base.config)
        config.architectures = [type(model.base).__name__]
        if hasattr(config, "quantization_config"):  # QLoRA: says how it was trained, not what the base model is
            del config.quantization_config
        config.save_pretrained(directory)
        adapters: dict[str, Any] = model.network.peft_config
        for adapter in adapters.values():
            # peft has a set here, whose order differs between processes: the same run would end with another digest.
            adapter.target_modules = sorted(adapter.target_modules)
        model.network.save_pretrained(str(directory), save_embedding_layers=False, state_dict=weights)
        (directory / "README.md").unlink(missing_ok=True)  # peft's empty model card


def manifest_bytes(manifest: Manifest) -> bytes:
    content = manifest.model_dump(mode="json", by_alias=True)
    return (json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode()


def published(manifest: Manifest, content: bytes) -> Published:
    size = len(content) + sum(entry.size_bytes for entry in manifest.files.values())
    return Published(manifest, digest_of(content), size)


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def read_manifest(directory: Path, digest: str | None = None, shown: str | None = None) -> tuple[Manifest, bytes]:
    """The manifest and its bytes; no other file is looked at. `shown` is what people know the directory as, if it is a
    bucket's. Raises CheckpointError."""
    known = shown or directory
    try:
        content = (directory / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"There is no checkpoint in {known}: {MANIFEST} is missing.") from None
    if digest is not None and digest_of(content) != digest:
        raise CheckpointError(f"{known}/{MANIFEST} was changed: its digest is {digest_of(content)}, expected {digest}.")
    try:
        return Manifest.model_validate_json(content), content
    except ValidationError as error:
        raise CheckpointError(f"{known}/{MANIFEST} is not a checkpoint of format 1: {error}") from error


def inspect(directory: Path, digest: str | None = None, sizes: Mapping[str, int] | None = None) -> Published:
    """The manifest with the checkpoint's digest and size, after every file was checked to be as it was published. Raises
    CheckpointError naming what is not. `sizes`: those of the files in a bucket, where only the manifest is in the directory.
    Then sizes are compared, not digests: the server checked the bytes when it received them."""
    manifest, content = read_manifest(directory, digest)
    for name, entry in manifest.files.items():
        if sizes is not None and sizes.get(name) != entry.size_bytes:
            found_size = sizes.get(name, "no")
            raise CheckpointError(f"Checkpoint {directory}: {name} has {found_size} bytes, not {entry.size_bytes}.")
        if sizes is None and not (directory / name).is_file():
            raise CheckpointError(f"Checkpoint {directory} has lost {name}.")
    if sizes is not None:
        return published(manifest, content)
    found = sha256_of_files(directory / name for name in manifest.files)
    for (name, entry), sha256 in zip(manifest.files.items(), found, strict=True):
        if sha256 != entry.sha256:
            raise CheckpointError(f"{directory / name} was changed: its SHA-256 is {sha256}, expected {entry.sha256}.")
    return published(manifest, content)


def load(
    directory: Path,
    *,
    digest: str | None = None,
    base_model: str | None = None,
    storage: Path | None = None,
    resolve: base_models.Resolve = base_models.resolve,
) -> LoadedCheckpoint:
    """A checkpoint ready to classify, verified first. `base_model` says where an adapter's base is now, if it moved.

    Raises CheckpointError if a file changed, or the base model is not the one the adapter was trained on.
    """
    found = inspect(directory, digest)
    manifest = found.manifest
    if is_adapter(manifest):
        reference = where_the_base_is(base_model, manifest.base_model.reference)
        network = adapted_network(directory, manifest, reference, resolve(reference, storage))
    else:
        network = plain(directory)
    model = Classifier(network, manifest.pooling).eval().requires_grad_(False)
    try:
        tokenizer = load_tokenizer(directory)
    except BaseModelError as error:
        raise CheckpointError(f"Checkpoint {directory}: {error}") from error
    embeddings: Any = model.base.get_input_embeddings()  # not the config's vocab_size: some types keep it deeper
    encoder = Encoder(tokenizer, manifest.prompt_template, manifest.max_seq_length, embeddings.num_embeddings)
    return LoadedCheckpoint(manifest, manifest.schema_, encoder, model, found.digest)


def is_adapter(manifest: Manifest) -> bool:
    return ADAPTER in manifest.files


def plain(directory: Path) -> Any:
    return load_network(directory, read_config(directory))


def where_the_base_is(given: str | None, trained_on: str) -> str:
    """`given`, unless it is the repository or bucket that the training named: then the version of the training, since there
    may be a newer one by now."""
    if given is None:
        return trained_on
    place = base_models.without_version
    return trained_on if base_models.is_remote(given) and place(given) == place(trained_on) else given


def check_base(reference: str, base: Path, manifest: Manifest) -> None:
    """Raises CheckpointError if the folder does not hold the base model that the adapter was trained on."""
    digest = base_models.digest(base)
    if digest != manifest.base_model.digest:
        raise CheckpointError(
            f"The base model {reference} is not the one this adapter was trained on: its digest is {digest}, "
            f"expected {manifest.base_model.digest}."
        )


def adapted_network(directory: Path, manifest: Manifest, reference: str, base: Path) -> Any:
    """The base with the adapter merged in, in float32: the same logits as unmerged, at the speed of the base.

    Held against the unmerged on a few tokens. Raises CheckpointError if they differ.
    """
    check_base(reference, base, manifest)
    from peft import PeftModel

    network = load_network(base, read_config(directory))
    if manifest.method == "QLoRA":
        round_body(network, Classifier(network).architecture.head)
    adapted = PeftModel.from_pretrained(network, directory)
    expected = probed(adapted, manifest)
    merged = merge_lora(adapted)
    difference = float((probed(merged, manifest) - expected).abs().max())
    if not difference <= MERGED_TOLERANCE * (1 + float(expected.abs().max())):  # NaN is not
        raise CheckpointError(
            f"Checkpoint {directory}: merged into its base model, the adapter changes a logit by {difference:.2g}. Its "
            "answers would not be those that were measured, so it is not served. Was it made with another version of peft?"
        )
    return merged


def probed(network: Any, manifest: Manifest) -> Tensor:
    """(1, C) logits of some tokens; which ones does not matter."""
    model = Classifier(network, manifest.pooling).eval()
    with torch.inference_mode():
        return model(pack([PROBE], model.position_start))  # type: ignore[no-any-return]
