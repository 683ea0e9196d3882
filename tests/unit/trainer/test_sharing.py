"""Work dealt out among processes: each piece once, none with much more than another."""

from hypothesis import given
from hypothesis import strategies as st

from winnow_trainer.sharing import shares

WEIGHTS = st.lists(st.integers(1, 512), max_size=64)


@given(WEIGHTS, st.integers(1, 9))
def test_each_piece_is_dealt_once_and_in_order(weights, among):
    dealt = shares(weights, among)
    assert len(dealt) == among
    assert sorted(index for share in dealt for index in share) == list(range(len(weights)))
    assert all(share == sorted(share) for share in dealt)


@given(WEIGHTS, st.integers(1, 9))
def test_no_process_has_more_than_a_fair_share_and_the_lightest_piece_of_it(weights, among):
    loads = [sum(weights[index] for index in share) for share in shares(weights, among)]
    assert max(loads) <= sum(weights) / among + max(weights, default=0)
    for share, load in zip(shares(weights, among), loads, strict=True):
        if share:  # taking any piece away would leave less than the least loaded has
            assert load - min(weights[index] for index in share) <= min(loads)


def test_one_process_keeps_the_order_it_was_given():
    assert shares([3, 9, 1], 1) == [[0, 1, 2]]


def test_equal_pieces_are_dealt_evenly():
    assert [len(share) for share in shares([5] * 8, 4)] == [2, 2, 2, 2]
