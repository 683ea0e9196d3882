"""openapi.json: OpenAPI 3.1, from the table of endpoints and the pydantic models. Pure."""

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from winnow_server import answers
from winnow_server.access import is_open
from winnow_server.endpoints import JSON, OCTETS, Endpoint
from winnow_server.refusals import is_foreign

REFERENCE = "#/components/schemas/{model}"
PARAMETER = re.compile(r"\{(\w+)\}")
Model = type[BaseModel]


def document(endpoints: Iterable[Endpoint], *, title: str, version: str, open_to_all: bool) -> dict[str, Any]:
    """open_to_all: no API key is asked for."""
    listed = list(endpoints)
    schemas = Schemas(listed)
    paths: dict[str, Any] = {}
    for endpoint in listed:
        paths.setdefault(endpoint.template, {})[endpoint.method.lower()] = operation(endpoint, schemas, open_to_all)
    components: dict[str, Any] = {"schemas": schemas.definitions}
    if not open_to_all:
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {"title": title, "version": version},
        "servers": [{"url": "./"}],  # beside this document, whatever path leads here
        "tags": [{"name": group} for group in dict.fromkeys(endpoint.group for endpoint in listed)],
        "paths": paths,
        "components": components,
    }


class Schemas:
    """Every model once, by reference. Bodies as they may be sent, answers as they are sent."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        wanted: dict[tuple[Model, JsonSchemaMode], None] = {}
        for endpoint in endpoints:
            for model, mode in (
                (endpoint.body, "validation"),
                (endpoint.query, "validation"),
                (endpoint.answer, "serialization"),
            ):
                if model is not None:
                    wanted[model, mode] = None  # type: ignore[index]
        for model in (answers.ErrorAnswer, answers.FlatErrorAnswer):
            wanted[model, "serialization"] = None
        self._references, found = models_json_schema(
            list(wanted), ref_template=REFERENCE, schema_generator=WithoutTitles
        )
        self.definitions: dict[str, Any] = found.get("$defs", {})

    def of(self, model: Model, mode: JsonSchemaMode) -> dict[str, Any]:
        return self._references[model, mode]

    def resolved(self, model: Model, mode: JsonSchemaMode) -> dict[str, Any]:
        schema: dict[str, Any] = self.definitions[self.of(model, mode)["$ref"].rpartition("/")[2]]
        return schema


class WithoutTitles(GenerateJsonSchema):
    """A field's title would say its name again."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def operation(endpoint: Endpoint, schemas: Schemas, open_to_all: bool) -> dict[str, Any]:
    closed = not open_to_all and not is_open(endpoint.method, endpoint.path)
    found: dict[str, Any] = {
        "operationId": f"{endpoint.method.lower()} {endpoint.template}",
        "summary": endpoint.summary,
        "tags": [endpoint.group],
        "responses": {"200": success(endpoint, schemas)},
    }
    if endpoint.described:
        found["description"] = endpoint.described
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in PARAMETER.findall(endpoint.template)
    ]
    if endpoint.query:
        properties = schemas.resolved(endpoint.query, "validation")["properties"]
        parameters += [{"name": name, "in": "query", **as_written(schema)} for name, schema in properties.items()]
    if parameters:
        found["parameters"] = parameters
    if endpoint.body:
        content: dict[str, Any] = {endpoint.media_type: {"schema": schemas.of(endpoint.body, "validation")}}
        found["requestBody"] = {"required": True, "content": content | octets(endpoint)}
    shape = answers.FlatErrorAnswer if is_foreign(endpoint.path) else answers.ErrorAnswer
    for status in endpoint.errors:
        if status == 401 and not closed:
            continue
        found["responses"][str(status)] = {
            "description": MEANINGS[status],
            "content": {JSON: {"schema": schemas.of(shape, "serialization")}},
            **({"headers": HEADERS[status]} if status in HEADERS else {}),
        }
    if endpoint.unwell:
        found["responses"]["503"] = {**found["responses"]["200"], "description": "Otherwise"}
    if closed:
        found["security"] = [{"bearer": []}, {"header": []}]
    return found


def as_written(schema: dict[str, Any]) -> dict[str, Any]:
    """Of a parameter. What may be an object is JSON: by itself OpenAPI would make a parameter of each of its fields."""
    is_json = any(one.get("type") == "object" for one in schema.get("anyOf", ()))
    return {"content": {JSON: {"schema": schema}}} if is_json else {"schema": schema}


def success(endpoint: Endpoint, schemas: Schemas) -> dict[str, Any]:
    if endpoint.answer is None:
        return {"description": "Text", "content": {endpoint.media_type: {"schema": {"type": "string"}}}}
    content: dict[str, Any] = {endpoint.media_type: {"schema": schemas.of(endpoint.answer, "serialization")}}
    headers = {"headers": TRUNCATED} if endpoint.body and endpoint.media_type == JSON else {}
    return {"description": "OK", "content": content | octets(endpoint), **headers}


def octets(endpoint: Endpoint) -> dict[str, Any]:
    return {OCTETS: {"schema": {"type": "string", "format": "binary"}}} if endpoint.binary else {}


MEANINGS = {
    400: "Not JSON, or not readable as a request",
    401: "No API key, or one that is not known",
    404: "No such path, or a model that is not served here",
    405: "The path is for another method",
    408: "The body did not arrive in time",
    413: "The body or the request is too large",
    415: "The body is compressed",
    422: "A field that is missing, unknown or out of bounds; a text that is empty or too long",
    429: "The queue is full; Retry-After says when it will have run",
    500: "A defect, or a result that is not a number",
    503: "The model loads, or the server stops",
    504: "The request took longer than one may take",
}
TRUNCATED = {
    "X-Winnow-Truncated": {
        "description": "Of texts that were cut: index:tokens/read, the first 32 of them, then how many more.",
        "schema": {"type": "string"},
        "example": "0:600/512,3:700/512",
    }
}
_INTEGER = {"schema": {"type": "integer"}}
HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    405: {"Allow": {"schema": {"type": "string"}}},
    429: {"Retry-After": {"description": "Seconds.", **_INTEGER}},
    503: {"Retry-After": {"description": "Seconds.", **_INTEGER}},
}
