"""Datasets for people: all of them in a table, one in full. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from winnow_classifier.words import count
from winnow_plugin.objects import (
    Object,
    condition,
    created,
    is_true,
    name_of,
    namespace_of,
    status_of,
)
from winnow_plugin.screen import table
from winnow_plugin.words import NOTHING, age, bar, number, percent, plain, short_digest

LABELS_IN_A_LINE = 3
BAR_WIDTH = 30
LABELS_IN_FULL = 50
RIGHT = ("ROWS", "DUPLICATES", "CONFLICTS", "WARNINGS", "POSITIVES", "SHARE", "MEAN", "P50", "P95", "P99", "MAX")


def datasets_table(datasets: Sequence[Object], now: datetime, *, namespaces: bool) -> Table:
    headings = ("NAME", "READY", "REASON", "TASK", "ROWS", "LABELS", "DUPLICATES", "CONFLICTS", "WARNINGS", "DIGEST")
    made = table(*(("NAMESPACE",) if namespaces else ()), *headings, "AGE", right=RIGHT)
    for obj in datasets:
        status, ready = status_of(obj), condition(obj, "Ready")
        cells = (
            name_of(obj),
            ready.get("status", NOTHING),
            ready.get("reason", NOTHING),
            status.get("taskDetail", NOTHING),
            number(status.get("rows")),
            _labels(status),
            number(status.get("duplicates")),
            number(status.get("conflicts")),
            number(len(status.get("warnings") or [])) if "rows" in status else NOTHING,
            short_digest(status.get("digest")),
            age(created(obj), now),
        )
        place = (namespace_of(obj),) if namespaces else ()
        made.add_row(*(Text(plain(cell)) for cell in (*place, *cells)), style="" if ready else "dim")
    return made


def _labels(status: Object) -> str:
    """`ham 86%, spam 14%`; of many the first, and how many more there are."""
    found = status.get("labels") or []
    said = [f"{label['name']} {percent(label['share'])}" for label in found[:LABELS_IN_A_LINE]]
    more = int(status.get("labelCount", len(found))) - len(said)
    return ", ".join(said) + (f" and {more} more" if more > 0 else "") or NOTHING


def dataset_in_full(obj: Object, now: datetime) -> RenderableType:
    return Group(*_parts(obj, now))


def _parts(obj: Object, now: datetime) -> Iterator[RenderableType]:
    status = status_of(obj)
    yield _facts(obj, now)
    if labels := status.get("labels"):
        yield _heading("Labels")
        yield _label_bars(labels)
        if (more := int(status.get("labelCount", len(labels))) - min(len(labels), LABELS_IN_FULL)) > 0:
            yield Text(f"… and {count(more, 'more label')}")
    if tokens := status.get("tokens"):
        yield _heading("Lengths in tokens of the base model")
        lengths = table("MEAN", "P50", "P95", "P99", "MAX", right=RIGHT)
        lengths.add_row(*(number(tokens.get(name)) for name in ("mean", "p50", "p95", "p99", "max")))
        yield lengths
    if warnings := status.get("warnings"):
        yield _heading("Warnings")
        yield from (Text(plain(f"{each['code']}: {each['message']}"), style="yellow") for each in warnings)
    if problems := status.get("problems"):
        total = int(status.get("problemCount", len(problems)))
        one, many = ("was skipped", "were skipped") if is_true(obj, "Ready") else ("is wrong", "are wrong")
        yield _heading(f"Problems: {count(total, 'row')} {one if total == 1 else many}")
        yield from (Text(_problem(each), style="red") for each in problems)
        if total > len(problems):
            yield Text(f"… and {total - len(problems):,} more")


def _facts(obj: Object, now: datetime) -> Table:
    status, ready = status_of(obj), condition(obj, "Ready")
    state = {"True": "green", "False": "red" if is_true(obj, "Stalled") else "yellow"}.get(ready.get("status", ""), "")
    facts = (
        ("Name", name_of(obj), ""),
        ("Namespace", namespace_of(obj), ""),
        ("ModelService", obj["spec"].get("modelService"), ""),
        ("Ready", f"{ready['status']}, {ready['reason']}: {ready['message']}" if ready else "not yet known", state),
        ("Format", status.get("format"), ""),
        ("Task", status.get("taskDetail"), ""),
        ("Rows", number(status.get("rows")), ""),
        ("Skipped rows", number(status.get("skippedRows")) if status.get("skippedRows") else None, "yellow"),
        ("Duplicates", number(status.get("duplicates")), ""),
        ("Near duplicates", number(status.get("nearDuplicates")), ""),
        ("Conflicts", number(status.get("conflicts")), "yellow" if status.get("conflicts") else ""),
        ("Digest", status.get("digest"), ""),
        ("Source", ", ".join(f"{name} {value}" for name, value in status.get("source", {}).items()) or None, ""),
        ("Age", age(created(obj), now), ""),
    )
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for name, value, style in facts:
        if value not in (None, NOTHING):
            made.add_row(Text(f"{name}:", style="bold"), Text(plain(value), style=style))
    return made


def _label_bars(labels: Sequence[Object]) -> Table:
    made = table("LABEL", "POSITIVES", "SHARE", "", right=RIGHT)
    for label in labels[:LABELS_IN_FULL]:
        drawn = Text(bar(label["share"], BAR_WIDTH), style="cyan")
        made.add_row(Text(plain(label["name"])), number(label["positives"]), percent(label["share"]), drawn)
    return made


def _problem(problem: Object) -> str:
    line, column, file = problem.get("line"), problem.get("column"), problem.get("file")
    where = f"{f'{file}, ' if file else ''}line {line}{f', column {column}' if column else ''}: " if line else ""
    return plain(f"{where}{problem['message']}")


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")
