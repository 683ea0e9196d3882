"""The pydantic types and `crds/*.yaml` say the same: fields, types, what is required, defaults, enums and bounds, in both directions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter

from winnow_operator import api

FOLDER = Path(__file__).parents[3] / "crds"
CRDS = {
    crd["spec"]["names"]["kind"]: crd
    for crd in (yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml")))
}
PARTS = [pytest.param(kind, part, id=f"{kind}.{part}") for kind in api.KINDS for part in ("spec", "status")]

# What only one of the two can say: prose, Kubernetes' list semantics and CEL on one side, names of classes on the other.
UNCOMPARED = {
    "description",
    "title",
    "x-kubernetes-validations",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
}
CRD_BYTES = 200_000  # a client-side apply keeps a copy in an annotation of at most 262,144 bytes


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
    if "const" in plain:
        plain["enum"] = [plain.pop("const")]
    if plain.get("additionalProperties") is False:
        del plain["additionalProperties"]  # the API server prunes what it does not know
    if plain.get("type") == "object" and "default" in plain:
        plain["default"] = {}  # written out by pydantic, with the defaults of its fields, which are compared one by one
    return descend(plain, lambda part: from_pydantic(part, definitions))


def descend(schema: dict[str, Any], convert: Any) -> dict[str, Any]:
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


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_types_and_crd_agree_on_every_field(kind: str, part: str) -> None:
    model = api.KINDS[kind].model_fields[part].annotation
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    typed, declared = (
        dict(fields(of_type(model), part)),
        dict(fields(from_crd(crd_schema(kind)["properties"][part]), part)),
    )
    assert typed.keys() == declared.keys()
    assert {path: alone(schema) for path, schema in typed.items()} == {
        path: alone(schema) for path, schema in declared.items()
    }


@pytest.mark.parametrize("kind", api.KINDS)
def test_every_field_of_a_crd_is_described_and_bounded(kind: str) -> None:
    unbounded = []
    for path, schema in fields(crd_schema(kind), kind):
        if path.removeprefix(f"{kind}.") in ("apiVersion", "kind", "metadata"):
            continue
        assert schema["description"].endswith("."), path
        assert "x-kubernetes-preserve-unknown-fields" not in schema, path
        is_bounded = {
            "string": "maxLength" in schema or "enum" in schema or schema.get("format") == "date-time",
            "array": "maxItems" in schema and "x-kubernetes-list-type" in schema,
            "object": "properties" in schema or "maxProperties" in schema,
        }.get(schema.get("type", ""), True)
        if not is_bounded:
            unbounded.append(path)
        if path.startswith(f"{kind}.spec") and schema.get("type") in ("integer", "number"):
            assert {"minimum", "maximum"} <= schema.keys(), path
    assert unbounded == []


@pytest.mark.parametrize("kind", api.KINDS)
def test_a_crd_is_small_enough_for_client_side_apply(kind: str) -> None:
    assert len(json.dumps(CRDS[kind])) < CRD_BYTES


@pytest.mark.parametrize("kind", api.KINDS)
def test_a_crd_has_the_names_and_subresources_of_the_contract(kind: str) -> None:
    names = CRDS[kind]["spec"]["names"]
    (version,) = CRDS[kind]["spec"]["versions"]
    short = {"ModelService": "ms", "Dataset": "wds", "TrainingJob": "tj", "Deployment": "wdep"}[kind]
    assert (names["plural"], names["shortNames"], names["categories"]) == (api.PLURALS[kind], [short], ["winnow"])
    assert CRDS[kind]["metadata"]["name"] == f"{api.PLURALS[kind]}.{api.GROUP}"
    assert version["name"] == api.VERSION
    assert ("scale" in version["subresources"]) == (kind == "Deployment")
    assert version["additionalPrinterColumns"][-1]["name"] == "Age"


def test_the_immutability_rule_names_every_field_that_must_not_change() -> None:
    spec = crd_schema("TrainingJob")["properties"]["spec"]
    rule = spec["x-kubernetes-validations"][0]["rule"]
    mutable = {"suspend", "activeDeadlineSeconds", "ttlSecondsAfterFinished"}
    guarded = {name for name in spec["properties"] if f"self.{name} == oldSelf.{name}" in rule}
    assert guarded == spec["properties"].keys() - mutable
    always_there = {name for name, field in spec["properties"].items() if "default" in field} | set(spec["required"])
    assert {name for name in guarded if f"has(self.{name}) == has(oldSelf.{name})" in rule} == guarded - always_there


def test_an_object_of_the_api_server_becomes_a_typed_value_and_its_status_goes_back_unchanged() -> None:
    status = {
        "observedGeneration": 1,
        "startTime": "2026-01-02T03:04:05Z",
        "progress": {"percent": 41.5, "epoch": 2, "totalEpochs": 3},
        "epochs": [{"epoch": 1, "checkpoint": "epoch-1", "metrics": {"f1": 0.95}}],
        "conditions": [
            {
                "type": "Running",
                "status": "True",
                "reason": "Training",
                "message": "m",
                "lastTransitionTime": "2026-01-02T03:04:05Z",
            }
        ],
    }
    raw = {
        "apiVersion": "winnow.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "spam-v1", "namespace": "ml", "uid": "u", "generation": 1, "managedFields": [{}]},
        "spec": {"modelService": "spam", "trainingDataset": "rows", "parameters": {"learningRate": 2e-4}},
        "status": status,
    }
    job = api.parse(raw)
    assert isinstance(job, api.TrainingJob)
    assert job.spec.parameters.learning_rate == 2e-4
    assert job.spec.parameters.num_train_epochs == 5
    assert job.status.is_true("Running")
    assert api.to_raw(job.status) == status


def test_an_unknown_field_in_a_spec_is_refused_and_one_in_a_status_is_ignored() -> None:
    metadata = {"name": "spam"}
    spec = {"modelService": "spam", "checkpoint": {"trainingJob": "v1"}}
    newer = {"kind": "Deployment", "metadata": metadata, "spec": spec, "status": {"notYet": 1}}
    assert TypeAdapter(api.Deployment).validate_python(newer).status == api.DeploymentStatus()
    with pytest.raises(ValueError, match="Extra inputs"):
        api.parse({"kind": "Deployment", "metadata": metadata, "spec": spec | {"replica": 1}})
