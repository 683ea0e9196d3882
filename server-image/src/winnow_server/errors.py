"""What a request can be refused with, and the one shape in which every refusal leaves.

ApiError
├── BadRequest         400  not JSON, or not readable as a request
├── Unauthorized       401  no API key, or one that is not known
├── NotFound           404  no such path, or a model that is not served here
├── MethodNotAllowed   405
├── RequestTimedOut    408  the body, or the headers, did not arrive in time
├── TooLarge           413  the body, or one request's tokens, above the limit
├── UnsupportedEncoding 415 a body that is compressed
├── Unprocessable      422  a field that is missing, unknown or out of bounds; a text that is empty or too long
├── Overloaded         429  the queue is full; Retry-After says when it will have run
├── HeadersTooLarge    431  the request line and the headers, above the limit
├── InternalError      500  a defect, or a result that is not a number
├── Unavailable        503  loading or draining
└── DeadlineExceeded   504  the request took longer than one may take
"""

# ruff: noqa: N818 - each is named as HTTP names its status

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

# text-embeddings-inference's names, as its clients read them (its documentation's examples have small letters, its answers and
# its schema do not), where they are not Validation or Backend. It has none for 401.
FOREIGN_TYPES = {401: "Unauthorized", 429: "Overloaded", 503: "Unhealthy"}


@dataclass
class ApiError(Exception):
    """message is for people, code for programs, param names the part of the request that is meant."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal_error"
    challenge: ClassVar[Mapping[str, str]] = {}  # headers of every error of the kind

    message: str
    code: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.message)

    def flat(self, request_id: str) -> dict[str, Any]:
        """As clients of text-embeddings-inference, Open Inference Protocol and KServe read errors: words under `error`."""
        return {
            "error": self.message,
            "error_type": FOREIGN_TYPES.get(self.status, "Validation" if self.status < 500 else "Backend"),
            "code": self.code,
            "param": self.param,
            "request_id": request_id,
        }

    def body(self, request_id: str) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
                "request_id": request_id,
            }
        }


class BadRequest(ApiError):
    status, type = 400, "invalid_request_error"


class Unauthorized(ApiError):
    status, type = 401, "authentication_error"
    challenge: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": 'Bearer realm="winnow"'}


class NotFound(ApiError):
    status, type = 404, "not_found_error"


class MethodNotAllowed(ApiError):
    status, type = 405, "invalid_request_error"


class RequestTimedOut(ApiError):
    status, type = 408, "invalid_request_error"


class TooLarge(ApiError):
    status, type = 413, "invalid_request_error"


class UnsupportedEncoding(ApiError):
    status, type = 415, "invalid_request_error"


class Unprocessable(ApiError):
    status, type = 422, "invalid_request_error"


class Overloaded(ApiError):
    status, type = 429, "overloaded_error"

    @classmethod
    def queue_full(cls, retry_after_seconds: int) -> "Overloaded":
        return cls(
            f"The queue is full. Try again in {retry_after_seconds} s.",
            code="queue_full",
            headers={"Retry-After": str(retry_after_seconds)},
        )


class HeadersTooLarge(ApiError):
    status, type = 431, "invalid_request_error"


class InternalError(ApiError):
    @classmethod
    def not_finite(cls, text: str, of: str = "model") -> "InternalError":
        return cls(f"The {of} gave no number for {text}.", code="not_finite", param=text)

    @classmethod
    def tokenising_failed(cls, text: str) -> "InternalError":
        return cls(f"{text} could not be tokenised.", code="tokenising_failed", param=text)

    @classmethod
    def model_failed(cls, text: str) -> "InternalError":
        return cls(f"The model failed on {text}.", code="model_failed", param=text)

    @classmethod
    def out_of_memory(cls, text: str) -> "InternalError":
        return cls(f"{text} does not fit in the model's memory. Shorten it.", code="out_of_memory", param=text)


class Unavailable(ApiError):
    status, type = 503, "unavailable_error"


class DeadlineExceeded(ApiError):
    status, type = 504, "timeout_error"
