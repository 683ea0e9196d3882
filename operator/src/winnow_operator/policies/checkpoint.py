"""Which checkpoint does a Deployment mean, and can it be served? The first check that speaks gives the reason."""

from __future__ import annotations

from dataclasses import dataclass

from winnow_operator import api
from winnow_operator.build.server_deployment import Served
from winnow_operator.build.training_job import base_model_source, run_name
from winnow_operator.observed import DeploymentSeen
from winnow_operator.reasons import Reason

BEST = "best"


@dataclass(frozen=True, slots=True)
class Missing:
    reason: Reason
    message: str
    final: bool = False  # waiting does not help: something has to be changed


def resolve(seen: DeploymentSeen) -> Served | Missing:
    """The checkpoint to serve, or why there is none."""
    spec = seen.obj.spec
    service, job = seen.service, seen.training_job
    if service is None:
        message = f"ModelService {spec.model_service} does not exist in this namespace"
        return Missing(Reason.MODEL_SERVICE_NOT_FOUND, message)
    if job is None:
        return _recorded(seen) or Missing(
            Reason.TRAINING_JOB_NOT_FOUND,
            f"TrainingJob {spec.checkpoint.training_job} does not exist in this namespace",
        )
    name = job.metadata.name
    if job.spec.model_service != spec.model_service:
        message = f"TrainingJob {name} belongs to ModelService {job.spec.model_service}, this Deployment to {spec.model_service}"
        return Missing(Reason.TRAINING_JOB_OF_ANOTHER_MODEL_SERVICE, message, final=True)
    checkpoint = _best(job) if spec.checkpoint.name == BEST else _named(job, spec.checkpoint.name)
    if isinstance(checkpoint, Missing):
        return checkpoint
    base = base_model_source(job, service) if job.spec.method == "LoRA" else None
    return Served(name, checkpoint.name, checkpoint.digest or "", run_name(job), api.to_raw(base) if base else None)


def _recorded(seen: DeploymentSeen) -> Served | None:
    """A deleted TrainingJob takes nothing down: its checkpoint is still in storage, and the child knows what it serves."""
    served = Served.of(seen.child) if seen.child else None
    wanted = seen.obj.spec.checkpoint
    if served is None or served.training_job != wanted.training_job or wanted.name not in (BEST, served.checkpoint):
        return None
    return served


def _best(job: api.TrainingJob) -> api.Checkpoint | Missing:
    """The best is known when the job is complete: before, a later epoch may be better."""
    name = job.metadata.name
    if job.status.completion_time is None:
        message = f"TrainingJob {name} is not complete ({job.status.summary or 'not started'}), so its best checkpoint is not known yet"
        return Missing(Reason.CHECKPOINT_NOT_READY, message)
    if job.status.failure is not None:
        message = (
            f"TrainingJob {name} failed ({job.status.failure.reason}), so it has no best checkpoint; {_choice(job)}"
        )
        return Missing(Reason.CHECKPOINT_NOT_FOUND, message, final=True)
    best = _find(job, job.status.best_checkpoint or "")
    if best is None:
        return Missing(
            Reason.CHECKPOINT_NOT_FOUND, f"TrainingJob {name} names no best checkpoint; {_choice(job)}", final=True
        )
    return best


def _named(job: api.TrainingJob, wanted: str) -> api.Checkpoint | Missing:
    found = _find(job, wanted)
    if found is not None and found.removed:
        message = (
            f"Checkpoint {wanted} of TrainingJob {job.metadata.name} was removed from storage by spec.retention of "
            f"ModelService {job.spec.model_service}; {_choice(job)}"
        )
        return Missing(Reason.CHECKPOINT_REMOVED, message, final=True)
    if found is not None:
        return found
    if job.status.completion_time is None:
        message = f"TrainingJob {job.metadata.name} has not written checkpoint {wanted} yet; {_choice(job)}"
        return Missing(Reason.CHECKPOINT_NOT_READY, message)
    return Missing(
        Reason.CHECKPOINT_NOT_FOUND,
        f"TrainingJob {job.metadata.name} has no checkpoint {wanted}; {_choice(job)}",
        final=True,
    )


def _find(job: api.TrainingJob, name: str) -> api.Checkpoint | None:
    """A checkpoint without a digest cannot be verified, so it is not served."""
    return next((found for found in job.status.checkpoints or () if found.name == name and found.digest), None)


def _choice(job: api.TrainingJob) -> str:
    names = [one.name for one in job.status.checkpoints or () if one.digest and not one.removed]
    return f"it has: {', '.join(names[:50])}" if names else "it has no checkpoint"
