"""A TrainingJob as the plugin finds it, and the batch Job that the operator made for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

GOLDEN = Path(__file__).parent / "operator" / "golden"
JOB: dict[str, Any] = {
    "apiVersion": "winnow.dev/v1alpha1",
    "kind": "TrainingJob",
    "metadata": {"name": "v1", "namespace": "ml", "uid": "0a1b2c3d-0000"},
    "spec": {"modelService": "mail"},
    "status": {"bestCheckpoint": "epoch-2", "checkpoints": [{"name": "epoch-1"}, {"name": "epoch-2"}]},
}


def batch_job(golden: str) -> dict[str, Any]:
    return next(each for each in yaml.safe_load_all((GOLDEN / f"{golden}.yaml").read_text()) if each["kind"] == "Job")
