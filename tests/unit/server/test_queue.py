"""What waits for the model: when a client that found the queue full is told to come back, which worker runs what, and when."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from winnow_server import queue as module
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


async def test_two_workers_run_what_waits_in_half_the_time():
    queue = TokenQueue(max_tokens=2_000, max_batch_tokens=500)
    put(queue, *[500] * 4)
    queue.take(first=True)
    queue.take(first=False)
    queue.reserve(Ticket(["text"]), 1_000)
    queue.ran(500, 1.0)
    assert told(queue) == 3  # 1,000 tokens and 1,000 wait, 500 run, at 1,000 in a second


def put(queue, *lengths, background=False):
    """A tokenised request with texts of so many tokens."""
    ticket = Ticket(["text"] * len(lengths), background=background)
    if not background:
        queue.reserve(ticket, sum(lengths))
    ticket.lengths = [*lengths]
    queue.put(ticket)
    return ticket


def lengths_of(batch):
    return [ticket.lengths[text] for ticket, text in batch.texts]


async def test_the_first_worker_has_all_cores_only_for_what_came_alone(monkeypatch):
    monkeypatch.setattr(module, "BESIDE_SECONDS", 0.0)
    queue = TokenQueue(max_tokens=100, max_batch_tokens=10)

    def alone(*, first=True):
        return queue.take(first=first).alone

    put(queue, 4)
    assert alone()
    queue.ran(4, 0.01)
    put(queue, 4)
    assert not alone(first=False)  # the cores are the first one's
    put(queue, 4)
    assert not alone()  # the other runs
    queue.ran(4, 0.01)
    queue.ran(4, 0.01)
    put(queue, 8, 8)
    assert not alone()  # more waits than fits
    queue.ran(8, 0.01)
    assert alone()
    monkeypatch.setattr(module, "BESIDE_SECONDS", 60.0)
    put(queue, 4)  # while that batch runs: requests come side by side, and may again
    queue.ran(8, 0.01)
    assert not alone()


async def test_no_other_batch_begins_while_one_has_all_cores():
    queue = TokenQueue(max_tokens=100, max_batch_tokens=10)
    put(queue, 4)
    assert queue.take(first=True).alone
    put(queue, 5)
    with ThreadPoolExecutor(1) as other:
        waits = other.submit(queue.take, first=False)
        with pytest.raises(TimeoutError):
            waits.result(0.1)
        queue.ran(4, 0.01)
        put(queue, 6)
        assert lengths_of(waits.result(10)) == [5]


async def test_the_background_runs_in_short_batches_while_requests_keep_coming(monkeypatch):
    queue = TokenQueue(max_tokens=100, max_batch_tokens=40)
    put(queue, *[1] * 100, background=True)
    assert lengths_of(queue.take(first=True)) == [1] * 40  # nobody has asked for anything
    put(queue, 3)
    assert lengths_of(queue.take(first=True)) == [3]  # by itself
    assert lengths_of(queue.take(first=True)) == [1] * 10
    assert (queue.tokens, queue.background_tokens) == (0, 50)
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.0)
    assert lengths_of(queue.take(first=True)) == [1] * 40


@pytest.mark.parametrize(
    ("estimated", "true", "held"),
    [
        pytest.param(10, 20, 20, id="texts of more tokens than one would think"),
        pytest.param(20, 15, 15, id="of fewer"),
        pytest.param(10, 90, 40, id="never more than four times an estimate"),
        pytest.param(90, 1, 45, id="never less than half of it"),
    ],
)
async def test_estimates_are_corrected_by_what_requests_turned_out_to_hold(estimated, true, held):
    queue = TokenQueue(max_tokens=100, max_batch_tokens=40)
    for _ in range(40):
        ticket = Ticket(["text"])
        queue.reserve(ticket, estimated)
        ticket.lengths = [true]
        queue.put(ticket)
        queue.drop(ticket)
    assert queue.tokens == 0
    queue.reserve(Ticket(["text"]), estimated)
    assert queue.tokens == held


async def test_what_was_accepted_is_handed_out_after_the_end():
    queue = TokenQueue(max_tokens=100, max_batch_tokens=4)
    put(queue, 4, 4)
    put(queue, 1, background=True)
    queue.close()
    batches = [queue.take(first=first) for first in (True, False, True, False)]
    assert [batch and lengths_of(batch) for batch in batches] == [[4], [4], [1], None]
    assert queue.take(first=True) is None


async def test_a_request_whose_client_left_while_it_was_tokenised_never_waits():
    queue = TokenQueue(max_tokens=100, max_batch_tokens=40)
    for background in (False, True):
        ticket = Ticket(["text"], background=background)
        queue.reserve(ticket, 7)
        queue.drop(ticket)
        ticket.lengths = [7]
        queue.put(ticket)
    assert (queue.requests, queue.tokens, queue.background_tokens) == (0, 0, 0)


def handed(queue, ticket):
    """Whether the first worker gets to wait for it; if not, that is let go."""
    for _ in range(1_000):
        if queue.hand(ticket):
            return True
        time.sleep(0.01)
    queue.close()
    return False


async def test_a_request_is_handed_to_the_first_worker_only_while_that_has_nothing_to_do():
    queue = TokenQueue(max_tokens=100, max_batch_tokens=40)
    ticket = Ticket(["text"])
    assert not queue.hand(ticket)
    with ThreadPoolExecutor(1) as first:
        work = first.submit(queue.take, first=True)
        assert handed(queue, ticket)
        assert not queue.hand(Ticket(["another"]))
        assert work.result(10) is ticket
