"""KServe's V1 protocol: POST /v1/models/{model}:predict."""

from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field

from winnow_server.responses import judged, named
from winnow_server.schemas import MAX_INPUTS, Body, Item, as_items
from winnow_server.ticket import Ticket


class KServeRequest(Body):
    instances: Annotated[
        list[Item],
        BeforeValidator(as_items, json_schema_input_type=list[str | Item]),
        Field(min_length=1, max_length=MAX_INPUTS),
    ] = Field(validation_alias=AliasChoices("instances", "inputs"), description="Texts, or objects with a text.")


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


class ModelState(BaseModel):
    """What KServe's clients ask for and what OpenAI's do, at one address."""

    name: str
    ready: bool
    id: str
    object: str
    created: int
    owned_by: str


def answer(ticket: Ticket, labels: tuple[str, ...]) -> dict[str, Any]:
    return {
        "predictions": [
            {**judged(encoded, result, labels), "scores": named(result.probabilities, labels)}
            for encoded, result in zip(ticket.encoded, ticket.complete_results(), strict=True)
        ]
    }
