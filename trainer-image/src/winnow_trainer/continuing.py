"""Going on from a checkpoint: where it lies, what of it is taken over, and what of it the new training changes.

Rows of the head follow their label by name: labels in another order, fewer or more of them, never answer for each other.
An adapter is trained on, or added into the weights where the new training has no adapter. See ADR 80.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from winnow_classifier import base_model, checkpoint
from winnow_classifier.base_model import WEIGHTS, WEIGHTS_INDEX, Resolve
from winnow_classifier.checkpoint import ADAPTER, BaseModelEntry, ContinuedEntry, Manifest
from winnow_classifier.errors import CheckpointError, ConfigError
from winnow_classifier.files import MANIFEST
from winnow_classifier.labels import LabelSchema
from winnow_classifier.mirror import Mirror
from winnow_classifier.model import Classifier, Lora
from winnow_classifier.profile import Warn
from winnow_classifier.words import some
from winnow_trainer.job import ADAPTERS, CheckpointBase, Parameters, Spec

ADAPTER_PREFIX = "base_model.model."
BEST = "best"
NAMED_LABELS = 10
SAME_ADAPTER = ("lora_rank", "lora_alpha", "lora_target_modules")


@dataclass(frozen=True, slots=True)
class Parent:
    """The checkpoint that a training goes on from, verified."""

    folder: Path
    manifest: Manifest
    digest: str
    body: Path  # the model whose weights are loaded first: the folder itself, or what its adapter stands on
    entry: BaseModelEntry  # of `body`

    @property
    def adapts(self) -> bool:
        return ADAPTER in self.manifest.files

    def continued(self) -> ContinuedEntry:
        return ContinuedEntry(
            training_job=self.manifest.training_job.name, checkpoint=self.manifest.name, digest=self.digest
        )


def find(wanted: str | CheckpointBase, storage: Path, mirror: Mirror, resolve: Resolve) -> Parent | None:
    """None where `wanted` is a plain base model. Raises CheckpointError, ConfigError, BaseModelError."""
    if isinstance(wanted, str):
        folder = Path(wanted)
        if base_model.is_remote(wanted) or not (folder / MANIFEST).is_file():
            return None
        return _read(folder, None, None, storage, mirror, resolve)
    source = wanted.checkpoint
    run = storage / "runs" / (source.run or source.training_job)
    name = _best(run, source.training_job, mirror) if source.name == BEST else source.name
    folder = run / "checkpoints" / name
    mirror.fetch_folder(folder, MANIFEST)
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(
            f"baseModel.checkpoint: TrainingJob {source.training_job} has no checkpoint {name}: there is none in "
            f"{mirror.shown(folder)}."
        )
    return _read(folder, source.digest, source.base_model, storage, mirror, resolve)


def _best(run: Path, job: str, mirror: Mirror) -> str:
    mirror.fetch(run / "result.json")
    try:
        return str(json.loads((run / "result.json").read_bytes())["bestCheckpoint"])
    except FileNotFoundError:
        raise CheckpointError(
            f"baseModel.checkpoint: TrainingJob {job} has not ended, so its best checkpoint is not known: there is no "
            f"{mirror.shown(run / 'result.json')}. Wait for its end, or name a checkpoint such as epoch-1."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{mirror.shown(run / 'result.json')} names no best checkpoint: {error!r}") from error


def _read(
    folder: Path, digest: str | None, given: str | None, storage: Path, mirror: Mirror, resolve: Resolve
) -> Parent:
    found = checkpoint.inspect(folder, digest)
    manifest = found.manifest
    if ADAPTER not in manifest.files:
        entry = BaseModelEntry(reference=mirror.shown(folder), digest=base_model.digest(folder))
        return Parent(folder, manifest, found.digest, folder, entry)
    reference = checkpoint.where_the_base_is(given, manifest.base_model.reference)
    place = _in_storage(reference, storage, mirror)
    body = resolve(place, storage)
    checkpoint.check_base(reference, body, manifest)
    pinned = base_model.pinned(reference, body) if place == reference else reference  # a checkpoint stays what it is
    return Parent(
        folder, manifest, found.digest, body, BaseModelEntry(reference=pinned, digest=manifest.base_model.digest)
    )


def _in_storage(reference: str, storage: Path, mirror: Mirror) -> str:
    """An adapter may stand on a checkpoint in the same storage, which a bucket gives out only when asked."""
    runs = f"{mirror.shown(storage).rstrip('/')}/runs/"
    if not reference.startswith(runs):
        return reference
    folder = storage / "runs" / reference.removeprefix(runs)
    mirror.fetch_folder(folder, MANIFEST)
    return str(folder)


def with_parent(parameters: Parameters, spec: Spec, parent: Parent | None) -> Parameters:
    """An adapter that is trained on keeps its shape. Raises ConfigError where the job asks for another one."""
    if parent is None:
        return parameters
    if parameters.head_init == "Ridge":
        raise ConfigError(
            "parameters.headInit is Ridge, which would overwrite the head of the checkpoint that baseModel names; leave it out."
        )
    if not parent.adapts or spec.method not in ADAPTERS:
        return parameters
    own = Parameters.model_validate(parent.manifest.parameters)
    for name in SAME_ADAPTER:
        asked, had = getattr(parameters, name), getattr(own, name)
        if asked is not None and asked != had:
            field = Parameters.model_fields[name].alias
            raise ConfigError(
                f"parameters.{field} is {asked}, and the adapter of checkpoint {parent.manifest.name} of "
                f"{parent.manifest.training_job.name} has {had}, which goes on as it is. Leave {field} out, or start from the base model."
            )
    return parameters.model_copy(update={name: getattr(own, name) for name in SAME_ADAPTER})


def adapter_shape(parent: Parent, dropout: float) -> Lora:
    own = Parameters.model_validate(parent.manifest.parameters)
    assert own.lora_rank is not None and own.lora_alpha is not None and own.lora_target_modules is not None
    return Lora(own.lora_rank, own.lora_alpha, dropout, own.lora_target_modules)


def take_head(model: Classifier, parent: Parent, schema: LabelSchema) -> None:
    """The parent's head into `model`, which has no adapter yet: its last layer row by row, by the names of the labels."""
    state = read_tensors(parent, model.architecture.head)
    last = model.output_layer()
    # With as many labels as before, the loaded layer is the parent's already, with its rows at the places of other labels.
    start_output(model)
    names = {id(parameter): name for name, parameter in model.base.named_parameters()}
    by_label = {names[id(parameter)] for parameter in last.parameters()}
    with torch.no_grad():
        for head in model.architecture.head:
            for name, parameter in model.base.get_submodule(head).named_parameters(prefix=head):
                if name not in state:
                    raise CheckpointError(f"Checkpoint {parent.folder} has lost the weights {name} of its head.")
                if name in by_label:
                    rows_by_label(parameter, state[name], schema.labels, parent.manifest.labels)
                else:
                    parameter.copy_(state[name])


