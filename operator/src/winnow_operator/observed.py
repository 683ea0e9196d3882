"""What a decision looks at: an object of ours with everything around it that matters. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field

from winnow_operator import api, report
from winnow_operator.plan import Lookups, Refusal
from winnow_operator.resources import Object, Resource


@dataclass(frozen=True, slots=True)
class ModelServiceSeen:
    obj: api.ModelService
    claim: Object | None  # the claim it owns or names, or one of an earlier ModelService that is about to go
    storage_classes: tuple[Object, ...] = ()
    datasets: tuple[api.Dataset, ...] = ()  # of this ModelService, by name, and so on
    training_jobs: tuple[api.TrainingJob, ...] = ()
    deployments: tuple[api.Deployment, ...] = ()
    jobs: tuple[Object, ...] = ()  # collect Jobs that it owns
    pods: tuple[Object, ...] = ()  # of these Jobs
    stored_by: tuple[api.Dataset, ...] = ()  # Datasets with rows in the same storage, those that are being deleted too
    referenced: frozenset[str] = frozenset()  # digests that are needed there
    importing: bool = False  # whether an import there runs or wants to
    bases: frozenset[str] = frozenset()  # where checkpoints lie that adapters stand on
    holders: tuple[Object, ...] = ()  # pods that keep a claim that is being deleted
    pods_refused: str = ""  # why the API server lets its batch Job have no pod, if that is so
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class DatasetSeen:
    obj: api.Dataset
    service: api.ModelService | None
    jobs: tuple[Object, ...] = ()  # batch Jobs that it owns
    pods: tuple[Object, ...] = ()  # of these Jobs
    readers: tuple[str, ...] = ()  # TrainingJobs that run on its rows, if it carries our finalizer
    collecting: bool = False  # whether a collect Job may be removing rows from its storage
    storage_leaving: bool = False  # whether the claim of its ModelService, or of an earlier one, is being deleted
    lookups: Lookups = field(default_factory=dict)
    pods_refused: str = ""  # as of a ModelService
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class TrainingJobSeen:
    obj: api.TrainingJob
    service: api.ModelService | None
    training: api.Dataset | None = None
    test: api.Dataset | None = None
    validation: api.Dataset | None = None
    jobs: tuple[Object, ...] = ()  # batch Jobs that it owns
    pods: tuple[Object, ...] = ()  # of these Jobs
    departed: tuple[Object, ...] = ()  # of these Jobs: pods that ended and are gone
    stray: tuple[Object, ...] = ()  # pods that may still write to the run, though their Job is gone
    pulled: report.Training | None = None  # the last answer of /progress, if there was one since the operator started
    deployments: tuple[api.Deployment, ...] = ()  # that name this job or serve a checkpoint of it
    lookups: Lookups = field(default_factory=dict)
    parent: api.TrainingJob | None = None  # whose checkpoint it goes on from
    children: tuple[api.TrainingJob, ...] = ()  # that go on from a checkpoint of it
    bases: frozenset[str] = frozenset()  # where checkpoints lie that adapters stand on
    storage_leaving: bool = False  # as of a Dataset
    pods_refused: str = ""  # as of a ModelService
    refusal: Refusal | None = None

    @property
    def datasets(self) -> tuple[api.Dataset, ...]:
        """Those that it names and that are there."""
        return tuple(dataset for dataset in (self.training, self.test, self.validation) if dataset)


@dataclass(frozen=True, slots=True)
class DeploymentSeen:
    obj: api.Deployment
    service: api.ModelService | None
    training_job: api.TrainingJob | None = None
    training: api.Dataset | None = None  # that the TrainingJob learned from: it has the checkpoint's labels
    child: Object | None = None  # the apps/v1 Deployment that it owns
    waker: tuple[Object, ...] = ()  # its apps/v1 Deployment, then the Service by which it reaches the server's pods
    pods: tuple[Object, ...] = ()
    around: tuple[Object, ...] = ()  # autoscaler, budget, routes and the like that it owns
    guests: frozenset[Resource] = frozenset()  # kinds of other projects that the cluster has
    live_job: api.TrainingJob | None = None  # that wrote what is live, if it is still there
    rivals: tuple[api.TrainingJob, ...] = ()  # all of the ModelService, where the spec follows it
    jobs: tuple[Object, ...] = ()  # batch Jobs that measure for the gate
    job_pods: tuple[Object, ...] = ()  # of these Jobs
    storage_leaving: bool = False  # as of a Dataset
    pods_refused: str = ""  # as of a ModelService
    refusal: Refusal | None = None
    around_refused: tuple[Refusal, ...] = ()  # of what stands around the pods


Seen = ModelServiceSeen | DatasetSeen | TrainingJobSeen | DeploymentSeen
