"""text-embeddings-inference's POST /predict and GET /info, which Hugging Face's InferenceClient speaks too."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, RootModel
from pydantic_core import PydanticCustomError

from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_server.errors import Unprocessable
from winnow_server.limits import Truncation
from winnow_server.responses import by_score
from winnow_server.schemas import MAX_INPUTS, Body, refuse_too_many
from winnow_server.service import Service
from winnow_server.ticket import Ticket
from winnow_server.tokenising import WORKERS

PAIRS = (
    "{field} is a pair of texts, which text-embeddings-inference gives to models that compare two; this model reads one "
    'text at a time. Two texts are sent as [["first"], ["second"]]'
)


def as_batch(value: Any) -> Any:
    """text-embeddings-inference's reading: a text or [text] is one text, [a, b] a pair, [[a], [b]] two texts."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise PydanticCustomError(
            "inputs_type", 'must be a text, or a list of lists with one text each: [["a"], ["b"]]'
        )
    if isinstance(value[0], str):
        return one_text(value, "inputs")
    refuse_too_many(value)  # here, so that the complaint is one of inputs, not of one of the kinds that they may be of
    return [[one_text(item, f"inputs[{number}]")] for number, item in enumerate(value)]


def one_text(value: Any, field: str) -> str:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value):
        raise PydanticCustomError("pairs_unsupported", "must not be a pair: " + PAIRS, {"field": field})
    if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], str):
        raise PydanticCustomError(
            "inputs_type", 'must be a text, or a list of lists with one text each: [["a"], ["b"]]'
        )
    return value[0]


Text = Annotated[list[str], Field(min_length=1, max_length=1)]


class Parameters(Body):
    """Of Hugging Face's text-classification task."""

    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = None
    top_k: int | None = Field(default=None, ge=1)


class PredictRequest(Body):
    inputs: Annotated[
        str | list[Text],
        BeforeValidator(
            as_batch, json_schema_input_type=str | Text | Annotated[list[Text], Field(max_length=MAX_INPUTS)]
        ),
    ] = Field(description="A text, or a list of lists with one text each. A list of two texts is a pair, and refused.")
    truncate: bool | None = Field(default=None, description="false refuses a text that is too long.")
    truncation_direction: Literal["Right", "right", "Left", "left"] | None = Field(
        default=None, description="Where a text that is too long is cut; Right without it."
    )
    raw_scores: bool | None = Field(default=None, description="Logits instead of probabilities.")
    parameters: Parameters | None = Field(
        default=None,
        description="Hugging Face's clients send it; the answer then is a list for each text, also for one.",
    )


class Prediction(BaseModel):
    score: float
    label: str


class PredictAnswer(RootModel[list[Prediction] | list[list[Prediction]]]):
    """Highest score first: one list for one text, a list of lists for a batch."""


class Labels(BaseModel):
    id2label: dict[str, str]
    label2id: dict[str, int]


class ModelType(BaseModel):
    classifier: Labels


class Info(BaseModel):
    model_id: str
    model_sha: str = Field(description="The checkpoint's digest.")
    model_dtype: str | None = Field(description="That the model computes in; null while it loads.")
    served_model_name: str
    model_type: ModelType
    max_concurrent_requests: int = Field(description="There is no such bound but the queue's, in tokens: of one each.")
    max_input_length: int = Field(description="Tokens of a text that are read.")
    max_batch_tokens: int
    max_client_batch_size: int = Field(description="Texts in a request.")
    auto_truncate: bool = Field(description="Whether a text that is too long is cut where a request does not say.")
    tokenization_workers: int
    version: str = Field(description="Winnow's.")


def info(service: Service, version: str) -> dict[str, Any]:
    manifest = service.announced.manifest
    names = {str(number): name for number, name in enumerate(manifest.labels)}
    labels = {"id2label": names, "label2id": {name: int(number) for number, name in names.items()}}
    return {
        "model_id": service.announced.name,
        "model_sha": service.announced.digest,
        "model_dtype": service.precision,
        "served_model_name": service.announced.name,
        "model_type": {"classifier": labels},
        "max_concurrent_requests": service.max_queue_tokens,
        "max_input_length": manifest.max_seq_length,
        "max_batch_tokens": service.max_batch_tokens,
        "max_client_batch_size": MAX_INPUTS,
        "auto_truncate": service.limits.truncation != "error",
        "tokenization_workers": WORKERS,
        "version": version,
    }


def texts(request: PredictRequest) -> list[str]:
    return [request.inputs] if isinstance(request.inputs, str) else [text for (text,) in request.inputs]


def truncation(request: PredictRequest) -> Truncation | None:
    """None where the request does not say."""
    if request.truncate is False:
        return "error"
    if request.truncate is None and request.truncation_direction is None:
        return None
    return "left" if request.truncation_direction in ("Left", "left") else "right"


def wants_logits(request: PredictRequest, schema: LabelSchema) -> bool:
    """Raises Unprocessable if probabilities of another kind are asked for than the model was trained to give."""
    function = request.parameters.function_to_apply if request.parameters else None
    own = "sigmoid" if schema.task_detail is TaskDetail.MULTILABEL else "softmax"
    if function in ("sigmoid", "softmax") and function != own:
        raise Unprocessable(
            f"parameters.function_to_apply: this model was trained for {own}; use that, none, or leave it out.",
            code="function_does_not_fit",
            param="parameters.function_to_apply",
        )
    return bool(request.raw_scores) or function == "none"


def answer(request: PredictRequest, ticket: Ticket, schema: LabelSchema) -> list[Any]:
    logits = wants_logits(request, schema)
    most = (request.parameters.top_k if request.parameters else None) or len(schema.labels)
    found = [
        [
            {"score": score, "label": label}
            for label, score in by_score(result.logits if logits else result.probabilities, schema.labels, most)
        ]
        for result in ticket.complete_results()
    ]
    single = isinstance(request.inputs, str) and request.parameters is None
    return found[0] if single else found
