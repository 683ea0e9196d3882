"""The pydantic types and `crds/*.yaml` say the same: fields, types, what is required, defaults, enums and bounds, in both directions."""

from __future__ import annotations

import json

import pytest
from crd_schemas import CRDS, alone, crd_schema, fields, from_crd, of_type
from pydantic import BaseModel, TypeAdapter

from winnow_operator import api, resources

PARTS = [pytest.param(kind, part, id=f"{kind}.{part}") for kind in api.KINDS for part in ("spec", "status")]

CRD_BYTES = 200_000  # a client-side apply keeps a copy in an annotation of at most 262,144 bytes


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
    (ours,) = [resource for resource in resources.KINDS if resource.kind == kind]
    assert (names["plural"], names["shortNames"], names["categories"]) == (ours.plural, [short], ["winnow"])
    assert CRDS[kind]["metadata"]["name"] == f"{ours.plural}.{ours.group}"
    assert version["name"] == ours.version
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
