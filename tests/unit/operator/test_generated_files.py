"""docs/api.md and the chart's copy of the CRDs say what `crds/` says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from winnow_operator.reasons import Reason

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, str(ROOT / "docs" / "generate.py")]


def test_generated_files_are_up_to_date() -> None:
    done = subprocess.run([*COMMAND, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_reference_has_every_field_of_every_spec_and_every_reason() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    for path in (ROOT / "crds").glob("*.yaml"):
        schema = yaml.safe_load(path.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        missing = [name for name in schema["properties"]["spec"]["properties"] if f"| `{name}` |" not in text]
        assert missing == [], path.name
    assert [reason for reason in Reason if f"| `{reason}` |" not in text] == []
