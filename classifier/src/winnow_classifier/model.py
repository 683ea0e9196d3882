"""transformers' own classifier, run on packed batches: a body, its pooled state, a head in float32.

Because the network is an unchanged `*ForSequenceClassification`, what training saves is what every other tool loads.
Letters: B texts, T tokens of all of them, C labels, d width of the body.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from winnow_classifier.attention import PACKED_ATTENTION, register
from winnow_classifier.encoder import first_token_states
from winnow_classifier.errors import BaseModelError, ConfigError
from winnow_classifier.labels import LabelSchema
from winnow_classifier.packing import PackedBatch

if TYPE_CHECKING:  # peft takes seconds to import, and only LoRA needs it
    from peft import PeftModel

Pooling = Literal["cls", "last"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """How a family of models is pooled, and which of its modules are the head (by name in the network)."""

    pooling: Pooling
    head: tuple[str, ...]
    counts_positions_from_padding: bool = False  # RoBERTa: the first position is padding_idx + 1


# A pooler belongs to the head: published encoders often come without one, and then it starts at random.
BERT = Architecture("cls", ("bert.pooler", "classifier"))
ROBERTA = Architecture("cls", ("classifier",), counts_positions_from_padding=True)
DECODER = Architecture("last", ("score",))

# Only what the tests hold against plain transformers. Others may keep state or masks that a packed batch would mix up.
ARCHITECTURES = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "llama": DECODER,
    "mistral": DECODER,
    "qwen2": DECODER,
    "qwen3": DECODER,
    "gemma": DECODER,
    "gemma3_text": DECODER,
    "phi3": DECODER,
}


@dataclass(frozen=True, slots=True)
class Lora:
    rank: int
    alpha: int
    dropout: float
    target_modules: Sequence[str]  # names of linear layers as they end, or "all-linear"


class Classifier(nn.Module):
    """A `*ForSequenceClassification` (perhaps with LoRA) run without padding."""

    def __init__(self, network: PreTrainedModel | PeftModel) -> None:
        super().__init__()
        self.network = network
        self.architecture = architecture_of(self.base.config)

    @property
    def base(self) -> PreTrainedModel:
        """transformers' classifier, without the wrapper of peft."""
        if isinstance(self.network, PreTrainedModel):
            return self.network
        network: Any = self.network.get_base_model()
        return network  # type: ignore[no-any-return]

    @property
    def body(self) -> PreTrainedModel:
        return getattr(self.base, self.base.base_model_prefix)  # type: ignore[no-any-return]

    @property
    def position_start(self) -> int:
        return self.base.config.pad_token_id + 1 if self.architecture.counts_positions_from_padding else 0

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def head_parameters(self) -> Iterator[nn.Parameter]:
        for name in self.architecture.head:
            yield from self.base.get_submodule(name).parameters()

    def forward(self, batch: PackedBatch) -> Tensor:
        """Logits (B, C), float32, in the order of the packed sequences."""
        return self.head(self.features(batch))

    def features(self, batch: PackedBatch) -> Tensor:
        """(B, d): the body's last hidden state at the first (cls) or last token of each text, before any pooler."""
        if self.architecture.pooling == "cls":
            return first_token_states(self.body, batch)
        hidden = self.body(
            input_ids=batch.input_ids[None], position_ids=batch.position_ids[None], use_cache=False, packed=batch
        ).last_hidden_state[0]
        return hidden[batch.last]  # type: ignore[no-any-return]

    def head(self, features: Tensor) -> Tensor:
        """(B, d) to (B, C), in float32 whatever the body computes in: small logit differences decide."""
        base: Any = self.base
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            if self.architecture is DECODER:
                return base.score(features)  # type: ignore[no-any-return]
            if self.architecture is ROBERTA:
                return base.classifier(features[:, None])  # type: ignore[no-any-return]
            pooled = self.body.pooler(features[:, None])  # type: ignore[operator]
            return base.classifier(base.dropout(pooled))  # type: ignore[no-any-return]


def architecture_of(config: PreTrainedConfig) -> Architecture:
    """Raises BaseModelError for a model type that is not held against plain transformers by a test."""
    if config.model_type not in ARCHITECTURES:
        supported = ", ".join(sorted(ARCHITECTURES))
        raise BaseModelError(f"Models of type {config.model_type!r} are not supported; these are: {supported}.")
    return ARCHITECTURES[config.model_type]


