"""Which checkpoint does a TrainingJob go on from, and which jobs go on from whose checkpoints? Pure."""

from __future__ import annotations

from collections.abc import Iterable

from winnow_operator import api
from winnow_operator.build.rollout_memory import Memory
from winnow_operator.build.served import Served
from winnow_operator.build.training_job import adapter_base, run_name
from winnow_operator.observed import TrainingJobSeen
from winnow_operator.policies import retention
from winnow_operator.policies.checkpoint import Missing, chosen
from winnow_operator.reasons import Reason
from winnow_operator.resources import Object

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


def bases(jobs: Iterable[api.TrainingJob], servers: Iterable[Object]) -> frozenset[str]:
    """Where the checkpoints lie that adapters stand on, as retention.folder has it: under what trainings go on from, and
    under what apps/v1 Deployments serve or would go back to. These outlive the TrainingJob of the adapter."""
    came = (job.status.continued_from for job in jobs)
    served = (one for server in servers for one in (Served.of(server), Memory.of(server).fallback) if one)
    stood_on = [
        *(one.adapter_base for one in came if one),
        *(one.base_model for one in served),
    ]
    return frozenset(f"{one.stored.run}/{one.stored.checkpoint}" for one in stood_on if one and one.stored)


def needed(jobs: Iterable[api.TrainingJob], job: api.TrainingJob, bases: frozenset[str]) -> frozenset[str]:
    """The checkpoints of `job` that retention must spare."""
    stood_on = {one.name for one in job.status.checkpoints or () if retention.folder(job, one.name) in bases}
    return frozenset(continued_by(jobs, job.metadata.name)) | stood_on
