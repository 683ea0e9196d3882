"""The one place where a text becomes token ids, for training and for serving."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from winnow_classifier.base_model import CONFIG, TOKENIZER, unreadable
from winnow_classifier.errors import BaseModelError, ConfigError

PLACEHOLDER = "{text}"
Side = Literal["right", "left"]

# Padding tokens that a vocabulary may hold without its tokenizer saying so, best first. Llama 3.1 reserves the first.
SPARE_PADDING = (
    "<|finetune_right_pad_id|>",
    "<pad>",
    "[PAD]",
    "<|pad|>",
    "<|reserved_special_token_0|>",
    "<|fim_pad|>",  # of Qwen 2.5 and later
    "<|vision_pad|>",
    "<unk>",
)
UNKNOWN = "\U0010ffff"  # a character of no vocabulary
# What the rules of tokenizers differ in: outer and double spaces, case, accents in one character and in two, widths, digits, lines.
VARIED = " Straße ÉCOLE e\u0301cole, \uff21\uff11 don't  1234 中文\n\n\tx "


@dataclass(frozen=True, slots=True)
class Encoded:
    input_ids: list[int]
    original_tokens: int  # how many there were before the cut
    truncated: bool


class Encoder:
    """Renders a text into the prompt template and tokenises it, at most `max_seq_length` tokens long.

    What is too long loses the end of the text, or its beginning where that is asked for, never a part of the template or
    the special tokens.
    Raises ConfigError if the template leaves no room for any text.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        prompt_template: str,
        max_seq_length: int,
        embeddings: int | None = None,
    ) -> None:
        """embeddings: for how many ids the model has one; None where it is not known."""
        if PLACEHOLDER not in prompt_template:
            raise ConfigError(f"promptTemplate must contain {PLACEHOLDER}, found {prompt_template!r}.")
        self.tokenizer = tokenizer
        self.prompt_template = prompt_template
        self.max_seq_length = max_seq_length
        self.embeddings = embeddings
        # Some published tokenizers hold tokens that were added and never trained.
        vocabulary = {} if embeddings is None else tokenizer.get_vocab()
        self.unread = {index: token for token, index in vocabulary.items() if index >= (embeddings or 0)}
        self._before, self._after = prompt_template.split(PLACEHOLDER, 1)
        # Of the template and the special tokens: what every text has at least.
        self.template_tokens = len(self._tokenize([self._before + self._after.replace(PLACEHOLDER, "")])[0])
        if self.template_tokens >= max_seq_length:
            raise ConfigError(
                f"promptTemplate alone takes {self.template_tokens} of maxSeqLength {max_seq_length} tokens, which leaves none for the "
                "text. Shorten the template or raise maxSeqLength."
            )

    def encode(
        self, texts: Sequence[str], sides: Sequence[Side] | None = None, limits: Sequence[int] | None = None
    ) -> list[Encoded]:
        """sides: where each text is cut if it is too long; without it all on the right, as in training. limits: how many tokens
        each may have, above `template_tokens`; without it `max_seq_length`."""
        rendered = [self.render(text) for text in texts]
        ids = self._tokenize(rendered)
        cut_right: list[Side] = ["right"] * len(texts)
        longest = [self.max_seq_length] * len(texts)
        return [
            Encoded(tokens, len(tokens), False)
            if len(tokens) <= limit
            else Encoded(self._cut(text, whole, side, limit), len(tokens), True)
            for text, whole, tokens, side, limit in zip(
                texts, rendered, ids, sides or cut_right, limits or longest, strict=True
            )
        ]

    def unread_in(self, encoded: Encoded) -> str | None:
        """A token of it that the model has no embedding for; None if it can read all."""
        found = (self.unread[index] for index in encoded.input_ids if index in self.unread) if self.unread else ()
        return next(iter(found), None)

    def render(self, text: str) -> str:
        return self.prompt_template.replace(PLACEHOLDER, text)

    def ends(self, texts: Sequence[str]) -> set[int]:
        """The last tokens of these texts."""
        return {ids[-1] for ids in self._tokenize([self.render(text) for text in texts]) if ids}

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        # What transformers calls in the end; what it does around that takes as long again for one short text.
        return [one.ids for one in self.tokenizer.backend_tokenizer.encode_batch_fast(texts)]

    def _cut(self, text: str, rendered: str, side: Side, limit: int) -> list[int]:
        """The longest rendering within the limit that keeps the whole template."""
        if (
            side == "right"
            and self.prompt_template.endswith(PLACEHOLDER)
            and self.prompt_template.count(PLACEHOLDER) == 1
        ):
            # The text is last, so this is what every tool of the ecosystem does.
            cut = self.tokenizer(rendered, truncation=True, max_length=limit, verbose=False)
            # It sets the limit at the tokenizer for good.
            self.tokenizer.backend_tokenizer.no_truncation()
            return list(cut["input_ids"])
        kept, over = 0, len(text)
        while over - kept > 1:
            middle = (kept + over) // 2
            fits = len(self._tokenize([self.render(_part(text, middle, side))])[0]) <= limit
            kept, over = (middle, over) if fits else (kept, middle)
        return self._tokenize([self.render(_part(text, kept, side))])[0]


