"""Text becomes token ids off the event loop, many requests in one call when they wait anyway."""

import logging
import threading
from collections.abc import Sequence
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Protocol

from winnow_classifier.tokens import Encoded, Side
from winnow_server.errors import ApiError, InternalError, Unprocessable
from winnow_server.queue import TokenQueue
from winnow_server.ticket import Ticket
from winnow_server.unworded import unworded

log = logging.getLogger(__name__)

# Two, so that one text of megabytes holds up nobody else; the tokeniser's own threads do the rest.
WORKERS = 2
# A call's characters: enough to fill a batch; more would only delay its first text.
CHARACTERS_AT_ONCE = 16_384
CHARACTERS_PER_TOKEN = 8  # English has about 4
SHORT_CHARACTERS = 2_048  # tokenised in less time than a thread takes to wake


class Encoder(Protocol):
    max_seq_length: int
    template_tokens: int

    def encode(
        self, texts: Sequence[str], sides: Sequence[Side] | None = None, limits: Sequence[int] | None = None
    ) -> list[Encoded]: ...

    def unread_in(self, encoded: Encoded) -> str | None: ...


class Tokeniser:
    def __init__(self, encoders: Sequence[Encoder], waiting: TokenQueue) -> None:
        """One thread for each encoder: an encoder is used by one thread only."""
        self._queue = waiting
        self._inbox: SimpleQueue[Ticket | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, args=(encoder,), name=f"tokeniser-{number}", daemon=True)
            for number, encoder in enumerate(encoders)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def submit(self, ticket: Ticket) -> None:
        self._inbox.put(ticket)

    def close(self) -> None:
        """To be called after the last submit: waits until everything has gone on to the queue."""
        for _ in self._threads:
            self._inbox.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _run(self, encoder: Encoder) -> None:
        while (first := self._inbox.get()) is not None:
            tokenise(self._gather(first), encoder, self._queue)

    def _gather(self, first: Ticket) -> list[Ticket]:
        """The requests that wait now, up to CHARACTERS_AT_ONCE, without those whose clients left."""
        tickets = [] if first.dropped else [first]
        characters = sum(map(len, first.texts))
        while characters < CHARACTERS_AT_ONCE:
            try:
                ticket = self._inbox.get_nowait()
            except Empty:
                break
            if ticket is None:
                self._inbox.put(None)
                break
            if not ticket.dropped:
                tickets.append(ticket)
                characters += sum(map(len, ticket.texts))
        return tickets


def tokenise(tickets: Sequence[Ticket], encoder: Encoder, queue: TokenQueue) -> None:
    """The requests go on to the queue, or are refused. On the thread that the encoder belongs to."""
    try:
        encoded = iter(encode([(ticket, text) for ticket in tickets for text in ticket.texts], encoder))
    except BaseException:  # a panic of the tokenizers library is no Exception, and the thread would end with it
        encoded = None
    for ticket in tickets:
        try:
            own = encode_each(ticket, encoder) if encoded is None else [*islice(encoded, len(ticket.texts))]
            ticket.tokenised(own)
            refuse_too_short(ticket, encoder)
            refuse_too_long(ticket, encoder)
            refuse_unread(ticket, encoder)
            queue.put(ticket)
        except ApiError as err:
            reject(ticket, err, queue)


def encode(texts: Sequence[tuple[Ticket, str]], encoder: Encoder) -> list[Encoded]:
    return encoder.encode(
        [text for _, text in texts],
        ["left" if ticket.truncation == "left" else "right" for ticket, _ in texts],
        [max(encoder.template_tokens + 1, longest(ticket, encoder)) for ticket, _ in texts],
    )


def encode_each(ticket: Ticket, encoder: Encoder) -> list[Encoded]:
    """Tokenise text by text, after a call for all of them failed: so a bad text fails no other request, and is named. Raises
    InternalError."""
    encoded = []
    for number, text in enumerate(ticket.texts):
        try:
            encoded += encode([(ticket, text)], encoder)
        except BaseException as err:
            log.error("Tokenising failed", extra={"error": unworded(err)})
            raise InternalError.tokenising_failed(ticket.named(number)) from err
    return encoded


def reject(ticket: Ticket, error: ApiError, queue: TokenQueue) -> None:
    queue.drop(ticket)
    ticket.reject_from_thread(error)


def estimated_tokens(texts: Sequence[str], max_seq_length: int) -> int:
    """For the reservation, before tokens are counted. Rather too few: the queue corrects it by what requests turned out to
    hold, and what is let in too easily is refused once it is counted."""
    return sum(min(max_seq_length, len(text) // CHARACTERS_PER_TOKEN + 1) for text in texts)


def longest(ticket: Ticket, encoder: Encoder) -> int:
    """How many tokens its texts may have."""
    return encoder.max_seq_length if ticket.max_tokens is None else min(encoder.max_seq_length, ticket.max_tokens)


def refuse_too_short(ticket: Ticket, encoder: Encoder) -> None:
    least = encoder.template_tokens + 1
    if ticket.max_tokens is not None and ticket.max_tokens < least:
        raise Unprocessable(
            f"truncate_prompt_tokens is {ticket.max_tokens}, which leaves no room for a text: the prompt template and special "
            f"tokens are {encoder.template_tokens}. Send {least} or more, or -1 for the model's own length.",
            code="truncation_too_short",
            param="truncate_prompt_tokens",
        )


def refuse_too_long(ticket: Ticket, encoder: Encoder) -> None:
    if ticket.truncation != "error":
        return
    for number, encoded in enumerate(ticket.encoded):
        if encoded.truncated:
            raise Unprocessable(
                f"{ticket.named(number)} has {encoded.original_tokens} tokens, {longest(ticket, encoder)} are read. "
                "Shorten it: neither the request nor the server lets it be cut.",
                code="text_too_long",
                param=ticket.named(number),
            )


def refuse_unread(ticket: Ticket, encoder: Encoder) -> None:
    for number, encoded in enumerate(ticket.encoded):
        if not encoded.input_ids:  # some tokenizers drop characters and add no token of their own
            raise Unprocessable(
                f"{ticket.named(number)} is empty for the model: its tokenizer leaves no token of it.",
                code="text_empty",
                param=ticket.named(number),
            )
        token = encoder.unread_in(encoded)
        if token is not None:
            raise Unprocessable(
                f"{ticket.named(number)} has the token {token!r}, which the tokenizer knows and the model does not. Send it "
                "without that token.",
                code="token_unknown",
                param=ticket.named(number),
            )
