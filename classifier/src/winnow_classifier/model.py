"""transformers' own classifier, run on packed batches: a body, its pooled state, a head in float32.

Because the network is an unchanged `*ForSequenceClassification`, what training saves is what every other tool loads.
Letters: B texts, T tokens of all of them, C labels, d width of the body.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from winnow_classifier.architectures import (
    BERT,
    DECODER,
    MODERNBERT,
    ROBERTA,
    Pooling,
    architecture_of,
    check_supported,
    own_pooling,
    set_pooling,
)
from winnow_classifier.attention import PACKED_ATTENTION, register
from winnow_classifier.base_model import CONFIG, needs_code, unreadable
from winnow_classifier.encoder import all_token_states, first_token_states
from winnow_classifier.errors import BaseModelError, ConfigError
from winnow_classifier.four_bit import quantisation
from winnow_classifier.labels import LabelSchema
from winnow_classifier.longrope import choose_by_text
from winnow_classifier.packing import PackedBatch
from winnow_classifier.padded import head_of, padded_logits

if TYPE_CHECKING:  # peft takes seconds to import, and only LoRA needs it
    from peft import PeftModel


@dataclass(frozen=True, slots=True)
class Lora:
    rank: int
    alpha: int
    dropout: float
    target_modules: Sequence[str]  # names of linear layers as they end, or "all-linear"


class Classifier(nn.Module):
    """A `*ForSequenceClassification` (perhaps with LoRA) run without padding, or with as little as its type allows."""

    def __init__(self, network: PreTrainedModel | PeftModel, pooling: Pooling | None = None) -> None:
        """`pooling`: None for transformers' own."""
        super().__init__()
        self.network = network
        found = architecture_of(self.base.config)
        self.architecture = found if found.packs else replace(found, head=head_of(self.base))
        self.family = found
        self.pooling: Pooling = pooling or own_pooling(self.base.config)

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
    def pad_token_id(self) -> int:
        return self.base.config.get_text_config().pad_token_id  # type: ignore[no-any-return]

    @property
    def position_start(self) -> int:
        return self.pad_token_id + 1 if self.architecture.counts_positions_from_padding else 0

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def no_text(self) -> list[str]:
        """Names of the modules of the body that no text passes through: those for pictures, where it has some."""
        if self.base.config.get_text_config() is self.base.config:
            return []
        prefix, text = self.base.base_model_prefix, self.body.get_decoder()
        return [f"{prefix}.{name}" for name, module in self.body.named_children() if module is not text]

    def head_parameters(self) -> Iterator[nn.Parameter]:
        for name in self.architecture.head:
            yield from self.base.get_submodule(name).parameters()

    def output_layer(self) -> nn.Linear:
        """The layer of the head that has a row for each label."""
        modules = [module for name in self.architecture.head for module in self.base.get_submodule(name).modules()]
        return [module for module in modules if isinstance(module, nn.Linear)][-1]

    def forward(self, batch: PackedBatch) -> Tensor:
        """Logits (B, C), float32, in the order of the packed sequences."""
        if not self.architecture.packs:
            return padded_logits(self.network, batch, self.pad_token_id)
        return self.head(self.features(batch))

    def features(self, batch: PackedBatch) -> Tensor:
        """(B, d): the body's last hidden state, pooled for each text, before any pooler. Only of a type that packs."""
        bert_like = self.family in (BERT, ROBERTA)
        if bert_like and self.pooling == "cls":
            return first_token_states(self.body, batch)
        if bert_like:
            return pooled(all_token_states(self.body, batch), batch, self.pooling)
        inputs = {"input_ids": batch.input_ids[None], "position_ids": batch.position_ids[None], "packed": batch}
        if self.family is DECODER:
            inputs["use_cache"] = False
        return pooled(self.body(**inputs).last_hidden_state[0], batch, self.pooling)

    def head(self, features: Tensor) -> Tensor:
        """(B, d) to (B, C), in float32 whatever the body computes in: small logit differences decide."""
        base: Any = self.base
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            if self.family is DECODER:
                return base.score(features)  # type: ignore[no-any-return]
            if self.family is ROBERTA:
                return base.classifier(features[:, None])  # type: ignore[no-any-return]
            if self.family is MODERNBERT:
                return base.classifier(base.drop(base.head(features)))  # type: ignore[no-any-return]
            first = self.body.pooler(features[:, None])  # type: ignore[operator]
            return base.classifier(base.dropout(first))  # type: ignore[no-any-return]


def pooled(hidden: Tensor, batch: PackedBatch, pooling: Pooling) -> Tensor:
    """(T, d) to (B, d): each text's first or last token, or the mean of all, in float32."""
    if pooling == "mean":
        sizes = torch.tensor(batch.lengths, device=hidden.device)
        return torch.segment_reduce(hidden.float(), "mean", lengths=sizes, axis=0)
    return hidden[batch.first if pooling == "cls" else batch.last]


