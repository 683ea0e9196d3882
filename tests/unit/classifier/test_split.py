"""Taking rows out of a dataset: shares are kept, texts are not torn apart, the same call gives the same rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow_classifier.errors import DataError
from winnow_classifier.split import split


def one_hot(columns, width):
    return np.eye(width, dtype=np.int8)[columns]


def test_each_label_keeps_its_share():
    columns = [0] * 800 + [1] * 150 + [2] * 50
    found = split([f"text {n}" for n in range(1_000)], one_hot(columns, 3), 20, seed=0)
    taken = np.bincount(np.array(columns)[found.taken], minlength=3)
    assert taken.tolist() == [160, 30, 10]


def test_rows_with_several_labels_keep_the_share_of_each():
    targets = (np.random.default_rng(0).random((4_000, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.02]).astype(np.int8)
    found = split([f"text {n}" for n in range(4_000)], targets, 10, seed=1)
    shares = targets[found.taken].sum(axis=0) / targets.sum(axis=0)
    assert abs(len(found.taken) - 400) <= 1
    assert (abs(shares - 0.1) < 0.03).all(), shares


@pytest.mark.parametrize("seed", range(5))
def test_of_a_rare_label_that_stands_beside_all_others_its_part_is_taken(seed):
    targets = (np.random.default_rng(seed).random((2_000, 6)) < 0.3).astype(np.int8)
    targets[:, 5] = np.arange(2_000) % 50 == 0  # 40 rows
    found = split([f"text {n}" for n in range(2_000)], targets, 20, seed)
    assert abs(targets[found.taken, 5].sum() - 8) <= 1


def test_a_part_of_few_rows_is_rounded():
    taken = [
        len(split([f"text {n}" for n in range(7)], one_hot([0] * 7, 1), percent, 0).taken) for percent in (10, 20, 40)
    ]
    assert taken == [1, 1, 3]


def test_another_seed_takes_other_rows():
    texts, targets = [f"text {n}" for n in range(100)], one_hot([0, 1] * 50, 2)
    first, again, other = (split(texts, targets, 30, seed).taken.tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first == sorted(first)


def test_the_last_text_of_a_label_stays():
    found = split([f"text {n}" for n in range(41)], one_hot([0] * 40 + [1], 2), 50, seed=0)
    assert 40 in found.rest


def test_one_large_group_of_equal_texts_goes_to_one_side():
    texts = ["same"] * 60 + [f"text {n}" for n in range(40)]
    found = split(texts, one_hot([0] * 60 + [0, 1] * 20, 2), 20, seed=0)
    assert set(range(60)) <= set(found.rest.tolist())
    assert 15 <= len(found.taken) <= 25


@pytest.mark.parametrize("texts", [["a"], ["a", "a", "a"], ["a", "b"]])
def test_too_few_texts(texts):
    with pytest.raises(DataError, match="leaves no row to be taken"):
        split(texts, one_hot(list(range(len(texts))), 3), 20, seed=0)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 15)), min_size=1, max_size=120),
    st.integers(1, 50),
    st.integers(0, 2**31 - 1),
)
def test_any_split_is_a_partition_that_keeps_texts_together(rows, percent, seed):
    texts = [str(text) for text, _ in rows]
    targets = np.array([[bits >> n & 1 for n in range(4)] for _, bits in rows], dtype=np.int8)
    try:
        found = split(texts, targets, percent, seed)
    except DataError:  # then no text whose labels others have too was small enough
        holds = {text: targets[[other == text for other in texts]].any(axis=0) for text in texts}
        texts_of = np.sum(list(holds.values()), axis=0)
        spare = [texts.count(text) for text, own in holds.items() if (texts_of[own] > 1).all()]
        assert not spare or percent / 100 * sum(spare) < max(spare) / 2
        return
    assert sorted([*found.rest.tolist(), *found.taken.tolist()]) == list(range(len(rows)))
    rest, taken = ({texts[row] for row in part} for part in (found.rest.tolist(), found.taken.tolist()))
    assert not rest & taken
    largest = max(texts.count(text) for text in texts)
    assert len(found.taken) <= percent / 100 * len(rows) + largest
    assert ((targets[found.rest].sum(axis=0) > 0) | (targets.sum(axis=0) == 0)).all()
