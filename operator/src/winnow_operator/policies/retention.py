"""Which checkpoints of an ended TrainingJob stay in storage. Pure.

A checkpoint that nothing keeps is marked with the time in the status of its job; the ModelService's collection removes it no
earlier than a while after, unless a Deployment has come to need it, and only then it counts as removed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from winnow_operator import api
from winnow_operator.build.training_job import run_name
from winnow_operator.conditions import timestamp
from winnow_operator.policies import in_use
from winnow_operator.resources import Object


def used(deployments: Iterable[api.Deployment], job_name: str) -> frozenset[str]:
    """Checkpoints of the job that Deployments name, serve, are to serve, or served last: a rollback is one field."""
    found = set()
    for deployment in deployments:
        wanted = deployment.spec.checkpoint
        if wanted and wanted.training_job == job_name:
            found.add(wanted.name)
        found |= {one.checkpoint for one in in_use.checkpoints(deployment.status) if one.training_job == job_name}
    return frozenset(found)


def folder(job: api.TrainingJob, checkpoint: str) -> str:
    """Its place in storage, below runs/ and without the folder between."""
    return f"{run_name(job)}/{checkpoint}"


def marked(
    checkpoints: list[Object],
    job: api.TrainingJob,
    service: api.ModelService | None,
    now: datetime,
    in_use: frozenset[str],
) -> list[Object]:
    """status.checkpoints of an ended job with its marks: unneededSince, removed."""  # fmt: skip
    wanted = service.spec.retention if service else None
    collected = service.status.collected if service else None
    gone = frozenset(collected.checkpoints or ()) if collected else frozenset()
    keep = kept(checkpoints, job.status, wanted.checkpoints_per_job) | in_use if wanted else None
    found = []
    for checkpoint in checkpoints:
        name = checkpoint["name"]
        fields = {key: value for key, value in checkpoint.items() if key not in ("unneededSince", "removed")}
        since = checkpoint.get("unneededSince")
        if checkpoint.get("removed") or folder(job, name) in gone:
            fields["removed"] = True  # also where something came to need it when its removal had begun
        elif keep is not None and name not in keep:
            fields["unneededSince"] = since or timestamp(now)
        found.append(fields)
    return found


def kept(checkpoints: list[Object], status: api.TrainingJobStatus, count: int) -> frozenset[str]:
    """The checkpoints that stay, at most as many as retention says: the best by the primary metric on the rows that
    choose, of equal ones the earlier; then those without a value, the latest first. The best checkpoint is always among
    them."""
    field = "validationMetrics" if status.selected_on == "Validation" else "metrics"
    sign = 1 if status.higher_is_better is False else -1

    def order(checkpoint: Object) -> tuple[bool, bool, float, int]:
        value = checkpoint.get(field, {}).get(status.primary_metric)
        epoch = int(checkpoint.get("epoch", 0))
        best = checkpoint["name"] == status.best_checkpoint
        return (not best, True, 0.0, -epoch) if value is None else (not best, False, sign * value, epoch)

    there = sorted((checkpoint for checkpoint in checkpoints if not checkpoint.get("removed")), key=order)
    return frozenset(checkpoint["name"] for checkpoint in there[:count])
