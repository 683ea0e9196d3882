"""The Job that removes from storage what deleted Datasets left there, and checkpoints that retention does not keep."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter

from winnow_operator import api
from winnow_operator.build import common
from winnow_operator.resources import GROUP, Object

CONTAINER = "collector"
ATTEMPTS = 3
DEADLINE_SECONDS = 600  # imports wait for it, so it may not take for ever
# A failed one stays for people to look at, and keeps the next from being made: so it is tried again once an hour.
KEPT_SECONDS = 3_600
_LEFT = f"{GROUP}/left-by"
_CHECKPOINTS = f"{GROUP}/checkpoints"


@dataclass(frozen=True, slots=True, order=True)
class Left:
    """What a Dataset left in storage."""

    dataset: str
    digest: str  # empty: its import never succeeded
    rows: bool = False  # whether the rows go: another Dataset may have the same ones
    problems: bool = False  # whether imports/<dataset> goes: another Dataset may have the same name


def collect_job(
    service: api.ModelService,
    left: tuple[Left, ...],
    before: datetime,
    image: str,
    networks: tuple[str, ...] = (),
    checkpoints: tuple[str, ...] = (),
) -> Object:
    """`checkpoints`: RUN/CHECKPOINT of those that retention does not keep. `before`: rows that an import stored or found
    again since then stay, whatever is asked for here."""
    storage = common.storage(service, networks)
    command = ["python", "-m", "winnow_trainer", "collect", "--storage", storage.reference, *storage.arguments]
    command += ["--before", before.strftime("%Y-%m-%dT%H:%M:%SZ")]
    for digest in sorted({one.digest for one in left if one.rows}):
        command += ["--remove", digest]
    for dataset in sorted({one.dataset for one in left if one.problems}):
        command += ["--remove-problems-of", dataset]
    for checkpoint in checkpoints:
        command += ["--remove-checkpoint", checkpoint]
    command += ["--termination-log", common.TERMINATION_LOG]
    container = common.container(
        CONTAINER,
        image,
        command,
        env=[*storage.env],
        mounts=[storage.mount],
        resources={"requests": {"cpu": "50m", "memory": "128Mi"}},
    )
    metadata = common.metadata(service, f"{service.metadata.name}-collect"[:54])
    names = json.dumps([[one.dataset, one.digest] for one in left], separators=(",", ":"))
    also = {_CHECKPOINTS: json.dumps(checkpoints, separators=(",", ":"))} if checkpoints else {}
    return common.batch_job(
        {**metadata, "annotations": {_LEFT: names, **also}},
        common.labels(service),
        common.pod_spec(container, [storage.volume], {}, grace_seconds=30),
        common.failure_policy(CONTAINER),
        backoffLimit=ATTEMPTS - 1,
        activeDeadlineSeconds=DEADLINE_SECONDS,
        ttlSecondsAfterFinished=KEPT_SECONDS,
    )


def left_by(job: Object) -> tuple[tuple[str, str], ...]:
    """(dataset, digest or empty) of those that a collect Job cleans up after."""
    return common.noted(job, _LEFT, _PAIRS, ())


def checkpoints_of(job: Object) -> tuple[str, ...]:
    """RUN/CHECKPOINT of those that a collect Job removes."""
    return common.noted(job, _CHECKPOINTS, _NAMES, ())


_PAIRS = TypeAdapter(tuple[tuple[str, str], ...])
_NAMES = TypeAdapter(tuple[str, ...])
