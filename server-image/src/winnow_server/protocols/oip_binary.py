"""The binary tensor extension of Open Inference Protocol v2, which Triton's client uses unless told otherwise.

A body is JSON of as many bytes as the header says, then the tensors' bytes one after another, little-endian; an element
of a BYTES tensor is its length in four bytes and itself.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from winnow_server.errors import BadRequest
from winnow_server.protocols import oip
from winnow_server.schemas import MAX_INPUTS, parse
from winnow_server.ticket import Ticket

JSON_LENGTH = "inference-header-content-length"
EXTENSION = "binary_tensor_data"
LENGTH = struct.Struct("<I")
MOST_DIGITS = 18  # of a number of bytes


def read(body: bytes, json_length: str | None) -> oip.InferRequest:
    """The request, its texts among its data. Raises BadRequest, Unprocessable."""
    if json_length is None:
        return parse(oip.InferRequest, body)
    digits = json_length.isascii() and json_length.isdecimal() and len(json_length) <= MOST_DIGITS
    if not digits or int(json_length) > len(body):
        raise broken(f"{JSON_LENGTH} is no number of bytes within the body")
    request = parse(oip.InferRequest, body[: int(json_length)])
    rest = memoryview(body)[int(json_length) :]
    tensor = request.inputs[0]
    size = (tensor.parameters or {}).get("binary_data_size")
    if size is None and not rest:
        return request
    if not isinstance(size, int) or size != len(rest):
        said = "is missing" if size is None else f"says {size}"
        raise broken(f"binary_data_size {said}, {len(rest)} bytes follow the JSON")
    tensor.data = list(elements(rest))
    return request


def elements(content: memoryview) -> Sequence[str]:
    found: list[str] = []
    at = 0
    while at < len(content):
        if len(found) == MAX_INPUTS:
            raise oip.refused(f"has more than {MAX_INPUTS} texts", "too_long")
        if at + LENGTH.size > len(content):
            raise broken("a text's length is cut off")
        (length,) = LENGTH.unpack_from(content, at)
        at += LENGTH.size
        if at + length > len(content):
            raise broken("a text is shorter than its length says")
        try:
            found.append(str(content[at : at + length], "utf-8"))
        except UnicodeDecodeError as err:
            raise broken(f"text {len(found)} is not UTF-8") from err
        at += length
    return found


def outputs(
    request: oip.InferRequest, ticket: Ticket, labels: Sequence[str]
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """The answer's outputs, and the bytes of those that are wanted as bytes, in order."""
    every = bool((request.parameters or {}).get("binary_data_output"))
    found: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for asked in oip.wanted(request):
        datatype, by_label, values_of = oip.OUTPUTS[asked.name]
        values = values_of(ticket, labels)
        shape = [len(ticket.texts), len(labels)] if by_label else [len(ticket.texts)]
        output: dict[str, Any] = {"name": asked.name, "datatype": datatype, "shape": shape}
        if (asked.parameters or {}).get("binary_data", every):
            tail.append(as_bytes(values))
            output["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            output["data"] = values.reshape(-1) if isinstance(values, np.ndarray) else values
        found.append(output)
    return found, tail


def as_bytes(values: Any) -> bytes:
    if isinstance(values, np.ndarray):
        return values.astype(values.dtype.newbyteorder("<")).tobytes()
    encoded = [text.encode() for text in values]
    return b"".join(LENGTH.pack(len(text)) + text for text in encoded)


def broken(what: str) -> BadRequest:
    return BadRequest(f"The body's binary part cannot be read: {what}.", code="binary_invalid")
