"""Open Inference Protocol v2, which KServe, Triton and MLServer speak. Tensors in bytes: oip_binary.py.

Shapes: N texts, C labels.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
import orjson
from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from winnow_server.errors import Unprocessable
from winnow_server.model import Announced
from winnow_server.schemas import MAX_INPUTS, Body, ModelName
from winnow_server.ticket import Ticket

INPUT = "text"
Scalar = str | int | float | bool | None


def as_parameters(value: Any) -> Any:
    """A scalar's own complaint would name the kinds that it may be of."""
    if not isinstance(value, dict) or any(isinstance(one, list | dict) for one in value.values()):
        raise PydanticCustomError("parameters_type", "must be an object of texts, numbers, true, false and null")
    return value


Parameters = Annotated[dict[str, Scalar], BeforeValidator(as_parameters, json_schema_input_type=dict[str, Scalar])]

# Of each output: its type, whether its shape is [N, C] rather than [N], and its values, as an array or as texts.
Values = Callable[[Ticket, Sequence[str]], Any]
OUTPUTS: dict[str, tuple[str, bool, Values]] = {
    "probabilities": (
        "FP32",
        True,
        lambda ticket, _: np.stack([one.probabilities for one in ticket.complete_results()]),
    ),
    "label": ("BYTES", False, lambda ticket, labels: [labels[one.top] for one in ticket.complete_results()]),
    # A text may have several labels or none, and a tensor has no ragged rows: each element is a JSON list.
    "predicted_labels": (
        "BYTES",
        False,
        lambda ticket, _: [orjson.dumps(one.predicted).decode() for one in ticket.complete_results()],
    ),
    "predicted": (
        "BOOL",
        True,
        lambda ticket, labels: np.array(
            [[label in held for label in labels] for held in (set(one.predicted) for one in ticket.complete_results())],
            dtype=np.bool_,
        ),
    ),
    "abstained": (
        "BOOL",
        False,
        lambda ticket, _: np.array([one.abstained for one in ticket.complete_results()], dtype=np.bool_),
    ),
    "truncated": (
        "BOOL",
        False,
        lambda ticket, _: np.array([one.truncated for one in ticket.encoded], dtype=np.bool_),
    ),
    "tokens": ("INT32", False, lambda ticket, _: np.array(ticket.lengths, dtype=np.int32)),
    "original_tokens": (
        "INT32",
        False,
        lambda ticket, _: np.array([one.original_tokens for one in ticket.encoded], dtype=np.int32),
    ),
    "logits": ("FP32", True, lambda ticket, _: np.stack([one.logits for one in ticket.complete_results()])),
}
ON_REQUEST = frozenset({"logits"})


class InputTensor(Body):
    name: str = Field(max_length=256)
    shape: list[int] = Field(min_length=1, max_length=2, description="[N] or [N, 1].")
    datatype: str = Field(description="BYTES.")
    parameters: Parameters | None = None
    data: list[Any] | None = Field(
        default=None, max_length=MAX_INPUTS, description="The texts; absent where they follow as bytes."
    )


class RequestedOutput(Body):
    name: str = Field(max_length=256)
    parameters: Parameters | None = None


class InferRequest(Body):
    id: str | None = Field(default=None, max_length=256)
    model_name: ModelName | None = Field(default=None, description="The served name, if given.")
    parameters: Parameters | None = None
    inputs: list[InputTensor] = Field(min_length=1, max_length=1, description="One BYTES tensor, of any name.")
    outputs: list[RequestedOutput] | None = Field(
        default=None,
        max_length=len(OUTPUTS),
        description="Which of the outputs, each once; without it, or empty, all but logits.",
    )


class OutputTensor(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: Parameters | None = None


class InferAnswer(BaseModel):
    id: str | None = None
    model_name: str
    model_version: str
    parameters: Parameters = Field(description="labels: the label names in the order of C, as a JSON list.")
    outputs: list[OutputTensor]


class TensorMetadata(BaseModel):
    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(BaseModel):
    name: str
    ready: bool


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


def texts(tensor: InputTensor) -> list[str]:
    """Raises Unprocessable if the tensor is not a column of texts."""
    if tensor.datatype != "BYTES":
        raise refused(f"has the datatype {tensor.datatype[:20]}, this model reads texts: BYTES", "datatype_unsupported")
    if tensor.data is None:
        raise refused("has neither data nor bytes behind the JSON", "missing")
    count = tensor.shape[0]
    if count < 1 or (len(tensor.shape) == 2 and tensor.shape[1] != 1):
        raise refused("must have the shape [N] or [N, 1], N from 1 on", "shape_unsupported")
    flat = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in tensor.data]
    if len(flat) != count:
        raise refused(f"has {len(flat)} texts, its shape says {count}", "shape_unsupported")
    if not all(isinstance(one, str) for one in flat):
        raise refused("must hold texts only", "string_type")
    return flat


def wanted(request: InferRequest) -> list[RequestedOutput]:
    """Raises Unprocessable for an output that does not exist, or is named twice."""
    if not request.outputs:
        return [RequestedOutput(name=name) for name in OUTPUTS if name not in ON_REQUEST]
    named: set[str] = set()
    for output in request.outputs:
        if output.name not in OUTPUTS:
            raise Unprocessable(
                f"outputs: there is no {output.name!r}; there are {', '.join(OUTPUTS)}.",
                code="output_unknown",
                param="outputs",
            )
        if output.name in named:
            raise Unprocessable(
                f"outputs: {output.name!r} is named twice; ask for each once.", code="output_repeated", param="outputs"
            )
        named.add(output.name)
        if output.parameters and output.parameters.get("classification"):
            raise Unprocessable(
                "outputs: the classification extension is not offered; probabilities hold every label.",
                code="extension_unsupported",
                param="outputs",
            )
    return request.outputs


def answer(request: InferRequest, announced: Announced, outputs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": request.id or "",
        "model_name": announced.name,
        "model_version": announced.version,
        "parameters": {"labels": orjson.dumps(announced.manifest.labels).decode()},
        "outputs": list(outputs),
    }


def metadata(announced: Announced) -> dict[str, Any]:
    labels = len(announced.manifest.labels)
    return {
        "name": announced.name,
        "versions": [announced.version],
        "platform": "winnow",
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": [-1, labels] if by_label else [-1]}
            for name, (datatype, by_label, _) in OUTPUTS.items()
        ],
    }


def refused(what: str, code: str) -> Unprocessable:
    return Unprocessable(f"inputs[0] {what}.", code=code, param="inputs[0]")
