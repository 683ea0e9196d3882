"""Each rule of the four kinds, with an example that the API server accepts and one that it refuses in words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration_client import CRD, Kind, Object, RefusedError
from integration_cluster import Cluster
from integration_manifests import IMAGE_MODEL, dataset, deployment, model_service, training_job

CRDS = sorted((Path(__file__).parents[2] / "crds").glob("*.yaml"))

ONE_SOURCE = (
    "source needs exactly one of: inline, configMap, persistentVolumeClaim, image, http, s3, huggingFace, upload"
)
ONE_MODEL = "baseModel needs exactly one of: image, persistentVolumeClaim, huggingFace, s3"
GPU = {"limits": {"nvidia.com/gpu": 1}}
ONE_START = "baseModel needs exactly one of: image, persistentVolumeClaim, huggingFace, s3, checkpoint"
ONE_CLAIM = "storage.persistentVolumeClaim needs exactly one of: size (a new claim is made), claimName (an existing one is used)"
ONE_STORAGE = "storage needs exactly one of: persistentVolumeClaim, s3"
NEW_CLAIM = "storageClassName and accessModes belong to a new claim, so they need size, not claimName"
NO_PARENT = "path must not contain '..'"
NAME_LENGTH = "metadata.name may have at most 52 characters, so that the names of the objects made for it fit"
NAME_DOT = "metadata.name must not contain a dot, since it becomes part of the names of other objects"
LORA_ONLY = "parameters.loraRank, loraAlpha, loraDropout and loraTargetModules need method LoRA or QLoRA"
WARM_UP = "parameters.warmupRatio needs a schedule with a warm-up, and lrSchedulerType constant has none; use constant_with_warmup"
TEMPLATE = "promptTemplate must contain {text}, where the row's text is put"
JOB_IS_FIXED = "only suspend, activeDeadlineSeconds and ttlSecondsAfterFinished of a TrainingJob can be changed once created; make a new one"
DATASET_IS_FIXED = "a Dataset cannot be changed once created, because trainings refer to its rows; make a new one"
STORAGE_IS_FIXED = (
    "storage cannot be changed once created, because datasets and checkpoints live in it; make a new ModelService, or enlarge the PersistentVolumeClaim "
    "itself (kubectl edit pvc)"
)
SERVICE_IS_FIXED = (
    "modelService cannot be changed once created, because another ModelService has other storage; make a new Deployment"
)

CRON = (
    "start and end of a window in autoscaling.schedule are cron expressions: minute 0-59, hour 0-23, day of the month 1-31, month 1-12 or JAN-DEC, "
    "day of the week 0-6 (0 is Sunday) or SUN-SAT"
)
ONE_VALUE = "an entry of env needs exactly one of: value, valueFrom"
ONE_KEY = "valueFrom needs exactly one of: secretKeyRef, configMapKeyRef"
OUR_ENV = (
    "env sets a variable that Winnow sets itself (HOME, HF_HOME, HF_TOKEN, HF_ENDPOINT, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, "
    "AWS_ENDPOINT_URL_S3, AWS_REGION, and names that begin with BASE_AWS_); credentials belong into baseModel and storage"
)
OUR_PATHS = ".path begins like a path of the server itself (/classify, /docs, /health, /info, /metrics, /openapi.json, /ping, /predict, /ui, /v1, /v2); choose another"

HUB = {"huggingFace": {"repo": "owner/model"}}
PUBLIC_BUCKET = {"s3": {"uri": "s3://models/llama"}}
VOLUME = {"persistentVolumeClaim": {"claimName": "models", "path": "llama"}}
RWX = ["ReadWriteMany"]


def claim(**fields: Any) -> Object:
    return {"persistentVolumeClaim": fields}


def bucket(uri: str = "s3://winnow/mail", **fields: Any) -> Object:
    return {"s3": {"uri": uri, "secretRef": {"name": "keys"}, **fields}}


@dataclass(frozen=True)
class Rule:
    message: str
    accepted: Object
    refused: Object


def rule(message: str, accepted: Object, refused: Object, id: str) -> Any:
    return pytest.param(Rule(message, accepted, refused), id=id)


def scaled(**fields: Any) -> Object:
    return deployment(autoscaling={"maxReplicas": 4, **fields})


def window(start: str = "0 8 * * 1-5", end: str = "0 18 * * MON-FRI", **fields: Any) -> list[Object]:
    return [{"start": start, "end": end, "minReplicas": 2, **fields}]


def peers(**peer: Any) -> Object:
    return deployment(networkPolicy={"from": [peer]})


def routed(**fields: Any) -> Object:
    return deployment(httpRoute={"parentRefs": [{"name": "public"}], **fields})


KEY = {"name": "a", "key": "b"}
LONG = "n" * 52
RULES = [
    rule(
        "autoscaling.minReplicas is more than maxReplicas",
        scaled(minReplicas=4),
        scaled(minReplicas=5),
        "Deployment: bounds in their order",
    ),
    rule(
        "autoscaling.minReplicas 0 needs wakeOnRequest, or a schedule: something has to start a pod again",
        scaled(minReplicas=0, wakeOnRequest=True, schedule=window()),
        scaled(minReplicas=0),
        "Deployment: something starts a pod again",
    ),
    rule(
        "autoscaling.wakeOnRequest needs minReplicas 0: otherwise a pod is always there",
        scaled(minReplicas=0, wakeOnRequest=True),
        scaled(wakeOnRequest=True),
        "Deployment: who never sleeps is not woken",
    ),
    rule(
        "minReplicas of an autoscaling.schedule is more than maxReplicas",
        scaled(schedule=window(timeZone="Europe/Berlin")),
        scaled(schedule=window(minReplicas=5)),
        "Deployment: a window within the bounds",
    ),
    rule(
        "start and end of a window in autoscaling.schedule are the same",
        scaled(schedule=window("*/5 8,9 1 JAN *")),
        scaled(schedule=window("0 18 * * MON-FRI")),
        "Deployment: a window that has a length",
    ),
    rule(
        CRON,
        scaled(schedule=window("*/15,50 08-18/2 01,31 jan-MAR,12 Sun,1-5", timeZone="America/Argentina/Buenos_Aires")),
        scaled(schedule=window("0 8 * * 1-7")),
        "Deployment: Sunday is 0",
    ),
    *(
        rule(CRON, scaled(schedule=window(end=right)), scaled(schedule=window(end=wrong)), f"Deployment: no {wrong}")
        for right, wrong in (
            ("59 18 * * *", "60 18 * * *"),
            ("0 23 * * *", "0 24 * * *"),
            ("0 18 31 * *", "0 18 L * *"),
            ("0 18 * 12 *", "0 18 * 13 *"),
            ("0 18 * * FRI", "0 18 * * FRI-"),
        )
    ),
    rule(
        "timeZone must be a name that the IANA gives, such as Europe/Berlin",
        scaled(schedule=window(timeZone="Australia/Lord_Howe")),
        scaled(schedule=window(timeZone="Europe/Berlinn")),
        "Deployment: a time zone that exists",
    ),
    rule(
        "disruptionBudget needs exactly one of: minAvailable, maxUnavailable",
        deployment(disruptionBudget={"minAvailable": "50%"}),
        deployment(disruptionBudget={"minAvailable": 1, "maxUnavailable": 1}),
        "Deployment: one side of a budget",
    ),
    rule(
        "minAvailable and maxUnavailable of disruptionBudget are 0 or more",
        deployment(disruptionBudget={"maxUnavailable": 0}),
        deployment(disruptionBudget={"maxUnavailable": -1}),
        "Deployment: a budget that is not negative",
    ),
    rule(
        "an entry of networkPolicy.from needs either ipBlock, or podSelector and namespaceSelector or one of them",
        peers(podSelector={}, namespaceSelector={"matchLabels": {"team": "ml"}}),
        peers(podSelector={}, ipBlock={"cidr": "10.0.0.0/8"}),
        "Deployment: pods or a network",
    ),
    rule(
        "ipBlock.cidr is no network; write it as 10.0.0.0/8 or fd00::/8",
        peers(ipBlock={"cidr": "fd00::/8"}),
        peers(ipBlock={"cidr": "10.0.0.1"}),
        "Deployment: a network that is one",
    ),
    rule(
        "ipBlock.except has an entry that is no network",
        peers(ipBlock={"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}),
        peers(ipBlock={"cidr": "10.0.0.0/8", "except": ["ten"]}),
        "Deployment: exceptions that are networks",
    ),
    rule(
        "ingress.tlsSecretName needs ingress.host",
        deployment(ingress={"host": "ml.example", "tlsSecretName": "tls"}),
        deployment(ingress={"tlsSecretName": "tls"}),
        "Deployment: a certificate of a host",
    ),
    rule(
        f"ingress{OUR_PATHS}",
        deployment(ingress={"path": "/v1-spam"}),
        deployment(ingress={"path": "/v1"}),
        "Deployment: an Ingress path that is not the server's own",
    ),
    rule(
        f"httpRoute{OUR_PATHS}",
        routed(path="/teams/spam"),
        routed(path="/ui/spam"),
        "Deployment: a Gateway path that is not the server's own",
    ),
    *(
        param
        for kind, make in (("Deployment", deployment), ("TrainingJob", training_job))
        for param in (
            rule(
                ONE_VALUE,
                make(env=[{"name": "A", "value": ""}]),
                make(env=[{"name": "A"}]),
                f"{kind}: a variable has a value",
            ),
            rule(
                ONE_KEY,
                make(env=[{"name": "A", "valueFrom": {"secretKeyRef": KEY}}]),
                make(env=[{"name": "A", "valueFrom": {"secretKeyRef": KEY, "configMapKeyRef": KEY}}]),
                f"{kind}: one source of a variable",
            ),
            rule(
                OUR_ENV,
                make(env=[{"name": "HF_HUB_DOWNLOAD_TIMEOUT", "value": "60"}]),
                make(env=[{"name": "HF_TOKEN", "value": "hf_x"}]),
                f"{kind}: variables that are ours",
            ),
            rule(
                OUR_ENV,
                make(),
                make(env=[{"name": "HF_ENDPOINT", "value": "https://hub.example"}]),
                f"{kind}: the Hub's address stands in baseModel",
            ),
        )
    ),
    rule(NAME_LENGTH, model_service(LONG), model_service(f"{LONG}n"), "ModelService: a name of 52 characters"),
    rule(NAME_LENGTH, dataset(LONG), dataset(f"{LONG}n"), "Dataset: a name of 52 characters"),
    rule(NAME_LENGTH, training_job(LONG), training_job(f"{LONG}n"), "TrainingJob: a name of 52 characters"),
    rule(NAME_LENGTH, deployment(LONG), deployment(f"{LONG}n"), "Deployment: a name of 52 characters"),
    rule(NAME_DOT, model_service("a-b"), model_service("a.b"), "ModelService: a name without dots"),
    rule(NAME_DOT, dataset("0-a"), dataset("0.a"), "Dataset: a name without dots"),
    rule(NAME_DOT, training_job("v1-0"), training_job("v1.0"), "TrainingJob: a name without dots"),
    rule(
        "metadata.name must start with a letter and contain no dot, since its Service has the same name",
        deployment("a1"),
        deployment("1a"),
        "Deployment: a name that a Service can have",
    ),
    rule(ONE_MODEL, model_service(baseModel=HUB), model_service(baseModel={}), "ModelService: a base model"),
    rule(
        ONE_MODEL,
        model_service(baseModel=VOLUME),
        model_service(baseModel=VOLUME | HUB),
        "ModelService: one base model",
    ),
    *(
        param
        for kind, message, make in (
            ("ModelService", ONE_MODEL, model_service),
            ("TrainingJob", ONE_START, training_job),
        )
        for param in (
            rule(
                message,
                make(baseModel=PUBLIC_BUCKET),
                make(baseModel=PUBLIC_BUCKET | HUB),
                f"{kind}: a base model from the Hub or from a bucket",
            ),
            rule(
                "uri must not contain '..'",
                make(baseModel=bucket("s3://models/llama-3.1/")),
                make(baseModel=bucket("s3://models/a/../b")),
                f"{kind}: a base model's prefix that stays inside",
            ),
            rule(
                "endpoint must not hold a user or a password; a manifest is no place for secrets",
                make(baseModel=bucket(endpoint="http://s3.ml.svc:9000", region="eu")),
                make(baseModel=bucket(endpoint="https://me:secret@s3.example")),
                f"{kind}: a base model's endpoint without secrets",
            ),
        )
    ),
    rule(
        OUR_ENV,
        training_job(env=[{"name": "BASE", "value": "1"}]),
        training_job(env=[{"name": "BASE_AWS_ACCESS_KEY_ID", "value": "me"}]),
        "TrainingJob: variables of the base model's bucket",
    ),
    rule(ONE_START, training_job(baseModel=HUB), training_job(baseModel={}), "TrainingJob: a base model"),
    rule(
        ONE_START,
        training_job(baseModel=IMAGE_MODEL),
        training_job(baseModel=IMAGE_MODEL | HUB),
        "TrainingJob: one base model",
    ),
    *(
        rule(
            "a name in labels has spaces around it, or a line break, tab or other control character in it",
            dataset(labels=["x", "a b", "é", "می\u200cخواهم", "🦊"]),
            dataset(labels=["ham", label]),
            f"Dataset: no label {label!r}",
        )
        for label in ("spam ", " ", "a\tb", "spam\n")
    ),
    *(
        rule(
            "key is none that a ConfigMap can have",
            dataset(source={"configMap": {"name": "mail", "key": key}}),
            dataset(source={"configMap": {"name": "mail", "key": refused}}),
            f"Dataset: no key {refused}",
        )
        for key, refused in ((".rows..jsonl", ".."), ("rows", "."), ("r..", "..rows"))
    ),
    rule(
        NO_PARENT,
        model_service(baseModel={"image": {"reference": "r", "path": "/a/b"}}),
        model_service(baseModel={"image": {"reference": "r", "path": "/a/../b"}}),
        "ModelService: an image path that stays inside",
    ),
    rule(
        NO_PARENT,
        training_job(baseModel=VOLUME),
        training_job(baseModel={"persistentVolumeClaim": {"claimName": "models", "path": "../llama"}}),
        "TrainingJob: a volume path that stays inside",
    ),
    rule(
        NO_PARENT,
        dataset(source={"persistentVolumeClaim": {"claimName": "files", "path": "rows.csv"}}),
        dataset(source={"persistentVolumeClaim": {"claimName": "files", "path": "../rows.csv"}}),
        "Dataset: a volume path that stays inside",
    ),
    rule(
        NO_PARENT,
        dataset(source={"image": {"reference": "r", "path": "/rows/train.jsonl"}}),
        dataset(source={"image": {"reference": "r", "path": "/rows/../train.jsonl"}}),
        "Dataset: an image path that stays inside",
    ),
    rule(ONE_STORAGE, model_service(storage=bucket()), model_service(storage={}), "ModelService: a storage"),
    rule(
        ONE_STORAGE,
        model_service(storage=bucket(endpoint="https://s3.example", region="eu-1")),
        model_service(storage={**bucket(), **claim(size="20Gi")}),
        "ModelService: a volume or a bucket",
    ),
    rule(
        "uri must not contain '..'",
        model_service(storage=bucket("s3://winnow/a.b/c")),
        model_service(storage=bucket("s3://winnow/a/../b")),
        "ModelService: a prefix that stays inside",
    ),
    rule(
        "endpoint must not hold a user or a password; a manifest is no place for secrets",
        model_service(storage=bucket(endpoint="http://s3.ml.svc:9000")),
        model_service(storage=bucket(endpoint="https://me:secret@s3.example")),
        "ModelService: an endpoint without secrets",
    ),
    rule(ONE_CLAIM, model_service(storage=claim(size="20Gi")), model_service(storage=claim()), "ModelService: storage"),
    rule(
        ONE_CLAIM,
        model_service(storage=claim(claimName="mine")),
        model_service(storage=claim(claimName="mine", size="20Gi")),
        "ModelService: one storage",
    ),
    rule(
        NEW_CLAIM,
        model_service(storage=claim(size="20Gi", storageClassName="fast", accessModes=RWX)),
        model_service(storage=claim(claimName="mine", accessModes=RWX)),
        "ModelService: an existing claim has its own access modes",
    ),
    rule(
        "size must be a quantity above 0, such as 20Gi",
        model_service(storage=claim(size="1.5Gi")),
        model_service(storage=claim(size="20 GB")),
        "ModelService: a size that Kubernetes reads",
    ),
    rule(
        "size must be a quantity above 0, such as 20Gi",
        model_service(storage=claim(size="1")),
        model_service(storage=claim(size="0Gi")),
        "ModelService: a size above nothing",
    ),
    rule(ONE_SOURCE, dataset(source={"inline": "x"}), dataset(source={}), "Dataset: a source"),
    rule(
        "url must not hold a user or a password; a manifest is no place for secrets",
        dataset(source={"http": {"url": "https://host/a@b", "sha256": "0" * 64}}),
        dataset(source={"http": {"url": "https://me:secret@host/a", "sha256": "0" * 64}}),
        "Dataset: no secrets in a URL",
    ),
    rule(
        "endpoint must not hold a user or a password; a manifest is no place for secrets",
        dataset(source={"huggingFace": {"repo": "a/b", "endpoint": "https://hub.example/a@b"}}),
        dataset(source={"huggingFace": {"repo": "a/b", "endpoint": "https://me:secret@hub.example"}}),
        "Dataset: no secrets in the Hub's URL",
    ),
    *(
        rule(
            "endpoint must not hold a user or a password; a manifest is no place for secrets",
            make(baseModel={"huggingFace": {"repo": "a/b", "endpoint": "https://hub.example/a@b"}}),
            make(baseModel={"huggingFace": {"repo": "a/b", "endpoint": "https://me:secret@hub.example"}}),
            f"{kind}: no secrets in the URL of a base model's Hub",
        )
        for kind, make in (("ModelService", model_service), ("TrainingJob", training_job))
    ),
    rule(
        "endpoint must not hold a user or a password; a manifest is no place for secrets",
        dataset(source={"s3": {"uri": "s3://mail/rows/", "endpoint": "http://proxy.ml.svc:9000/a@b"}}),
        dataset(source={"s3": {"uri": "s3://mail/rows/", "endpoint": "https://me:secret@s3.example"}}),
        "Dataset: a bucket's endpoint without secrets",
    ),
    rule(
        "columns and source.huggingFace both name the columns; give columns, or textColumn and labelColumn",
        dataset(source={"huggingFace": {"repo": "a/b", "labelColumn": "l"}}),
        dataset(source={"huggingFace": {"repo": "a/b", "labelColumn": "l"}}, columns={"text": "t"}),
        "Dataset: columns named once",
    ),
    rule(
        ONE_SOURCE,
        dataset(source={"huggingFace": {"repo": "a/b"}}),
        dataset(source={"huggingFace": {"repo": "a/b"}, "inline": "x"}),
        "Dataset: the Hub is a source too",
    ),
    rule(
        ONE_SOURCE,
        dataset(source={"upload": {"sizeBytes": 1, "sha256": "0" * 64, "fileName": "rows ä.jsonl.gz"}}),
        dataset(source={"inline": "x", "upload": {"sizeBytes": 1, "sha256": "0" * 64}}),
        "Dataset: an upload is a source",
    ),
    rule(
        ONE_SOURCE,
        dataset(source={"configMap": {"name": "n", "key": "k"}}),
        dataset(source={"inline": "x", "configMap": {"name": "n", "key": "k"}}),
        "Dataset: one source",
    ),
    rule(
        "inline rows may have at most 256 KiB; put larger ones in a persistentVolumeClaim or an image",
        dataset(source={"inline": "é" * 131_072}),
        dataset(source={"inline": "é" * 131_073}),
        "Dataset: inline rows by bytes, not characters",
    ),
    rule(
        "a Binary dataset has two labels: give both, negative first, or only the positive one",
        dataset(taskDetail="Binary", labels=["ham", "spam"]),
        dataset(taskDetail="Binary", labels=["ham", "spam", "eggs"]),
        "Dataset: two labels for Binary",
    ),
    rule(
        "a Multiclass dataset needs at least two labels",
        dataset(taskDetail="Multiclass", labels=["a", "b"]),
        dataset(taskDetail="Multiclass", labels=["a"]),
        "Dataset: two labels for Multiclass",
    ),
    rule(
        LORA_ONLY,
        training_job(parameters={"loraRank": 8, "loraTargetModules": ["q_proj"]}),
        training_job(method="Full", parameters={"loraRank": 8}),
        "TrainingJob: no loraRank with Full",
    ),
    rule(
        LORA_ONLY,
        training_job(method="HeadOnly", parameters={"learningRate": 1e-3}),
        training_job(method="HeadOnly", parameters={"loraDropout": 0.1}),
        "TrainingJob: no loraDropout with HeadOnly",
    ),
    rule(
        "metadata.name may have at most 51 characters where nodes is above 1, so that the host names of the pods fit",
        training_job("n" * 51, nodes=64),
        training_job("n" * 52, nodes=2),
        "TrainingJob: host names of pods",
    ),
    rule(
        "testDataset and testSplit are both given; the test rows come from one of them",
        training_job(testSplit={"percent": 20}),
        training_job(testSplit={"percent": 20}, testDataset="test"),
        "TrainingJob: one origin of test rows",
    ),
    rule(
        "validationDataset and validationSplit are both given; the validation rows come from one of them",
        training_job(testSplit={"percent": 20}, validationSplit={"percent": 10}),
        training_job(validationSplit={"percent": 10}, validationDataset="dev"),
        "TrainingJob: one origin of validation rows",
    ),
    rule(
        "classWeights.mode Custom needs weights, and weights need mode Custom",
        training_job(parameters={"classWeights": {"mode": "Custom", "weights": {"spam": 5}}}),
        training_job(parameters={"classWeights": {"weights": {"spam": 5}}}),
        "TrainingJob: weights with Custom",
    ),
    rule(
        "classWeights.mode Custom needs weights, and weights need mode Custom",
        training_job(parameters={"classWeights": {"mode": "Balanced"}}),
        training_job(parameters={"classWeights": {"mode": "Custom"}}),
        "TrainingJob: Custom with weights",
    ),
    rule(
        "loss.gamma needs type Focal",
        training_job(parameters={"loss": {"type": "Focal", "gamma": 1.5}}),
        training_job(parameters={"loss": {"gamma": 1.5}}),
        "TrainingJob: gamma with Focal",
    ),
    rule(
        "parameters.labelSmoothing is not defined for the Focal loss; use one of them",
        training_job(parameters={"labelSmoothing": 0.1, "loss": {"type": "CrossEntropy"}}),
        training_job(parameters={"labelSmoothing": 0.1, "loss": {"type": "Focal"}}),
        "TrainingJob: smoothing or Focal",
    ),
    rule(
        "thresholds are fitted on validation rows: give validationDataset or validationSplit",
        training_job(thresholds={"objective": "F1"}, validationSplit={"percent": 10}),
        training_job(thresholds={"objective": "F1"}),
        "TrainingJob: thresholds need validation rows",
    ),
    rule(
        "thresholds needs an objective, abstain, or both",
        training_job(thresholds={"abstain": {"band": 0.1}}, validationDataset="dev"),
        training_job(thresholds={}, validationDataset="dev"),
        "TrainingJob: thresholds for something",
    ),
    rule(
        "value belongs to objective PrecisionAtLeast or RecallAtLeast, which need it",
        training_job(thresholds={"objective": "PrecisionAtLeast", "value": 0.9}, validationDataset="dev"),
        training_job(thresholds={"objective": "RecallAtLeast"}, validationDataset="dev"),
        "TrainingJob: a recall of how much",
    ),
    rule(
        "costs belongs to objective Cost, which needs it",
        training_job(
            thresholds={"objective": "Cost", "costs": {"falsePositive": 1, "falseNegative": 5}}, validationDataset="dev"
        ),
        training_job(
            thresholds={"objective": "F1", "costs": {"falsePositive": 1, "falseNegative": 5}}, validationDataset="dev"
        ),
        "TrainingJob: costs for Cost",
    ),
    rule(
        "abstain needs exactly one of: band, minProbability",
        training_job(thresholds={"abstain": {"minProbability": 0.6}}, validationDataset="dev"),
        training_job(thresholds={"abstain": {"minProbability": 0.6, "band": 0.1}}, validationDataset="dev"),
        "TrainingJob: one way to abstain",
    ),
    rule(
        "earlyStopping needs validation or test rows to measure on: give validationSplit, for example",
        training_job(earlyStopping={"patience": 2, "minDelta": 0.001}, testSplit={"percent": 20}),
        training_job(earlyStopping={"patience": 2}),
        "TrainingJob: early stopping by something",
    ),
    rule(
        "rebalance needs exactly one of: counts, ratios",
        training_job(rebalance={"counts": {"spam": 500}}),
        training_job(rebalance={"counts": {"spam": 500}, "ratios": {"ham": 1, "spam": 1}}),
        "TrainingJob: one way to rebalance",
    ),
    rule(
        "rebalance.ratios needs two labels or more, since it compares them",
        training_job(rebalance={"ratios": {"ham": 2, "spam": 1}}),
        training_job(rebalance={"ratios": {"spam": 1}}),
        "TrainingJob: ratios of two labels",
    ),
    rule(
        "parameters.adamBeta1, adamBeta2 and adamEpsilon need an optim of AdamW, not adafactor",
        training_job(parameters={"optim": "adamw", "adamBeta2": 0.95}),
        training_job(parameters={"optim": "adafactor", "adamBeta2": 0.95}),
        "TrainingJob: betas of adamw",
    ),
    rule(
        "method QLoRA needs a GPU: resources.limits with nvidia.com/gpu, and a trainer image with bitsandbytes",
        training_job(method="QLoRA", parameters={"loraRank": 8}, resources=GPU),
        training_job(method="QLoRA", resources={"limits": {"cpu": 4}}),
        "TrainingJob: QLoRA on a GPU",
    ),
    rule(
        "all-linear of parameters.loraTargetModules stands for all modules, so it stands alone",
        training_job(parameters={"loraTargetModules": ["q_proj", "v_proj"]}),
        training_job(parameters={"loraTargetModules": ["all-linear", "q_proj"]}),
        "TrainingJob: all modules, or some",
    ),
    *(
        rule(
            "method QLoRA needs a GPU: resources.limits with nvidia.com/gpu, and a trainer image with bitsandbytes",
            training_job(method="QLoRA", resources={"limits": {"nvidia.com/gpu": one}}),
            training_job(method="QLoRA", resources={"limits": {"nvidia.com/gpu": none}}),
            f"TrainingJob: QLoRA on more GPUs than {none!r}",
        )
        for one, none in ((1, 0), ("1", "0"))
    ),
    rule(
        "parameters.optim adamw_8bit and paged_adamw_8bit need a GPU: resources.limits with nvidia.com/gpu, and a trainer image "
        "with bitsandbytes",
        training_job(parameters={"optim": "paged_adamw_8bit"}, resources={"limits": {"nvidia.com/mig-1g.10gb": 1}}),
        training_job(parameters={"optim": "adamw_8bit"}, resources={"limits": {"nvidia.com/gpu": 0}}),
        "TrainingJob: 8-bit optimizers on a GPU",
    ),
    rule(
        "parameters.headInit Ridge would overwrite the head of the checkpoint that baseModel goes on from",
        training_job(baseModel={"checkpoint": {"trainingJob": "v0", "name": "epoch-3"}}),
        training_job(baseModel={"checkpoint": {"trainingJob": "v0"}}, parameters={"headInit": "Ridge"}),
        "TrainingJob: a head that goes on",
    ),
    rule(
        "parameters.gradientCheckpointing needs a body that trains: method LoRA, QLoRA or Full",
        training_job(method="Full", parameters={"gradientCheckpointing": True}),
        training_job(method="HeadOnly", parameters={"gradientCheckpointing": True}),
        "TrainingJob: checkpointing of a body that trains",
    ),
    rule(
        "parameters.parallelism FSDP needs several processes: set processesPerNode or nodes",
        training_job(parameters={"parallelism": "FSDP"}, processesPerNode=2),
        training_job(parameters={"parallelism": "FSDP"}),
        "TrainingJob: a model is cut over several processes",
    ),
    rule(
        "parameters.parallelism FSDP needs method Full or LoRA",
        training_job(method="HeadOnly", parameters={"parallelism": "DDP"}, nodes=2),
        training_job(method="HeadOnly", parameters={"parallelism": "FSDP"}, nodes=2),
        "TrainingJob: a body that trains is cut",
    ),
    rule(
        "parameters.parallelism FSDP needs optim adamw",
        training_job(parameters={"parallelism": "FSDP", "optim": "adamw"}, nodes=2),
        training_job(parameters={"parallelism": "FSDP", "optim": "adafactor"}, nodes=2),
        "TrainingJob: an optimizer whose moments can be cut",
    ),
    rule(
        TEMPLATE,
        training_job(promptTemplate="Is it spam? {text}"),
        training_job(promptTemplate="Is it spam? text"),
        "TrainingJob: a template",
    ),
]

JOB = training_job(testDataset="test", env=[{"name": "A", "value": "1"}], resources={"limits": {"nvidia.com/gpu": 1}})
COST = {"name": "cost", "configMap": {"name": "my-metrics", "key": "cost.py"}}
RULES += [
    rule(
        "metrics.primary must be a built-in metric (those that functions allows), or the name of one in custom",
        training_job(testDataset="test", metrics={"primary": "mcc", "custom": [COST]}),
        training_job(testDataset="test", metrics={"primary": "f2", "custom": [COST]}),
        "TrainingJob: a primary metric that exists",
    ),
    rule(
        "a custom metric that is metrics.primary needs direction: Maximize or Minimize, since it picks the best checkpoint",
        training_job(testDataset="test", metrics={"primary": "cost", "custom": [COST | {"direction": "Minimize"}]}),
        training_job(testDataset="test", metrics={"primary": "cost", "custom": [COST]}),
        "TrainingJob: a function that picks the best has a direction",
    ),
    rule(
        "a name in metrics.custom is that of a built-in metric; choose another one",
        training_job(testDataset="test", metrics={"custom": [COST]}),
        training_job(testDataset="test", metrics={"custom": [COST | {"name": "accuracy"}]}),
        "TrainingJob: a function of a name of its own",
    ),
    rule(
        "metrics need validation or test rows to measure on: give validationSplit, for example",
        training_job(metrics={"primary": "f1"}, validationSplit={"percent": 10}),
        training_job(metrics={"primary": "f1"}),
        "TrainingJob: rows to measure on",
    ),
    rule(
        WARM_UP,
        training_job(parameters={"lrSchedulerType": "constant", "warmupRatio": 0}),
        training_job(parameters={"lrSchedulerType": "constant", "warmupRatio": 0.1}),
        "TrainingJob: no warm-up where there is none",
    ),
    rule(
        WARM_UP,
        training_job(parameters={"lrSchedulerType": "constant"}),
        training_job(parameters={"lrSchedulerType": "constant", "warmupRatio": 1e-3}),
        "TrainingJob: a warm-up that was not asked for",
    ),
]
CHANGES = [
    rule(
        JOB_IS_FIXED,
        JOB | {"spec": JOB["spec"] | change},
        JOB | {"spec": JOB["spec"] | refused},
        f"TrainingJob: {what}",
    )
    for what, change, refused in [
        ("suspend, not modelService", {"suspend": True}, {"modelService": "other"}),
        ("deadline, not rows", {"activeDeadlineSeconds": 60}, {"trainingDataset": "other"}),
        ("time to live, not a default", {"ttlSecondsAfterFinished": 60}, {"parameters": {"seed": 1}}),
        ("nothing, not an unset field", {}, {"outputModelName": "other"}),
        ("a default written out, not another method", {"method": "LoRA"}, {"method": "Full"}),
        ("nothing, not resources", {}, {"resources": {"limits": {"nvidia.com/gpu": 2}}}),
        ("nothing, not env", {}, {"env": [{"name": "A", "value": "2"}]}),
        ("nothing, not base model", {}, {"baseModel": HUB}),
        ("nothing, not metrics", {}, {"metrics": {"primary": "accuracy"}}),
        ("nothing, not node", {}, {"nodeSelector": {"gpu": "a100"}}),
        ("nothing, not queue", {}, {"queueName": "team-a"}),
        ("nothing, not restarts", {}, {"maxRestarts": 4}),
        ("nothing, not nodes", {}, {"nodes": 2}),
        ("nothing, not processes", {}, {"processesPerNode": 2}),
        ("nothing, not a split", {}, {"testSplit": {"percent": 20}}),
        ("nothing, not a validation split", {}, {"validationSplit": {"percent": 10}}),
        ("nothing, not validation rows", {}, {"validationDataset": "dev"}),
        ("nothing, not the overlap", {"onOverlap": "Keep"}, {"onOverlap": "Drop"}),
        ("nothing, not the balance", {}, {"rebalance": {"counts": {"spam": 5}}}),
        ("nothing, not early stopping", {}, {"earlyStopping": {"patience": 2}}),
        ("nothing, not thresholds", {}, {"validationDataset": "dev", "thresholds": {"objective": "F1"}}),
        ("nothing, not template", {}, {"promptTemplate": "{text}?"}),
    ]
]
CHANGES += [
    rule(
        JOB_IS_FIXED,
        JOB,
        JOB | {"spec": {name: value for name, value in JOB["spec"].items() if name != "testDataset"}},
        "TrainingJob: a field that was set stays set",
    ),
    rule(DATASET_IS_FIXED, dataset(), dataset(source={"inline": "other"}), "Dataset: its source"),
    rule(DATASET_IS_FIXED, dataset(format="Auto"), dataset(labels=["ham", "spam"]), "Dataset: its labels"),
    rule(
        STORAGE_IS_FIXED,
        model_service(description="new"),
        model_service(storage=claim(size="2Gi")),
        "ModelService: its storage",
    ),
    rule(
        STORAGE_IS_FIXED,
        model_service(description="new"),
        model_service(storage=bucket()),
        "ModelService: a volume for a bucket",
    ),
    rule(
        SERVICE_IS_FIXED,
        deployment(checkpoint={"trainingJob": "v2", "name": "epoch-1"}, replicas=2),
        deployment(modelService="other"),
        "Deployment: its ModelService",
    ),
]


def gated(**gate: Any) -> Object:
    return deployment(gate=gate)


def floor(**fields: Any) -> Object:
    return gated(floors=[fields])


FOLLOWING = {**deployment(), "spec": {"modelService": "spam", "follow": "ModelService"}}
RULES += [
    rule(
        "exactly one of checkpoint and follow must be set: a checkpoint of your choice, or the first of the ModelService's leaderboard",
        FOLLOWING,
        deployment(follow="ModelService"),
        "Deployment: a checkpoint or whom to follow",
    ),
    rule(
        "a gate needs floors, a metric with atLeast or atMost, or notWorseThanLive",
        gated(notWorseThanLive=True),
        gated(notWorseThanLive=False),
        "Deployment: a gate that holds something up",
    ),
    rule(
        "metric belongs to atLeast, atMost or notWorseThanLive, none of which is set",
        gated(metric="f1_macro", atLeast=0.9, notWorseThanLive=True),
        gated(floors=[{"metric": "f1", "atLeast": 0.9}], metric="f1_macro"),
        "Deployment: a metric of a gate is for something",
    ),
    rule(
        "atLeast and atMost bound a metric; name it",
        gated(metric="log_loss", atMost=0.2),
        gated(atLeast=0.9),
        "Deployment: a bound of a gate has a metric",
    ),
    rule(
        "a metric has one of atLeast and atMost",
        gated(metric="cost_in_euros", atMost=9),
        gated(metric="cost_in_euros", atMost=9, atLeast=2),
        "Deployment: a bound of a gate has one side",
    ),
    rule(
        "this metric is better when it is lower, so its bound is atMost",
        gated(metric="ece", atMost=0.1),
        gated(metric="ece", atLeast=0.1),
        "Deployment: the bound of a gate's metric that is better when lower",
    ),
    rule(
        "this metric is better when it is higher, so its bound is atLeast",
        gated(metric="mcc", atLeast=0.1),
        gated(metric="mcc", atMost=0.1),
        "Deployment: the bound of a gate's metric that is better when higher",
    ),
    rule(
        "tolerance belongs to notWorseThanLive, which is not set",
        gated(notWorseThanLive=True, metric="cost_in_euros", tolerance=5),
        gated(floors=[{"metric": "f1", "atLeast": 0.9}], tolerance=0.01),
        "Deployment: a tolerance of a comparison",
    ),
    rule(
        "a floor has exactly one of atLeast and atMost",
        floor(metric="f1", atLeast=0.9),
        floor(metric="f1"),
        "Deployment: a floor with a bound",
    ),
    rule(
        "a label has precision, recall and f1; other metrics are of all labels together",
        floor(metric="recall", label="spam", atLeast=0.9),
        floor(metric="accuracy", label="spam", atLeast=0.9),
        "Deployment: a metric that a label has",
    ),
    rule(
        "this metric is better when it is lower, so its bound is atMost",
        floor(metric="brier", atMost=0.3),
        floor(metric="brier", atLeast=0.3),
        "Deployment: a ceiling for a loss",
    ),
    rule(
        "this metric is better when it is higher, so its bound is atLeast",
        floor(metric="mcc", atLeast=0.9),
        floor(metric="mcc", atMost=0.9),
        "Deployment: a floor for a score",
    ),
]


@pytest.mark.parametrize("rule", RULES)
async def test_a_rule_accepts_what_is_right_and_refuses_the_rest_in_words(dry: Cluster, rule: Rule) -> None:
    await dry.client.create(dry.here(rule.accepted), dry_run=True)
    with pytest.raises(RefusedError) as refused:
        await dry.client.create(dry.here(rule.refused), dry_run=True)
    assert rule.message in refused.value.message


@pytest.mark.parametrize("rule", CHANGES)
async def test_what_must_not_change_is_refused_in_words(cluster: Cluster, rule: Rule) -> None:
    original = {"ModelService": model_service(), "Dataset": dataset(), "TrainingJob": JOB, "Deployment": deployment()}
    await cluster.apply(original[rule.accepted["kind"]])
    await cluster.client.apply(cluster.here(rule.accepted), dry_run=True)
    with pytest.raises(RefusedError) as refused:
        await cluster.client.apply(cluster.here(rule.refused), dry_run=True)
    assert rule.message in refused.value.message


async def test_windows_from_before_their_rules_keep_nothing_else_from_being_written(cluster: Cluster) -> None:
    """The API server passes over broken rules of what is unchanged, not over errors of their evaluation. In a copy of the kind."""
    copy = Kind("earlier.winnow.dev/v1alpha1", "Deployment", "deployments")
    now, before = (_deployments_of("earlier.winnow.dev") for _ in range(2))
    spec = before["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    autoscaling = spec["properties"]["autoscaling"]
    del (
        autoscaling["x-kubernetes-validations"],
        autoscaling["properties"]["schedule"]["items"]["x-kubernetes-validations"],
    )
    old = {
        **scaled(schedule=window("0 8 * * 7", timeZone="Europe/Berlinn"), minReplicas=1),
        "apiVersion": copy.api_version,
    }
    patch = partial(cluster.client.patch, copy, cluster.namespace, old["metadata"]["name"])
    async with asyncio.timeout(60):
        await cluster.client.apply(before)
        await _until_known(partial(cluster.client.post, copy, cluster.namespace, "", "", cluster.here(old)))
        await cluster.client.apply(now)
        assert "cron expressions" in await _refused(
            patch({"spec": {"autoscaling": {"schedule": window(f"{minute} 8 * * 7", timeZone="Europe/Berlinn")}}})
            for minute in count(1)
        )
    await patch({"status": {"observedGeneration": 1}}, subresource="status")
    await patch({"metadata": {"labels": {"team": "mail"}}})
    await patch({"spec": {"autoscaling": {"maxReplicas": 5}}})
    await patch({"spec": {"autoscaling": {"schedule": window()}}})
    await cluster.client.delete(CRD, "", now["metadata"]["name"])


def _deployments_of(group: str) -> Object:
    (path,) = (path for path in CRDS if path.stem == "deployments")
    crd: Object = yaml.safe_load(path.read_text())
    crd["metadata"]["name"], crd["spec"]["group"] = f"deployments.{group}", group
    crd["spec"]["names"] = {"kind": "Deployment", "plural": "deployments"}
    return crd


async def _until_known(create: Callable[[], Awaitable[Object]]) -> Object:
    while True:
        try:
            return await create()
        except RefusedError as refused:
            if refused.status != 404:
                raise
        await asyncio.sleep(0.1)


async def _refused(tries: Iterator[Awaitable[Object]]) -> str:
    """The first refusal: until then the API server goes by the definition from before."""
    for each in tries:
        try:
            await each
        except RefusedError as refused:
            return refused.message
        await asyncio.sleep(0.1)
    raise AssertionError


def test_every_rule_of_the_crds_has_examples() -> None:
    tried = {(param.values[0].accepted["kind"], param.values[0].message) for param in [*RULES, *CHANGES]}
    assert {(kind, message) for kind, message in _messages()} == tried


def _messages() -> Iterator[tuple[str, str]]:
    def walk(schema: Object) -> Iterator[str]:
        yield from (validation["message"] for validation in schema.get("x-kubernetes-validations", []))
        for part in [*schema.get("properties", {}).values(), *filter(None, [schema.get("items")])]:
            yield from walk(part)

    for path in CRDS:
        crd = yaml.safe_load(path.read_text())
        for message in walk(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]):
            yield crd["spec"]["names"]["kind"], message