def classifier_config(
    directory: Path, schema: LabelSchema, pad_token_id: int | None, pooling: Pooling | None = None
) -> Any:
    """The base model's config, with the labels in order: transformers, vLLM and others read them there."""
    config = read_config(directory)
    architecture = architecture_of(config)
    if getattr(config, "quantization_config", None):
        raise BaseModelError(
            f"The weights in {directory} are quantised already, which loses what training needs; use the model that they "
            "were made of, with method QLoRA if memory is short."
        )
    set_pooling(config, pooling or own_pooling(config))
    if config.model_type == "big_bird":
        # BigBird's sparse attention draws at random which tokens a long text sees, and ends for good at the first short text.
        config.attention_type = "original_full"
    text = config.get_text_config()  # of a model that reads pictures too: a part of it, which some tools read alone
    for each in (config, text):
        each.num_labels = len(schema.labels)
        each.id2label = dict(enumerate(schema.labels))
        each.label2id = {label: index for index, label in enumerate(schema.labels)}
        each.problem_type = schema.problem_type
    if text.pad_token_id is None or (architecture.packs and not architecture.counts_positions_from_padding):
        text.pad_token_id = pad_token_id
    return config


def read_config(directory: Path) -> Any:
    try:
        # With None transformers would ask on a terminal whether to run code from the folder.
        return AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        if not needs_code(error) and (model_type := declared_model_type(directory)):
            check_supported(model_type)
        raise unreadable(directory / CONFIG, error) from error


