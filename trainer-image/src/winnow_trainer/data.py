"""The rows of a job: where they are, whether they fit together, what they share."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from winnow_classifier.dataset import DATASET_FILE, StoredDataset, load_dataset, targets_in_schema
from winnow_classifier.errors import ConfigError, DataError
from winnow_classifier.mirror import Mirror, is_bucket
from winnow_classifier.split import split
from winnow_trainer.job import Part, Spec

DIGEST = "sha256:"
ImportRows = Callable[[Path], Path]


@dataclass(frozen=True)
class HeldOut:
    """Rows to measure on, never to learn from."""

    rows: StoredDataset
    targets: npt.NDArray[np.int8]  # (N, C) in the labels of the training rows
    overlap: int = 0  # rows whose text also stands where it must not
    dropped: bool = False  # whether these were left out


@dataclass(frozen=True)
class Data:
    train: StoredDataset
    test: HeldOut | None
    validation: HeldOut | None


def load_data(spec: Spec, storage: Path, import_rows: ImportRows, mirror: Mirror) -> Data:
    """Raises DataError if the rows cannot teach anything or do not fit together, ConfigError if they are not there.

    Test rows must not stand in the training dataset; validation rows must not stand in the training rows, nor be test
    rows. So which rows a job is tested on does not depend on its validation rows, and jobs stay comparable.
    """
    train = load_dataset(locate("trainingDataset", spec.training_dataset, storage, import_rows, mirror))
    test = validation = None
    if spec.test_split is not None:
        train, test = take("testSplit", train, spec.test_split)
    known = set(train.texts)
    if spec.validation_split is not None:
        train, validation = take("validationSplit", train, spec.validation_split)
    learnable(train)

    def brought(field: str, reference: str) -> HeldOut:
        rows = load_dataset(locate(field, reference, storage, import_rows, mirror))
        return held_out(field, rows, train, known, drop=spec.on_overlap == "Drop")

    if spec.test_dataset is not None:
        test = brought("testDataset", spec.test_dataset)
    if spec.validation_dataset is not None:
        known.update(test.rows.texts if test else ())
        validation = brought("validationDataset", spec.validation_dataset)
    return Data(train, test, validation)


def held_out(field: str, rows: StoredDataset, train: StoredDataset, known: Collection[str], *, drop: bool) -> HeldOut:
    """Rows of a dataset of their own. `known` are texts that they must not have."""
    targets = targets_in_schema(rows, train.schema, field)
    shared = np.fromiter((text in known for text in rows.texts), bool, len(rows.texts))
    overlap = int(shared.sum())
    if not drop or not overlap:
        return HeldOut(rows, targets, overlap)
    if overlap == len(rows.texts):
        others = "training rows" if field == "testDataset" else "training or test rows"
        other, split_field = field.removesuffix("Dataset"), field.replace("Dataset", "Split")
        raise DataError(
            f"{field}: the text of every row also stands in the {others}, so onOverlap: Drop leaves none",
            hint=f"bring other {other} rows, or use {split_field}",
        )
    own = np.flatnonzero(~shared)
    return HeldOut(subset(rows, own), targets[own], overlap, dropped=True)


def take(field: str, dataset: StoredDataset, wanted: Part) -> tuple[StoredDataset, HeldOut]:
    """(the rest, what was taken), both with the digest of the dataset that they come from."""
    try:
        found = split(dataset.texts, dataset.targets, wanted.percent, wanted.seed)
    except DataError as err:
        raise DataError(f"{field}: {err}", hint=err.hint) from err
    taken = subset(dataset, found.taken)
    return subset(dataset, found.rest), HeldOut(taken, taken.targets)


def subset(dataset: StoredDataset, rows: npt.NDArray[np.int64]) -> StoredDataset:
    texts = [dataset.texts[row] for row in rows.tolist()]
    numbers = rows if dataset.numbers is None else dataset.numbers[rows]
    return StoredDataset(dataset.schema, texts, dataset.targets[rows], dataset.digest, dataset.path, numbers)


def learnable(train: StoredDataset) -> None:
    constant = (train.targets == train.targets[0]).all(axis=0)
    if constant.all():
        shown = [label for label, holds in zip(train.schema.labels, train.targets[0], strict=True) if holds]
        raise DataError(
            f"trainingDataset: every row has the same labels ({', '.join(shown) or 'none'}), so there is nothing to learn",
            hint="add rows with the other labels",
        )


def locate(field: str, reference: str, storage: Path, import_rows: ImportRows, mirror: Mirror) -> Path:
    """The stored dataset of a folder, of a digest, of its place in a bucket, or of a file of rows, which is imported."""
    path, stored = Path(reference), storage / "datasets"
    in_bucket = reference.startswith(f"{mirror.shown(stored)}/") and is_bucket(reference)
    if reference.startswith(DIGEST) or in_bucket:
        path = stored / reference.removeprefix(DIGEST).rstrip("/").rpartition("/")[2]
        mirror.fetch_folder(path, DATASET_FILE)
        if not (path / DATASET_FILE).is_file():
            raise ConfigError(f"{field}: there is no stored dataset {mirror.shown(path)}", hint="import the rows again")
        return path
    if path.is_file() and path.name == DATASET_FILE:
        return path.parent
    if path.is_file():
        return import_rows(path)
    if not path.is_dir():
        raise ConfigError(f"{field}: {reference} is neither a folder of a stored dataset nor a file of rows")
    return path
