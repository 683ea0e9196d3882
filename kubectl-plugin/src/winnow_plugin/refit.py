"""Calibration and thresholds of a checkpoint fitted anew, by the trainer's own program in a pod that may write to storage."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from winnow_classifier.refit_options import RefitOptions
from winnow_plugin import refit_view, storage_access, storage_pod
from winnow_plugin.cluster import Place, connected
from winnow_plugin.errors import ClusterError
from winnow_plugin.objects import DEPLOYMENT, Object, name_of
from winnow_plugin.screen import show
from winnow_plugin.storage_access import Checkpoint, Training

HELP = "kubectl winnow refit --help"


@dataclass(frozen=True, slots=True)
class Wanted:
    job: str
    checkpoint: str  # or best
    options: RefitOptions
    as_json: bool


def refit(wanted: Wanted, place: Place) -> None:
    """Raises a WinnowError."""
    wanted.options.asked(HELP)  # what can be known to be wrong is said before a pod starts
    training, deployments = asyncio.run(_look(place, wanted.job))
    checkpoint = training.checkpoint(wanted.checkpoint)
    _refuse_one_that_goes(training.job, checkpoint)
    name = str(checkpoint["name"])
    with storage_access.opened(place, training, "refit") as pod:
        before = _before(pod.beside(name))
        with pod.running("refit", name, [*wanted.options.arguments(), "--json"]) as stream:
            fitted = stream.read()
        decision = json.loads(fitted)
        in_bucket = storage_pod.in_bucket(training.batch_job)
        served = refit_view.served_by(deployments, checkpoint, decision, in_bucket=in_bucket)
        # Told before the pod is deleted: whatever becomes of that, this is done.
        if wanted.as_json:
            print(fitted.decode(), end="", flush=True)
            print("\n".join(served), file=sys.stderr)
        else:
            show(*refit_view.told(wanted.job, name, decision, before))
            print("\n".join(["", *served]), flush=True)


async def _look(place: Place, name: str) -> tuple[Training, list[Object]]:
    async with connected(place) as cluster:
        training = await storage_access.look(cluster, name)
        deployments, _ = await cluster.list(DEPLOYMENT)
        return training, deployments


def _refuse_one_that_goes(job: Object, checkpoint: Checkpoint) -> None:
    if since := checkpoint.get("unneededSince"):
        raise ClusterError(
            f"checkpoint {checkpoint['name']} of TrainingJob {name_of(job)} is about to be removed from storage: since "
            f"{since} spec.retention of ModelService {job['spec']['modelService']} keeps others, and no Deployment needs it",
            hint="let a Deployment name it in spec.checkpoint, which keeps it, and fit it then",
        )


def _before(content: bytes | None) -> Mapping[str, Any]:
    """Empty where there was none, or one that somebody broke: it is about to be replaced."""
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