def declared_model_type(directory: Path) -> str | None:
    try:
        return str(json.loads((directory / CONFIG).read_bytes())["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load_network(
    directory: Path, config: PreTrainedConfig, dtype: torch.dtype = torch.float32, *, four_bit: bool = False
) -> PreTrainedModel:
    """Weights from `directory`, into packed-attention form where the type packs. What is missing there (a head) starts at
    random: seed first.

    Raises BaseModelError if the weights do not fit the config.
    """
    register()
    quiet_transformers()
    try:
        network, found = AutoModelForSequenceClassification.from_pretrained(
            directory,
            config=config,
            dtype=dtype,
            attn_implementation=PACKED_ATTENTION if architecture_of(config).packs else None,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            quantization_config=quantisation(config) if four_bit else None,
            # The base may be a classifier itself, for other labels: its head starts anew.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BaseModelError(f"The weights in {directory} cannot be loaded: {error}") from error
    unlike = dict.fromkeys(found["missing_keys"], "missing") | {
        name: f"{list(there)} instead of {list(wanted)}" for name, there, wanted in found["mismatched_keys"]
    }
    check_body(network, unlike, found["unexpected_keys"], directory)
    choose_by_text(network, config)
    return network  # type: ignore[no-any-return]


def check_body(network: PreTrainedModel, unlike: Mapping[str, str], unused: Iterable[str], directory: Path) -> None:
    """Check that the weights in `directory` are those of the body that the config describes. `unlike`: tensors, with what is
    wrong, that the weights lack or have in another shape, so that transformers starts them at random. That is fine for the
    head, its pooler (masked language models have none), and tensors that are never learned, such as sinusoidal positions.
    `unused`: tensors in the weights that the network has no place for. That is fine for heads of other tasks, and buffers
    that older versions saved.

    Raises BaseModelError for any other: the body would silently be noise, or another one than was trained.
    """
    hint = "take both files from the same model"
    if getattr(network.config, "auto_map", None):
        hint = (
            "its config names Python code that came with the model (auto_map), and code of models is never run: "
            "use a model of a type that transformers knows by itself"
        )
    classifier = Classifier(network)
    elsewhere = tuple(f"{name}." for name in (*classifier.architecture.head, *classifier.no_text))
    random = sorted(
        name
        for name, parameter in network.named_parameters()
        if name in unlike and parameter.requires_grad and not name.startswith(elsewhere)
    )
    if random:
        raise BaseModelError(
            f"The weights in {directory} do not fit its {CONFIG}: {len(random):,} of the body's tensors would start "
            f"at random, the first {random[0]} ({unlike[random[0]]}).",
            hint=hint,
        )
    if left_out := sorted(name for name in unused if is_weight_of_a_layer(network, name)):
        raise BaseModelError(
            f"The weights in {directory} do not fit its {CONFIG}: transformers' {network.config.model_type} has no place for "
            f"{len(left_out):,} of the body's tensors, the first {left_out[0]}. Without them it is another model than was trained.",
            hint=f"{hint}; if they are scales of quantised weights, use the model that those were made of",
        )


def is_weight_of_a_layer(network: PreTrainedModel, name: str) -> bool:
    """Whether a tensor that the network has no place for would change what one of its numbered layers computes: it is a
    weight, or belongs to a module with weights, as a bias or a scale does. Buffers such as attention masks are neither."""
    for prefix in ("", f"{network.base_model_prefix}."):
        parent, _, own = f"{prefix}{name}".rpartition(".")
        module = within_a_layer(network, parent)
        if module is not None:
            return own == "weight" or any(True for _ in module.parameters(recurse=False))
    return False


def within_a_layer(network: nn.Module, name: str) -> nn.Module | None:
    """The innermost module above `name` that the network has, if that is a numbered layer or a part of one."""
    while name:
        try:
            found = network.get_submodule(name)
        except AttributeError:
            name = name.rpartition(".")[0]
        else:
            return found if any(part.isdecimal() for part in name.split(".")) else None
    return None


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
        # QLoRA's layers remember what they were made of: its adapter is served over that.
        fan_in_fan_out=any(getattr(m, "source_cls", type(m)) is Conv1D for m in classifier.base.modules()),
        exclude_modules="|".join(rf"{re.escape(name)}\..*" for name in classifier.no_text) or None,
        modules_to_save=[name.rpartition(".")[2] for name in classifier.architecture.head],
    )
    return Classifier(get_peft_model(classifier.base, config), classifier.pooling)


def lora_targets(classifier: Classifier, wanted: Sequence[str]) -> list[str]:
    """Endings of layer names for peft that match linear layers of the body only.

    Raises ConfigError with the names there are if a wanted one is not among them, or if there are none.
    """
    heads, no_text = tuple(classifier.architecture.head), tuple(classifier.no_text)
    model_type = classifier.base.config.model_type
    modules = {name: module for name, module in classifier.base.named_modules() if not name.startswith(no_text)}
    in_body = [name for name, module in modules.items() if adapts(module) and not name.startswith(heads)]
    # peft goes by the end of a name, so one that another module shares would adapt that module as well.
    others = ends_of(modules.keys() - set(in_body))
    endings = sorted({ending(name, others) for name in in_body})
    endings = [end for end in endings if not names_experts(classifier.base, end)]
    if not endings:
        raise ConfigError(
            f"A model of type {model_type} has no linear layer below its head that LoRA could adapt; use method Full or HeadOnly."
        )
    if list(wanted) == ["all-linear"]:
        return endings
    if experts := [name for name in wanted if names_experts(classifier.base, name)]:
        raise ConfigError(
            f"parameters.loraTargetModules: in a model of type {model_type}, {', '.join(experts)} would mean its experts, which "
            f"LoRA leaves as they are. It adapts: {', '.join(endings)}; or all-linear."
        )
    unknown = [name for name in wanted if name not in ends_of(in_body) or name in others]
    if unknown:
        raise ConfigError(
            f"parameters.loraTargetModules: {', '.join(unknown)} not found in a model of type {model_type}. "
            f"It has: {', '.join(endings)}; or all-linear."
        )
    return list(wanted)


def names_experts(network: PreTrainedModel, end: str) -> bool:
    """Whether peft understands this end of a layer's name as the experts of a mixture, which are one tensor and not layers.
    It would adapt that tensor instead of a linear layer of the name, at many times the memory, and without dropout only."""
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    config = LoraConfig(target_modules=[end])
    try:
        convert_peft_config_for_transformers(config, network, None)
    except ValueError:  # peft asks for another name beside this one
        return True
    return bool(config.target_parameters)


def adapts(module: nn.Module) -> bool:
    """Whether it is a linear layer that LoRA can stand beside."""
    # GPT-2's linear layers are Conv1D: its weights are those of nn.Linear, transposed. Of transformers' own kinds of nn.Linear only
    # Falcon's is one like any other: some routers are one that gives several tensors.
    own = type(module).__module__.startswith("transformers.") and type(module).__name__ != "FalconLinear"
    return isinstance(module, Conv1D) or (isinstance(module, nn.Linear) and not own)


def ending(name: str, avoid: Set[str]) -> str:
    """The shortest dotted end of a module's name that is not among those to avoid."""
    return min((end for end in ends_of([name]) if end not in avoid), key=len, default=name)


def ends_of(names: Iterable[str]) -> set[str]:
    """Every dotted end of these modules' names: a.b.c has c, b.c and a.b.c."""
    split = (name.split(".") for name in names)
    return {".".join(parts[start:]) for parts in split for start in range(len(parts))}


def merge_lora(network: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The adapter added into the weights, in the weights' own precision: call it in float32."""
    adapted: Any = network
    merged: Any = adapted.merge_and_unload()
    return merged  # type: ignore[no-any-return]
