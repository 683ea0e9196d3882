"""Which checkpoint does a Deployment mean, and can it be served? The first check that speaks gives the reason."""

from __future__ import annotations

from dataclasses import dataclass

from winnow_operator import api
from winnow_operator.build.rollout_memory import Memory
from winnow_operator.build.served import Served
from winnow_operator.build.training_job import adapter_base, run_name
from winnow_operator.observed import DeploymentSeen
from winnow_operator.policies import following
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
    if spec.checkpoint is None:
        return _followed(seen, service)
    if job is None:
        return recorded(seen, spec.checkpoint) or Missing(
            Reason.TRAINING_JOB_NOT_FOUND,
            f"TrainingJob {spec.checkpoint.training_job} does not exist in this namespace",
        )
    name = job.metadata.name
    if job.spec.model_service != spec.model_service:
        message = f"TrainingJob {name} belongs to ModelService {job.spec.model_service}, this Deployment to {spec.model_service}"
        return Missing(Reason.TRAINING_JOB_OF_ANOTHER_MODEL_SERVICE, message, final=True)
    checkpoint = chosen(job, spec.checkpoint.name)
    return checkpoint if isinstance(checkpoint, Missing) else _served(job, checkpoint, service)


def chosen(job: api.TrainingJob, name: str) -> api.Checkpoint | Missing:
    """The checkpoint that a name means: best, or its own."""
    return _best(job) if name == BEST else _named(job, name)


def _served(job: api.TrainingJob, checkpoint: api.Checkpoint, service: api.ModelService) -> Served:
    base = adapter_base(job, service)
    return Served(job.metadata.name, checkpoint.name, checkpoint.digest or "", run_name(job), base)


def known(seen: DeploymentSeen) -> tuple[Served, ...]:
    """Checkpoints that can be served whatever the spec chooses: what the pods serve or start, what was live before that, and
    what status calls live.

    The first two stand on the apps/v1 Deployment, and outlive their TrainingJobs; the last is for when somebody has deleted that."""
    served = Served.of(seen.child) if seen.child else None
    return tuple(one for one in (served, Memory.of(seen.child).fallback, _called_live(seen)) if one)


def _called_live(seen: DeploymentSeen) -> Served | None:
    live, job, service = seen.obj.status.live, seen.live_job, seen.service
    if live is None or job is None or service is None:
        return None
    checkpoint = _find(job, live.checkpoint)
    return _served(job, checkpoint, service) if checkpoint and checkpoint.digest == live.digest else None


def recorded(seen: DeploymentSeen, wanted: api.CheckpointRef) -> Served | None:
    """A deleted TrainingJob takes nothing down: its checkpoint is still in storage, and the child knows where."""
    return next(
        (
            one
            for one in known(seen)
            if one.training_job == wanted.training_job and wanted.name in (BEST, one.checkpoint)
        ),
        None,
    )


def _followed(seen: DeploymentSeen, service: api.ModelService) -> Served | Missing:
    live = seen.obj.status.live
    found = following.leader(seen.rivals, live)
    current = next((one for one in known(seen) if live and one.digest == live.digest), None)
    if isinstance(found, frozenset):
        if current:
            return current
        if not found:
            message = f"ModelService {service.metadata.name} has no complete TrainingJob with a best checkpoint yet"
            return Missing(Reason.CHECKPOINT_NOT_READY, message)
        message = (
            f"The complete TrainingJobs of ModelService {service.metadata.name} have different primary metrics"
            f" ({', '.join(sorted(found))}), so none leads; name a checkpoint in spec.checkpoint for a start"
        )
        return Missing(Reason.LEADER_UNCLEAR, message)
    checkpoint = _find(found.job, found.checkpoint)
    # By what it is, not by its name: a job that was made anew writes other checkpoints under the names of the old one's.
    same = live is not None and checkpoint is not None and checkpoint.digest == live.digest
    if live and current and not same and not following.better_than(found, live):
        return current
    if checkpoint is None:
        message = f"The best checkpoint of TrainingJob {found.job.metadata.name} has no digest; {_choice(found.job)}"
        return Missing(Reason.CHECKPOINT_NOT_FOUND, message, final=True)
    return _served(found.job, checkpoint, service)


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