def start_output(model: Classifier) -> None:
    """The last layer of the head at random, as transformers starts it: seed first."""
    last, config = model.output_layer(), model.base.config.get_text_config()
    with torch.no_grad():
        last.weight.normal_(std=getattr(config, "initializer_range", 0.02))
        if last.bias is not None:
            last.bias.zero_()


def rows_by_label(new: Tensor, old: Tensor, labels: tuple[str, ...], old_labels: tuple[str, ...]) -> None:
    """Rows of `old`, which stand for `old_labels`, to where their labels are in `new`; the others of `new` stay as they are."""
    place = {label: row for row, label in enumerate(old_labels)}
    for row, label in enumerate(labels):
        if label in place:
            new[row] = old[place[label]]


def take_adapter(model: Classifier, parent: Parent) -> None:
    """The parent's LoRA matrices into `model`, which has an adapter of the same shape."""
    with safe_open(parent.folder / ADAPTER, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys() if ".lora_" in name}  # noqa: SIM118 - no mapping
    named = dict(model.network.named_parameters())
    with torch.no_grad():
        for name, tensor in state.items():
            ours = named.get(f"{name.removesuffix('.weight')}.default.weight")
            if ours is None or ours.shape != tensor.shape:
                raise CheckpointError(
                    f"Checkpoint {parent.folder}: its adapter has {name}, which does not fit its parameters."
                )
            ours.copy_(tensor)
    if len(state) != sum(".lora_" in name for name in named):
        raise CheckpointError(f"Checkpoint {parent.folder}: its adapter lacks matrices that its parameters name.")


def read_tensors(parent: Parent, modules: tuple[str, ...]) -> dict[str, Tensor]:
    """Those below these modules, by their names in the network."""
    prefix = ADAPTER_PREFIX if parent.adapts else ""
    found = {}
    for path in weight_files(parent):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                plain = name.removeprefix(prefix)
                if plain.startswith(tuple(f"{module}." for module in modules)):
                    found[plain] = file.get_tensor(name)
    return found


def weight_files(parent: Parent) -> list[Path]:
    if parent.adapts:
        return [parent.folder / ADAPTER]
    index = parent.folder / WEIGHTS_INDEX
    names = base_model.shard_names(index) if index.is_file() else [WEIGHTS]
    return [parent.folder / name for name in names]


def about(parent: Parent | None, spec: Spec, schema: LabelSchema) -> list[Warn]:
    """Warnings of what differs from the parent's training, which is allowed but perhaps not wanted."""
    if parent is None:
        return []
    manifest, name = parent.manifest, f"{parent.manifest.name} of {parent.manifest.training_job.name}"
    new = [label for label in schema.labels if label not in manifest.labels]
    gone = [label for label in manifest.labels if label not in schema.labels]
    warnings = []
    if new:
        warnings.append(
            Warn("NewLabels", f"not known to {name}, so the head learns them from the start: {some(new, NAMED_LABELS)}")
        )
    if gone:
        warnings.append(
            Warn("LabelsDropped", f"known to {name}, but no label of the training rows: {some(gone, NAMED_LABELS)}")
        )
    if manifest.prompt_template != spec.prompt_template:
        message = f"promptTemplate is another one than that of {name}: {manifest.prompt_template!r}"
        warnings.append(Warn("PromptTemplateDiffers", message[:500]))
    if manifest.task_detail != schema.task_detail:
        message = f"{name} was trained on {manifest.task_detail} rows, these are {schema.task_detail}: its scores mean something else"
        warnings.append(Warn("TaskDetailDiffers", message))
    return warnings