def _part(text: str, characters: int, side: Side) -> str:
    return text[:characters] if side == "right" else text[len(text) - characters :]


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in a model's or checkpoint's folder, its own cutting and padding switched off."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise unreadable(f"The tokenizer in {directory}", error) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise BaseModelError(f"The tokenizer in {directory} has no tokenizer.json; save it with a fast tokenizer.")
    tokenizer = as_written(tokenizer, directory)
    tokenizer.truncation_side = "right"
    # Both are often baked into a published tokenizer.json, and would cut or pad behind our back.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.encode_special_tokens = tokenizer.split_special_tokens
    ensure_padding_token(tokenizer)
    return tokenizer


def as_written(tokenizer: PreTrainedTokenizerFast, directory: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in the folder, made to read texts as tokenizer.json says.

    For a class that it knows, transformers takes only the vocabulary from tokenizer.json, and the rules from the class and
    tokenizer_config.json. Those may be other rules than the base model was trained with: a cased BERT whose
    tokenizer_config.json does not say so would be read in lower case.
    """
    file = directory / TOKENIZER
    if type(tokenizer) is PreTrainedTokenizerFast or not file.is_file():
        return tokenizer
    written = Tokenizer.from_file(str(file))
    written.no_truncation()
    written.no_padding()
    rebuilt = tokenizer.backend_tokenizer
    if written.encode(VARIED, add_special_tokens=False).ids == rebuilt.encode(VARIED, add_special_tokens=False).ids:
        return tokenizer
    special: Any = tokenizer.special_tokens_map  # which the class knows where no file says
    plain: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(
        directory, local_files_only=True, **special
    )
    return plain


def class_that_reads_otherwise(tokenizer: PreTrainedTokenizerFast, model_type: str) -> str | None:
    """The class that plain transformers gives to this tokenizer once it is saved beside a model of the type, if that reads
    texts by other rules, as Qwen's does; None if it reads them alike. `tokenizer`: from load_tokenizer."""
    if type(tokenizer) is not PreTrainedTokenizerFast:  # a class of transformers' own, whose name is saved
        return None
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        (Path(folder) / CONFIG).write_text(json.dumps({"model_type": model_type}))
        plain = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return None if plain(VARIED)["input_ids"] == tokenizer(VARIED)["input_ids"] else type(plain).__name__


def ensure_padding_token(tokenizer: PreTrainedTokenizerFast) -> None:
    """Name a padding token without growing the vocabulary, one that never ends a text.

    Packed batches need none, but transformers pools at the last token that is not padding, so where the padding token
    also ends the text it would pool one token too early. Raises BaseModelError if the vocabulary has none to spare.
    """
    *others, last = tokenizer("a", verbose=False)["input_ids"]
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != last:
        return
    vocabulary = tokenizer.get_vocab()
    # gte-Qwen2 pads and ends with one token, and has no other but those around the turns of a chat.
    special = [
        one.content for index, one in tokenizer.added_tokens_decoder.items() if one.special and index not in others
    ]
    spare = [*SPARE_PADDING, *([tokenizer.eos_token] if tokenizer.eos_token else []), *special]
    for token in spare:
        if vocabulary.get(token, last) != last:
            tokenizer.pad_token = token
            return
    raise BaseModelError("The tokenizer has no padding token, and no spare token that could be one.")


def part_padding(encoder: Encoder) -> bool:
    """For a decoder, which transformers reads at the last token that is not padding: name another padding token where a
    rendered text may end in it. False if the vocabulary has none to spare, so that each text still ends in it."""
    tokenizer = encoder.tokenizer
    always = encoder.ends(["a"])
    # As everywhere in the ecosystem, the words of a special token in a text are that token.
    ends = always | encoder.ends(["", UNKNOWN, tokenizer.eos_token or ""])
    if tokenizer.pad_token_id in ends:
        vocabulary = tokenizer.get_vocab()
        unfit = {None, *ends, *encoder.unread}
        spare = (token for token in SPARE_PADDING if vocabulary.get(token) not in unfit)
        tokenizer.pad_token = next(spare, tokenizer.pad_token)
    return tokenizer.pad_token_id not in always


def no_embedding(tokenizer: PreTrainedTokenizerFast, token: str, embeddings: int | None) -> BaseModelError:
    """Of a token that a training needs."""
    size = max(tokenizer.get_vocab().values()) + 1
    return BaseModelError(
        f"The tokenizer has {size} tokens, and the base model embeddings for {embeddings}: none for {token}, which this training needs.",
        hint=f"call resize_token_embeddings({size}) on the model and save it again",
    )
