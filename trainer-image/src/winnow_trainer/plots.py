"""The pictures of a checkpoint, as PNG: losses, confusion, precision and recall, ROC, reliability, scores. Out by value.

All are drawn on one figure, one after the other: a new one each costs more than what is drawn on it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_trainer.picture import BAR, FEW, INK, MARK, QUIET, STYLE

SIZE, DPI = (5.6, 4.2), 110
SHOWN_CURVES = 8  # with a colour and a name; more labels are grey lines
GREY_CURVES = 60
SHOWN_LABELS = 24  # rows and columns of a confusion matrix
NUMBERS_UP_TO = 12  # labels, for a matrix with numbers in it
NAME_CHARACTERS, END_CHARACTERS = 22, 8
LEFT = 0.02  # of the figure, where a title begins that needs its whole width
COLOURS = ("#3b76b5", "#d9822b", "#2f8f5b", "#b3261e", "#7b5ea7", "#8c6239", "#c2569b", "#5f6b76")
OTHERS = "other labels"
THOUSANDS = StrMethodFormatter("{x:,.0f}")
VEIL: dict[str, Any] = {
    "facecolor": "white",
    "framealpha": 0.85,
    "edgecolor": "none",
}  # a legend stays readable over lines

Counts = npt.NDArray[np.int64]


def pictures(curves: Mapping[str, Any], confusion: Sequence[Sequence[int]], schema: LabelSchema) -> dict[str, bytes]:
    """By file name. `curves` as curves.json holds them, `confusion` as metrics.json does."""
    labels = curves["labels"]
    drawn = [label for label in labels if "recall" in label]
    with_curves = sorted(drawn, key=lambda label: -label["rows"])
    drawers: dict[str, Callable[[Axes], None]] = {
        "loss.png": lambda axes: _losses(axes, curves["loss"], curves["stepLoss"]),
        "confusion.png": lambda axes: _confusion(axes, np.array(confusion, dtype=np.int64), schema),
        "pr.png": lambda axes: _pr(axes, with_curves),
        "roc.png": lambda axes: _roc(axes, with_curves),
        "reliability.png": lambda axes: _reliability(axes, curves["reliability"], schema),
        "scores.png": lambda axes: _scores(axes, curves, schema),
    }
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripts that its font lacks become boxes
        figure = Figure(figsize=SIZE)
        FigureCanvasAgg(figure)
        return {name: _drawn(figure, draw) for name, draw in drawers.items()}


def _drawn(figure: Figure, draw: Callable[[Axes], None]) -> bytes:
    figure.clear()
    draw(figure.add_axes((0.12, 0.13, 0.84, 0.77)))
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI, pil_kwargs={"compress_level": 4})
    return content.getvalue()


def _losses(axes: Axes, losses: Sequence[Mapping[str, Any]], steps: Mapping[str, Any]) -> None:
    axes.set_title("Loss by epoch")
    if points := steps["points"]:
        epochs = [point["step"] / steps["stepsPerEpoch"] for point in points]
        losses_there = [point["trainLoss"] for point in points]
        axes.plot(epochs, losses_there, color=BAR, alpha=0.4, linewidth=1, label="training loss, over the steps")
    lines = (("training loss", "trainLoss", BAR), ("test log loss", "testLogLoss", FEW))
    for name, key, colour in (*lines, ("validation log loss", "validationLogLoss", "#2f8f5b")):
        points = [(epoch["epoch"], epoch[key]) for epoch in losses if epoch[key] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, label=name)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("nats")
    axes.legend(frameon=False)


def _confusion(axes: Axes, counts: Counts, schema: LabelSchema) -> None:
    if schema.task_detail is TaskDetail.MULTILABEL:
        _of_each_label(axes, counts, schema.labels)
        return
    counts, names = _most_confused(counts, schema.labels)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.set_position((0.27, 0.27, 0.69, 0.62))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    size = 8 if len(names) <= NUMBERS_UP_TO else 6
    axes.set_xticks(
        range(len(names)), [_name(name) for name in names], rotation=50, ha="right", rotation_mode="anchor", size=size
    )
    axes.set_yticks(range(len(names)), [_name(name) for name in names], size=size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if len(names) <= NUMBERS_UP_TO:
        number = 8 if len(names) <= 8 else 6
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if share[row, column] > 0.6 else INK
                axes.text(column, row, f"{count:,}", ha="center", va="center", size=number, color=colour)
    more = len(schema.labels) - len(names) + (names[-1] == OTHERS)
    told = f" ({len(schema.labels) - more} of {len(schema.labels)} labels)" if more > 0 else ""
    _title(axes, f"Rows by expected (left) and predicted label{told}")


def _most_confused(counts: Counts, labels: Sequence[str]) -> tuple[Counts, list[str]]:
    """All labels, or those with the most mistakes and one row and column for the others."""
    if len(labels) <= SHOWN_LABELS:
        return counts, list(labels)
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    chosen = np.sort(np.argsort(-mistakes, kind="stable")[: SHOWN_LABELS - 1])
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    rows = np.concatenate([counts[chosen], counts[rest].sum(axis=0, keepdims=True)])
    folded = np.concatenate([rows[:, chosen], rows[:, rest].sum(axis=1, keepdims=True)], axis=1)
    return folded, [*(labels[c] for c in chosen), OTHERS]


def _of_each_label(axes: Axes, counts: Counts, labels: Sequence[str]) -> None:
    """Of each label the rows that were found, missed and wrongly given it; rows [tn, fp, fn, tp]."""
    chosen = np.argsort(-(counts[:, 1] + counts[:, 2]), kind="stable")[:SHOWN_LABELS]
    places = np.arange(len(chosen))
    axes.set_position((0.29, 0.21, 0.67, 0.69))
    left = np.zeros(len(chosen))
    for name, column, colour in (("found", 3, BAR), ("missed", 2, FEW), ("wrongly predicted", 1, MARK)):
        axes.barh(places, counts[chosen, column], left=left, color=colour, height=0.72, label=name)
        left += counts[chosen, column]
    axes.set_yticks(places, [_name(labels[c]) for c in chosen], size=8 if len(chosen) <= NUMBERS_UP_TO else 6)
    axes.set_ylim(max(len(chosen), 4) - 0.4, -0.6)
    axes.set_xlabel("rows")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(THOUSANDS)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.3, -0.14), ncols=3)  # below: bars fill the rest
    few = f" (the worst {len(chosen)} of {len(labels)})" if len(chosen) < len(labels) else ""
    _title(axes, f"Answers by label{few}")


def _pr(axes: Axes, labels: Sequence[Mapping[str, Any]]) -> None:
    axes.set_title("Precision and recall")
    _curves(axes, labels, "recall", "precision", "averagePrecision", "AP")
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")


def _roc(axes: Axes, labels: Sequence[Mapping[str, Any]]) -> None:
    axes.set_title("ROC: recall by false alarms")
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":")
    _curves(axes, labels, "falsePositiveRate", "recall", "rocAuc", "AUC")
    axes.set_xlabel("share of the other rows that get the label")
    axes.set_ylabel("recall")


def _curves(axes: Axes, labels: Sequence[Mapping[str, Any]], x: str, y: str, area: str, unit: str) -> None:
    start = 0.0 if x == "falsePositiveRate" else None
    for label in labels[SHOWN_CURVES:GREY_CURVES]:
        axes.plot(*_line(label, x, y, start), color="#c5ccd4", linewidth=0.7)
    for label, colour in reversed(list(zip(labels, COLOURS, strict=False))):
        name = f"{_name(label['label'])}  {unit} {label[area]:.3f}"
        name = f" {name}" if name.startswith("_") else name  # matplotlib leaves such names out of legends
        axes.plot(*_line(label, x, y, start), color=colour, linewidth=1.6, label=name)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.04)
    if not labels:
        axes.text(0.5, 0.5, "no label has both kinds of rows", ha="center", color=QUIET)
        return
    handles, names = axes.get_legend_handles_labels()
    more = len(labels) - SHOWN_CURVES
    legend: dict[str, Any] = {"loc": "best" if unit == "AP" else "lower right", "fontsize": 7, **VEIL}
    if more > 0:
        legend |= {"title": f"the {SHOWN_CURVES} most frequent of {len(labels)} labels", "title_fontsize": 7}
    axes.legend(handles[::-1], names[::-1], **legend)


def _line(label: Mapping[str, Any], x: str, y: str, start: float | None) -> tuple[list[float], list[float]]:
    first = [0.0, 0.0] if start is not None else [0.0, label[y][0]]
    return [first[0], *label[x]], [first[1], *label[y]]


def _reliability(axes: Axes, bins: Sequence[Mapping[str, Any]], schema: LabelSchema) -> None:
    axes.set_title("Reliability: is a 0.8 right in 80 % of the cases?")
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":")
    total = sum(each["answers"] for each in bins) or 1
    sizes = [20 + 380 * each["answers"] / total for each in bins]
    sure, true = [each["confidence"] for each in bins], [each["share"] for each in bins]
    axes.plot(sure, true, color=BAR, linewidth=1.2)
    axes.scatter(sure, true, s=sizes, color=BAR, alpha=0.55, linewidths=0, clip_on=False)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.04)
    multilabel = schema.task_detail is TaskDetail.MULTILABEL
    axes.set_xlabel("mean probability" + ("" if multilabel else " of the likeliest label") + "; larger dots: more rows")
    axes.set_ylabel("share that has the label" if multilabel else "share that is right")


def _scores(axes: Axes, curves: Mapping[str, Any], schema: LabelSchema) -> None:
    axes.set_position((0.16, 0.13, 0.8, 0.77))  # millions need their room
    if schema.task_detail is TaskDetail.BINARY:
        (label,) = curves["labels"]
        axes.set_title(f"Scores of {_name(label['label'])}")
        pairs = (
            ("rows without it", label["scores"]["without"], BAR),
            ("rows with it", label["scores"]["with"], FEW),
        )
        axes.set_xlabel("probability")
    else:
        axes.set_title("How sure right and wrong answers are")
        found = curves["confidence"]
        pairs = (("right", found["right"], BAR), ("wrong", found["wrong"], MARK))
        multilabel = schema.task_detail is TaskDetail.MULTILABEL
        axes.set_xlabel(
            "probability of the answer, for each label" if multilabel else "probability of the likeliest label"
        )
    for name, counts, colour in pairs:
        axes.stairs(counts, np.linspace(0, 1, len(counts) + 1), fill=True, color=colour, alpha=0.6, label=name)
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(THOUSANDS)
    axes.set_ylabel("answers" if schema.task_detail is TaskDetail.MULTILABEL else "rows")
    axes.margins(y=0.25)  # room for the names
    axes.legend(loc="upper left", ncols=2, fontsize=8, **VEIL)


def _title(axes: Axes, text: str) -> None:
    place = axes.get_position()
    axes.set_title(text, x=(LEFT - place.x0) / place.width)


def _name(label: str) -> str:
    """Shortened in the middle: labels often differ at their end."""
    text = "".join(char if char.isprintable() else " " for char in label)
    if len(text) <= NAME_CHARACTERS:
        return text
    return f"{text[: NAME_CHARACTERS - END_CHARACTERS - 1]}…{text[-END_CHARACTERS:]}"
