"""Request bodies: bounded, unknown fields refused, every complaint names the field."""

from codecs import BOM_UTF8
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from winnow_classifier.tokens import Side
from winnow_server.errors import ApiError, BadRequest, Unprocessable
from winnow_server.limits import Truncation

MAX_INPUTS = 1_024  # texts in one request
# Of one body, to find the first. Each is made into an object, and a body of two megabytes can have as many as unknown fields.
MOST_COMPLAINTS = 10_000


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


AnyBody = TypeVar("AnyBody", bound=BaseModel)


class Item(Body):
    text: str
    id: str | None = Field(default=None, max_length=256)


def as_items(value: Any) -> list[Any]:
    """A text, a list of texts, or a list of objects: all become a list of objects."""
    if isinstance(value, str):
        return [{"text": value}]
    if not isinstance(value, list):
        raise PydanticCustomError("input_type", "must be a text, a list of texts, or a list of objects with a text")
    refuse_too_many(value)
    for number, item in enumerate(value):
        if not isinstance(item, str | dict):
            raise PydanticCustomError(
                "input_type",
                "must hold texts or objects with a text, but its item {number} is neither; token ids are not read",
                {"number": number},
            )
    return [{"text": item} if isinstance(item, str) else item for item in value]


def refuse_too_many(value: list[Any]) -> None:
    """Before each is looked at: half a million of them, in a body of two megabytes, take seconds."""
    if len(value) > MAX_INPUTS:
        raise PydanticCustomError(
            "too_long", WORDS["too_long"], {"actual_length": len(value), "max_length": MAX_INPUTS}
        )


Inputs = Annotated[
    list[Item],
    BeforeValidator(as_items, json_schema_input_type=str | list[str | Item]),
    Field(min_length=1, max_length=MAX_INPUTS),
]


def as_thresholds(value: Any) -> Any:
    """A number from 0 to 1, or such a number for each label that is named."""
    if value is None:
        return None
    for one in value.values() if isinstance(value, dict) else (value,):
        if isinstance(one, bool) or not isinstance(one, int | float) or not 0 <= one <= 1:
            raise PydanticCustomError("thresholds_type", "must be a number from 0 to 1, or such numbers by label")
    return value


Fraction = Annotated[float, Field(ge=0, le=1)]
AskedThresholds = Annotated[
    float | dict[str, float] | None,
    BeforeValidator(as_thresholds, json_schema_input_type=Fraction | dict[str, Fraction] | None),
]
ModelName = Annotated[str, Field(max_length=256)]


class ClassifyRequest(Body):
    """POST /v1/classify. The second part are vLLM's fields, and SGLang's rid, so that their clients work: what they can ask for
    beyond the checkpoint's own way of reading a text is refused."""

    input: Inputs = Field(description="A text, a list of texts, or a list of objects with a text and an id.")
    model: ModelName | None = Field(default=None, description="The served name, if given.")
    truncation: Truncation | None = Field(
        default=None,
        description="right and left cut a text that is too long there and say so, error refuses the request. Without it as the server was told; right by itself.",
    )
    thresholds: AskedThresholds = Field(
        default=None, description="From which probability on a label is predicted, by label, or one number."
    )
    return_logits: bool | None = Field(default=None, description="Adds logits to each item.")
    top_k: int | None = Field(default=None, ge=1, description="Adds the most probable labels to each item.")

    use_activation: bool | None = None  # false: probs holds logits
    request_id: str | None = Field(default=None, max_length=128)
    rid: str | None = Field(default=None, max_length=128)
    user: str | None = Field(default=None, max_length=256)
    truncate_prompt_tokens: int | None = Field(default=None, ge=-1)  # -1: the model's own length, as always here
    truncation_side: Side | None = None
    add_special_tokens: Literal[True] | None = None
    priority: Literal[0] | None = None
    padding: Literal[True, False, "max_length", "do_not_pad"] | None = None  # there is none, whatever it says
    cache_salt: str | None = None  # nothing is cached
    mm_processor_kwargs: None = None  # of pictures

    @model_validator(mode="after")
    def cuts_on_one_side(self) -> Self:
        """vLLM's truncation_side says the same as truncation."""
        named = {self.truncation, self.truncation_side} - {None}
        if len(named) > 1 and self.truncation != "error":
            raise PydanticCustomError(
                "truncation_twice", "names two sides, by truncation and by truncation_side: give one of them"
            )
        return self

    @property
    def cut(self) -> Truncation | None:
        """None where the request does not say."""
        return self.truncation or self.truncation_side

    @property
    def max_tokens(self) -> int | None:
        return None if self.truncate_prompt_tokens == -1 else self.truncate_prompt_tokens


class ClassificationRequest(Body):
    """POST /v1/classification, Emissary's."""

    input: Inputs
    model: ModelName | None = None
    data_format: Literal["logits", "probs"] | None = Field(default=None, description="logits without it.")


def parse(kind: type[AnyBody], body: bytes | bytearray, named: str = "The body") -> AnyBody:
    """Raises BadRequest if it is not JSON, Unprocessable if it is not what the endpoint takes."""
    try:
        return kind.model_validate_json(body.removeprefix(BOM_UTF8))  # which editors and PowerShell write
    except ValidationError as err:
        raise from_validation(err, named) from err


def texts_of(items: Sequence[Item | str], max_characters: int, field: str) -> list[str]:
    """Raises Unprocessable for a text without a character that is not white space, and for one that is far too long."""
    texts = [item if isinstance(item, str) else item.text for item in items]
    for number, text in enumerate(texts):
        check_text(text, max_characters, f"{field}[{number}]")
    return texts


def check_text(text: str, max_characters: int, named: str) -> None:
    """Raises Unprocessable. named: as its sender knows it."""
    if not text or text.isspace():
        raise Unprocessable(f"{named} is empty.", code="text_empty", param=named)
    if len(text) > max_characters:
        raise Unprocessable(
            f"{named} has {len(text)} characters, the limit is {max_characters}. Shorten it.",
            code="text_too_many_characters",
            param=named,
        )


def from_validation(err: ValidationError, named: str = "The body") -> ApiError:
    """The first complaint, in words, without a piece of the text in it."""
    if err.error_count() > MOST_COMPLAINTS:
        return Unprocessable(f"{named} is wrong in {err.error_count()} places.", code="too_many_errors")
    first = err.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        reason = first["ctx"]["error"] if "ctx" in first else "unreadable"
        reason = reason.replace("line 1 column", "column")  # most bodies have one line, and a line of a stream is one
        return BadRequest(f"{named} is not JSON: {reason}.", code="json_invalid")
    param = path(first["loc"])
    message = WORDS.get(first["type"], first["msg"].rstrip("."))
    context = {name: value for name, value in first.get("ctx", {}).items() if name != "error"}
    if "expected" in context:  # literals, as Python writes them
        context["expected"] = context["expected"].replace("True", "true").replace("False", "false")
    return Unprocessable(f"{param or named} {message.format(**context)}.", code=first["type"], param=param)


# pydantic's sentences read as "Input should be …"; after a field's name these read better.
WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not a field of this request",
    "too_long": "has {actual_length} items, the limit is {max_length}",
    "too_short": "is empty",
    "string_too_long": "is longer than {max_length} characters",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large a number",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "float_type": "must be a number",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "none_required": "must be null",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}


def path(location: tuple[int | str, ...]) -> str | None:
    """("input", 3, "text") to input[3].text"""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".") or None
