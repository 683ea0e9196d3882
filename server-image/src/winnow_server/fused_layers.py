"""A BERT-type encoder in two calls, its embeddings and all its layers: for one short text, calling costs more than computing.

Queries, keys and values are one product; activations and residuals ride on the products before them (oneDNN's post-ops).
TorchScript runs the layers without Python's lock: beside a busy event loop, a batch waits for that lock once and not at
each operator. Letters: B sequences, T tokens, d width.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from winnow_classifier.architectures import BERT, ROBERTA
from winnow_classifier.model import Classifier
from winnow_classifier.packing import PackedBatch
from winnow_server.half import Undo

# hidden_act of the config to oneDNN's name and algorithm.
ACTIVATIONS = {
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
}
NONE = torch.empty(0)  # stands for None, which TorchScript's lists cannot hold


def run_layers(
    states: Tensor,
    first: Tensor,
    products: list[Tensor],
    biases: list[Tensor],
    norms: list[Tensor],
    norm_biases: list[Tensor],
    heads: int,
    scaling: float,
    eps: float,
    activation: str,
    algorithm: str,
    bucket_rows: list[int],
    bucket_lengths: list[int],
    masks: list[Tensor],
    gather: Tensor,
    restore: Tensor,
    order: Tensor,
    rank: Tensor,
) -> Tensor:
    """(T, d) to (T, d); or to (B, d), of the tokens `first` only where that is given: the last layer has no more to say then.

    Four products and two norms a layer; what is none is empty. The rest is as in winnow_classifier's `Buckets`.
    """
    width = states.size(1)
    layers = len(products) // 4
    for layer in range(layers):
        narrow = first.numel() > 0 and layer == layers - 1
        mixed = torch.ops.mkldnn._linear_pointwise(states, products[4 * layer], biases[4 * layer], "none", [], "")
        placed = mixed if gather.numel() == 0 else mixed.index_select(0, gather)
        asking = placed
        if narrow:  # the queries of all tokens were computed: they cost less than a call
            asking = mixed.index_select(0, first.index_select(0, order))
            states = states.index_select(0, first)
        contexts: list[Tensor] = []
        place = 0
        asked = 0
        for rows, length, mask in zip(bucket_rows, bucket_lengths, masks):  # noqa: B905  # TorchScript has no strict
            queries = rows if narrow else rows * length
            query = asking.narrow(0, asked, queries).narrow(1, 0, width).view(rows, -1, heads, width // heads)
            seen = placed.narrow(0, place, rows * length).view(rows, length, 3, heads, width // heads)
            asked += queries
            place += rows * length
            context = functional.scaled_dot_product_attention(
                query.transpose(1, 2),
                seen.select(2, 1).transpose(1, 2),
                seen.select(2, 2).transpose(1, 2),
                None if mask.numel() == 0 else mask,
                scale=scaling,
            )
            contexts.append(context.transpose(1, 2).reshape(queries, width))
        context = contexts[0] if len(contexts) == 1 else torch.cat(contexts)
        if narrow:
            context = context.index_select(0, rank)
        elif gather.numel() > 0:
            context = context.index_select(0, restore)
        a, b, c = 4 * layer + 1, 4 * layer + 2, 4 * layer + 3
        attended = torch.ops.mkldnn._linear_pointwise(context, states, products[a], biases[a], "add")
        attended = torch.layer_norm(attended, [width], norms[2 * layer], norm_biases[2 * layer], eps)
        widened = torch.ops.mkldnn._linear_pointwise(attended, products[b], biases[b], activation, [], algorithm)
        narrowed = torch.ops.mkldnn._linear_pointwise(widened, attended, products[c], biases[c], "add")
        states = torch.layer_norm(narrowed, [width], norms[2 * layer + 1], norm_biases[2 * layer + 1], eps)
    return states


def embed(ids: Tensor, positions: Tensor, tables: list[Tensor], eps: float) -> Tensor:
    """(T,) and (T,) to (T, d). Tables of words, positions and token types, weight and bias of the norm."""
    words, places, kinds, weight, bias = tables
    states = torch.embedding(words, ids) + kinds[0] + torch.embedding(places, positions)
    return torch.layer_norm(states, [words.size(1)], weight, bias, eps)


@functools.cache
def scripted(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Without TorchScript's optimiser, which would specialise on shapes, of which there is no end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # known, and the version is pinned: ADR 79
        script = torch.jit.script(function)

    def run(*arguments: object) -> Tensor:
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            out: Tensor = script(*arguments)
            return out

    return run


class FusedEmbeddings(nn.Module):
    """BertEmbeddings or RobertaEmbeddings for inference, of texts that are all of the first token type."""

    def __init__(self, embeddings: Any) -> None:
        super().__init__()
        self.words, self.places = embeddings.word_embeddings, embeddings.position_embeddings
        self.kinds, self.norm = embeddings.token_type_embeddings, embeddings.LayerNorm
        self.tables = [self.words.weight, self.places.weight, self.kinds.weight, self.norm.weight, self.norm.bias]
        self.run = scripted(embed)

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """(1, T) and (1, T) to (1, T, d)."""
        return self.run(input_ids[0], position_ids[0], self.tables, self.norm.eps)[None]


class FusedLayers(nn.Module):
    """BertLayers or RobertaLayers for inference, all of them in the place of one, with the numbers they have."""

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype, activation: tuple[str, str]) -> None:
        """In float32 the layers' own weights are given up, so that memory does not double; `give_back` brings them back. An
        error midway leaves them as they were."""
        super().__init__()
        self.run = scripted(run_layers)
        self.products: list[Tensor] = []
        self.biases: list[Tensor] = []
        with ExitStack() as undone:
            for linears in products_of(layers):
                weight = torch.cat([linear.weight.detach() for linear in linears]).to(dtype)
                product = torch.ops.mkldnn._reorder_linear_weight(weight, None)
                self.products.append(product)
                self.biases.append(torch.cat([linear.bias.detach() for linear in linears]).to(dtype))
                if dtype == torch.float32:
                    undone.callback(give_back, linears, product)
                    for linear in linears:
                        linear.weight = nn.Parameter(torch.empty(0), requires_grad=False)
            undone.pop_all()
        self.norms = nn.ModuleList(
            norm for layer in layers for norm in (layer.attention.output.LayerNorm, layer.output.LayerNorm)
        )
        self.norm_weights = [norm.weight for norm in self.norms]
        self.norm_biases = [norm.bias for norm in self.norms]
        attention = layers[0].attention.self
        self.heads: int = attention.num_attention_heads
        self.scaling: float = attention.scaling
        self.eps: float = layers[0].output.LayerNorm.eps
        self.activation = activation

    def give_back(self, layers: Sequence[Any]) -> None:
        """To the layers it was made of, the weights they had."""
        for linears, product in zip(products_of(layers), self.products, strict=True):
            give_back(linears, product)

    def forward(self, hidden: Tensor, mask: None, *, packed: PackedBatch) -> Tensor:
        """(1, T, d) to (1, T, d), called as transformers' layer is."""
        return self.states(hidden[0], NONE, packed)[None]

    def at_first_tokens(self, states: Tensor, packed: PackedBatch) -> Tensor:
        """(T, d) to (B, d): what encoder.last_layer gives."""
        return self.states(states, packed.first, packed)

    def states(self, states: Tensor, first: Tensor, packed: PackedBatch) -> Tensor:
        buckets = packed.buckets
        return self.run(
            states,
            first,
            self.products,
            self.biases,
            self.norm_weights,
            self.norm_biases,
            self.heads,
            self.scaling,
            self.eps,
            *self.activation,
            [bucket.rows for bucket in buckets.members],
            [bucket.length for bucket in buckets.members],
            [NONE if bucket.real is None else bucket.real[:, None, None] for bucket in buckets.members],
            NONE if buckets.gather is None else buckets.gather,
            buckets.restore,
            buckets.order,
            buckets.rank,
        )


