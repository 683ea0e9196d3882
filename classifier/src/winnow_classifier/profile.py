"""What a user should know about rows before training on them: counts, token lengths, duplicates, warnings. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from winnow_classifier.dataset import Targets, positives
from winnow_classifier.labels import LabelSchema, TaskDetail

ADVISED_POSITIVES = 20
WARNED_LABELS = 5  # each by its own warning, the others by one
NEARLY = 0.99


@dataclass(frozen=True, slots=True)
class Warn:
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class TokenLengths:
    """In tokens of the base model, special tokens included, before any truncation."""

    mean: float
    p50: int
    p95: int
    p99: int
    max: int


@dataclass(frozen=True)
class Profile:
    rows: int
    labels: list[tuple[str, int]]  # with the rows that have it, in label order
    duplicates: int  # rows whose text already stands in an earlier row
    conflicts: int  # texts that occur with different labels
    tokens: TokenLengths | None
    warnings: list[Warn]


def profile(
    schema: LabelSchema, texts: Sequence[str], targets: Targets, lengths: Sequence[int] | None = None
) -> Profile:
    """lengths: the tokens of each text, where the base model is known."""
    duplicates, conflicts = _repeated(texts, targets)
    counts = list(positives(schema, targets).items())
    return Profile(
        rows=len(texts),
        labels=counts,
        duplicates=duplicates,
        conflicts=conflicts,
        tokens=token_lengths(lengths) if lengths else None,
        warnings=[
            *_single_class(schema, targets),
            *_few_examples(counts),
            *_nearly_multiclass(schema, targets),
            *_conflicting(conflicts),
        ],
    )


def token_lengths(lengths: Sequence[int]) -> TokenLengths:
    """Percentiles are lengths that occur: the smallest that so many of the rows do not exceed."""
    values = np.asarray(lengths, dtype=np.int64)
    p50, p95, p99 = (int(p) for p in np.percentile(values, [50, 95, 99], method="inverted_cdf"))
    return TokenLengths(round(float(values.mean()), 1), p50, p95, p99, int(values.max()))


def _repeated(texts: Sequence[str], targets: Targets) -> tuple[int, int]:
    first: dict[str, int] = {}
    conflicting: set[str] = set()
    for row, text in enumerate(texts):
        before = first.setdefault(text, row)
        if before != row and (targets[before] != targets[row]).any():
            conflicting.add(text)
    return len(texts) - len(first), len(conflicting)


def _single_class(schema: LabelSchema, targets: Targets) -> list[Warn]:
    if (targets != targets[0]).any():
        return []
    held = [label for label, holds in zip(schema.labels, targets[0], strict=True) if holds]
    labels = f'the label "{held[0]}"' if len(held) == 1 else f"the same {len(held)} labels"
    return [Warn("SingleClass", f"every row has {labels}: there is nothing to learn from these rows alone")]


def _few_examples(counts: Sequence[tuple[str, int]]) -> list[Warn]:
    few = [(label, n) for label, n in counts if n < ADVISED_POSITIVES]
    own = few if len(few) <= WARNED_LABELS + 1 else few[:WARNED_LABELS]
    advice = f"{ADVISED_POSITIVES} or more are advised"
    warnings = [
        Warn("FewExamples", f'label "{label}" has {n} positive{"" if n == 1 else "s"}; {advice}') for label, n in own
    ]
    if rest := few[len(own) :]:
        warnings.append(Warn("FewExamples", f"{len(rest)} more labels have fewer than {ADVISED_POSITIVES} positives"))
    return warnings


def _nearly_multiclass(schema: LabelSchema, targets: Targets) -> list[Warn]:
    if schema.task_detail is not TaskDetail.MULTILABEL or len(schema.labels) < 2:
        return []
    ones: npt.NDArray[np.bool_] = targets.sum(axis=1) == 1
    others = int((~ones).sum())
    if not 0 < others <= (1 - NEARLY) * len(ones):
        return []
    first = int(np.flatnonzero(~ones)[0]) + 1
    return [
        Warn(
            "NearlyMulticlass",
            f"all but {others} of {len(ones):,} rows have exactly one label (the first other is row {first}), so this "
            "is Multilabel; if these rows are wrong, correct them or set taskDetail: Multiclass to find them",
        )
    ]


def _conflicting(conflicts: int) -> list[Warn]:
    if not conflicts:
        return []
    found = "1 text occurs" if conflicts == 1 else f"{conflicts:,} texts occur"
    return [Warn("ConflictingLabels", f"{found} with different labels")]
