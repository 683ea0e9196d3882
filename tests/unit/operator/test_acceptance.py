"""May a TrainingJob start? Each rule with what it refuses, and the order of the rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from operator_scene import completed, condition, dataset, imported, model_service, training_job

from winnow_operator import api
from winnow_operator.observed import TrainingJobSeen
from winnow_operator.plan import Reference, Refusal
from winnow_operator.policies.acceptance import accept
from winnow_operator.reasons import Reason
from winnow_operator.resources import CONFIG_MAP

FAILED = dataset(
    status={
        "conditions": [
            condition("Ready", "False", "InvalidRows", "line 17"),
            condition("Stalled", "True", "InvalidRows"),
        ]
    }
)
IMPORTING = dataset(status={"conditions": [condition("Ready", "False", "Importing")]})
ONE_CLASS = imported(warnings=[{"code": "SingleClass", "message": "all rows are ham"}])
EGGS_WITHOUT_ROWS = dataset(
    status={
        **api.to_raw(imported(task="Multiclass").status),
        "labels": [
            {"name": name, "positives": rows, "share": rows / 20}
            for name, rows in (("ham", 15), ("spam", 5), ("eggs", 0))
        ],
        "labelCount": 3,
    }
)
TEST = training_job(testDataset="test")
VALIDATED = training_job(validationDataset="dev")


def seen(
    job: Any = None, training: Any = None, test: Any = None, service: Any = "there", **more: Any
) -> TrainingJobSeen:
    there = model_service() if service == "there" else service
    return TrainingJobSeen(job or training_job(), there, training, test, **more)


def of_mode(mode: str) -> Any:
    return model_service(storage={"persistentVolumeClaim": {"size": "1Gi", "accessModes": [mode]}})


LABELS_MISSING: list[tuple[str, str, dict[str, Any], str]] = [
    (
        "a weight of a label that there is not",
        "Binary",
        {"parameters": {"classWeights": {"mode": "Custom", "weights": {"Spam": 2}}}},
        "parameters.classWeights.weights: Spam is no label of the training rows; Dataset rows has: ham, spam",
    ),
    ("a count of one", "Multiclass", {"rebalance": {"counts": {"eggs": 5, "ham": 5}}}, "rebalance: eggs is no"),
    ("rows of several labels", "Multilabel", {"rebalance": {"ratios": {"ham": 1}}}, "is Multilabel"),
]

RULES = [
    pytest.param(seen(training=imported()), True, "Accepted", False, "", id="all is there"),
    pytest.param(seen(service=None), False, "ModelServiceNotFound", False, "spam", id="no ModelService"),
    pytest.param(
        seen(training=imported(), storage_leaving=True),
        False,
        "StorageBeingDeleted",
        False,
        "ModelService spam",
        id="its volume is being deleted",
    ),
    pytest.param(seen(), False, "DatasetNotFound", False, "trainingDataset: Dataset rows", id="no training dataset"),
    pytest.param(
        seen(TEST, imported()), False, "DatasetNotFound", False, "testDataset: Dataset test", id="no test dataset"
    ),
    pytest.param(
        seen(VALIDATED, imported()),
        False,
        "DatasetNotFound",
        False,
        "validationDataset: Dataset dev",
        id="no validation dataset",
    ),
    pytest.param(
        seen(VALIDATED, imported(), validation=IMPORTING),
        False,
        "DatasetNotReady",
        False,
        "validationDataset: Dataset dev is not ready",
        id="importing validation rows",
    ),
    pytest.param(
        seen(VALIDATED, imported(), validation=imported("dev", spec={"modelService": "other"})),
        False,
        "DatasetOfAnotherModelService",
        True,
        "validationDataset: Dataset dev belongs to ModelService other",
        id="another ModelService's validation rows",
    ),
    pytest.param(
        seen(VALIDATED, imported(), validation=imported("dev", labels=["ham", "junk"])),
        False,
        "LabelsDiffer",
        True,
        "validationDataset: Dataset dev has labels that the training rows lack: junk",
        id="validation rows with a label too many",
    ),
    pytest.param(
        seen(VALIDATED, imported(), validation=imported("dev", labels=["0", "1"])),
        True,
        "Accepted",
        False,
        "",
        id="bare 0 and 1 validate any binary schema",
    ),
    pytest.param(seen(training=dataset()), False, "DatasetNotReady", False, "rows", id="not looked at yet"),
    pytest.param(seen(training=IMPORTING), False, "DatasetNotReady", False, "Importing", id="importing"),
    pytest.param(seen(training=FAILED), False, "DatasetFailed", True, "line 17", id="failed"),
    pytest.param(
        seen(training=imported(spec={"modelService": "other"})),
        False,
        "DatasetOfAnotherModelService",
        True,
        "other",
        id="another ModelService's",
    ),
    pytest.param(seen(training=ONE_CLASS), False, "SingleClass", True, "all rows are ham", id="one class"),
    pytest.param(
        seen(TEST, imported(), imported("test", labels=["ham", "junk"])),
        False,
        "LabelsDiffer",
        True,
        "junk; the training rows have: ham, spam",
        id="a label too many",
    ),
    pytest.param(
        seen(TEST, imported(), imported("test", labels=["ham"], task="Multiclass")),
        True,
        "Accepted",
        False,
        "",
        id="a label too few is no harm",
    ),
    pytest.param(
        seen(TEST, imported(), imported("test", labels=["0", "1"])),
        True,
        "Accepted",
        False,
        "",
        id="bare 0 and 1 fit any binary schema",
    ),
    pytest.param(
        seen(TEST, imported(task="Multiclass"), imported("test", labels=["0", "1"])),
        False,
        "LabelsDiffer",
        True,
        "0, 1",
        id="but not a multiclass one",
    ),
    pytest.param(
        seen(TEST, imported(), imported("test", labels=["junk"], labelCount=2_000)),
        True,
        "Accepted",
        False,
        "",
        id="a list that was cut proves nothing",
    ),
    pytest.param(
        seen(training_job(metrics={"primary": "f1"}), imported(task="Multilabel")),
        False,
        "MetricDoesNotFit",
        True,
        "f1_macro",
        id="f1 is for binary",
    ),
    pytest.param(
        seen(training_job(metrics={"functions": ["binary_accuracy"]}), imported(task="Multiclass")),
        False,
        "MetricDoesNotFit",
        True,
        "use accuracy",
        id="an accuracy of another task",
    ),
    pytest.param(
        replace(seen(training_job(), imported()), lookups={Reference(CONFIG_MAP, "my-metrics"): None}),
        False,
        "MetricSourceNotFound",
        False,
        "ConfigMap my-metrics does not exist",
        id="a function whose ConfigMap is not there yet",
    ),
    pytest.param(
        seen(training_job(metrics={"primary": "f1"}), imported()), True, "Accepted", False, "", id="f1 on binary"
    ),
    *(
        pytest.param(seen(training_job(**asked), imported(task=task)), False, "ParametersDoNotFit", True, says, id=name)
        for name, task, asked, says in LABELS_MISSING
    ),
    pytest.param(
        seen(
            training_job(
                baseModel={"checkpoint": {"trainingJob": "v0"}},
                parameters={"classWeights": {"mode": "Custom", "weights": {"eggs": 2}}},
            ),
            imported(),
            parent=completed("v0"),
        ),
        True,
        "Accepted",
        False,
        "",
        id="a weight of a label that the checkpoint may have",
    ),
    pytest.param(
        seen(
            training_job(
                baseModel={"image": {"reference": "docker.io/winnow/base-minilm:dev", "path": "/model"}},
                parameters={"classWeights": {"mode": "Custom", "weights": {"eggs": 2}}},
            ),
            imported(),
        ),
        False,
        "ParametersDoNotFit",
        True,
        "eggs is no label",
        id="a weight of a label that an image cannot have",
    ),
    *(
        pytest.param(
            seen(training_job(thresholds=asked, validationSplit={"percent": 10}), imported(task=task)),
            False,
            "ThresholdsDoNotFit",
            True,
            words,
            id=f"thresholds: {words} for {task}",
        )
        for asked, task, words in (
            ({"objective": "F1"}, "Multiclass", "use PrecisionAtLeast"),
            ({"abstain": {"band": 0.1}}, "Multiclass", "use minProbability"),
            (
                {"objective": "PrecisionAtLeast", "value": 0.9, "abstain": {"minProbability": 0.5}},
                "Multiclass",
                "give one of them",
            ),
            ({"abstain": {"minProbability": 0.5}}, "Multilabel", "use band"),
        )
    ),
    *(
        pytest.param(
            seen(training_job(**asked), EGGS_WITHOUT_ROWS),
            False,
            "ParametersDoNotFit",
            True,
            f"{field}: no row of Dataset rows has the label eggs; leave it out, or bring such rows",
            id=f"{field} of a label without rows",
        )
        for field, asked in (
            ("rebalance", {"rebalance": {"counts": {"ham": 5, "eggs": 5}}}),
            (
                "parameters.classWeights.weights",
                {"parameters": {"classWeights": {"mode": "Custom", "weights": {"eggs": 2}}}},
            ),
        )
    ),
    pytest.param(
        seen(
            training_job(thresholds={"objective": "F1"}, validationSplit={"percent": 10}), imported(task="Multilabel")
        ),
        True,
        "Accepted",
        False,
        "",
        id="thresholds of several labels",
    ),
    *(
        pytest.param(
            seen(training_job(thresholds=asked, validationSplit={"percent": 10}), imported(task="Multiclass")),
            True,
            "Accepted",
            False,
            "",
            id=name,
        )
        for name, asked in (
            ("a precision of one of several", {"objective": "PrecisionAtLeast", "value": 0.9}),
            ("a probability of one of several", {"abstain": {"minProbability": 0.5}}),
        )
    ),
    pytest.param(
        seen(training_job(nodes=2), imported(), service=of_mode("ReadWriteOncePod")),
        False,
        "StorageOfOnePod",
        True,
        "nodes is 2",
        id="a volume for one pod",
    ),
    pytest.param(
        seen(training_job(nodes=2), imported()),
        True,
        "Accepted",
        False,
        "all 2 pods have to run on one node",
        id="a volume for one node",
    ),
    pytest.param(
        seen(training_job(processesPerNode=4, resources={"limits": {"nvidia.com/gpu": 2}}), imported()),
        False,
        "TooFewGpus",
        True,
        "processesPerNode is 4, and resources.limits gives each pod 2",
        id="fewer GPUs than processes",
    ),
    pytest.param(
        seen(training_job(processesPerNode=2, resources={"limits": {"nvidia.com/gpu": 2}}), imported()),
        True,
        "Accepted",
        False,
        "",
        id="a GPU for each process",
    ),
    pytest.param(
        seen(training_job(resources={"limits": {"nvidia.com/gpu": "0"}}), imported()),
        True,
        "Accepted",
        False,
        "",
        id="no GPU for anyone",
    ),
    pytest.param(
        seen(training=imported(), refusal=Refusal(Reason.API_REFUSED, "quota")),
        False,
        "ApiRefused",
        True,
        "quota",
        id="refused by the API server",
    ),
]


@pytest.mark.parametrize(("scene", "accepted", "reason", "final", "says"), RULES)
def test_a_rule(scene: TrainingJobSeen, accepted: bool, reason: str, final: bool, says: str) -> None:
    verdict = accept(scene)
    assert (verdict.accepted, verdict.reason, verdict.final) == (accepted, reason, final)
    assert says in verdict.message


def test_what_cannot_be_waited_for_is_said_before_what_can() -> None:
    """Waiting for a test dataset would be in vain when the training dataset is another ModelService's."""
    scene = seen(TEST, imported(spec={"modelService": "other"}), dataset("test"))
    assert accept(scene).reason == "DatasetOfAnotherModelService"


@pytest.mark.parametrize(
    "service", [of_mode("ReadWriteMany"), model_service(storage={"persistentVolumeClaim": {"claimName": "theirs"}})]
)
def test_of_storage_that_several_nodes_mount_or_that_is_not_ours_nothing_is_said(service: Any) -> None:
    verdict = accept(seen(training_job(nodes=2), imported(), service=service))
    assert verdict.message == "The spec fits its datasets"
