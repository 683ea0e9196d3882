"""A profile as a picture: labels, lengths, labels that occur together, figures and warnings. In and out by value."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.profile import ADVISED_POSITIVES, USUAL_TOKENS, Profile

SHOWN_LABELS = 30
SHOWN_WARNINGS = 8
NAME_CHARACTERS = 28
WARNING_CHARACTERS, BESIDE_CHARACTERS = 150, 66  # of a line, by the place where it stands
WIDTH, LENGTHS_HEIGHT, DPI = 12.0, 3.6, 100  # inches, inches, dots an inch
INK, QUIET, BAR, FEW, MARK = "#1f2933", "#6b7785", "#3b76b5", "#d9822b", "#b3261e"
STYLE: Any = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": "#c5ccd4",
    "axes.labelcolor": QUIET,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": QUIET,
    "ytick.color": INK,
    "figure.facecolor": "white",
    "text.parse_math": False,  # a label may hold dollar signs
}


def draw(found: Profile, schema: LabelSchema) -> bytes:
    """A PNG."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripts that its font lacks become boxes
        content = io.BytesIO()
        _figure(found, schema).savefig(content, format="png", dpi=DPI)
    return content.getvalue()


def _figure(found: Profile, schema: LabelSchema) -> Figure:
    ranked = sorted(found.labels, key=lambda label: -label[1])[:SHOWN_LABELS]
    together = schema.task_detail is TaskDetail.MULTILABEL and len(ranked) > 1
    bars = max(LENGTHS_HEIGHT, 1.0 + 0.24 * len(ranked))
    told = _warnings(found, BESIDE_CHARACTERS)
    beside = bars - LENGTHS_HEIGHT > _height(told)  # under the lengths is room for the warnings
    told = told if beside else _warnings(found, WARNING_CHARACTERS)
    heights = [0.9, bars]
    heights += [2.2 + 0.26 * len(ranked)] if together else []
    heights += [_height(told)] if told and not beside else []
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.3), layout=layout)
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    _figures(figure.add_subplot(grid[0, :]), found, schema)
    _labels(figure.add_subplot(grid[1, 0]), ranked, found)
    if beside:
        right = grid[1, 1].subgridspec(2, 1, height_ratios=[LENGTHS_HEIGHT, bars - LENGTHS_HEIGHT])
        _lengths(figure.add_subplot(right[0]), found)
        _told(figure.add_subplot(right[1]), told)
    else:
        _lengths(figure.add_subplot(grid[1, 1]), found)
    if together:
        _together(figure.add_subplot(grid[2, :]), [name for name, _ in ranked], found)
    if told and not beside:
        _told(figure.add_subplot(grid[-1, :]), told)
    return figure


def _height(lines: Sequence[str]) -> float:
    """Of the warnings, in inches."""
    return 0.7 + 0.17 * len(lines)


def _figures(axes: Axes, found: Profile, schema: LabelSchema) -> None:
    axes.axis("off")
    figures = [
        (f"{found.rows:,}", "rows"),
        (f"{len(found.labels):,}", f"labels, {schema.task_detail}"),
        (f"{found.duplicates:,}", "duplicates"),
        (f"{found.conflicts:,}", "conflicting texts"),
        (f"{found.near_duplicates:,}", "near-duplicates"),
        (f"{len(found.warnings):,}", "warning" if len(found.warnings) == 1 else "warnings"),
    ]
    for number, (value, name) in enumerate(figures):
        x = (number + 0.5) / len(figures)
        noticed = name.startswith("warning") and found.warnings
        colour = FEW if noticed else INK
        axes.text(x, 0.62, value, size=20, weight="bold", ha="center", va="center", color=colour)
        axes.text(x, 0.12, name, size=9, ha="center", va="center", color=QUIET)


