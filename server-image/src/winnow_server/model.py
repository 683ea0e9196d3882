"""The checkpoint that is served: what is known of it before it is loaded, and the loaded model."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from winnow_classifier import base_model as base_models
from winnow_classifier import checkpoint
from winnow_classifier.checkpoint import Manifest
from winnow_classifier.files import PREDICTIONS
from winnow_classifier.labels import LabelSchema
from winnow_classifier.mirror import Mirror
from winnow_classifier.packing import BUCKET_LENGTH_MULTIPLE, TOKENS_MULTIPLE, pack
from winnow_classifier.tokens import Encoder
from winnow_server import examples, half, precision
from winnow_server.fast_linear import by_onednn
from winnow_server.settings import Precision
from winnow_server.thresholds import NO_RULES, Rules

log = logging.getLogger(__name__)

FILLER = "to be or not to be, that is the question"  # measured with where the checkpoint brought no rows
DIGEST_CHARACTERS = 12  # of the digest in model_version: enough to tell checkpoints apart
# oneDNN keeps a program of some hundred kilobytes for each number of tokens, and in bfloat16 making one takes as long as a
# small batch's product: sizes that come again (ADR 91).
FILLED = {"float32": BUCKET_LENGTH_MULTIPLE, "bfloat16": TOKENS_MULTIPLE}
SHORT_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Announced:
    """What checkpoint.json says, read before the weights are."""

    name: str  # what clients call the model
    manifest: Manifest
    digest: str

    @property
    def version(self) -> str:
        """As in email-v1/epoch-2@sha256:1f3a5b7c9d0e."""
        algorithm, _, value = self.digest.partition(":")
        job = self.manifest.training_job.name
        return f"{job}/{self.manifest.name}@{algorithm}:{value[:DIGEST_CHARACTERS]}"


@dataclass(frozen=True, slots=True)
class Served:
    """The model on its device. Only the engine's threads run it, and `encoder` is its first one's."""

    schema: LabelSchema
    encoder: Encoder
    model: nn.Module
    device: torch.device
    position_start: int
    precision: str  # of the body; the head is always float32
    rows: Sequence[examples.Example]  # of the test set
    multiple: int  # what the tokens of a batch are filled up to

    def logits(self, sequences: Sequence[Sequence[int]]) -> tuple[Tensor, float]:
        """(B, C) float32, on the CPU; and of what was computed the share that was padding."""
        tokens = sum(map(len, sequences))
        # Short texts alone are few shapes, and filling one up would cost a tenth of its time.
        fills = len(sequences) > 1 or tokens > SHORT_TOKENS
        batch = pack(sequences, self.position_start, self.multiple if fills else 1).to(self.device)
        logits: Tensor = self.model(batch)[: len(sequences)]
        return logits.float().cpu(), 1 - tokens / batch.places

    def encoders(self, count: int) -> list[Encoder]:
        """One for each thread: a tokenizer keeps state while it cuts a text."""
        return [copy.deepcopy(self.encoder) for _ in range(count)]


def announce(directory: Path, digest: str | None, name: str | None) -> Announced:
    """Raises CheckpointError if there is no checkpoint, or not the one with this digest."""
    manifest, content = checkpoint.read_manifest(directory, digest)
    return Announced(
        name or manifest.training_job.output_model_name or manifest.name, manifest, checkpoint.digest_of(content)
    )


def load(
    directory: Path,
    announced: Announced,
    base_model: str | None,
    storage: Path | None,
    mirror: Mirror,
    asked: Precision = "auto",
    rules: Rules = NO_RULES,
    resolve: base_models.Resolve = base_models.resolve,
) -> Served:
    """Every file is held against its digest first. `rules` are what a faster form is judged by. Raises CheckpointError,
    BaseModelError, StorageError."""
    for name in announced.manifest.files:
        mirror.fetch(directory / name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = checkpoint.load(
        directory, digest=announced.digest, base_model=base_model, storage=storage, resolve=resolve
    )
    unread = list(loaded.encoder.unread.values())
    if unread:
        log.warning(
            "Texts with these tokens are refused: the tokenizer knows them, the model does not",
            extra={"tokens": unread[:10], "count": len(unread)},
        )
    rows = examples.read(directory) if PREDICTIONS in announced.manifest.files else []
    model, computes_in = loaded.model, None
    if device.type == "cuda" and precision.may_be_half(model, asked):
        free, _ = torch.cuda.mem_get_info(device)
        if precision.only_half_fits(model, free):
            half.to_bfloat16(model)
            computes_in = "bfloat16"
            why = f"float32 has no room to be compared with: {free / 2**30:.0f} GiB are free on the GPU"
            log.info("Precision chosen", extra={"precision": computes_in, "why": why})
    model.to(device)
    if computes_in is None:
        encode = loaded.encoder.encode
        encoded = encode(examples.to_judge(rows)) if rows else []
        judged = [one.input_ids for one in encoded if loaded.encoder.unread_in(one) is None]
        (filler,) = encode([FILLER])
        computes_in = precision.fastest(model, loaded.schema, judged, filler.input_ids, asked, rules)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what was compared, and perhaps the float32 weights
    multiple = FILLED[computes_in] if model.architecture.packs and by_onednn(model) else 1
    if loaded.encoder.max_seq_length < multiple:  # else it may lack positions
        multiple = 1
    return Served(loaded.schema, loaded.encoder, model, device, model.position_start, computes_in, rows, multiple)


def card(announced: Announced, created: int) -> dict[str, Any]:
    """GET /v1/model: what a user wants to know of the model that answers."""
    manifest = announced.manifest
    return {
        "id": announced.name,
        "model_version": announced.version,
        "checkpoint": manifest.name,
        "digest": announced.digest,
        "labels": manifest.labels,
        "task_detail": manifest.task_detail,
        "problem_type": manifest.problem_type,
        "max_tokens": manifest.max_seq_length,
        "prompt_template": manifest.prompt_template,
        "metrics": manifest.metrics,
        "validation_metrics": manifest.validation_metrics,
        "primary_metric": manifest.primary_metric,
        "selected_on": manifest.selected_on,
        "method": manifest.method,
        "architecture": manifest.architecture,
        "base_model": {"reference": manifest.base_model.reference, "digest": manifest.base_model.digest},
        "training_job": {
            "name": manifest.training_job.name,
            "uid": manifest.training_job.uid,
            "output_model_name": manifest.training_job.output_model_name,
        },
        "training_dataset": _dataset(manifest.training_dataset),
        "test_dataset": _dataset(manifest.test_dataset),
        "validation_dataset": _dataset(manifest.validation_dataset),
        "versions": manifest.versions,
        "created_at": manifest.created_at.isoformat(),
        "serving_since": created,
    }


def _dataset(entry: checkpoint.DatasetEntry | None) -> dict[str, Any] | None:
    return None if entry is None else {"digest": entry.digest, "rows": entry.rows}
