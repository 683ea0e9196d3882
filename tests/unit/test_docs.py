"""The docs say what is there: manifests that the CRDs accept, links that lead somewhere, make targets that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from winnow_operator.reasons import Reason

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("cluster/*.md")])
EXAMPLES = sorted(ROOT.glob("examples/*/*.yaml"))
API_VERSION = "winnow.dev/v1alpha1"
KINDS = {"ModelService", "Dataset", "TrainingJob", "Deployment"}

FENCED = re.compile(r"^```(?:yaml|yml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
MAKE = re.compile(r"(?:^|`|&& |time )make ([a-z][a-z0-9 -]*)", re.MULTILINE)
# YAML 1.1 takes 2e-4 for a string; kubectl's parser, like YAML 1.2, takes it for a number.
FRACTION = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def manifests(path: Path) -> Iterator[dict[str, Any]]:
    """What a user would give to kubectl: the page's YAML blocks, or the whole file."""
    text = path.read_text(encoding="utf-8")
    for block in [text] if path.suffix == ".yaml" else FENCED.findall(text):
        for document in yaml.load_all(block, KubernetesLoader):
            if isinstance(document, dict) and document.get("apiVersion") == API_VERSION:
                yield document


class KubernetesLoader(yaml.SafeLoader):
    """With the numbers that Kubernetes' YAML knows."""


KubernetesLoader.add_implicit_resolver("tag:yaml.org,2002:float", FRACTION, list("-+0123456789"))


@cache
def crd_schemas() -> dict[str, dict[str, Any]]:
    crds = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in ROOT.glob("crds/*.yaml")]
    return {
        crd["spec"]["names"]["kind"]: closed(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]) for crd in crds
    }


def closed(schema: Any) -> Any:
    """The schema in JSON Schema's words, and with unknown fields refused, which the API server would drop."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: closed(value) for key, value in schema.items() if not key.startswith("x-kubernetes")}
    for bound in ("minimum", "maximum"):
        if plain.pop(f"exclusive{bound.capitalize()}", None) is True:
            plain[f"exclusive{bound.capitalize()}"] = plain.pop(bound)
    if "properties" in plain and "additionalProperties" not in plain:
        plain["additionalProperties"] = False
    return plain


def anchors(path: Path) -> set[str]:
    """As GitHub and most others make them from headings."""
    headings = HEADING.findall(CODE.sub("", path.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*PAGES, *EXAMPLES], ids=named)
def test_manifests_are_what_the_crds_take(path: Path) -> None:
    schemas = crd_schemas()
    for manifest in manifests(path):
        schema = schemas[manifest["kind"]]
        top = {**schema["properties"], "metadata": {"type": "object", "required": ["name"]}}
        found = Draft202012Validator({**schema, "properties": top}).iter_errors(manifest)
        complaints = [f"{manifest['kind']} {error.json_path}: {error.message}" for error in found]
        assert not complaints


def test_a_misspelt_field_would_be_noticed() -> None:
    manifest = {"apiVersion": API_VERSION, "kind": "Deployment", "spec": {"modelServise": "a", "checkpoint": {}}}
    found = {error.message for error in Draft202012Validator(crd_schemas()["Deployment"]).iter_errors(manifest)}
    assert any("'modelServise' was unexpected" in message for message in found)
    assert any("'trainingJob' is a required property" in message for message in found)


def test_the_readme_and_each_example_show_all_four_kinds() -> None:
    for path in (ROOT / "README.md", *ROOT.glob("examples/*/winnow.yaml")):
        assert {manifest["kind"] for manifest in manifests(path)} == KINDS, named(path)


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_local_links_lead_somewhere(path: Path) -> None:
    for target in LINK.findall(CODE.sub("", path.read_text(encoding="utf-8"))):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name).resolve() if name else path
        assert page.exists(), f"{named(path)} links to {target}"
        if anchor:
            assert anchor in anchors(page), (
                f"{named(path)} links to {target}; {named(page)} has {sorted(anchors(page))}"
            )


def test_make_targets_that_the_docs_name_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", makefile, re.MULTILINE))
    named_in_docs = {
        (target, named(path))
        for path in PAGES
        for code in CODE.findall(path.read_text(encoding="utf-8"))
        for words in MAKE.findall(code)
        for target in words.split()
    }
    assert {target for target, _ in named_in_docs} >= {"demo", "install", "cluster-down", "uninstall", "test"}
    assert not [found for found in named_in_docs if found[0] not in targets]


def test_troubleshooting_knows_every_reason_and_no_other() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    first_cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    known = {reason for cell in first_cells for reason in re.findall(r"`(\w+)`", cell)}
    warnings = {"LabelsAlike", "FewExamples", "ConflictingLabels", "NearlyMulticlass", "NoTokenLengths"}
    assert known - warnings == {str(reason) for reason in Reason}


def test_a_learning_rate_in_yaml_is_a_number() -> None:
    assert yaml.load("[2e-4, 1.5e-4, 20Gi]", KubernetesLoader) == [2e-4, 1.5e-4, "20Gi"]
