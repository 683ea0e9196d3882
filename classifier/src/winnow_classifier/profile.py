"""What a user should know about rows before training on them: counts, lengths, duplicates, warnings. Pure."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from winnow_classifier.dataset import Batch, Labels
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.near_duplicates import MAX_BYTES, MAX_TEXTS, near_duplicates
from winnow_classifier.words import some

ADVISED_POSITIVES = 20
WARNED_LABELS = 5  # each by its own warning, the others by one
NEARLY = 0.99
IMBALANCE = 100  # the most frequent label has so many times the rows of the rarest
USUAL_TOKENS = 512  # what parameters.maxSeqLength is unless it is set
WARNED_CUT = 0.05
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
LISTED_PAIRS = 200
BARS = 60  # of a histogram of lengths
WARNED_WORDLESS = 0.01
_CONTROL_BYTES = bytes([*range(1, 9), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F])
_CONTROL = re.compile(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]")
_WITHOUT_WORDS = re.compile(r"[\W\d_]+")
_BETWEEN_WORDS = re.compile(r"(?<=[^\W_])[\s_-]+(?=[^\W_])")
_ONLY_DIGITS = re.compile(r"[\s\d]+")


@dataclass(frozen=True, slots=True)
class Warn:
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Lengths:
    mean: float
    p50: int
    p95: int
    p99: int
    max: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many rows are how long; edges grow by a ratio, because lengths do. The last edge is one above the longest."""

    edges: list[int]  # rows[n] counts lengths from edges[n] to below edges[n + 1]
    rows: list[int]


@dataclass(frozen=True)
class Profile:
    rows: int
    labels: list[tuple[str, int]]  # with the rows that have it, in label order
    duplicates: int  # rows whose text already stands in an earlier row
    conflicts: int  # texts that occur with different labels
    tokens: Lengths | None  # of the base model, special tokens included, before any truncation
    warnings: list[Warn]
    near_duplicates: int  # texts nearly the same as an earlier, different one, of the first 50,000
    characters: Lengths
    longer_than: Mapping[int, float]  # share of rows that have more tokens, where they are known
    co_occurrence: Sequence[tuple[str, str, int]]  # pairs of labels that hold in one row, the most frequent first
    control_characters: int  # rows with one that no text should have
    without_words: int  # rows with only digits and signs
    only_digits: int  # of these, rows with only digits
    histogram: Histogram  # of tokens where they are known, else of characters

    def document(self) -> dict[str, Any]:
        """profile.json."""
        return {
            "rows": self.rows,
            "labels": [{"name": n, "positives": c, "share": round(c / self.rows, 6)} for n, c in self.labels],
            "coOccurrence": [{"labels": [a, b], "rows": count} for a, b, count in self.co_occurrence[:LISTED_PAIRS]],
            "duplicates": self.duplicates,
            "conflicts": self.conflicts,
            "nearDuplicates": {
                "count": self.near_duplicates,
                "ofTheFirst": min(self.rows - self.duplicates, MAX_TEXTS),  # different texts
            },
            "tokens": self.tokens and asdict(self.tokens),
            "characters": asdict(self.characters),
            "longerThan": {str(n): round(share, 6) for n, share in self.longer_than.items()},
            "histogram": {
                "of": "tokens" if self.tokens else "characters",
                "edges": self.histogram.edges,
                "rows": self.histogram.rows,
            },
            "oddities": {
                "controlCharacters": self.control_characters,
                "withoutWords": self.without_words,
                "onlyDigits": self.only_digits,
            },
            "warnings": [asdict(warning) for warning in self.warnings],
        }


