"""Which waiting texts run together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow_server.batcher import Pick, Waiting, next_batch


@pytest.mark.parametrize(
    ("waiting", "max_tokens", "expected"),
    [
        pytest.param([], 10, [], id="nothing waits"),
        pytest.param([Waiting([3, 3, 3], 0)], 6, [Pick(0, 0), Pick(0, 1)], id="as many as fit"),
        pytest.param([Waiting([3, 3, 3], 2)], 6, [Pick(0, 2)], id="what ran before does not run again"),
        pytest.param([Waiting([99], 0), Waiting([1], 0)], 10, [Pick(0, 0)], id="the oldest runs even above the budget"),
        pytest.param(
            [Waiting([2] * 1000, 0), Waiting([2], 0)],
            6,
            [Pick(0, 0), Pick(1, 0), Pick(0, 1)],
            id="a thousand texts do not keep one waiting",
        ),
        pytest.param(
            [Waiting([4], 0), Waiting([9], 0), Waiting([2], 0)],
            6,
            [Pick(0, 0), Pick(2, 0)],
            id="a shorter text fills the room that a longer one cannot",
        ),
    ],
)
def test_the_next_batch(waiting, max_tokens, expected):
    assert next_batch(waiting, max_tokens) == expected


lengths = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@given(st.lists(lengths, max_size=8), st.integers(1, 64))
def test_batch_after_batch_runs_every_text_once_in_order_and_within_the_budget(requests, max_tokens):
    started = [0] * len(requests)
    while any(done < len(texts) for done, texts in zip(started, requests, strict=True)):
        open_requests = [number for number, texts in enumerate(requests) if started[number] < len(texts)]
        picks = next_batch([Waiting(requests[n], started[n]) for n in open_requests], max_tokens)
        oldest = open_requests[0]
        assert picks[0] == Pick(0, started[oldest])
        tokens = sum(requests[open_requests[pick.request]][pick.text] for pick in picks)
        assert tokens <= max_tokens or len(picks) == 1
        for pick in picks:
            number = open_requests[pick.request]
            assert pick.text == started[number]
            started[number] += 1
