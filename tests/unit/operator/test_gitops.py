"""examples/gitops: what Argo CD makes of our objects, and which fields Kustomize follows to other objects."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa import lua51  # of the Luas it has, the version that Argo CD runs
from operator_scene import condition, kstatus, model_service

ROOT = Path(__file__).parents[3]
GITOPS = ROOT / "examples" / "gitops"
HEALTH_OF = {"Current": "Healthy", "InProgress": "Progressing", "Failed": "Degraded"}


@pytest.fixture(scope="module")
def script() -> str:
    settings = yaml.safe_load((GITOPS / "argocd-cm.yaml").read_text())["data"]["resource.customizations"]
    return str(yaml.safe_load(settings)["winnow.dev/*"]["health.lua"])


def health(script: str, obj: dict[str, Any]) -> dict[str, Any]:
    lua = lua51.LuaRuntime()
    lua.globals().obj = lua.table_from(obj, recursive=True)
    return dict(lua.execute(script))


def test_argo_cd_sees_what_flux_sees(script: str) -> None:
    obj = model_service()
    for ready, stalled, reconciling, seen in product(["True", "False", None], [True, False], [True, False], [0, 1]):
        conditions = [condition("Ready", ready, "Reason", "as it is")] if ready else []
        conditions += [condition("Stalled", "True", "Reason", "it cannot")] if stalled else []
        conditions += [condition("Reconciling", "True", "Reason", "it works")] if reconciling else []
        status = {"observedGeneration": obj.metadata.generation - 1 + seen, "conditions": conditions}
        told = health(script, {"metadata": {"generation": obj.metadata.generation}, "status": status})
        assert told["status"] == HEALTH_OF[kstatus(obj, status)]
        if seen and (reconciling or stalled):
            assert told["message"] == ("it works" if reconciling else "it cannot")


@pytest.mark.parametrize(
    ("conditions", "status", "message"),
    [
        ([("Suspended", "True")], "Suspended", "Suspended it is"),
        ([("Running", "True"), ("Suspended", "False")], "Healthy", "Running it is"),
        ([("Running", "False"), ("Complete", "True")], "Healthy", "Complete it is"),
        ([("Failed", "True"), ("Stalled", "True")], "Degraded", "Stalled it is"),
    ],
)
def test_a_training_in_argo_cd(script: str, conditions: list[tuple[str, str]], status: str, message: str) -> None:
    told = [condition(type_, state, "Reason", f"{type_} it is") for type_, state in conditions]
    obj = {"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "conditions": told}}
    assert health(script, obj) == {"status": status, "message": message}


def test_what_nobody_has_looked_at_yet_is_progressing(script: str) -> None:
    assert health(script, {"metadata": {"generation": 1}})["status"] == "Progressing"


def test_kustomize_follows_every_field_that_names_an_object() -> None:
    listed = [
        (field["kind"], field["path"], target["kind"])
        for target in yaml.safe_load((GITOPS / "kustomizeconfig.yaml").read_text())["nameReference"]
        for field in target["fieldSpecs"]
    ]
    assert len(set(listed)) == len(listed)
    there = set()
    for path in ROOT.glob("crds/*.yaml"):
        crd = yaml.safe_load(path.read_text())
        spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        there |= {(crd["spec"]["names"]["kind"], *found) for found in references(spec, "spec")}
    assert set(listed) == there


def references(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Path of each field that names an object, and of which kind."""
    for name, field in schema.get("properties", {}).items():
        here = f"{path}/{name}"
        kind = NAMES.get(name)
        if kind and field["type"] == "string":
            yield here, kind
        elif kind and "name" in field.get("properties", {}):
            yield f"{here}/name", kind
        else:
            yield from references(field.get("items", field), here)


NAMES = {
    "modelService": "ModelService",
    "trainingJob": "TrainingJob",
    "trainingDataset": "Dataset",
    "testDataset": "Dataset",
    "validationDataset": "Dataset",
    "secretRef": "Secret",
    "tokenSecretRef": "Secret",
    "secretKeyRef": "Secret",
    "apiKeysSecretRef": "Secret",
    "tlsSecretName": "Secret",
    "configMap": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "claimName": "PersistentVolumeClaim",
    "serviceAccountName": "ServiceAccount",
}
