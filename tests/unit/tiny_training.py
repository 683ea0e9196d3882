"""A job small enough for a second of training, with everything it needs on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import tiny_models
from rows_in_memory import store_dataset
from safetensors.torch import load_file
from torch import Tensor

from winnow_classifier.dataset import StoredDataset
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_trainer.job import TrainingJob
from winnow_trainer.progress import Progress
from winnow_trainer.train import train

BINARY = LabelSchema(TaskDetail.BINARY, ("ham", "spam"))


def dataset(storage: Path, count: int, seed: int, schema: LabelSchema = BINARY) -> StoredDataset:
    texts, spam = tiny_models.texts(count, seed)
    targets = np.zeros((count, len(schema.labels)), dtype=np.int8)
    targets[np.arange(count), spam] = 1
    return store_dataset(storage, schema, texts, targets)


@dataclass
class Trainer:
    """Runs jobs on one storage folder, in this process."""

    storage: Path
    model_type: str = "bert"
    base: Path = field(init=False)
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        self.base = self.storage / "base"
        if not self.base.exists():
            tiny_models.base_model(self.base, self.model_type)

    def job(self, method: str = "Full", name: str = "spam-v1", rows: int = 22, **parameters: Any) -> TrainingJob:
        spec = {
            "trainingDataset": str(dataset(self.storage, rows, seed=1).path),
            "testDataset": str(dataset(self.storage, 8, seed=2).path),
            "baseModel": str(self.base),
            "method": method,
            "parameters": {
                "numTrainEpochs": 2,
                "learningRate": 0.01,
                "perDeviceTrainBatchSize": 2,
                "gradientAccumulationSteps": 2,
                "maxSeqLength": 16,
                **parameters,
            },
        }
        return TrainingJob.model_validate({"kind": "TrainingJob", "metadata": {"name": name}, "spec": spec})

    def run(self, job: TrainingJob, stop: Event | None = None, **options: Any) -> dict[str, Any]:
        stop = stop or Event()
        return train(job, self.storage, progress=self.progress, stop=stop, import_rows=never, **options)

    def checkpoint(self, epoch: int, name: str = "spam-v1") -> Path:
        return self.storage / "runs" / name / "checkpoints" / f"epoch-{epoch}"


def weights(folder: Path) -> dict[str, Tensor]:
    """Of a checkpoint: a whole model's or an adapter's."""
    (file,) = folder.glob("*model.safetensors")
    return dict(load_file(file))


def never(path: Path) -> Path:
    raise AssertionError(f"{path} is stored, and needs no import")


def stop_after(progress: Progress, step: int) -> Event:
    """Set as soon as the run tells of that step: as SIGTERM in the middle of the next."""
    stop = Event()
    watch: Callable[..., None] = lambda changed, _: stop.set() if changed.get("step") == step else None  # noqa: E731
    progress.listen(watch)
    return stop
