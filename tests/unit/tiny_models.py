"""Base models small enough to build in a test: random weights, real architectures, real tokenizers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AlbertConfig,
    ArceeConfig,
    AutoModel,
    BertConfig,
    BigBirdConfig,
    BloomConfig,
    CamembertConfig,
    CTRLConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GemmaConfig,
    GlmConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MinistralConfig,
    MistralConfig,
    ModernBertConfig,
    MPNetConfig,
    Olmo2Config,
    OlmoConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PhimoeConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3_5Config,
    Qwen3Config,
    Qwen3NextConfig,
    RobertaConfig,
    SmolLM3Config,
    Starcoder2Config,
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
LINEAR_ATTENTION: dict[str, Any] = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
# Texts of more than eight tokens are read with the long factors. Changes for `config`.
LONGROPE: dict[str, Any] = {
    "original_max_position_embeddings": 8,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "original_max_position_embeddings": 8,
        "factor": 8.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "short_mscale": 1.1,  # PhiMoE's own
        "long_mscale": 1.3,
    },
}
PICTURES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
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
    "camembert": lambda **sizes: CamembertConfig(**sizes),
    # Its window is half of local_attention to each side, and its padding and separators have their own places.
    "modernbert": lambda **sizes: ModernBertConfig(  # type: ignore[call-arg]
        **sizes,
        local_attention=8,
        global_attn_every_n_layers=2,
        bos_token_id=2,
        eos_token_id=3,
        cls_token_id=2,
        sep_token_id=3,
    ),
    # Capped hard, so that a pack without the cap would show.
    "gemma2": lambda **sizes: Gemma2Config(
        **sizes, **GROUPED, sliding_window=5, attn_logit_softcapping=0.05, query_pre_attn_scalar=8
    ),
    "phi": lambda **sizes: PhiConfig(**sizes, partial_rotary_factor=0.5),  # type: ignore[call-arg]
    "olmo": lambda **sizes: OlmoConfig(**sizes, num_key_value_heads=2, eos_token_id=3),
    "olmo2": lambda **sizes: Olmo2Config(**sizes, num_key_value_heads=2, eos_token_id=3),
    "arcee": lambda **sizes: ArceeConfig(**sizes, num_key_value_heads=2),
    "glm": lambda **sizes: GlmConfig(**sizes, **GROUPED, eos_token_id=3),
    "ministral": lambda **sizes: MinistralConfig(**sizes, **GROUPED, sliding_window=5),
    "smollm3": lambda **sizes: SmolLM3Config(**sizes, num_key_value_heads=2, eos_token_id=3, bos_token_id=2),
    "starcoder2": lambda **sizes: Starcoder2Config(**sizes, num_key_value_heads=2, sliding_window=5, eos_token_id=3),
    "deberta-v2": lambda **sizes: DebertaV2Config(  # type: ignore[call-arg]
        **sizes, relative_attention=True, pos_att_type=["c2p", "p2c"], position_biased_input=False, position_buckets=8
    ),
    "mpnet": lambda **sizes: MPNetConfig(**sizes),
    # Longer texts than fourteen tokens have blocks that see only a part of the others.
    "big_bird": lambda **sizes: BigBirdConfig(**sizes, block_size=2, num_random_blocks=1),
    "gpt2": lambda **sizes: GPT2Config(
        vocab_size=sizes["vocab_size"],
        n_embd=sizes["hidden_size"],
        n_layer=2,
        n_head=4,
        n_positions=64,
        pad_token_id=0,
        eos_token_id=3,
    ),
    "ctrl": lambda **sizes: CTRLConfig(
        vocab_size=sizes["vocab_size"], n_embd=sizes["hidden_size"], n_layer=2, n_head=4, dff=48, pad_token_id=0
    ),
    "phimoe": lambda **sizes: PhimoeConfig(**sizes, num_key_value_heads=2, num_local_experts=2, eos_token_id=3),
    "qwen3_next": lambda **sizes: Qwen3NextConfig(
        **sizes,
        **GROUPED,
        **LINEAR_ATTENTION,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        layer_types=["linear_attention", "full_attention"],
    ),
    # Read pictures too: what their text part is stands one level down.
    "gemma3": lambda **sizes: Gemma3Config(
        text_config={**sizes, **GROUPED, "sliding_window": 5, "sliding_window_pattern": 2},
        vision_config={**PICTURES, "image_size": 28, "patch_size": 14, "num_attention_heads": 2},
        mm_tokens_per_image=4,
    ),
    "qwen3_5": lambda **sizes: Qwen3_5Config(
        text_config={
            **sizes,
            **GROUPED,
            "pad_token_id": None,
            **LINEAR_ATTENTION,
            "full_attention_interval": 2,
        },
        vision_config={**PICTURES, "depth": 1, "num_heads": 2, "out_hidden_size": sizes["hidden_size"]},
    ),
    "albert": lambda **sizes: AlbertConfig(**sizes, embedding_size=16),
    "electra": lambda **sizes: ElectraConfig(**sizes, embedding_size=16),
    "distilbert": lambda **sizes: DistilBertConfig(
        vocab_size=sizes["vocab_size"],
        dim=sizes["hidden_size"],
        n_layers=2,
        n_heads=4,
        hidden_dim=48,
        max_position_embeddings=64,
        pad_token_id=0,
    ),
    "gpt_neox": lambda **sizes: GPTNeoXConfig(**sizes, eos_token_id=3),
    "gpt_neo": lambda **sizes: GPTNeoConfig(
        vocab_size=sizes["vocab_size"],
        hidden_size=sizes["hidden_size"],
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=5,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=3,
    ),
    # Its linear layers are a class of its own.
    "falcon": lambda **sizes: FalconConfig(
        vocab_size=sizes["vocab_size"],
        hidden_size=sizes["hidden_size"],
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=0,
        eos_token_id=3,
    ),
    "opt": lambda **sizes: OPTConfig(
        vocab_size=sizes["vocab_size"],
        hidden_size=sizes["hidden_size"],
        word_embed_proj_dim=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=48,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=3,
    ),
    "bloom": lambda **sizes: BloomConfig(
        vocab_size=sizes["vocab_size"],
        hidden_size=sizes["hidden_size"],
        n_layer=2,
        n_head=4,
        pad_token_id=0,
        eos_token_id=3,
    ),
}
ENCODERS = (
    "albert",
    "bert",
    "big_bird",
    "camembert",
    "deberta-v2",
    "distilbert",
    "electra",
    "modernbert",
    "mpnet",
    "roberta",
    "xlm-roberta",
)


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


def reads_words_alone(folder: Path) -> None:
    """The tokenizer there then adds no token of its own and takes digits away: of a text of digits nothing is left."""
    reader = PreTrainedTokenizerFast.from_pretrained(folder)
    backend = reader.backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Replace(Regex("[0-9]"), ""), normalizers.Lowercase()])
    backend.post_processor = processors.Sequence([])
    reader.save_pretrained(folder)


def config(model_type: str, **changes: Any) -> Any:
    return CONFIGS[model_type](vocab_size=len(WORDS) + 4, pad_token_id=0, **(SIZES | changes))


_MADE: dict[str, tuple[dict[str, bytes], torch.Tensor]] = {}  # files, and the state of torch's generator after it


def base_model(folder: Path, model_type: str = "bert", **changes: Any) -> Path:
    """A body without a head, as it is published, with its tokenizer. Each is made once in a process, and written again."""
    key = repr((model_type, sorted(changes.items())))
    if key not in _MADE:
        torch.manual_seed(7)
        body = AutoModel.from_config(config(model_type, **changes))
        with TemporaryDirectory() as made:
            body.save_pretrained(made)
            tokenizer(model_type).save_pretrained(made)
            _MADE[key] = {file.name: file.read_bytes() for file in Path(made).iterdir()}, torch.get_rng_state()
    files, state = _MADE[key]
    torch.set_rng_state(state)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def with_own_code(folder: Path, of: str) -> Path:
    """A model that nobody knows without its code, for `of`: AutoConfig or AutoTokenizer. Where it ran there is a file `ran`."""
    files = {"AutoConfig": "config.json", "AutoTokenizer": "tokenizer_config.json"}
    own = {"AutoConfig": "house.House", "AutoTokenizer": ["house.House", None]}[of]
    (folder / "config.json").write_text(json.dumps({"model_type": "house"}))
    (folder / files[of]).write_text(json.dumps({"model_type": "house", "auto_map": {of: own}}))
    (folder / "house.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    return folder


def texts(count: int, seed: int = 0) -> tuple[list[str], list[int]]:
    """Texts of one to twelve words and whether they are spam: told apart by their words."""
    generator = torch.Generator().manual_seed(seed)
    spam = [int(index % 2) for index in range(count)]
    return [sentence(SPAM if is_spam else HAM, generator) for is_spam in spam], spam


def sentence(words: Sequence[str], generator: torch.Generator) -> str:
    length = int(torch.randint(1, 13, (1,), generator=generator))
    return " ".join(words[int(index)] for index in torch.randint(len(words), (length,), generator=generator))
