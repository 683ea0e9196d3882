"""A Llama of 200,000 random weights with a real tokenizer: OUT/model, for trying a decoder where no GPU is."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

BOS, EOS, PAD = "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"
# Byte-level BPE reads any text; the merges come from these sentences and are the same each time.
SENTENCES = [
    "You have won a free prize, please click here to claim your cash reward before midnight.",
    "The minutes of the meeting were sent to the whole project team this morning.",
    "The bank raised its interest rate for the third time this year.",
    "Our team won the match by two goals in the last minutes of the game.",
    "Boil the rice for ten minutes, then add salt, pepper and a little butter.",
    "Could you send me the report about the number of messages that we received?",
]


def tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=[BOS, EOS, PAD], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    bpe.train_from_iterator(SENTENCES, trainer)
    bpe.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, bpe.token_to_id(BOS))])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=BOS, eos_token=EOS, pad_token=PAD)


def main(out: Path) -> None:
    words = tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    LlamaModel(config).save_pretrained(out / "model")
    words.save_pretrained(out / "model")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
