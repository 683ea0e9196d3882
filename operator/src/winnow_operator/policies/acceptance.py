"""May a TrainingJob start? The first check that speaks gives the reason; the order is the documentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from winnow_operator import api
from winnow_operator.observed import TrainingJobSeen
from winnow_operator.policies import in_use, lineage
from winnow_operator.policies.checkpoint import Missing
from winnow_operator.reasons import Reason

GPU = "nvidia.com/gpu"
_OF_THE_POSITIVE_LABEL = ("precision", "recall", "f1")  # metrics of Binary datasets only
_ONLY_FOR = {
    "binary_accuracy": "Binary",
    "multiclass_accuracy": "Multiclass",
    "multilabel_exact_match": "Multilabel",
}
_BARE_BINARY = ("0", "1")  # labels of a Binary dataset that gave no names: they fit any Binary schema by position


@dataclass(frozen=True, slots=True)
class Verdict:
    accepted: bool
    reason: Reason
    message: str
    final: bool = False  # waiting does not help: something has to be changed


Check = Callable[[TrainingJobSeen], Verdict | None]


def _wait(reason: Reason, message: str) -> Verdict:
    return Verdict(False, reason, message)


def _refuse(reason: Reason, message: str) -> Verdict:
    return Verdict(False, reason, message, final=True)


def _datasets(seen: TrainingJobSeen) -> list[tuple[str, str, api.Dataset | None]]:
    """(field, name, what is there) of each dataset that the spec names."""
    spec = seen.obj.spec
    wanted = [("trainingDataset", spec.training_dataset, seen.training)]
    if spec.test_dataset is not None:
        wanted.append(("testDataset", spec.test_dataset, seen.test))
    if spec.validation_dataset is not None:
        wanted.append(("validationDataset", spec.validation_dataset, seen.validation))
    return wanted


def model_service_exists(seen: TrainingJobSeen) -> Verdict | None:
    if seen.service is not None:
        return None
    name = seen.obj.spec.model_service
    return _wait(Reason.MODEL_SERVICE_NOT_FOUND, f"ModelService {name} does not exist in this namespace")


def storage_stays(seen: TrainingJobSeen) -> Verdict | None:
    if not seen.storage_leaving:
        return None
    name = seen.obj.spec.model_service
    message = f"The volume of ModelService {name} is being deleted; the job starts once there is another"
    return _wait(Reason.STORAGE_BEING_DELETED, message)


def datasets_exist(seen: TrainingJobSeen) -> Verdict | None:
    for field, name, dataset in _datasets(seen):
        if dataset is None:
            return _wait(Reason.DATASET_NOT_FOUND, f"{field}: Dataset {name} does not exist in this namespace")
    return None


def datasets_stay(seen: TrainingJobSeen) -> Verdict | None:
    for field, name, dataset in _datasets(seen):
        if dataset and in_use.leaving(dataset):
            return _wait(
                Reason.DATASET_BEING_DELETED, f"{field}: Dataset {name} is being deleted, so no training starts on it"
            )
    return None


def datasets_belong(seen: TrainingJobSeen) -> Verdict | None:
    wanted = seen.obj.spec.model_service
    for field, name, dataset in _datasets(seen):
        if dataset and dataset.spec.model_service != wanted:
            message = (
                f"{field}: Dataset {name} belongs to ModelService {dataset.spec.model_service}, this job to {wanted}"
            )
            return _refuse(Reason.DATASET_OF_ANOTHER_MODEL_SERVICE, message)
    return None


def datasets_imported(seen: TrainingJobSeen) -> Verdict | None:
    for field, name, dataset in _datasets(seen):
        if dataset is None or (dataset.status.is_true("Ready") and dataset.status.digest):
            continue
        ready = dataset.status.condition("Ready")
        why = f": {ready.reason}, {ready.message}" if ready else ""
        if dataset.status.is_true("Stalled"):
            return _refuse(Reason.DATASET_FAILED, f"{field}: Dataset {name} failed{why}")
        return _wait(Reason.DATASET_NOT_READY, f"{field}: Dataset {name} is not ready{why}")
    return None


def more_than_one_class(seen: TrainingJobSeen) -> Verdict | None:
    for warning in (seen.training.status.warnings or ()) if seen.training else ():
        if warning.code == Reason.SINGLE_CLASS:
            name = seen.obj.spec.training_dataset
            return _refuse(
                Reason.SINGLE_CLASS,
                f"trainingDataset: all rows of Dataset {name} have the same label: {warning.message}",
            )
    return None


def labels_agree(seen: TrainingJobSeen) -> Verdict | None:
    """Test and validation sets have to fit in the label schema of the training set; they need not use all of it."""
    (_, _, training), *others = _datasets(seen)
    known = _labels(training) if training else None
    if training is None or known is None:
        return None
    for field, name, dataset in others:
        own = _labels(dataset) if dataset else None
        if dataset is None or own is None:
            continue
        both_binary = training.status.task_detail == dataset.status.task_detail == "Binary"
        missing = [label for label in own if label not in known]
        if missing and not (both_binary and own == _BARE_BINARY):
            message = (
                f"{field}: Dataset {name} has labels that the training rows lack: {', '.join(missing[:10])};"
                f" the training rows have: {', '.join(known[:10])}"
            )
            return _refuse(Reason.LABELS_DIFFER, message)
    return None


def _labels(dataset: api.Dataset) -> tuple[str, ...] | None:
    """None where status does not list them all."""
    names = tuple(label.name for label in dataset.status.labels or ())
    return names if names and len(names) == dataset.status.label_count else None


def metrics_fit(seen: TrainingJobSeen) -> Verdict | None:
    """The trainer would say so too, but a queue or the pull of a large image may keep it for hours."""
    metrics = seen.obj.spec.metrics
    task = seen.training.status.task_detail if seen.training else None
    if metrics is None or task is None:
        return None
    asked = [("primary", metrics.primary), *(("functions", name) for name in metrics.functions or ())]
    for field, name in asked:
        if name in _ONLY_FOR and _ONLY_FOR[name] != task:
            message = (
                f"metrics.{field}: {name} is for {_ONLY_FOR[name]} datasets, but Dataset"
                f" {seen.obj.spec.training_dataset} is {task}; use accuracy"
            )
            return _refuse(Reason.METRIC_DOES_NOT_FIT, message)
        if name in _OF_THE_POSITIVE_LABEL and task != "Binary":
            message = (
                f"metrics.{field}: {name} is the {name} of the positive label of a Binary dataset, but"
                f" Dataset {seen.obj.spec.training_dataset} is {task}; use {name}_macro"
            )
            return _refuse(Reason.METRIC_DOES_NOT_FIT, message)
    return None


def thresholds_fit(seen: TrainingJobSeen) -> Verdict | None:
    asked = seen.obj.spec.thresholds
    task = seen.training.status.task_detail if seen.training else None
    if asked is None or task is None:
        return None
    name = f"Dataset {seen.obj.spec.training_dataset} is {task}"
    if task == "Multiclass":
        if asked.objective not in (None, "PrecisionAtLeast"):
            message = f"thresholds.objective: {asked.objective} is not defined where exactly one of several labels holds, and {name}; use PrecisionAtLeast"
            return _refuse(Reason.THRESHOLDS_DO_NOT_FIT, message)
        if asked.abstain and asked.abstain.band is not None:
            message = (
                f"thresholds.abstain.band needs labels with thresholds of their own, and {name}; use minProbability"
            )
            return _refuse(Reason.THRESHOLDS_DO_NOT_FIT, message)
        if asked.abstain and asked.objective:
            message = f"thresholds: PrecisionAtLeast finds abstain.minProbability itself where {name}; give one of them"
            return _refuse(Reason.THRESHOLDS_DO_NOT_FIT, message)
    if task == "Multilabel" and asked.abstain and asked.abstain.min_probability is not None:
        message = f"thresholds.abstain.minProbability needs one label that holds, and {name}; use band"
        return _refuse(Reason.THRESHOLDS_DO_NOT_FIT, message)
    return None


def labels_are_there(seen: TrainingJobSeen) -> Verdict | None:
    """As `metrics_fit`: the trainer would say so too, but much later."""
    spec, training = seen.obj.spec, seen.training
    if training is None:
        return None
    rows = f"Dataset {spec.training_dataset}"
    if spec.rebalance and training.status.task_detail == "Multilabel":
        message = (
            f"rebalance: {rows} is Multilabel, and a row that is repeated for one label brings its others along; use"
            " parameters.classWeights"
        )
        return _refuse(Reason.PARAMETERS_DO_NOT_FIT, message)
    known = _labels(training)
    if known is None or (spec.base_model and spec.base_model.checkpoint):  # which may bring labels of its own
        return None
    without_rows = {label.name for label in training.status.labels or () if label.positives == 0}
    weights, rebalance = spec.parameters.class_weights, spec.rebalance
    named = {
        "parameters.classWeights.weights": weights.weights if weights else None,
        "rebalance": (rebalance.counts or rebalance.ratios) if rebalance else None,
    }
    for field, asked in named.items():
        if unknown := [label for label in asked or () if label not in known]:
            message = f"{field}: {', '.join(unknown[:10])} is no label of the training rows; {rows} has: {', '.join(known[:10])}"
            return _refuse(Reason.PARAMETERS_DO_NOT_FIT, message)
        if unused := [label for label in asked or () if label in without_rows]:
            message = (
                f"{field}: no row of {rows} has the label {', '.join(unused[:10])}; leave it out, or bring such rows"
            )
            return _refuse(Reason.PARAMETERS_DO_NOT_FIT, message)
    return None


def metric_sources_exist(seen: TrainingJobSeen) -> Verdict | None:
    for reference, found in sorted(seen.lookups.items(), key=lambda item: item[0]):
        if found is None:
            message = f"metrics.custom: ConfigMap {reference.name} does not exist in this namespace; the job starts once it does"
            return _wait(Reason.METRIC_SOURCE_NOT_FOUND, message)
    return None


def storage_is_shared(seen: TrainingJobSeen) -> Verdict | None:
    if seen.obj.spec.nodes == 1 or _access_modes(seen) != ("ReadWriteOncePod",):
        return None
    message = (
        f"nodes is {seen.obj.spec.nodes}, and the volume of ModelService {seen.obj.spec.model_service} is ReadWriteOncePod:"
        " only one pod can mount it. Use processesPerNode, or storage that is ReadWriteMany or a bucket"
    )
    return _refuse(Reason.STORAGE_OF_ONE_POD, message)


def _access_modes(seen: TrainingJobSeen) -> tuple[str, ...]:
    """Access modes of the claim that the ModelService makes; none for a bucket, or a claim of the user's."""
    claim = seen.service.spec.storage.persistent_volume_claim if seen.service else None
    return tuple(claim.access_modes or ("ReadWriteOnce",)) if claim and not claim.claim_name else ()


