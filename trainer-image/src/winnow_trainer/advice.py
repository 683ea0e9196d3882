"""What a person should know about the rows of a job, each with the code that docs/data.md lists. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from winnow_classifier.dataset import positives
from winnow_classifier.decision import Decision
from winnow_classifier.profile import ADVISED_POSITIVES, Warn
from winnow_classifier.words import some
from winnow_trainer.data import Data, HeldOut
from winnow_trainer.examples import Examples
from winnow_trainer.metric_functions import Scored
from winnow_trainer.run_folder import Changed

SHOWN_LABELS = 3
SHOWN_CHARACTERS = 40  # of a label's name


def about_rows(data: Data) -> list[Warn]:
    return [*_few(data)] + [
        warning
        for name, part in (("test", data.test), ("validation", data.validation))
        if part is not None
        for warning in (*_overlap(name, part), *_labels(name, part, data))
    ]


def about_decision(data: Data) -> list[Warn]:
    if data.validation is not None:
        return []
    told = "there are no validation rows, so probabilities are not calibrated and thresholds stay at 0.5"
    return [Warn("NotCalibrated", f"{told}; validationSplit takes some out of the training rows")]


def about_band(decision: Decision) -> list[Warn]:
    """Whether the surest answers abstain too: the band reaches from a threshold to 0, or to 1."""
    band = (decision.abstain and decision.abstain.band) or 0.0
    near = {label: limit for label, limit in decision.thresholds.items() if limit < band or limit + band > 1}
    if not near:
        return []
    shown = some([f"{_names([label])} ({limit:.4g})" for label, limit in near.items()], SHOWN_LABELS)
    which = f"the threshold{'s' if len(near) > 1 else ''} of {shown}"
    told = f"{band:g} reaches from {which} to 0 or 1, so that the surest answers abstain too"
    return [Warn("WideBand", f"thresholds.abstain.band: {told}; use a smaller one")]


def about_changed(checkpoints: Sequence[Changed]) -> list[Warn]:
    """A warning about changed checkpoints, which stay as they are."""
    told = "so that no server will load it; it is left as it is"
    return [
        Warn("CheckpointChanged", f"{one.name} is not as it was published, {told}: {one.why}") for one in checkpoints
    ]


def about_lengths(parts: Mapping[str, Examples | None], max_seq_length: int) -> list[Warn]:
    """How many texts lose their ends; parts by name."""
    cut = [
        f"{part.truncated:,} of {len(part):,} {name} rows ({part.truncated / len(part):.1%})"
        for name, part in parts.items()
        if part is not None and part.truncated
    ]
    if not cut:
        return []
    told = " and ".join(filter(None, [", ".join(cut[:-1]), cut[-1]]))
    return [
        Warn("LongTexts", f"{told} are longer than maxSeqLength, {max_seq_length:,} tokens: their ends are not read")
    ]


def about_functions(checkpoint: str, parts: Mapping[str, Sequence[Scored]]) -> list[Warn]:
    """Which of the user's metric functions failed on which rows."""
    return [
        Warn(
            "MetricFailed",
            f'the metric "{each.name}" failed on {name} rows: {each.error}'
            + (f", at row {each.row:,}" if each.row else "")
            + f", in the evaluation of {checkpoint}; metrics.json says how it went later",
        )
        for name, scored in parts.items()
        for each in scored
        if each.error
    ]


def _few(data: Data) -> Iterator[Warn]:
    """Warns of labels with few training rows: a split may have left a label fewer than its Dataset has."""
    counts = positives(data.train.schema, data.train.targets)
    few = sorted((count, label) for label, count in counts.items() if count < ADVISED_POSITIVES)
    if few:
        labels = _names([label for _, label in few])
        which = f"the label {labels} has" if len(few) == 1 else f"{len(few)} labels have"
        least = f"{few[0][0]}" if len(few) == 1 else f"fewer than {ADVISED_POSITIVES}"
        told = f"{which} {least} training rows{'' if len(few) == 1 else f': {labels}'}"
        yield Warn("FewExamples", f"{told}; {ADVISED_POSITIVES} or more are advised")


def _overlap(name: str, part: HeldOut) -> Iterator[Warn]:
    if not part.overlap:
        return
    others = "training rows" if name == "test" else "training or test rows"
    if part.dropped:
        found = "1 row was" if part.overlap == 1 else f"{part.overlap:,} rows were"
        yield Warn("Overlap", f"{found} left out of the {name} rows: the same text also stands in the {others}")
        return
    found = f"{part.overlap:,} of {len(part.targets):,} {name} rows also stand{'s' if part.overlap == 1 else ''}"
    better = "so metrics look better than they are; onOverlap: Drop leaves such rows out"
    yield Warn("Overlap", f"{found} in the {others}, {better}")


def _labels(name: str, part: HeldOut, data: Data) -> Iterator[Warn]:
    schema = data.train.schema
    if (part.targets == part.targets[0]).all():
        held = [schema.labels[column] for column in np.flatnonzero(part.targets[0])]
        labels = (
            f"the label {_names(held)}" if len(held) == 1 else f"the same {len(held)} labels" if held else "no label"
        )
        yield Warn(
            "SingleClass", f"every one of the {len(part.targets):,} {name} rows has {labels}: metrics say little"
        )
        return
    missing = np.flatnonzero(data.train.targets.any(axis=0) & ~part.targets.any(axis=0))
    if len(missing):
        names = _names([schema.labels[column] for column in missing])
        which = f"the label {names}" if len(missing) == 1 else f"{len(missing)} labels of the training rows: {names}"
        whom = "it" if len(missing) == 1 else "them"
        yield Warn("MissingLabels", f"no {name} row has {which}; metrics say nothing about {whom}")


def _names(labels: Sequence[str]) -> str:
    return some([f'"{_short(label)}"' for label in labels], SHOWN_LABELS)


def _short(label: str) -> str:
    return label if len(label) <= SHOWN_CHARACTERS else label[: SHOWN_CHARACTERS - 1] + "…"
