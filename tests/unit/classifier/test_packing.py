"""Packing: which texts run together, and how they are laid out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from winnow_classifier.packing import BUCKET_FREE_TOKENS, BUCKET_SLACK, pack, plan_batches, plan_buckets

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 400))
def test_batches_keep_every_text_once_in_order_and_within_the_budget(lengths, max_tokens):
    batches = plan_batches(lengths, max_tokens)
    assert [index for batch in batches for index in batch] == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or sum(lengths[index] for index in batch) <= max_tokens


def test_a_text_longer_than_the_budget_runs_alone():
    assert plan_batches([3, 50, 3, 4], max_tokens=10) == [[0], [1], [2, 3]]


def test_batches_and_buckets_are_as_full_as_they_may_be():
    assert plan_batches([6, 4, 5, 5, 1], max_tokens=10) == [[0, 1], [2, 3], [4]]
    shortest = math.ceil((2 * 400 - BUCKET_FREE_TOKENS) / BUCKET_SLACK - 400)  # that may be padded to 400
    assert plan_buckets([400, shortest]) == [[0, 1]]
    assert plan_buckets([400, shortest - 1]) == [[0], [1]]


@given(LENGTHS)
def test_buckets_hold_every_text_once_and_pad_little(lengths):
    buckets = plan_buckets(lengths)
    assert sorted(index for bucket in buckets for index in bucket) == list(range(len(lengths)))
    for bucket in buckets:
        longest = max(lengths[index] for index in bucket)
        real = sum(lengths[index] for index in bucket)
        assert longest == lengths[bucket[0]]
        assert longest * len(bucket) <= BUCKET_SLACK * real + BUCKET_FREE_TOKENS


@given(LENGTHS)
def test_every_token_has_a_place_in_the_buckets_and_finds_back(lengths):
    batch = pack([[7] * length for length in lengths])
    buckets = batch.buckets
    tokens = torch.arange(sum(lengths))
    places = tokens if buckets.gather is None else tokens[buckets.gather]
    assert torch.equal(places[buckets.restore], tokens)
    assert len(places) == sum(bucket.rows * bucket.length for bucket in buckets.members)
    padded = set() if buckets.padding is None else set(buckets.padding.tolist())
    assert padded == set(range(len(places))) - set(buckets.restore.tolist())
    assert torch.equal(buckets.order[buckets.rank], torch.arange(len(lengths)))


def test_a_pack_counts_positions_from_the_start_of_each_text():
    batch = pack([[5, 6, 7], [8], [9, 10]], position_start=2)
    assert batch.input_ids.tolist() == [5, 6, 7, 8, 9, 10]
    assert batch.position_ids.tolist() == [2, 3, 4, 2, 2, 3]
    assert batch.cu_seqlens.tolist() == [0, 3, 4, 6]
    assert batch.cu_seqlens.dtype == torch.int32
    assert (batch.max_length, batch.first.tolist(), batch.last.tolist()) == (3, [0, 3, 4], [2, 3, 5])


@given(LENGTHS, st.integers(1, 64))
def test_a_pack_is_filled_up_by_a_text_that_follows_the_others(lengths, multiple):
    texts = [[number + 1] * length for number, length in enumerate(lengths)]
    filled, plain = pack(texts, multiple=multiple), pack(texts)
    assert len(filled.input_ids) % multiple == 0
    assert len(filled.input_ids) < len(plain.input_ids) + multiple
    assert filled.lengths[: len(lengths)] == tuple(lengths)
    assert torch.equal(filled.input_ids[: len(plain.input_ids)], plain.input_ids)


@pytest.mark.parametrize("sequences", [pytest.param([], id="nothing"), pytest.param([[1], []], id="an empty text")])
def test_a_pack_without_tokens_is_a_bug(sequences):
    with pytest.raises(ValueError, match="bug"):
        pack(sequences)
