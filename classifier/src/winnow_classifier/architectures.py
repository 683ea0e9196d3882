"""Which families of models run packed, where each is pooled, and which of its modules are the head.

Every other `*ForSequenceClassification` of transformers runs too, in groups of like length with padding (padded.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from winnow_classifier.errors import BaseModelError, ConfigError

# "own": as transformers' classifier of the type does it, whatever that is.
Pooling = Literal["cls", "last", "mean", "own"]
PoolingChoice = Literal["Auto", "LastToken", "Mean", "CLS"]
CHOICES: dict[str, Pooling] = {"LastToken": "last", "Mean": "mean", "CLS": "cls"}


@dataclass(frozen=True, slots=True)
class Architecture:
    """How transformers' own classifier pools a family of models, and which of its modules are the head, by name."""

    pooling: Pooling
    head: tuple[str, ...]
    counts_positions_from_padding: bool = False  # RoBERTa: the first position is padding_idx + 1
    packs: bool = True


# A pooler belongs to the head: published encoders often come without one, and then it starts at random.
BERT = Architecture("cls", ("bert.pooler", "classifier"))
ROBERTA = Architecture("cls", ("classifier",), counts_positions_from_padding=True)
MODERNBERT = Architecture("cls", ("head", "classifier"))  # or "mean", by its config's classifier_pooling
DECODER = Architecture("last", ("score",))
# Its head is found in the network: the names differ.
PADDED = Architecture("own", (), packs=False)

# Only types that the tests compare with plain transformers: others may keep state or masks that a packed batch would mix up.
ARCHITECTURES = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "modernbert": MODERNBERT,
    "arcee": DECODER,
    "llama": DECODER,
    "ministral": DECODER,
    "mistral": DECODER,
    "qwen2": DECODER,
    "qwen3": DECODER,
    "gemma": DECODER,
    "gemma2": DECODER,
    "gemma3_text": DECODER,
    "glm": DECODER,
    "olmo": DECODER,
    "olmo2": DECODER,
    "phi": DECODER,
    "phi3": DECODER,
    "smollm3": DECODER,
    "starcoder2": DECODER,
}

# Padded types whose first position is padding_idx + 1 too: their table has places for fewer tokens than its rows.
_COUNT_FROM_PADDING = (
    "data2vec-text",
    "esm",
    "ibert",
    "longformer",
    "mpnet",
    "roberta-prelayernorm",
    "xlm-roberta-xl",
    "xmod",
)
# Their classifiers read pictures or boxes beside the text, or ask for texts that end in a certain token.
_NOT_TEXT = (
    "layoutlm",
    "layoutlmv2",
    "layoutlmv3",
    "lilt",
    "luke",
    "markuplm",
    "modernvbert",
    "perceiver",
    "tapas",
    "ultravbert",
    "canine",
)


def architecture_of(config: PreTrainedConfig) -> Architecture:
    """Raises BaseModelError for a model type that transformers has no classifier of text for."""
    found = ARCHITECTURES.get(config.model_type)
    if found is None:
        check_supported(config.model_type)
        if getattr(config, "is_encoder_decoder", False):
            raise BaseModelError(
                f"Models of type {config.model_type!r} have an encoder and a decoder and are not supported; use one of "
                f"{', '.join(sorted(ARCHITECTURES))}, or another encoder or decoder."
            )
        return PADDED
    return found


def check_supported(model_type: str) -> None:
    if model_type in ARCHITECTURES:
        return
    if model_type in _NOT_TEXT or model_type not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        supported = ", ".join(sorted(ARCHITECTURES))
        raise BaseModelError(
            f"Models of type {model_type!r} are not supported: transformers has no classifier of texts for them. "
            f"These run without padding: {supported}; and others with it, such as deberta-v2."
        )


def own_pooling(config: Any) -> Pooling:
    """Where transformers' own classifier of this config pools."""
    if architecture_of(config) is MODERNBERT:
        return "mean" if config.classifier_pooling == "mean" else "cls"
    return architecture_of(config).pooling


def chosen_pooling(choice: PoolingChoice | None, config: Any) -> Pooling:
    """What parameters.pooling means for this model. Raises ConfigError for what it cannot do."""
    own = own_pooling(config)
    if choice in (None, "Auto"):
        return own
    architecture = architecture_of(config)
    if not architecture.packs:
        raise ConfigError(
            f"parameters.pooling is {choice}, and a model of type {config.model_type} is pooled by its own head; use Auto."
        )
    if architecture is DECODER and choice == "CLS":
        raise ConfigError(
            "parameters.pooling is CLS, and the first token of a decoder sees no other token; use LastToken or Mean."
        )
    return CHOICES[choice]


def pools_as_transformers(config: Any, pooling: Pooling) -> bool:
    """Whether transformers' own classifier, with the config that is saved, pools there too."""
    return pooling == own_pooling(config) or (architecture_of(config) is MODERNBERT and pooling in ("cls", "mean"))


def set_pooling(config: Any, pooling: Pooling) -> None:
    """Write the pooling into the config of a type whose config transformers asks for it (ModernBERT); of others its own head
    always pools one way."""
    if architecture_of(config) is MODERNBERT and pooling in ("cls", "mean"):
        config.classifier_pooling = pooling


def longest_text(config: Any) -> int | None:
    """How many tokens the body has positions for; None: no limit."""
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    if positions is None or positions <= 0:
        return None
    offset = architecture_of(config).counts_positions_from_padding or config.model_type in _COUNT_FROM_PADDING
    return int(positions) - (text.pad_token_id + 1 if offset else 0)


def embeddings_of(config: PreTrainedConfig) -> int | None:
    """For how many token ids the body has an embedding; None where its config does not say."""
    return getattr(config.get_text_config(), "vocab_size", None)
