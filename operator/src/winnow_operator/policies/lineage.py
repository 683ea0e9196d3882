"""Which checkpoint does a TrainingJob go on from, and which jobs go on from whose checkpoints? Pure."""

from __future__ import annotations

from collections.abc import Iterable

from winnow_operator import api
from winnow_operator.build.training_job import adapter_base, run_name
from winnow_operator.observed import TrainingJobSeen
from winnow_operator.policies.checkpoint import Missing, chosen
from winnow_operator.reasons import Reason

SHOWN = 100  # as the CRD has it


def parent(seen: TrainingJobSeen) -> api.ContinuedFrom | Missing | None:
    """None where the job starts from a base model. What a run began with stays, whatever becomes of the other job."""
    wanted = seen.obj.spec.base_model.checkpoint if seen.obj.spec.base_model else None
    if wanted is None or seen.service is None:
        return None
    begun = bool(seen.jobs) or seen.obj.status.start_time is not None
    if begun and seen.obj.status.continued_from is not None:
        return seen.obj.status.continued_from
    job, name = seen.parent, wanted.training_job
    if name == seen.obj.metadata.name:
        return Missing(
            Reason.CHECKPOINT_NOT_FOUND, "baseModel.checkpoint names this job itself; name another", final=True
        )
    if job is None:
        return Missing(
            Reason.TRAINING_JOB_NOT_FOUND, f"baseModel.checkpoint: TrainingJob {name} does not exist in this namespace"
        )
    own = seen.obj.spec.model_service
    if job.spec.model_service != own:
        message = f"baseModel.checkpoint: TrainingJob {name} belongs to ModelService {job.spec.model_service}, this job to {own}"
        return Missing(Reason.TRAINING_JOB_OF_ANOTHER_MODEL_SERVICE, message, final=True)
    if job.status.completion_time is None:
        message = f"baseModel.checkpoint: TrainingJob {name} has not ended ({job.status.summary or 'not started'})"
        return Missing(Reason.CHECKPOINT_NOT_READY, message)
    found = chosen(job, wanted.name)
    if isinstance(found, Missing):
        return Missing(found.reason, f"baseModel.checkpoint: {found.message}", found.final)
    return api.ContinuedFrom(
        training_job=name,
        checkpoint=found.name,
        digest=found.digest or "",
        run=run_name(job),
        adapter_base=adapter_base(job, seen.service),
    )


def continued_by(jobs: Iterable[api.TrainingJob], name: str) -> dict[str, list[str]]:
    """Who goes on from each checkpoint of the TrainingJob `name`, by checkpoint: these are kept while such a job is there."""
    users: dict[str, list[str]] = {}
    for job in sorted(jobs, key=lambda job: job.metadata.name):
        came = job.status.continued_from
        if came and came.training_job == name:
            users.setdefault(came.checkpoint, []).append(job.metadata.name)
    return {checkpoint: names[:SHOWN] for checkpoint, names in users.items()}


def needed(jobs: Iterable[api.TrainingJob], name: str) -> frozenset[str]:
    """The checkpoints of the TrainingJob `name` that retention must spare."""
    return frozenset(continued_by(jobs, name))
