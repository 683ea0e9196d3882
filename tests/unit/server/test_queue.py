"""When a client that found the queue full is told to come back: once what waits will have run."""

import pytest

from winnow_server.errors import Overloaded
from winnow_server.queue import MAX_RETRY_AFTER_SECONDS, TokenQueue
from winnow_server.ticket import Ticket


def full_queue(tokens, batch=500):
    """Holds so many tokens, and no more."""
    queue = TokenQueue(max_tokens=tokens, max_batch_tokens=batch)
    queue.reserve(Ticket(["text"]), tokens)
    return queue


def told(queue):
    with pytest.raises(Overloaded) as refused:
        queue.reserve(Ticket(["text"]), 1)
    return int(refused.value.headers["Retry-After"])


@pytest.mark.parametrize(
    ("waiting", "seconds_a_batch", "expected"),
    [
        pytest.param(5_000, 1.0, 10, id="ten batches of a second"),
        pytest.param(5_000, 0.5, 5, id="twice as fast"),
        pytest.param(20_000, 0.5, 20, id="four times as much"),
        pytest.param(5_250, 1.0, 11, id="a batch that is not full, rounded up"),
        pytest.param(100, 0.01, 1, id="never at once"),
        pytest.param(500_000, 1.0, MAX_RETRY_AFTER_SECONDS, id="never longer than a minute"),
    ],
)
async def test_it_is_when_what_waits_will_have_run(waiting, seconds_a_batch, expected):
    queue = full_queue(waiting)
    queue.ran(500, seconds_a_batch)
    assert told(queue) == expected


async def test_it_follows_a_device_that_gets_slower():
    queue = full_queue(5_000)
    queue.ran(500, 0.5)
    for _ in range(30):
        queue.ran(500, 1.0)
    assert told(queue) == 10


async def test_a_spell_of_short_texts_says_nothing_of_a_full_queue():
    """Each takes ten milliseconds for its three tokens, and full batches run as fast as before."""
    queue = full_queue(5_000)
    queue.ran(500, 0.5)
    for _ in range(1_000):
        queue.ran(3, 0.01)
    assert told(queue) == 5


async def test_what_runs_already_is_waited_for_too():
    queue = TokenQueue(max_tokens=2_000, max_batch_tokens=500)
    queue.ran(500, 1.0)
    ticket = Ticket(["text"] * 4)
    queue.reserve(ticket, 2_000)
    ticket.lengths = [500] * 4
    queue.put(ticket)
    queue.take(first=True)
    queue.reserve(Ticket(["text"]), 500)
    assert told(queue) == 5  # 1,500 and 500 tokens wait, 500 run
