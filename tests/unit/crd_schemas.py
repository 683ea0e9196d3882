"""The schemas of `crds/*.yaml` and of pydantic models in one form, so that tests can hold them against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

FOLDER = Path(__file__).parents[2] / "crds"
CRDS = {
    crd["spec"]["names"]["kind"]: crd
    for crd in (yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml")))
}
# What only one of the two can say: prose, Kubernetes' list semantics and CEL on one side, names of classes on the other.
UNCOMPARED = {
    "description",
    "title",
    "x-kubernetes-validations",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
}


def crd_schema(kind: str) -> dict[str, Any]:
    (version,) = CRDS[kind]["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def from_crd(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema in the common form."""
    plain = {key: value for key, value in schema.items() if key not in UNCOMPARED}
    if plain.get("format") in ("int32", "int64"):
        del plain["format"]
    for bound in ("minimum", "maximum"):
        if plain.pop(f"exclusive{bound.capitalize()}", False):
            plain[f"exclusive{bound.capitalize()}"] = plain.pop(bound)
    if plain.pop("x-kubernetes-int-or-string", False):
        text = {key: plain.pop(key) for key in ("maxLength", "pattern") if key in plain}
        plain["anyOf"] = [part | text if part["type"] == "string" else part for part in plain["anyOf"]]
    return descend(plain, from_crd)


def from_pydantic(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema in the common form: references resolved, an optional field being one that is not required."""
    plain = {key: value for key, value in schema.items() if key not in UNCOMPARED | {"$defs"}}
    if "$ref" in plain:
        referred = definitions[plain.pop("$ref").removeprefix("#/$defs/")]
        return from_pydantic(referred | plain, definitions)
    if "anyOf" in plain:
        choices = [choice for choice in plain["anyOf"] if choice != {"type": "null"}]
        if len(choices) == 1:
            rest = {
                key: value
                for key, value in plain.items()
                if key != "anyOf" and not (key == "default" and value is None)
            }
            return from_pydantic(choices[0] | rest, definitions)
        if len(choices) < len(plain["anyOf"]):
            plain["anyOf"] = choices
            if plain.get("default", "") is None:
                del plain["default"]
    if "const" in plain:
        plain["enum"] = [plain.pop("const")]
    if isinstance(plain.get("additionalProperties"), bool):
        del plain["additionalProperties"]  # the API server prunes what it does not know
    if plain.get("type") == "object" and "default" in plain:
        plain["default"] = {}  # written out by pydantic, with the defaults of its fields, which are compared one by one
    return descend(plain, lambda part: from_pydantic(part, definitions))


def descend(schema: dict[str, Any], convert: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    if "properties" in schema:
        schema["properties"] = {name: convert(part) for name, part in schema["properties"].items()}
        schema["required"] = sorted(schema.get("required", []))
        schema.pop("minProperties", None)
    for key in ("items", "additionalProperties"):
        if key in schema:
            schema[key] = convert(schema[key])
    return schema


def of_type(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return from_pydantic(schema, schema.get("$defs", {}))


def fields(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field with its path, the schema itself first."""
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from fields(part, f"{path}.{name}")
    if "items" in schema:
        yield from fields(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from fields(schema["additionalProperties"], f"{path}{{}}")


def alone(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without those of its children."""
    return {key: value for key, value in schema.items() if key not in ("properties", "items", "additionalProperties")}
