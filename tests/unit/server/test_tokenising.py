"""Requests that are tokenised in one call."""

import threading

import pytest
import tiny_models

from winnow_classifier.tokens import Encoder
from winnow_server.errors import InternalError
from winnow_server.queue import TokenQueue
from winnow_server.ticket import Ticket
from winnow_server.tokenising import Tokeniser, tokenise


class Panic(BaseException):
    """As the tokenizers library raises it where Rust gave up: no Exception."""


class Fragile(Encoder):
    error: type[BaseException] = ValueError

    def encode(self, texts, *given):
        if "boom" in texts:
            raise self.error("a text that nobody thought of")
        return super().encode(texts, *given)


@pytest.mark.parametrize("error", [ValueError, Panic])
async def test_a_text_that_cannot_be_tokenised_fails_no_other_request(monkeypatch, error):
    monkeypatch.setattr(Fragile, "error", error)
    queue = TokenQueue(max_tokens=100, max_batch_tokens=50)
    before, broken, behind = (Ticket([text]) for text in ("prize", "boom", "see you monday"))
    tokenise([before, broken, behind], Fragile(tiny_models.tokenizer("bert"), "{text}", 12), queue)
    with pytest.raises(InternalError, match=r"^input\[0\] could not be tokenised"):
        await broken.done
    assert (queue.requests, before.lengths, behind.lengths) == (2, [3], [5])
    assert not before.done.done()


async def test_the_text_that_cannot_be_tokenised_is_named():
    queue = TokenQueue(max_tokens=100, max_batch_tokens=50)
    broken = Ticket(["prize", "cash", "boom", "boom"], field="inputs")
    tokenise([broken], Fragile(tiny_models.tokenizer("bert"), "{text}", 12), queue)
    with pytest.raises(InternalError) as raised:
        await broken.done
    assert (raised.value.code, raised.value.param) == ("tokenising_failed", "inputs[2]")


async def test_what_waits_is_tokenised_at_once_without_those_who_left_and_then_the_thread_ends():
    noted = []

    class Noting(Encoder):
        def encode(self, texts, *given):
            noted.append([*texts])
            return super().encode(texts, *given)

    queue = TokenQueue(max_tokens=100, max_batch_tokens=50)
    tickets = [Ticket([text]) for text in ("win", "prize", "cash", "monday")]
    tickets[0].dropped = tickets[2].dropped = True
    tokeniser = Tokeniser([Noting(tiny_models.tokenizer("bert"), "{text}", 12)], queue)
    for ticket in tickets:
        tokeniser.submit(ticket)
    tokeniser.close()  # all of it is there as the thread begins
    before = set(threading.enumerate())
    tokeniser.start()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()
    assert noted == [["prize", "monday"]]


async def test_nothing_to_tokenise_is_nothing_to_do():
    """Whose clients all left meanwhile."""
    queue = TokenQueue(max_tokens=100, max_batch_tokens=50)
    tokenise([], Fragile(tiny_models.tokenizer("bert"), "{text}", 12), queue)
    assert queue.requests == 0
