"""The trackers that a job asks for, beside the event files that every run has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from winnow_classifier.addresses import Network
from winnow_trainer.mlflow_api import MlflowApi
from winnow_trainer.mlflow_tracker import MlflowTracker
from winnow_trainer.prepare import Prepared
from winnow_trainer.recorder import Tracker
from winnow_trainer.run_folder import RunFolder
from winnow_trainer.wandb_tracker import WandbRun, WandbTracker

Track = Callable[[Prepared, RunFolder], Sequence[Tracker]]


def no_trackers(prepared: Prepared, folder: RunFolder) -> Sequence[Tracker]:
    return ()


def trackers(networks: Sequence[Network], environ: Mapping[str, str]) -> Track:
    """`networks` may be connected to beside public addresses; `environ` has the keys."""

    def track(prepared: Prepared, folder: RunFolder) -> Sequence[Tracker]:
        tracking = prepared.job.spec.tracking
        name, told = folder.path.name, params(prepared)
        found: list[Tracker] = []
        if tracking and (mlflow := tracking.mlflow):
            api = MlflowApi(mlflow.tracking_uri, environ, networks)
            memory = folder.path / "mlflow.json"
            found.append(MlflowTracker(api, mlflow.experiment, name, told, memory, folder.mirror))
        if tracking and (wandb := tracking.wandb):
            run = WandbRun(wandb.base_url, wandb.project, wandb.entity, name, told)
            found.append(WandbTracker(run, folder.path / "wandb.json", environ, networks, folder.mirror))
        return found

    return track


def params(prepared: Prepared) -> dict[str, str]:
    """What was trained, flat: the names of the manifest."""
    spec = prepared.job.spec
    given: dict[str, Any] = {
        "method": spec.method,
        "baseModel": prepared.base_model.digest,
        "trainingDataset": prepared.data.train.digest,
        "trainingRows": len(prepared.rows),
        **prepared.parameters.model_dump(by_alias=True, exclude_none=True),
    }
    return {name: str(value) for name, value in given.items()}
