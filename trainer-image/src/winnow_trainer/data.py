"""The rows of a job: where they are, whether they fit together, what they share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from winnow_classifier.dataset import DATASET_FILE, StoredDataset, load_dataset, targets_in_schema
from winnow_classifier.errors import ConfigError, DataError
from winnow_classifier.split import split
from winnow_trainer.job import Spec, TestSplit

log = logging.getLogger(__name__)

DIGEST = "sha256:"
ImportRows = Callable[[Path], Path]


@dataclass(frozen=True)
class Data:
    train: StoredDataset
    test: StoredDataset | None
    test_targets: npt.NDArray[np.int8] | None  # (N, C) in the labels of the training rows
    overlap: int  # test rows whose text also stands in the training rows
    dropped: bool = False  # whether these were left out


def load_data(spec: Spec, storage: Path, import_rows: ImportRows) -> Data:
    """Raises DataError if the rows cannot teach anything or do not fit together, ConfigError if they are not there."""
    train = load_dataset(locate("trainingDataset", spec.training_dataset, storage, import_rows))
    if spec.test_split is not None:
        train, test = take_test_rows(train, spec.test_split)
        learnable(train)
        return Data(train, test, test.targets, 0)
    learnable(train)
    if spec.test_dataset is None:
        return Data(train, None, None, 0)
    test = load_dataset(locate("testDataset", spec.test_dataset, storage, import_rows))
    targets = targets_in_schema(test, train.schema)
    known = set(train.texts)
    shared = np.fromiter((text in known for text in test.texts), bool, len(test.texts))
    overlap = int(shared.sum())
    if spec.on_overlap == "Keep" or not overlap:
        return Data(train, test, targets, overlap)
    if overlap == len(test.texts):
        raise DataError(
            "testDataset: the text of every row also stands in the training rows, so onOverlap: Drop leaves none",
            hint="bring other test rows, or use testSplit",
        )
    own = np.flatnonzero(~shared)
    return Data(train, subset(test, own), targets[own], overlap, dropped=True)


def take_test_rows(dataset: StoredDataset, wanted: TestSplit) -> tuple[StoredDataset, StoredDataset]:
    """(training rows, test rows), both with the digest of the dataset that they come from."""
    found = split(dataset.texts, dataset.targets, wanted.percent, wanted.seed)
    if found.without:
        names = [dataset.schema.labels[column] for column in found.without]
        log.warning("Labels without test rows: they have too few different texts", extra={"labels": names})
    return subset(dataset, found.rest), subset(dataset, found.taken)


def subset(dataset: StoredDataset, rows: npt.NDArray[np.int64]) -> StoredDataset:
    texts = [dataset.texts[row] for row in rows.tolist()]
    return StoredDataset(dataset.schema, texts, dataset.targets[rows], dataset.digest, dataset.path)


def learnable(train: StoredDataset) -> None:
    constant = (train.targets == train.targets[0]).all(axis=0)
    if constant.all():
        shown = [label for label, holds in zip(train.schema.labels, train.targets[0], strict=True) if holds]
        raise DataError(
            f"trainingDataset: every row has the same labels ({', '.join(shown) or 'none'}), so there is nothing to learn",
            hint="add rows with the other labels",
        )


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