def gpus_suffice(seen: TrainingJobSeen) -> Verdict | None:
    processes, resources = seen.obj.spec.processes_per_node, seen.obj.spec.resources
    given = (resources.limits or {}).get(GPU) if resources else None
    # With a limit of 0 it trains on CPUs, as without one.
    if given is None or not str(given).isdigit() or int(given) == 0 or int(given) >= processes:
        return None
    message = (
        f"processesPerNode is {processes}, and resources.limits gives each pod {given} {GPU}: each process uses one"
    )
    return _refuse(Reason.TOO_FEW_GPUS, message)


def checkpoint_is_there(seen: TrainingJobSeen) -> Verdict | None:
    found = lineage.parent(seen)
    return Verdict(False, found.reason, found.message, found.final) if isinstance(found, Missing) else None


def not_refused(seen: TrainingJobSeen) -> Verdict | None:
    return Verdict(False, seen.refusal.reason, seen.refusal.message, seen.refusal.final) if seen.refusal else None


ACCEPT: tuple[Check, ...] = (
    model_service_exists,  # ModelServiceNotFound: wait, it may be applied later
    storage_stays,  # StorageBeingDeleted: wait for another volume
    datasets_exist,  # DatasetNotFound: wait
    datasets_stay,  # DatasetBeingDeleted: wait for another one of that name
    datasets_belong,  # DatasetOfAnotherModelService: the spec has to change
    datasets_imported,  # DatasetNotReady: wait; DatasetFailed: another dataset is needed
    more_than_one_class,  # SingleClass: there is nothing to learn
    labels_agree,  # LabelsDiffer: the test or validation rows do not fit
    storage_is_shared,  # StorageOfOnePod: the pods could not all start
    gpus_suffice,  # TooFewGpus: some processes would have none
    metrics_fit,  # MetricDoesNotFit: there would be no best checkpoint
    thresholds_fit,  # ThresholdsDoNotFit: there would be nothing to fit
    labels_are_there,  # ParametersDoNotFit: a weight or a count of a label that there is not
    metric_sources_exist,  # MetricSourceNotFound: wait, it may be applied later
    checkpoint_is_there,  # CheckpointNotReady, TrainingJobNotFound: wait; CheckpointNotFound: name another
    not_refused,  # NameConflict, ApiRefused: the batch Job could not be created
)
ACCEPTED = Verdict(True, Reason.ACCEPTED, "The spec fits its datasets")


def accept(seen: TrainingJobSeen) -> Verdict:
    return next((verdict for check in ACCEPT if (verdict := check(seen))), accepted(seen))


def accepted(seen: TrainingJobSeen) -> Verdict:
    """A volume that only one node can mount does not forbid several pods: they may run on that node."""
    if seen.obj.spec.nodes == 1 or _access_modes(seen) != ("ReadWriteOnce",):
        return ACCEPTED
    message = f"{ACCEPTED.message}; storage is ReadWriteOnce, so all {seen.obj.spec.nodes} pods have to run on one node"
    return replace(ACCEPTED, message=message)
