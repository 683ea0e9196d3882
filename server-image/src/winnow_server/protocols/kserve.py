"""KServe's V1 protocol: POST /v1/models/{model}:predict."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from winnow_server.answers import ListedModel
from winnow_server.responses import judged, named
from winnow_server.schemas import MAX_INPUTS, Body, Item, as_items
from winnow_server.ticket import Ticket

Texts = Annotated[
    list[Item],
    BeforeValidator(as_items, json_schema_input_type=list[str | Item]),
    Field(min_length=1, max_length=MAX_INPUTS),
]


class KServeRequest(Body):
    """KServe's own server reads both names; one of them is sent."""

    instances: Texts | None = Field(default=None, description="Texts, or objects with a text.")
    inputs: Texts | None = Field(default=None, description="The same.")

    @model_validator(mode="after")
    def holds_one_of_them(self) -> Self:
        if (self.instances is None) == (self.inputs is None):
            raise PydanticCustomError("instances_missing", "must hold a list of texts as instances, or as inputs")
        return self

    @property
    def listed(self) -> tuple[str, list[Item]]:
        """The list, behind the name that its sender gave it."""
        return ("instances", self.instances) if self.instances else ("inputs", self.inputs or [])


class KServePrediction(BaseModel):
    label: str = Field(description="The most probable label.")
    predicted_labels: list[str] = Field(description="The decision: one label, or with several at once perhaps none.")
    abstained: bool = Field(description="True: not sure enough; take it for no decision.")
    scores: dict[str, float] = Field(description="Probabilities by label, unrounded.")
    tokens: int = Field(description="That the model read.")
    truncated: bool
    original_tokens: int = Field(description="Before a cut.")


class KServeAnswer(BaseModel):
    predictions: list[KServePrediction]


class ModelState(ListedModel):
    """What KServe's clients ask for and what OpenAI's do, at one address."""

    name: str
    ready: bool


def answer(ticket: Ticket, labels: tuple[str, ...]) -> dict[str, Any]:
    return {
        "predictions": [
            {**judged(encoded, result, labels), "scores": named(result.probabilities, labels)}
            for encoded, result in zip(ticket.encoded, ticket.complete_results(), strict=True)
        ]
    }
