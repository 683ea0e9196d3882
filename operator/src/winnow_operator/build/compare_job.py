"""The Job that measures a candidate for the gate, beside the live checkpoint: the operator itself cannot read storage."""

from __future__ import annotations

from dataclasses import dataclass

from winnow_operator import api
from winnow_operator.build import common
from winnow_operator.build.served import Served
from winnow_operator.plan import Config
from winnow_operator.resources import GROUP, Object

CONTAINER = "compare"
ATTEMPTS = 3
DEADLINE_SECONDS = 3_600
# One that failed for a reason that may pass stays for people to look at, and keeps the next from being made: so it is tried
# again once an hour.
KEPT_SECONDS = 3_600
# Not the kind of the server's pods: the Service would send requests to it.
POD_KIND = "DeploymentGate"


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the gate wants to know."""

    candidate: Served
    values: tuple[tuple[str, str | None], ...]  # (metric, label)
    live: Served | None = None  # what to compare with
    metric: str | None = None  # by what; None: as the candidate's job was judged


def compare_job(deployment: api.Deployment, service: api.ModelService, wanted: Measurement, config: Config) -> Object:
    storage = common.storage(service, config.fetch.allowed_networks, read_only=True)
    command = ["python", "-m", "winnow_trainer", "compare", "--storage", storage.reference, *storage.arguments]
    command += ["--candidate", wanted.candidate.folder, "--candidate-digest", wanted.candidate.digest]
    if wanted.live:
        command += ["--live", wanted.live.folder, "--live-digest", wanted.live.digest]
        command += ["--metric", wanted.metric] if wanted.metric else []
    for metric, label in wanted.values:
        command += ["--value", metric if label is None else f"{metric}[{label}]"]
    command += ["--termination-log", common.TERMINATION_LOG]
    container = common.container(
        CONTAINER,
        config.trainer_image,
        command,
        env=[*storage.env],
        mounts=[storage.mount],
        resources={"requests": {"cpu": "100m", "memory": "256Mi"}},
    )
    return common.batch_job(
        common.metadata(deployment, f"{deployment.metadata.name}-gate"[:54]),
        {**common.labels(deployment), f"{GROUP}/kind": POD_KIND},
        common.pod_spec(container, [storage.volume], {}, grace_seconds=30),
        common.failure_policy(CONTAINER),
        backoffLimit=ATTEMPTS - 1,
        activeDeadlineSeconds=DEADLINE_SECONDS,
        ttlSecondsAfterFinished=KEPT_SECONDS,
    )
