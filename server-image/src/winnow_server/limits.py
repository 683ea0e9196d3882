"""How much one client may ask for at once."""

from dataclasses import dataclass
from typing import Literal

MEBIBYTE = 1024 * 1024
Truncation = Literal["right", "left", "error"]  # what becomes of a text that is too long: cut there, or refused


@dataclass(frozen=True, slots=True)
class Limits:
    body_bytes: int = 2 * MEBIBYTE  # also of one line in a stream
    # Tokenising a megabyte takes a second, and a model reads a few tens of thousands of characters at most.
    text_characters: int = 262_144
    request_seconds: float = 60.0  # from the body to the answer; streams have no such end
    truncation: Truncation = "right"  # where a request does not say
    streams: int = 4  # at once, each with a bounded window