def _labels(axes: Axes, ranked: Sequence[tuple[str, int]], found: Profile) -> None:
    counts = [count for _, count in ranked]
    places = range(len(ranked))
    colours = [FEW if count < ADVISED_POSITIVES else BAR for count in counts]
    axes.barh(places, counts, color=colours, height=0.72)
    axes.set_yticks(places, [_name(name) for name, _ in ranked])
    axes.set_ylim(max(len(ranked), 4) - 0.4, -0.6)  # the first on top; few bars do not grow fat
    most = max(*counts, 1)
    axes.set_xlim(0, most * 1.28)
    for place, count in zip(places, counts, strict=True):
        axes.text(
            count + most * 0.015, place, f"{count:,} · {count / found.rows:.1%}", va="center", size=8, color=QUIET
        )
    hidden = len(found.labels) - len(ranked)
    few = f", orange: fewer than {ADVISED_POSITIVES}" if FEW in colours else ""
    axes.set_title(f"Rows by label{f' (the most frequent {len(ranked)} of {len(found.labels):,})' if hidden else ''}")
    axes.set_xlabel(f"rows{few}")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _lengths(axes: Axes, found: Profile) -> None:
    lengths, unit = (found.tokens, "tokens") if found.tokens else (found.characters, "characters")
    axes.set_title(f"Length of the texts in {unit}")
    edges = np.maximum(np.array(found.histogram.edges, dtype=float), 0.8)
    axes.stairs(found.histogram.rows, edges, fill=True, color=BAR, alpha=0.85)
    axes.set_xscale("log")
    marks = [(lengths.p50, "p50", INK), (lengths.p95, "p95", INK), (lengths.p99, "p99", INK)]
    if found.tokens:
        marks.append((USUAL_TOKENS, "maxSeqLength\n unless set:", MARK))
    low = max(0.8, 0.9 * edges[np.flatnonzero(found.histogram.rows)[0]])
    last = max(4 * low, *(value for value, _, _ in marks))
    axes.set_xlim(low, max(edges[-1], last * (last / low) ** 0.5))  # with room for words on the right of the last mark
    top = max(found.histogram.rows) * 1.5
    axes.set_ylim(0, top)
    for number, (value, name, colour) in enumerate(marks):  # each lower than the one before: no line crosses a word
        y = top * (0.97 - 0.08 * number)
        axes.plot([value, value], [0, y], color=colour, linewidth=1, linestyle="--" if colour == MARK else "-")
        axes.text(value, y, f" {name} {value:,}", color=colour, size=8, va="top")
    decades = np.log10(axes.get_xlim()[1] / low)
    ticks = (1.0, 2.0, 5.0) if decades < 2.4 else (1.0, 3.0) if decades < 4.2 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(10, subs=ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else ""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel(f"{unit} (mean {lengths.mean:,g}, longest {lengths.max:,})")
    axes.set_ylabel("rows")


def _together(axes: Axes, names: Sequence[str], found: Profile) -> None:
    place = {name: number for number, name in enumerate(names)}
    share = np.full((len(names), len(names)), np.nan)
    rows = dict(found.labels)
    for name, number in place.items():
        share[number, :] = 0.0 if rows[name] else np.nan
        share[number, number] = np.nan
    for a, b, count in found.co_occurrence:
        if a in place and b in place:
            share[place[a], place[b]] = count / rows[a]
            share[place[b], place[a]] = count / rows[b]
    filled = share[np.isfinite(share)]
    most = max(float(filled.max()) if len(filled) else 0.0, 0.01)
    image = axes.imshow(share, cmap="Blues", aspect="auto", vmin=0, vmax=most)
    slanted: Any = {"rotation": 55, "ha": "right", "rotation_mode": "anchor"} if len(names) > 6 else {}
    axes.set_xticks(range(len(names)), [_name(name) for name in names], **slanted)
    axes.set_yticks(range(len(names)), [_name(name) for name in names])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("Of the rows with the label on the left, how many have the one below as well")
    if len(names) <= 12:
        for (a, b), value in np.ndenumerate(share):
            if np.isfinite(value):
                colour = "white" if value > 0.6 * most else INK
                axes.text(b, a, f"{value:.0%}", ha="center", va="center", size=8, color=colour)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.6, aspect=30, pad=0.01, format=PercentFormatter(1.0))
    bar.outline.set_visible(False)


def _told(axes: Axes, lines: Sequence[str]) -> None:
    axes.axis("off")
    if lines:
        axes.set_title("Warnings")
    axes.text(0, 1, "\n".join(lines), va="top", size=8.5, linespacing=1.35, transform=axes.transAxes, in_layout=False)


def _warnings(found: Profile, characters: int) -> list[str]:
    shown = found.warnings[:SHOWN_WARNINGS]
    lines = [
        line
        for warning in shown
        for line in textwrap.wrap(
            f"{warning.code}: {_printable(warning.message)}", characters, subsequent_indent="    "
        )
    ]
    more = len(found.warnings) - len(shown)
    return [*lines, f"… and {more} more"] if more else lines


def _name(label: str) -> str:
    text = _printable(label)
    return text if len(text) <= NAME_CHARACTERS else text[: NAME_CHARACTERS - 1] + "…"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
