"""Rows in memory, for tests: read, stored and profiled in one call each, by what the product does a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from winnow_classifier.dataset import (
    ROWS_PER_GROUP,
    Batch,
    CanonicalDigest,
    DatasetWriter,
    Labels,
    StoredDataset,
    Targets,
    targets_of,
)
from winnow_classifier.labels import LabelSchema
from winnow_classifier.profile import Profile, Profiler
from winnow_classifier.row_files import Problem
from winnow_classifier.rows import Judge, RowOptions


@dataclass(frozen=True)
class Rows:
    schema: LabelSchema
    texts: list[str]
    targets: Targets  # (N, C) zeros and ones
    problems: list[Problem] = field(default_factory=list)  # the first of the rows that were skipped
    problem_count: int = 0  # rows that were skipped
    origin: str = ""


def read_rows(files: Path | Sequence[Path], options: RowOptions) -> Rows:
    """Every row of the files, in memory. Raises as Judge.read does."""
    judge = Judge(options)
    texts: list[str] = []
    labels: list[Labels] = []
    for batch in judge.read([files] if isinstance(files, Path) else files):
        texts += batch.texts
        labels += batch.labels
    schema = judge.schema
    return Rows(schema, texts, targets_of(schema, labels), judge.problems, judge.problem_count, judge.origin)


def store_dataset(storage: Path, schema: LabelSchema, texts: Sequence[str], targets: Targets) -> StoredDataset:
    """Writes rows that are in memory, unless they stand there already. Raises as DatasetWriter does."""
    texts = [text.replace("\r\n", "\n") for text in texts]
    with DatasetWriter(storage) as writer:
        for batch in batches_of(schema, texts, targets):
            writer.add(batch)
        published = writer.publish(schema)
    return StoredDataset(schema, texts, targets, published.digest, published.path)


def canonical_digest(schema: LabelSchema, texts: Sequence[str], targets: Targets) -> str:
    digest = CanonicalDigest()
    for batch in batches_of(schema, texts, targets):
        digest.add(batch)
    return digest.of(schema)


def batches_of(schema: LabelSchema, texts: Sequence[str], targets: Targets) -> Iterator[Batch]:
    """(N, C) targets as names."""
    held: dict[bytes, Labels] = {}
    for start in range(0, len(texts), ROWS_PER_GROUP):
        labels = []
        for row in np.ascontiguousarray(targets[start : start + ROWS_PER_GROUP], dtype=np.int8):
            key = row.tobytes()
            if key not in held:
                held[key] = tuple(sorted(schema.labels[column] for column in np.flatnonzero(row)))
            labels.append(held[key])
        yield Batch([text.replace("\r\n", "\n") for text in texts[start : start + ROWS_PER_GROUP]], labels)


def profile(
    schema: LabelSchema, texts: Sequence[str], targets: Targets, lengths: Sequence[int] | None = None
) -> Profile:
    """Of rows that are in memory."""
    profiler = Profiler()
    done = 0
    for batch in batches_of(schema, texts, targets):
        profiler.add(batch, lengths[done : done + len(batch.texts)] if lengths else ())
        done += len(batch.texts)
    return profiler.finish(schema)
