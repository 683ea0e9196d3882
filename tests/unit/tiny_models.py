"""Base models small enough to build in a test: random weights, real architectures, real tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModel,
    BertConfig,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    XLMRobertaConfig,
)

WORDS = [
    "win",
    "free",
    "money",
    "now",
    "prize",
    "claim",
    "cash",
    "offer",
    "click",
    "winner",
    "meeting",
    "report",
    "team",
    "monday",
    "lunch",
    "project",
    "notes",
    "review",
    "agenda",
    "budget",
    "thanks",
    "see",
    "you",
    "at",
    "the",
    "a",
    "to",
    "is",
    "for",
    "we",
]
SPAM, HAM = WORDS[:10], WORDS[10:20]
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
GROUPED: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 8}
CONFIGS: dict[str, Any] = {
    "bert": lambda **sizes: BertConfig(**sizes),
    "roberta": lambda **sizes: RobertaConfig(**sizes),
    "xlm-roberta": lambda **sizes: XLMRobertaConfig(**sizes),
    "llama": lambda **sizes: LlamaConfig(**sizes, num_key_value_heads=2),
    "mistral": lambda **sizes: MistralConfig(**sizes, **GROUPED, sliding_window=5),
    "qwen2": lambda **sizes: Qwen2Config(**sizes, num_key_value_heads=2),
    "qwen3": lambda **sizes: Qwen3Config(**sizes, **GROUPED),
    "gemma": lambda **sizes: GemmaConfig(**sizes, **GROUPED),
    "gemma3_text": lambda **sizes: Gemma3TextConfig(
        **sizes, **GROUPED, sliding_window=5, layer_types=["sliding_attention", "full_attention"]
    ),
    "phi3": lambda **sizes: Phi3Config(**sizes, num_key_value_heads=2, sliding_window=5, eos_token_id=3),
}
ENCODERS = ("bert", "roberta", "xlm-roberta")


def tokenizer(model_type: str) -> PreTrainedTokenizerFast:
    """A word a token. Encoders get [CLS] … [SEP], decoders a first token and no last one."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    single = "[CLS] $A [SEP]" if model_type in ENCODERS else "[CLS] $A"
    words.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def config(model_type: str, **changes: Any) -> Any:
    return CONFIGS[model_type](vocab_size=len(WORDS) + 4, pad_token_id=0, **(SIZES | changes))


def base_model(folder: Path, model_type: str = "bert", **changes: Any) -> Path:
    """A body without a head, as it is published, with its tokenizer."""
    torch.manual_seed(7)
    body = AutoModel.from_config(config(model_type, **changes))
    body.save_pretrained(folder)
    tokenizer(model_type).save_pretrained(folder)
    return folder


def texts(count: int, seed: int = 0) -> tuple[list[str], list[int]]:
    """Texts of one to twelve words and whether they are spam: told apart by their words."""
    generator = torch.Generator().manual_seed(seed)
    spam = [int(index % 2) for index in range(count)]
    return [sentence(SPAM if is_spam else HAM, generator) for is_spam in spam], spam


def sentence(words: Sequence[str], generator: torch.Generator) -> str:
    length = int(torch.randint(1, 13, (1,), generator=generator))
    return " ".join(words[int(index)] for index in torch.randint(len(words), (length,), generator=generator))
