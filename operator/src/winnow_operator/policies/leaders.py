"""Which checkpoints lead: the best of each job, beside those of the same metric. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from winnow_operator import api


@dataclass(frozen=True, slots=True)
class Leader:
    job: api.TrainingJob
    checkpoint: str
    metric: str
    value: float

    @property
    def digest(self) -> str | None:
        return next((one.digest for one in self.job.status.checkpoints or () if one.name == self.checkpoint), None)

    @property
    def rank(self) -> float:
        """The lower, the better."""
        return self.value if self.job.status.higher_is_better is False else -self.value


def value_of(status: api.TrainingJobStatus, checkpoint: str | None) -> float | None:
    """The primary metric of a checkpoint, on the rows that choose the best one."""
    for epoch in status.epochs or ():
        if epoch.checkpoint is not None and epoch.checkpoint == checkpoint and status.primary_metric:
            values = epoch.validation_metrics if status.selected_on == "Validation" else epoch.metrics
            return (values or {}).get(status.primary_metric)
    return None


def ranked(jobs: Iterable[api.TrainingJob]) -> list[Leader]:
    """Jobs with the same metric stand together, the better value first."""
    found = []
    for job in jobs:
        best, metric = job.status.best_checkpoint, job.status.primary_metric
        value = value_of(job.status, best)
        if best is not None and metric is not None and value is not None:
            found.append(Leader(job, best, metric, value))
    return sorted(found, key=lambda leader: (leader.metric, leader.rank, leader.job.metadata.name))


def complete(jobs: Iterable[api.TrainingJob]) -> list[Leader]:
    """Of the jobs whose best checkpoint is final: while one runs, a later epoch may be better."""
    return ranked(job for job in jobs if job.status.completion_time is not None and job.status.failure is None)
