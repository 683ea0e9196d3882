"""The rows of a job: where they are, whether they fit together, what they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from winnow_classifier.dataset import DATASET_FILE, StoredDataset, load_dataset, overlap, targets_in_schema
from winnow_classifier.errors import ConfigError, DataError
from winnow_trainer.job import Spec

DIGEST = "sha256:"
ImportRows = Callable[[Path], Path]


@dataclass(frozen=True)
class Data:
    train: StoredDataset
    test: StoredDataset | None
    test_targets: npt.NDArray[np.int8] | None  # (N, C) in the labels of the training rows
    overlap: int  # test rows whose text also stands in the training rows


def load_data(spec: Spec, storage: Path, import_rows: ImportRows) -> Data:
    """Raises DataError if the rows cannot teach anything or do not fit together, ConfigError if they are not there."""
    train = load_dataset(locate("trainingDataset", spec.training_dataset, storage, import_rows))
    constant = (train.targets == train.targets[0]).all(axis=0)
    if constant.all():
        shown = [label for label, holds in zip(train.schema.labels, train.targets[0], strict=True) if holds]
        raise DataError(
            f"trainingDataset: every row has the same labels ({', '.join(shown) or 'none'}), so there is nothing to learn",
            hint="add rows with the other labels",
        )
    if spec.test_dataset is None:
        return Data(train, None, None, 0)
    test = load_dataset(locate("testDataset", spec.test_dataset, storage, import_rows))
    return Data(train, test, targets_in_schema(test, train.schema), overlap(train, test))


def locate(field: str, reference: str, storage: Path, import_rows: ImportRows) -> Path:
    """The stored dataset of a folder, of a digest, or of a file of rows, which is imported."""
    path = Path(reference)
    if reference.startswith(DIGEST):
        return storage / "datasets" / reference.removeprefix(DIGEST)
    if path.is_file() and path.name == DATASET_FILE:
        return path.parent
    if path.is_file():
        return import_rows(path)
    if not path.is_dir():
        raise ConfigError(f"{field}: {reference} is neither a folder of a stored dataset nor a file of rows")
    return path