def classifier_config(directory: Path, schema: LabelSchema, pad_token_id: int | None) -> Any:
    """The base model's config, with the labels in order: transformers, vLLM and others read them there."""
    config = read_config(directory)
    architecture_of(config)
    config.num_labels = len(schema.labels)
    config.id2label = dict(enumerate(schema.labels))
    config.label2id = {label: index for index, label in enumerate(schema.labels)}
    config.problem_type = schema.problem_type
    if config.pad_token_id is None or not ARCHITECTURES[config.model_type].counts_positions_from_padding:
        config.pad_token_id = pad_token_id
    return config


def read_config(directory: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        model_type = declared_model_type(directory)
        if model_type is not None and model_type not in ARCHITECTURES:
            supported = ", ".join(sorted(ARCHITECTURES))
            raise BaseModelError(f"Models of type {model_type!r} are not supported; these are: {supported}.") from error
        raise BaseModelError(f"{directory / 'config.json'} cannot be read: {error}") from error


def declared_model_type(directory: Path) -> str | None:
    try:
        return str(json.loads((directory / "config.json").read_bytes())["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def longest_text(config: PreTrainedConfig) -> int:
    """How many tokens the body has positions for."""
    start = config.pad_token_id + 1 if architecture_of(config).counts_positions_from_padding else 0
    return int(config.max_position_embeddings) - start


def load_network(directory: Path, config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Weights from `directory` into packed-attention form. What is missing there (a head) starts at random: seed first.

    Raises BaseModelError if the weights do not fit the config.
    """
    register()
    quiet_transformers()
    try:
        network = AutoModelForSequenceClassification.from_pretrained(
            directory,
            config=config,
            dtype=dtype,
            attn_implementation=PACKED_ATTENTION,
            local_files_only=True,
            use_safetensors=True,
            # The base may be a classifier itself, for other labels: its head starts anew.
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BaseModelError(f"The weights in {directory} cannot be loaded: {error}") from error
    return network  # type: ignore[no-any-return]


def quiet_transformers() -> None:
    """Progress bars and reports of newly made heads say nothing that a log should keep."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def freeze_body(classifier: Classifier) -> None:
    """Only the head trains."""
    classifier.requires_grad_(False)
    for parameter in classifier.head_parameters():
        parameter.requires_grad_(True)


def add_lora(classifier: Classifier, lora: Lora) -> Classifier:
    """LoRA on the body; the head is trained whole and saved beside the adapter. Base weights are frozen."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="SEQ_CLS",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora_targets(classifier, lora.target_modules),
        modules_to_save=[name.rpartition(".")[2] for name in classifier.architecture.head],
    )
    return Classifier(get_peft_model(classifier.base, config))


def lora_targets(classifier: Classifier, wanted: Sequence[str]) -> list[str]:
    """Endings of layer names for peft that match linear layers of the body only.

    Raises ConfigError with the names there are if a wanted one is not among them.
    """
    heads = tuple(classifier.architecture.head)
    linear = [name for name, module in classifier.base.named_modules() if isinstance(module, nn.Linear)]
    in_head = [name for name in linear if name.startswith(heads)]
    endings = sorted({ending(name, in_head) for name in linear if name not in in_head})
    if list(wanted) == ["all-linear"]:
        return endings
    unknown = [name for name in wanted if name not in endings]
    if unknown:
        raise ConfigError(
            f"parameters.loraTargetModules: {', '.join(unknown)} not found in a model of type "
            f"{classifier.base.config.model_type}. It has: {', '.join(endings)}; or all-linear."
        )
    return list(wanted)


def ending(name: str, avoid: Sequence[str]) -> str:
    """The shortest dotted end of a module's name that is not the end of any name to avoid."""
    parts = name.split(".")
    for length in range(1, len(parts)):
        end = ".".join(parts[-length:])
        if not any(f".{other}".endswith(f".{end}") for other in avoid):
            return end
    return name


def merge_lora(network: PeftModel) -> PreTrainedModel:
    """The adapter added into the weights, in the weights' own precision: call it in float32."""
    merged: Any = network.merge_and_unload()
    return merged  # type: ignore[no-any-return]
