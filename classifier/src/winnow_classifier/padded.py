"""A model type that cannot be packed, run in groups of like length: padded to the longest of its group, with a mask.

The groups are those of attention.py: padding costs a quarter of the tokens at most. Letters: B texts, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from winnow_classifier.errors import BaseModelError
from winnow_classifier.longrope import longest_short_text
from winnow_classifier.packing import PackedBatch, plan_buckets

# Of the largest logit: float32 rounds in the seventh digit, a text that sees its padding moves the second.
AGREEMENT = 1e-3


def padded_logits(network: Any, batch: PackedBatch, pad_token_id: int) -> Tensor:
    """(B, C) float32, in the order of the texts: `network`'s own logits. In the precision of the weights, never less."""
    with torch.autocast(batch.input_ids.device.type, enabled=False):
        texts = batch.input_ids.split(list(batch.lengths))  # type: ignore[no-untyped-call]
        longest_short = longest_short_text(network.config)
        groups = batch.groups if longest_short is None else groups_of(batch.lengths, longest_short)
        logits = [group_logits(network, [texts[index] for index in group], pad_token_id) for group in groups]
    order = torch.tensor([index for group in groups for index in group], device=batch.input_ids.device)
    return torch.cat(logits)[torch.argsort(order)]


def groups_of(lengths: Sequence[int], longest_short: int) -> list[list[int]]:
    """Texts of like length together, as indices; but none that LongRoPE reads with other factors."""
    sides = (
        [index for index, length in enumerate(lengths) if (length > longest_short) is long] for long in (False, True)
    )
    return [[side[i] for i in group] for side in sides for group in plan_buckets([lengths[index] for index in side])]


def group_logits(network: Any, texts: Sequence[Tensor], pad_token_id: int) -> Tensor:
    # On the right: last-token heads of transformers find the last token that is not padding.
    input_ids = nn.utils.rnn.pad_sequence(list(texts), batch_first=True, padding_value=pad_token_id)
    lengths = torch.tensor([len(text) for text in texts], device=input_ids.device)
    mask = (torch.arange(input_ids.shape[1], device=input_ids.device)[None] < lengths[:, None]).long()
    return network(input_ids=input_ids, attention_mask=mask).logits.float()  # type: ignore[no-any-return]


def head_of(network: Any) -> tuple[str, ...]:
    """Names of the modules with weights that are the head: all outside the body, and the body's pooler."""
    prefix = network.base_model_prefix
    names = [
        name for name, child in network.named_children() if name != prefix and any(True for _ in child.parameters())
    ]
    body = getattr(network, prefix, None)
    pooler = [f"{prefix}.pooler"] if isinstance(getattr(body, "pooler", None), nn.Module) else []
    if body is None or not names:
        raise BaseModelError(f"{type(network).__name__} has no head that could be told from its body.")
    return (*pooler, *names)


@torch.no_grad()
def check_company(network: nn.Module, vocabulary: int, pad_token_id: int) -> None:
    """Raises BaseModelError where a text gets other logits among longer ones than alone, which no training can mend; or no
    logits at all, as of X-MOD, which wants to know the text's language."""
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(vocabulary, (length,), generator=generator) for length in (3, 12, 9)]
    texts = [torch.where(text == pad_token_id, (pad_token_id + 1) % vocabulary, text) for text in texts]
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    try:
        alone = torch.cat([group_logits(network, [text.to(device)], pad_token_id) for text in texts])
        among = group_logits(network, [text.to(device) for text in texts], pad_token_id)
    except (ValueError, RuntimeError) as error:  # Nystromformer raises it for a length that its segments do not divide
        why = str(error).rstrip(".")
        raise BaseModelError(
            f"{type(network).__name__} cannot read a text alone: {why}. Use another base model."
        ) from error
    network.train(training)
    off = float((alone - among).abs().max() / alone.abs().max().clamp(min=1e-6))
    if not off <= AGREEMENT:
        raise BaseModelError(
            f"{type(network).__name__} gives a text other logits in a padded batch than alone (off by {off:.0%}), so it "
            "would be trained wrong. Use another base model, such as an encoder of type bert, modernbert or deberta-v2."
        )
