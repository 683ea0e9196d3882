"""Texts of different lengths laid end to end: no padding is ever computed but a little inside attention.

Letters: B sequences, T tokens of all of them together, M the longest length of a bucket. Pure but for tensors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Sequences share a bucket while padding them to its longest costs at most a quarter more than their tokens, plus a
# constant that keeps many tiny texts from falling apart into tiny calls.
BUCKET_SLACK = 1.25
BUCKET_FREE_TOKENS = 64
# On a CPU oneDNN makes a program for every new shape of a product in bfloat16, which takes as long as the product of a small
# batch: buckets are padded, and batches filled up, to sizes that come again (ADR 91).
BUCKET_LENGTH_MULTIPLE = 8
TOKENS_MULTIPLE = 32


def plan_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Which sequences run together, as indices in the given order, each batch of at most `max_tokens` tokens.

    A sequence longer than that runs alone. The caller chooses the order (sorted, shuffled, first come).
    """
    batches: list[list[int]] = []
    room = 0
    for index, length in enumerate(lengths):
        if not batches or length > room:
            batches.append([])
            room = max_tokens
        batches[-1].append(index)
        room -= length
    return batches


def plan_buckets(lengths: Sequence[int]) -> list[list[int]]:
    """Sequences of similar length together, longest first: the groups that attention pads to one length."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    buckets: list[list[int]] = []
    tokens = 0
    for index in order:
        if buckets:
            bucket = buckets[-1]
            padded = lengths[bucket[0]] * (len(bucket) + 1)
            if padded <= BUCKET_SLACK * (tokens + lengths[index]) + BUCKET_FREE_TOKENS:
                bucket.append(index)
                tokens += lengths[index]
                continue
        buckets.append([index])
        tokens = lengths[index]
    return buckets


@dataclass(frozen=True, slots=True)
class Bucket:
    """Some sequences of a pack, padded to one length: `rows * length` places, one bucket after the other."""

    rows: int
    length: int  # M
    real: Tensor | None  # (rows, M) bool, True where a token stands; None: all of it is real


@dataclass(frozen=True, slots=True)
class Buckets:
    """P places in all buckets of a pack of T tokens, and the way there and back."""

    members: tuple[Bucket, ...]
    gather: Tensor | None  # (P,) int64: which token stands there (padding repeats a real one); None: token p at place p
    restore: Tensor  # (T,) int64: the place of each token
    padding: Tensor | None  # (number of padded places,) int64: where they are; None: there are none
    order: Tensor  # (B,) int64: the sequences as they follow each other in the buckets
    rank: Tensor  # (B,) int64: where in that order each sequence stands


@dataclass(frozen=True)
class PackedBatch:
    """B sequences in T tokens. `cu_seqlens[i]` is where sequence i begins, `cu_seqlens[B]` is T."""

    input_ids: Tensor  # (T,) int64
    position_ids: Tensor  # (T,) int64, each sequence counts from the model's first position
    cu_seqlens: Tensor  # (B + 1,) int32
    max_length: int
    lengths: tuple[int, ...]

    @cached_property
    def first(self) -> Tensor:
        """(B,) int64: where the first token of each sequence stands."""
        return self.cu_seqlens[:-1].long()

    @cached_property
    def last(self) -> Tensor:
        """(B,) int64: where the last token of each sequence stands."""
        return self.cu_seqlens[1:].long() - 1

    @cached_property
    def buckets(self) -> Buckets:
        """The plan of padded attention, made once for all layers."""
        return bucket_tensors(self.lengths, self.input_ids.device)

    @cached_property
    def groups(self) -> list[list[int]]:
        """The same for a model type that is padded (padded.py): which sequences run together, as indices."""
        return plan_buckets(self.lengths)

    @property
    def places(self) -> int:
        """How many tokens the model computed for this batch, padding included. To be asked after the run: T if the model
        needed neither of the plans above."""
        if "buckets" in vars(self):
            return sum(bucket.rows * bucket.length for bucket in self.buckets.members)
        if "groups" in vars(self):
            return sum(len(group) * self.lengths[group[0]] for group in self.groups)
        return len(self.input_ids)

    def to(self, device: torch.device | str) -> PackedBatch:
        if self.input_ids.device == torch.device(device):
            return self
        return PackedBatch(
            self.input_ids.to(device, non_blocking=True),
            self.position_ids.to(device, non_blocking=True),
            self.cu_seqlens.to(device, non_blocking=True),
            self.max_length,
            self.lengths,
        )


def pack(sequences: Sequence[Sequence[int]], position_start: int = 0, multiple: int = 1) -> PackedBatch:
    """Lay token id sequences end to end. RoBERTa counts positions from `padding_idx + 1`: that is `position_start`.

    `multiple`: the number of tokens is made a multiple of this, by a sequence at the end whose result nobody reads.
    """
    if multiple > 1 and sequences and (missing := -sum(map(len, sequences)) % multiple):
        sequences = [*sequences, [sequences[0][0]] * missing]
    lengths = tuple(len(sequence) for sequence in sequences)
    if not lengths or min(lengths) == 0:
        raise ValueError("A pack needs at least one sequence, and each sequence at least one token. This is a bug.")
    # numpy, not torch: on so few numbers each call of torch takes as long as the work, and releases Python's lock.
    sizes = np.array(lengths)
    bounds = np.zeros(len(lengths) + 1, dtype=np.int32)
    sizes.cumsum(out=bounds[1:])
    input_ids = np.fromiter(itertools.chain.from_iterable(sequences), dtype=np.int64, count=bounds[-1])
    position_ids = np.arange(position_start, position_start + len(input_ids)) - bounds[:-1].repeat(sizes)
    return PackedBatch(
        torch.from_numpy(input_ids), torch.from_numpy(position_ids), torch.from_numpy(bounds), max(lengths), lengths
    )


def bucket_tensors(lengths: Sequence[int], device: torch.device) -> Buckets:
    if min(lengths) == max(lengths):  # a text alone, above all: planning it would take as long as a layer
        count = len(lengths)
        restore, order = torch.arange(count * lengths[0], device=device), torch.arange(count, device=device)
        return Buckets((Bucket(count, lengths[0], None),), None, restore, None, order, order)
    sizes = np.array(lengths)
    starts = sizes.cumsum() - sizes
    plan = plan_buckets(lengths)
    members: list[Bucket] = []
    gathers: list[NDArray[np.int64]] = []
    reals: list[NDArray[np.bool_]] = []
    for indices in plan:
        length = math.ceil(lengths[indices[0]] / BUCKET_LENGTH_MULTIPLE) * BUCKET_LENGTH_MULTIPLE
        column, size = np.arange(length)[None], sizes[indices][:, None]
        real = column < size
        gathers.append((starts[indices][:, None] + np.minimum(column, size - 1)).ravel())
        reals.append(real.ravel())
        members.append(Bucket(len(indices), length, None if real.all() else torch.from_numpy(real).to(device)))
    token, is_real = np.concatenate(gathers), np.concatenate(reals)
    places = np.flatnonzero(is_real)
    place_of = np.empty_like(places)
    place_of[token[places]] = places
    all_real = len(places) == len(is_real)
    sequence = np.concatenate([np.array(indices) for indices in plan])
    return Buckets(
        tuple(members),
        None if all_real and (token == np.arange(len(token))).all() else torch.from_numpy(token).to(device),
        torch.from_numpy(place_of).to(device),
        None if all_real else torch.from_numpy(np.flatnonzero(~is_real)).to(device),
        torch.from_numpy(sequence).to(device),
        torch.from_numpy(sequence.argsort()).to(device),
    )
