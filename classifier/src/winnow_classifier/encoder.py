"""A BERT-type body whose last layer runs at the pooled tokens only.

Nothing reads the last layer's other states, so its queries, its output and its feed-forward block are needed once a text
instead of once a token: the same numbers for about a seventh less work in a model of six layers.
Letters: B sequences, T tokens, H heads, D head width, d width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from winnow_classifier.attention import one_query_attention
from winnow_classifier.packing import PackedBatch


def first_token_states(body: Any, batch: PackedBatch) -> Tensor:
    """(B, d): the last hidden state of each text's first token. `body` is a BertModel or RobertaModel."""
    hidden = body.embeddings(input_ids=batch.input_ids[None], position_ids=batch.position_ids[None])
    *layers, last = body.encoder.layer
    for layer in layers:
        hidden = layer(hidden, None, packed=batch)
    return last_layer(last, hidden[0], batch)


def all_token_states(body: Any, batch: PackedBatch) -> Tensor:
    """(T, d): the last hidden state of every token, where the pooling reads them."""
    hidden = body.embeddings(input_ids=batch.input_ids[None], position_ids=batch.position_ids[None])
    for layer in body.encoder.layer:
        hidden = layer(hidden, None, packed=batch)
    return hidden[0]  # type: ignore[no-any-return]


def last_layer(layer: Any, hidden: Tensor, batch: PackedBatch) -> Tensor:
    """(T, d) to (B, d): a BertLayer or RobertaLayer at the first tokens, or a layer that knows how itself."""
    if (own := getattr(layer, "at_first_tokens", None)) is not None:
        return own(hidden, batch)  # type: ignore[no-any-return]
    attention = layer.attention.self
    heads = (attention.num_attention_heads, attention.attention_head_size)
    first = hidden[batch.first]
    query = attention.query(first).unflatten(-1, heads)
    key, value = attention.key(hidden).unflatten(-1, heads), attention.value(hidden).unflatten(-1, heads)
    dropout = attention.dropout.p if attention.training else 0.0
    context = one_query_attention(query, key, value, batch, attention.scaling, dropout)
    attended = layer.attention.output(context.flatten(1), first)
    return layer.feed_forward_chunk(attended)  # type: ignore[no-any-return]