class Profiler:
    """Rows in, a batch at a time; of each row it keeps its hash, its labels' number and its lengths, 20 bytes."""

    def __init__(self) -> None:
        self._hashes = array("q")
        self._sets = array("i")
        self._characters = array("i")
        self._tokens = array("i")
        self._set_numbers: dict[Labels, int] = {}
        self._set_counts: Counter[Labels] = Counter()
        self._first_texts: dict[int, str] = {}  # by hash; so much of each as is looked at
        self._control = self._wordless = self._digits = 0
        self._first_not_single: int | None = None

    def add(self, batch: Batch, tokens: Sequence[int] = ()) -> None:
        """`tokens`: the length of each text, where the base model is known."""
        texts, numbers, counts = batch.texts, self._set_numbers, Counter(batch.labels)
        if self._first_not_single is None:
            before = len(self._hashes)
            others = (before + row for row, labels in enumerate(batch.labels) if len(labels) != 1)
            self._first_not_single = next(others, None) if any(len(labels) != 1 for labels in counts) else None
        hashes = list(map(hash, texts))
        self._hashes.extend(hashes)  # of this process: good to find equal texts, never kept
        for labels in counts:
            numbers.setdefault(labels, len(numbers))
        self._sets.extend(map(numbers.__getitem__, batch.labels))
        self._set_counts.update(counts)
        self._characters.extend(map(len, texts))
        self._tokens.extend(tokens)
        if _may_hold_control("\n".join(texts)):
            self._control += sum(map(bool, map(_CONTROL.search, texts)))
        wordless = list(filter(_WITHOUT_WORDS.fullmatch, texts))
        self._wordless += len(wordless)
        self._digits += sum(map(bool, map(_ONLY_DIGITS.fullmatch, wordless)))
        for known, text in zip(hashes, texts, strict=True):
            if len(self._first_texts) == MAX_TEXTS:
                break
            self._first_texts[known] = text[:MAX_BYTES]

    def finish(self, schema: LabelSchema) -> Profile:
        counts: Counter[str] = Counter()
        pairs: Counter[tuple[str, str]] = Counter()
        for labels, count in self._set_counts.items():
            for label in labels:
                counts[label] += count
            for pair in combinations(labels, 2):
                pairs[pair] += count
        positives = [(label, counts[label]) for label in schema.labels]
        duplicates, conflicts = self._repeated()
        tokens = np.frombuffer(self._tokens, dtype=np.int32)
        longer = {length: float((tokens > length).mean()) for length in LENGTHS} if len(tokens) else {}
        characters = np.frombuffer(self._characters, dtype=np.int32)
        near = near_duplicates(list(self._first_texts.values()))
        return Profile(
            rows=len(self._hashes),
            labels=positives,
            duplicates=duplicates,
            conflicts=conflicts,
            tokens=lengths_of(tokens) if len(tokens) else None,
            warnings=[
                *self._single_class(),
                *_alike(schema.labels),
                *_few_examples(positives),
                *_imbalance(positives),
                *self._nearly_multiclass(schema),
                *_conflicting(conflicts),
                *_cut(longer),
                *_odd(self._control),
                *_wordless(self._wordless, len(self._hashes)),
            ],
            near_duplicates=near,
            characters=lengths_of(characters),
            longer_than=longer,
            co_occurrence=[(a, b, count) for (a, b), count in pairs.most_common()],
            control_characters=self._control,
            without_words=self._wordless,
            only_digits=self._digits,
            histogram=histogram(tokens if len(tokens) else characters),
        )

    def _repeated(self) -> tuple[int, int]:
        hashes = np.frombuffer(self._hashes, dtype=np.int64)
        order = np.argsort(hashes, kind="stable")
        starts = np.flatnonzero(np.concatenate(([True], hashes[order][1:] != hashes[order][:-1])))
        sets = np.frombuffer(self._sets, dtype=np.int32)[order]
        differ = np.minimum.reduceat(sets, starts) != np.maximum.reduceat(sets, starts)
        return len(hashes) - len(starts), int(differ.sum())

    def _single_class(self) -> list[Warn]:
        if len(self._set_numbers) > 1:
            return []
        [held] = self._set_numbers
        labels = f'the label "{held[0]}"' if len(held) == 1 else f"the same {len(held)} labels"
        return [Warn("SingleClass", f"every row has {labels}: there is nothing to learn from these rows alone")]

    def _nearly_multiclass(self, schema: LabelSchema) -> list[Warn]:
        if schema.task_detail is not TaskDetail.MULTILABEL or len(schema.labels) < 2:
            return []
        rows = len(self._hashes)
        others = sum(count for labels, count in self._set_counts.items() if len(labels) != 1)
        if self._first_not_single is None or not 0 < others <= (1 - NEARLY) * rows:
            return []
        return [
            Warn(
                "NearlyMulticlass",
                f"all but {others} of {rows:,} rows have exactly one label (the first other is row "
                f"{self._first_not_single + 1}), so this is Multilabel; if these rows are wrong, correct them or set "
                "taskDetail: Multiclass to find them",
            )
        ]


