"""The trainer reads the same manifests as the cluster: its models have the CRDs' fields, defaults, choices and numeric bounds."""

from __future__ import annotations

from typing import Any

import pytest
from crd_schemas import crd_schema, fields, from_crd, of_type
from pydantic import BaseModel

from winnow_classifier import dataset_manifest
from winnow_classifier.metrics import HIGHER_IS_BETTER
from winnow_trainer import job

# Lengths of strings are the API server's business; a laptop has no etcd to protect.
COMPARED = {"type", "enum", "default", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}


def spec_of(kind: str) -> dict[str, Any]:
    return from_crd(crd_schema(kind)["properties"]["spec"])


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        pytest.param("TrainingJob", job.TrainingJob, id="TrainingJob"),
        pytest.param("Dataset", dataset_manifest.Dataset, id="Dataset"),
    ],
)
def test_a_manifest_has_the_fields_of_its_crd(kind: str, model: type[BaseModel]) -> None:
    assert of_type(model)["properties"]["spec"]["properties"].keys() == spec_of(kind)["properties"].keys()


def test_parameters_have_the_bounds_and_defaults_of_the_crd() -> None:
    declared = dict(fields(spec_of("TrainingJob")["properties"]["parameters"], "parameters"))
    read = dict(fields(of_type(job.Parameters), "parameters"))
    assert read.keys() == declared.keys()
    del read["parameters"], declared["parameters"]
    compared = {name: {key: value for key, value in field.items() if key in COMPARED} for name, field in read.items()}
    assert compared == {
        name: {key: value for key, value in field.items() if key in COMPARED} for name, field in declared.items()
    }


@pytest.mark.parametrize(
    ("kind", "model", "field"),
    [
        ("TrainingJob", job.TrainingJob, "taskType"),
        ("TrainingJob", job.TrainingJob, "method"),
        ("TrainingJob", job.TrainingJob, "promptTemplate"),
        ("Dataset", dataset_manifest.Dataset, "format"),
        ("Dataset", dataset_manifest.Dataset, "onInvalidRows"),
    ],
)
def test_choices_and_defaults_are_those_of_the_crd(kind: str, model: type[BaseModel], field: str) -> None:
    read, declared = of_type(model)["properties"]["spec"]["properties"][field], spec_of(kind)["properties"][field]
    assert read["default"] == declared["default"]
    assert set(read.get("enum", ())) == set(declared.get("enum", ()))


def test_the_metrics_that_a_manifest_may_name_are_those_that_are_computed() -> None:
    metrics = crd_schema("TrainingJob")["properties"]["spec"]["properties"]["metrics"]
    assert metrics["properties"]["functions"]["items"]["enum"] == list(HIGHER_IS_BETTER)
    listed = str(list(HIGHER_IS_BETTER))  # as CEL writes a list of strings, too
    assert [listed in rule["rule"] for rule in metrics["x-kubernetes-validations"]] == [True, False, True]
