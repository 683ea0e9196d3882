"""Models that were published before safetensors and tokenizer.json, brought into these forms once they are downloaded.

DeBERTa-v3 and most encoders of one field (of law, medicine, finance) lie on the Hub in no other form.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from winnow_classifier.base_model import (
    PICKLED,
    PICKLED_INDEX,
    TOKENIZER,
    VOCABULARIES,
    WEIGHTS,
    WEIGHTS_INDEX,
    needs_code,
    shard_names,
    unreadable,
)
from winnow_classifier.errors import BaseModelError

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # as Rust writes it
log = logging.getLogger(__name__)

PROBE = "see you at noon, it's 12 past 9"  # nothing that some models read in another case or without accents


def renew(directory: Path) -> None:
    """Write what is missing of safetensors and tokenizer.json from their older forms, which are removed.

    Raises BaseModelError if these cannot be read. Code in a pickle is never run: it is read for tensors alone.
    """
    if not any((directory / name).is_file() for name in (WEIGHTS, WEIGHTS_INDEX)):
        _renew_weights(directory)
    if not (directory / TOKENIZER).is_file() and any((directory / name).is_file() for name in VOCABULARIES):
        _renew_tokenizer(directory)


def _renew_weights(directory: Path) -> None:
    index = directory / PICKLED_INDEX
    if (directory / PICKLED).is_file():
        _as_safetensors(directory / PICKLED, directory / WEIGHTS)
    elif index.is_file():
        names = shard_names(index)
        renewed = {name: f"model-{number:05}-of-{len(names):05}.safetensors" for number, name in enumerate(names, 1)}
        kept = {name: _as_safetensors(directory / name, directory / renewed[name]) for name in names}
        places = {key: renewed[name] for name in names for key in kept[name]}
        (directory / WEIGHTS_INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}, indent=2))
        index.unlink()


def _as_safetensors(pickled: Path, file: Path) -> Iterable[str]:
    """The names of its tensors."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = _tensors(pickled)
    log.info("Writing pickled weights as safetensors", extra={"file": pickled.name, "tensors": len(tensors)})
    seen: set[int] = set()
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        # Tied weights are one tensor by two names, which safetensors refuses; either name may be the one that is read.
        tensors[name] = tensor.clone() if memory in seen else tensor.contiguous()
        seen.add(memory)
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as err:
        number = _OS_ERROR.search(str(err))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from err
    pickled.unlink()
    return tensors.keys()


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    import torch

    if not file.is_file():
        raise BaseModelError(f"Base model {file.parent} has no {file.name}.")
    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as err:
        reason = str(err).rpartition("error:")[2].strip().partition("\n")[0].partition(". ")[0]
        raise BaseModelError(
            f"Base model {file.parent}: {file.name} holds something other than tensors, which is not read: {reason}.",
            hint="save the model with save_pretrained, as safetensors",
        ) from err
    except (RuntimeError, EOFError, OSError, ValueError) as err:
        raise BaseModelError(f"Base model {file.parent}: {file.name} cannot be read: {err}") from err
    if not isinstance(found, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
        raise BaseModelError(f"Base model {file.parent}: {file.name} is not one tensor for each name.")
    return dict(found)


def _renew_tokenizer(directory: Path) -> None:
    """By transformers' own rules for the model's type, so that it reads texts as everywhere else."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    none = f"Base model {directory} has no {TOKENIZER}, and none can be made of its files"
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as err:  # what reads vocabularies raises no narrower one
        if needs_code(err):
            raise unreadable(f"The tokenizer in {directory}", err) from err
        here = ", ".join(name for name in VOCABULARIES if (directory / name).is_file())
        raise BaseModelError(f"{none} ({here}): {err}") from err
    # Without its vocabulary transformers makes one of special tokens alone, and says nothing.
    files = [name for what, name in tokenizer.vocab_files_names.items() if what != "tokenizer_file"]
    missing = [name for name in files if not (directory / name).is_file()]
    if missing or not isinstance(tokenizer, PreTrainedTokenizerFast):
        wants = f": its {type(tokenizer).__name__} wants {' and '.join(missing)}" if missing else ""
        raise BaseModelError(f"{none}{wants}.")
    for file in (directory / name for name in VOCABULARIES if name.endswith(".model") and (directory / name).is_file()):
        _with_equivalents(tokenizer.backend_tokenizer, file)
        if not _reads_as(tokenizer, file):
            raise BaseModelError(f"{none}: transformers reads texts otherwise than {file.name} has them read.")
    log.info("Writing the tokenizer as tokenizer.json", extra={"type": type(tokenizer).__name__})
    tokenizer.save_pretrained(directory)
    for name in VOCABULARIES:
        (directory / name).unlink(missing_ok=True)


def _with_equivalents(tokenizer: Tokenizer, sentence_pieces: Path) -> None:
    """Read characters of one meaning as one, as the SentencePiece model does that the base model was trained with. transformers'
    class for DeBERTa-v2 does not, so that `\uff26` would be unknown in place of `F`."""
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers.normalizers import Precompiled, Sequence

    model = sentencepiece_model_pb2.ModelProto.FromString(sentence_pieces.read_bytes())  # type: ignore[attr-defined]
    table = model.normalizer_spec.precompiled_charsmap
    if table and tokenizer.normalizer is not None and "Precompiled" not in repr(tokenizer.normalizer):
        tokenizer.normalizer = Sequence([Precompiled(table), tokenizer.normalizer])


def _reads_as(tokenizer: PreTrainedTokenizerFast, sentence_pieces: Path) -> bool:
    """Whether it cuts plain words as the library that the base model was trained with. transformers guesses some rules by the
    type of the model: for a Llama without tokenizer.json it drops the mark before the first word."""
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(sentence_pieces))
    unknown, pieces = model.unk_id(), zip(model.encode(PROBE), model.encode(PROBE, out_type=str), strict=True)
    cut = [tokenizer.unk_token if index == unknown else piece for index, piece in pieces]
    try:
        read = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    except Exception:  # as what reads vocabularies; its class names a token that is not there
        return False
    return cut == tokenizer.convert_ids_to_tokens(read)
