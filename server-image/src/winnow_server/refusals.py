"""Every error that a client sees leaves here, in one shape, or in the one that clients of other protocols read."""

import logging
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Scope

from winnow_server.edge import CLIENT_LEFT
from winnow_server.errors import ApiError, BadRequest, InternalError, MethodNotAllowed, NotFound
from winnow_server.json_answer import Json
from winnow_server.unworded import unworded

log = logging.getLogger(__name__)

OTHER_PROTOCOLS = ("/v2", "/predict", "/info", "/v1/models/")


async def refuse(request: Request, error: Exception) -> Response:
    refused = as_api_error(error, request)
    if refused.status >= 500 and not isinstance(error, ApiError):
        facts = {"requestId": request.scope["state"]["request_id"], "error": unworded(error)}
        log.error("Request failed", extra=facts)
    return refusal(refused, request.scope)


async def answer_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_LEFT)


# For every application of ours, server and waker.
HANDLERS: Mapping[Any, Any] = {
    ApiError: refuse,
    HTTPException: refuse,
    ClientDisconnect: answer_nobody,
    Exception: refuse,
}


def refusal(error: ApiError, scope: Scope) -> Response:
    request_id = scope["state"]["request_id"]
    body = error.flat(request_id) if is_foreign(scope["path"]) else error.body(request_id)
    return Json(body, error.status, headers={**error.challenge, **error.headers})


def is_foreign(path: str) -> bool:
    """Whether it is another protocol's, whose clients read flat errors."""
    return path == "/" or path.startswith(OTHER_PROTOCOLS)


def as_api_error(error: Exception, request: Request) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        path = request.scope["path"]
        if error.status_code == 405:
            allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
            message = f"{path} takes {allowed}, not {request.method}."
            return MethodNotAllowed(message, code="method_not_allowed", headers={"Allow": allowed})
        if error.status_code == 404:
            return NotFound(f"There is nothing at {path}.", code="not_found")
        return BadRequest(str(error.detail), code="bad_request")
    return InternalError("The server failed on this request.", code="internal")
