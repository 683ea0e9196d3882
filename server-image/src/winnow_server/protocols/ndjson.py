"""POST /v1/classify/batch: one JSON value a line in, one a line out. How these flow: stream.py."""

from codecs import BOM_UTF8
from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, BeforeValidator, Field, RootModel, field_validator
from pydantic_core import PydanticCustomError

from winnow_server.errors import ApiError, TooLarge
from winnow_server.limits import Truncation
from winnow_server.responses import judged, named
from winnow_server.schemas import AskedThresholds, Body, Item, ModelName, parse
from winnow_server.ticket import Ticket

MEDIA_TYPE = "application/x-ndjson"
FIELD = "text"  # of a line: where its errors say that they are, also where the line is nothing else


class Options(Body):
    """The address's query; strings, as all queries are."""

    model_config = Body.model_config | {"strict": False}

    model: ModelName | None = None
    truncation: Truncation | None = Field(
        default=None, description="Without it as the server was told; right by itself."
    )
    return_logits: bool = False
    thresholds: AskedThresholds = Field(default=None, description="A number, or a JSON object of numbers by label.")

    @field_validator("thresholds", mode="before")
    @classmethod
    def from_json(cls, value: Any) -> Any:
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            raise PydanticCustomError(
                "thresholds_type", "must be a number, or a JSON object of numbers by label"
            ) from None


def as_text(value: Any) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("line_type", "must be a text, or an object with a text")
    return value


class Text(RootModel[Annotated[str, BeforeValidator(as_text)]]):
    """A line that is no object."""


class Line(RootModel[str | Item]):
    """A text, or an object with a text and an id."""


class LineError(BaseModel):
    message: str
    type: str
    param: str | None
    code: str
    request_id: str


class LineAnswer(BaseModel):
    """index counts lines from 0. Either error or all of the others stand in it."""

    index: int
    id: str | None = None
    label: str | None = None
    predicted_labels: list[str] | None = None
    abstained: bool | None = None
    scores: dict[str, float] | None = Field(default=None, description="Probabilities by label, unrounded.")
    logits: dict[str, float] | None = None
    tokens: int | None = None
    truncated: bool | None = None
    original_tokens: int | None = None
    error: LineError | None = None


def item_of(line: bytes) -> Item:
    """Raises ApiError."""
    if line.removeprefix(BOM_UTF8).lstrip().startswith(b"{"):
        return parse(Item, line, "The line")
    return Item(text=parse(Text, line, "The line").root)


def rendered(
    index: int, id_: str | None, ticket: Ticket, labels: tuple[str, ...], *, with_logits: bool
) -> dict[str, Any]:
    (result,) = ticket.complete_results()
    (encoded,) = ticket.encoded
    answer: dict[str, Any] = {"index": index} if id_ is None else {"index": index, "id": id_}
    answer |= {**judged(encoded, result, labels), "scores": named(result.probabilities, labels)}
    if with_logits:
        answer["logits"] = named(result.logits, labels)
    return answer


def failed(index: int, id_: str | None, error: ApiError, request_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = {"index": index} if id_ is None else {"index": index, "id": id_}
    return answer | error.body(request_id)


async def lines(chunks: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[bytes | TooLarge]:
    """The lines of a body that comes in pieces; one that is too long is an error of its own, and never held in memory.

    Empty lines are left out: a body usually ends with one.
    """
    held = bytearray()
    skipping = False
    async for chunk in chunks:
        *complete, rest = chunk.split(b"\n")
        for part in complete:
            if skipping or len(held) + len(part) > max_bytes:
                yield too_large(max_bytes)
            elif (line := bytes(held) + part).strip():
                yield line
            held.clear()
            skipping = False
        if skipping or len(held) + len(rest) > max_bytes:
            skipping = True
            held.clear()
        else:
            held += rest
    if skipping:
        yield too_large(max_bytes)
    elif held.strip():
        yield bytes(held)


def too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The line is larger than {max_bytes} bytes.", code="line_too_large")