def _may_hold_control(text: str) -> bool:
    """A quick check that spares nearly all texts the slow one."""
    content = text.encode(errors="replace")
    return len(content.translate(None, _CONTROL_BYTES)) < len(content) or "\ufffd" in text


def lengths_of(lengths: Sequence[int] | npt.NDArray[np.int32]) -> Lengths:
    """Percentiles are lengths that occur: the smallest that so many of the rows do not exceed."""
    values = np.asarray(lengths, dtype=np.int64)
    p50, p95, p99 = (int(p) for p in np.percentile(values, [50, 95, 99], method="inverted_cdf"))
    return Lengths(round(float(values.mean()), 1), p50, p95, p99, int(values.max()))


def histogram(lengths: npt.NDArray[np.int32]) -> Histogram:
    """Lengths of at least 0."""
    edges = np.unique(np.geomspace(1, max(int(lengths.max()), 1) + 1, BARS + 1).round().astype(np.int64))
    edges[0] = min(1, int(lengths.min()))
    return Histogram(edges.tolist(), np.histogram(lengths, edges)[0].tolist())


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


def _alike(labels: Sequence[str]) -> Iterator[Warn]:
    """Names that people take for one."""
    alike: dict[str, list[str]] = {}
    for label in labels:
        written = _BETWEEN_WORDS.sub(" ", unicodedata.normalize("NFKC", label).casefold())
        alike.setdefault(written, []).append(f'"{label}"')
    if found := [" and ".join(names) for names in alike.values() if len(names) > 1]:
        how = "in case, in what stands between words, or in Unicode's form of a letter"
        yield Warn(
            "LabelsAlike",
            f"the labels {some(found, WARNED_LABELS)} differ only {how}: rename them if they mean the same",
        )


def _imbalance(counts: Sequence[tuple[str, int]]) -> Iterator[Warn]:
    met = sorted((count, label) for label, count in counts if count)
    if len(met) > 1 and met[-1][0] > IMBALANCE * met[0][0]:
        (few, rare), (many, common) = met[0], met[-1]
        ratio = f"{many / few:,.0f} to 1"
        yield Warn("Imbalance", f'label "{common}" has {many:,} positives and "{rare}" {few:,}: {ratio}')


def _cut(longer_than: Mapping[int, float]) -> Iterator[Warn]:
    if longer_than and (share := longer_than[USUAL_TOKENS]) > WARNED_CUT:
        message = f"{share:.0%} of the rows are longer than {USUAL_TOKENS} tokens, and what is beyond maxSeqLength"
        yield Warn("LongTexts", f"{message} ({USUAL_TOKENS} unless it is set) is not read")


def _odd(rows: int) -> Iterator[Warn]:
    if rows:
        found = "1 text holds" if rows == 1 else f"{rows:,} texts hold"
        yield Warn("ControlCharacters", f"{found} control characters or U+FFFD, as a wrong encoding leaves them")


def _wordless(wordless: int, rows: int) -> Iterator[Warn]:
    if wordless > WARNED_WORDLESS * rows:
        found = "1 text has" if wordless == 1 else f"{wordless:,} texts have"
        yield Warn("WithoutWords", f"{found} only digits and signs, no letters")


def _conflicting(conflicts: int) -> list[Warn]:
    if not conflicts:
        return []
    found = "1 text occurs" if conflicts == 1 else f"{conflicts:,} texts occur"
    return [Warn("ConflictingLabels", f"{found} with different labels")]
