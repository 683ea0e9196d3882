"""Models as they were published before safetensors and tokenizer.json."""

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import tiny_models
import torch
from safetensors.torch import load_file
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModel

SAID = [*tiny_models.texts(40)[0], "The quick brown fox", "Naïve CAFÉ, twice  over\nand below it", ""]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def word_pieces(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *tiny_models.WORDS]) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))


def byte_pairs(folder: Path) -> None:
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(SAID, vocab_size=300, special_tokens=special, show_progress=False)
    trained.save_model(str(folder))


def sentence_pieces(folder: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SAID),
        model_writer=model,
        vocab_size=80,
        hard_vocab_limit=False,
        minloglevel=2,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
        user_defined_symbols=["[MASK]"],
    )
    (folder / "spm.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "vocab_type": "spm"}))


VOCABULARIES = {"bert": word_pieces, "roberta": byte_pairs, "deberta-v2": sentence_pieces}


def old_model(folder: Path, model_type: str = "bert", **saved: Any) -> Path:
    """As years ago. Its tied weights stand there by two names, the one that is read behind the other."""
    config = tiny_models.config(model_type)
    config.vocab_size = 320
    AutoModel.from_config(config).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    embeddings = next(name for name in weights if name.endswith("word_embeddings.weight"))
    torch.save(
        {"cls.predictions.decoder.weight": weights[embeddings], **weights}, folder / "pytorch_model.bin", **saved
    )
    (folder / "model.safetensors").unlink()
    VOCABULARIES[model_type](folder)
    return folder
