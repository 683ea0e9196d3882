"""Writes what is derived from `crds/`: docs/api.md and the chart's copy of the CRDs. With --check it only says whether they are up to date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from winnow_operator.reasons import Reason

ROOT = Path(__file__).resolve().parents[1]
ORDER = ("modelservices", "datasets", "trainingjobs", "deployments")
CHART_COPY = Path("helm/winnow/files/crds")
HEADER = """# API reference: winnow.dev/v1alpha1

<!-- Written by docs/generate.py from crds/ and the operator's reasons: change those, then run `make generate`. -->

Four kinds, all namespaced; references are names in the same namespace. `kubectl get winnow` lists all four. Users write `spec`, the operator writes `status` and nothing else.
The kind `Deployment` exists in `apps/v1` too: say `deployments.winnow.dev` or `wdep` to kubectl.

In the tables, **required** means that the manifest must have the field where its parent is given; `[]` stands for each item of a list and `{}` for each value of a map.
"""

Schema = Mapping[str, Any]


def main(arguments: list[str]) -> int:
    """The exit status: 1 where --check finds a stale file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a file is stale")
    check: bool = parser.parse_args(arguments).check
    stale = [path for path, text in documents().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(ROOT)} is stale: run `make generate`", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(documents()[path])
            print(f"Wrote {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


def documents() -> dict[Path, str]:
    """Every generated file with its text."""
    sources = {plural: (ROOT / "crds" / f"{plural}.yaml").read_text() for plural in ORDER}
    copies = {ROOT / CHART_COPY / f"{plural}.yaml": text for plural, text in sources.items()}
    return {ROOT / "docs/api.md": reference([yaml.safe_load(text) for text in sources.values()]), **copies}


def reference(crds: list[dict[str, Any]]) -> str:
    parts = [HEADER, *(_kind(crd["spec"]) for crd in crds), _reasons()]
    return "\n".join(parts)


def _kind(spec: Schema) -> str:
    names, (version,) = spec["names"], spec["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    columns = [
        f"{column['name']}{' (wide)' if column.get('priority') else ''}"
        for column in version["additionalPrinterColumns"]
    ]
    lines = [
        f"## {names['kind']}",
        "",
        schema["description"],
        "",
        f"`kubectl get {names['plural']}.{spec['group']}`, short `{names['shortNames'][0]}`, shows: {', '.join(columns)}.",
        "",
        "### spec",
        "",
        *_table(schema["properties"]["spec"], with_default=True),
        "",
        "Rules, checked by the API server:",
        "",
        *(f"- {message}" for message in dict.fromkeys(_rules(schema))),
        "",
        "### status",
        "",
        *_table(schema["properties"]["status"], with_default=False),
        "",
    ]
    return "\n".join(lines)


def _table(schema: Schema, *, with_default: bool) -> list[str]:
    rows = [
        f"| `{path}` | {_type(field)} | {_default(field, required)} | {_cell(field['description'])} |"
        if with_default
        else f"| `{path}` | {_type(field)} | {_cell(field['description'])} |"
        for path, field, required in _fields(schema, "")
    ]
    if with_default:
        return ["| field | type | default | |", "|---|---|---|---|", *rows]
    return ["| field | type | |", "|---|---|---|", *rows]


def _fields(schema: Schema, path: str) -> Iterator[tuple[str, Schema, bool]]:
    """(path, schema, whether it is required) of everything below."""
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield here, field, name in required
        yield from _fields(field, here)
        if field.get("items", {}).get("properties"):
            yield from _fields(field["items"], f"{here}[]")


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    match schema["type"]:
        case "array":
            return f"list of {_plural(schema['items'])}, {_range(schema, 'Items')}"
        case "object" if "additionalProperties" in schema:
            return f"map to {_type(schema['additionalProperties'])}, at most {schema['maxProperties']}"
        case "string" if schema.get("format") == "date-time":
            return "time"
        case "string":
            return f"string, {_range(schema, 'Length')}"
        case "integer" | "number" as kind:
            return f"{kind}{_interval(schema)}"
        case kind:
            return str(kind)


def _plural(schema: Schema) -> str:
    return "objects" if schema.get("type") == "object" else _type(schema)


def _range(schema: Schema, what: str) -> str:
    low, high = schema.get(f"min{what}", 0), schema[f"max{what}"]
    unit = " characters" if what == "Length" else ""
    return f"{low} to {high}{unit}" if low else f"at most {high}{unit}"


def _interval(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above = f"{'above' if schema.get('exclusiveMinimum') else 'from'} {low}" if low is not None else ""
    below = f"{'below' if schema.get('exclusiveMaximum') else 'to'} {high}" if high is not None else ""
    bounds = " ".join(filter(None, (above, below)))
    return f", {bounds}" if bounds else ""


def _default(schema: Schema, required: bool) -> str:
    if required:
        return "**required**"
    default = schema.get("default")
    if default is None or default == {}:
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _rules(schema: Schema) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", []):
        yield rule["message"]
    for part in [*schema.get("properties", {}).values(), *filter(None, [schema.get("items")])]:
        yield from _rules(part)


def _reasons() -> str:
    lines = [
        "## Reasons",
        "",
        "Conditions and events carry one of these; a condition's message says more. Scripts may compare them.",
        "",
        "| reason | means |",
        "|---|---|",
        *(f"| `{reason}` | {_cell(reason.sentence)} |" for reason in sorted(Reason)),
        "",
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