def fuse(classifier: Classifier, dtype: torch.dtype) -> Undo:
    """The layers, in place, if they can be."""
    activation = ACTIVATIONS.get(getattr(classifier.base.config, "hidden_act", ""))
    if classifier.family not in (BERT, ROBERTA) or activation is None or classifier.base.config.is_decoder:
        return lambda: None
    body: Any = classifier.body
    layers, embeddings = body.encoder.layer, body.embeddings
    fused_embeddings = FusedEmbeddings(embeddings)
    fused = FusedLayers(layers, dtype, activation)
    body.encoder.layer = nn.ModuleList([fused])
    body.embeddings = fused_embeddings

    def undo() -> None:
        fused.give_back(layers)
        body.encoder.layer, body.embeddings = layers, embeddings

    return undo


def give_back(linears: Sequence[nn.Linear], product: Tensor) -> None:
    """To those that gave them up, the weights that the product was made of."""
    for linear, weight in zip(linears, product.to_dense().chunk(len(linears)), strict=True):
        if linear.weight.numel() == 0:
            linear.weight = nn.Parameter(weight.clone(), requires_grad=False)


def products_of(layers: Iterable[Any]) -> Iterator[tuple[nn.Linear, ...]]:
    """The linear layers that are one product each, in the order they run in."""
    for layer in layers:
        attention = layer.attention.self
        yield attention.query, attention.key, attention.value
        yield (layer.attention.output.dense,)
        yield (layer.intermediate.dense,)
        yield (layer.output.dense,)
