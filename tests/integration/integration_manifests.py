"""Manifests as a user writes them: factories that take what a test is about and fill in the rest."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

API_VERSION = "winnow.dev/v1alpha1"
IMAGE_MODEL = {"image": {"reference": "docker.io/winnow/base-minilm:dev", "path": "/model"}}
ROWS = '{"prompt": "Win a prize now", "completion": 1}\n{"prompt": "See you at noon", "completion": 0}\n'


def _manifest(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def model_service(name: str = "spam", **spec: Any) -> Object:
    storage = {"persistentVolumeClaim": {"size": "1Gi", "storageClassName": "by-hand"}}
    return _manifest("ModelService", name, {"baseModel": IMAGE_MODEL, "storage": storage, **spec})


def dataset(name: str = "rows", **spec: Any) -> Object:
    return _manifest("Dataset", name, {"modelService": "spam", "source": {"inline": ROWS}, **spec})


def training_job(name: str = "v1", **spec: Any) -> Object:
    return _manifest("TrainingJob", name, {"modelService": "spam", "trainingDataset": "rows", **spec})


def deployment(name: str = "web", **spec: Any) -> Object:
    return _manifest("Deployment", name, {"modelService": "spam", "checkpoint": {"trainingJob": "v1"}, **spec})
