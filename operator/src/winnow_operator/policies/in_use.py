"""Which Datasets may not go yet: those that a running training reads carry a finalizer, for only as long as it runs. Pure.

The training's side puts it on, before its batch Job is created; the Dataset's side takes it off, when no batch Job reads it
any more. Both ask `pods.active`, so that they never disagree at rest, and both say by `turn` which Dataset they write about,
so that they never cross in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from winnow_operator import api, conditions
from winnow_operator.plan import Child, Hold, Release, Turn
from winnow_operator.reasons import Reason
from winnow_operator.resources import IN_USE, Object

SHOWN_JOBS = 5


def refused(job: api.TrainingJob) -> bool:
    """Whether its batch Job could not be created, and is tried again. Its Datasets stay held meanwhile: else the Dataset's
    side would take the finalizer off and the training's side put it on, for ever."""
    accepted = job.status.condition("Accepted")
    return accepted is not None and accepted.reason in (Reason.API_REFUSED, Reason.NAME_CONFLICT)


def reads(job: api.TrainingJob, dataset: api.Dataset) -> bool:
    """Whether the job, when it runs, reads these rows: not those of another Dataset that had the name when the run began."""
    used, name = job.status.datasets, dataset.metadata.name
    spec = job.spec
    named_by = {"training": spec.training_dataset, "test": spec.test_dataset, "validation": spec.validation_dataset}
    for field, named in named_by.items():
        use = getattr(used, field) if used else None
        if named == name and (use is None or use.digest is None or use.digest == dataset.status.digest):
            return True
    return False


def held(dataset: api.Dataset) -> bool:
    return IN_USE in dataset.metadata.finalizers


def leaving(dataset: api.Dataset) -> bool:
    return dataset.metadata.deletion_timestamp is not None


def holds(*datasets: api.Dataset) -> tuple[Child, ...]:
    """Nothing can be put on a Dataset that is being deleted."""
    return tuple(Hold(_identity(dataset)) for dataset in datasets if not leaving(dataset))


def release(dataset: api.Dataset) -> Child:
    return Release(_identity(dataset))


def turn(children: Iterable[Child]) -> Turn:
    return Turn(
        shared=frozenset(_name(child) for child in children if isinstance(child, Hold)),
        alone=frozenset(_name(child) for child in children if isinstance(child, Release)),
    )


def in_words(jobs: Sequence[str]) -> str:
    """(job names, sorted)"""
    if len(jobs) == 1:
        return f"TrainingJob {jobs[0]} reads its rows; it goes by itself once that job ends, is suspended or deleted"
    return f"TrainingJobs {short(jobs)} read its rows; it goes by itself once these jobs end, are suspended or deleted"


def short(jobs: Sequence[str]) -> str:
    return conditions.some(jobs, SHOWN_JOBS)


def _identity(dataset: api.Dataset) -> Object:
    metadata = dataset.metadata
    return {
        "apiVersion": dataset.api_version,
        "kind": dataset.kind,
        "metadata": {"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid},
    }


def _name(child: Hold | Release) -> str:
    return f"Dataset {child.obj['metadata']['namespace']}/{child.obj['metadata']['name']}"


def checkpoints(status: api.DeploymentStatus) -> list[api.CandidateCheckpoint]:
    """The checkpoints that a Deployment needs in storage: what is live, what is to be, and what it would go back to."""
    return [use for use in (status.live, status.candidate, *(status.history or ())[:1]) if use]
