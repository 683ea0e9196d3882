"""report.html: a checkpoint's evaluation on one page that needs nothing else: no network, no script. Out by value.

Texts and labels are the users': everything goes through `text`, and the page's policy lets nothing in it run or load.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from winnow_classifier.checkpoint import Manifest
from winnow_classifier.metrics import HIGHER_IS_BETTER
from winnow_classifier.words import count
from winnow_trainer import decision_report
from winnow_trainer.markup import number, text, tree
from winnow_trainer.mistakes import Mistake

SHOWN_MISTAKES = 60
SHOWN_CHARACTERS = 400
SHOWN_LABELS = 200
LISTED_LABELS = 5  # of a mistake
CAPTIONS = {
    "loss.png": "Loss by epoch",
    "confusion.png": "Expected and predicted labels",
    "pr.png": "Precision and recall",
    "roc.png": "ROC",
    "reliability.png": "Reliability of the probabilities",
    "scores.png": "Scores",
}


@dataclass(frozen=True, slots=True)
class Report:
    manifest: Manifest
    metrics: Mapping[str, Any]  # as in metrics.json
    pictures: Mapping[str, bytes]
    pictured: str  # which rows the pictures show: test or validation
    mistakes: Sequence[Mistake]
    best: str | None  # the best checkpoint so far, and by what
    warnings: Sequence[str]
    decision: Mapping[str, Any] | None  # decision.json: calibration and thresholds


def page(report: Report) -> bytes:
    manifest = report.manifest
    style = files("winnow_trainer").joinpath("static", "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    title = f"{manifest.training_job.name} · {manifest.name}"
    parts = [
        _header(report),
        _warnings(report.warnings),
        _tiles(report),
        _metrics(report),
        _functions(report),
        decision_report.section(report.decision, report.manifest.primary_metric),
        _pictures(report),
        _labels(report),
        _mistakes(report),
        _origin(manifest),
    ]
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'sha256-{digest}'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{text(title)}</title><style>{style}</style></head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main></body></html>\n"
    ).encode()


def _header(report: Report) -> str:
    manifest = report.manifest
    chosen = {
        "Validation": "The best checkpoint of the job is chosen on the <strong>validation rows</strong>; the test rows choose nothing.",
        "Test": "There are no validation rows: the best checkpoint of the job is chosen on the <strong>test rows</strong>, "
        "so its figures on them look somewhat better than they are.",
        None: "",
    }[manifest.selected_on]
    best = f" {text(report.best)}" if report.best else ""
    return (
        f"<header><p class=kind>{text(manifest.task_detail)} classifier, method {text(manifest.method)}</p>"
        f"<h1>{text(manifest.training_job.name)} <span>{text(manifest.name)}</span></h1>"
        f"<p>{chosen}{best}</p></header>"
    )


def _warnings(warnings: Sequence[str]) -> str:
    items = "".join(f"<li>{text(warning)}</li>" for warning in warnings)
    return f"<section class=warnings><h2>Warnings</h2><ul>{items}</ul></section>" if warnings else ""


def _tiles(report: Report) -> str:
    """The figures to look at first: the primary metric and two or three that everyone knows."""
    parts = list(_parts(report.metrics))
    primary = report.manifest.primary_metric
    tiles = []
    for name in dict.fromkeys(filter(None, (primary, "accuracy", "f1_macro", "roc_auc", "ece"))):
        for rows, part in parts:
            if (value := part["metrics"].get(name)) is not None:
                note = _range(part.get("intervals", {}).get(name))
                tiles.append(
                    f"<div class=tile><b>{number(value)}</b><span>{text(name)}, {rows} rows</span><small>{note}</small></div>"
                )
    return f"<section class=tiles>{''.join(tiles)}</section>"


def _parts(metrics: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    if "metrics" in metrics:
        yield "test", metrics
    if "validation" in metrics:
        yield "validation", metrics["validation"]


def _metrics(report: Report) -> str:
    parts = list(_parts(report.metrics))
    names = list(dict.fromkeys(name for _, part in parts for name in part["metrics"]))
    functions = [each for _, part in parts for each in part.get("functions", [])]
    falling = {each["name"] for each in functions if each.get("direction") == "Minimize"}
    head = "".join(f"<th>{rows} ({part['rows']:,} rows)</th><th>95 % interval</th>" for rows, part in parts)
    primary = report.manifest.primary_metric
    rows = []
    for name in names:
        cells = "".join(
            f"<td class=n>{number(part['metrics'].get(name))}{_why(part, name)}</td>"
            f"<td class=n>{_range(part.get('intervals', {}).get(name))}</td>"
            for _, part in parts
        )
        lower = " <small>lower is better</small>" if not HIGHER_IS_BETTER.get(name, name not in falling) else ""
        chooses = " <small class=chip>picks the best</small>" if name == primary else ""
        rows.append(f"<tr><th>{text(name)}{lower}{chooses}</th>{cells}</tr>")
    return (
        f"<section><h2>Metrics</h2><div class=wide><table><thead><tr><th>metric</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _why(part: Mapping[str, Any], name: str) -> str:
    why = part.get("undefined", {}).get(name)
    return f" <small>{text(why)}</small>" if why else ""


def _functions(report: Report) -> str:
    found = [(rows, each) for rows, part in _parts(report.metrics) for each in part.get("functions", [])]
    failed = [(rows, each) for rows, each in found if each.get("error")]
    items = "".join(
        f"<li><b>{text(each['name'])}</b> failed on the {rows} rows"
        + (f", row {each['row']:,}" if each.get("row") else "")
        + f": <code>{text(each['error'])}</code></li>"
        for rows, each in failed
    )
    return f"<section><h2>Metric functions that failed</h2><ul>{items}</ul></section>" if failed else ""


def _pictures(report: Report) -> str:
    figures = "".join(
        f'<figure><img alt="{text(CAPTIONS.get(name, name))}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'
        "</figure>"
        for name, content in report.pictures.items()
    )
    return f"<section><h2>Pictures <small>of the {report.pictured} rows</small></h2><div class=pictures>{figures}</div></section>"


def _labels(report: Report) -> str:
    sections: list[str] = []
    for rows, part in _parts(report.metrics):
        columns = ("precision", "recall", "f1", "roc_auc", "average_precision", "mcc", "brier")
        head = "".join(f"<th>{name}</th>" for name in columns)
        lines = "".join(
            f"<tr><th><bdi>{text(each['label'])}</bdi></th><td class=n>{each['support']:,}</td>"
            + "".join(
                f"<td class=n>{number(each.get(name))}<small>{_range(each.get('intervals', {}).get(name))}</small></td>"
                for name in columns
            )
            + "</tr>"
            for each in part["labels"][:SHOWN_LABELS]
        )
        more = len(part["labels"]) - SHOWN_LABELS
        told = f"<p>{count(more, 'more label')} in metrics.json.</p>" if more > 0 else ""
        sections.append(
            f"<details{' open' if not sections else ''}><summary>Labels, {rows} rows</summary><div class=wide><table>"
            f"<thead><tr><th>label</th><th>rows</th>{head}</tr></thead><tbody>{lines}</tbody></table></div>{told}</details>"
        )
    return f"<section><h2>Labels</h2>{''.join(sections)}</section>"


def _mistakes(report: Report) -> str:
    if not report.mistakes:
        return "<section><h2>Mistakes</h2><p>There are none.</p></section>"
    suspects = [each for each in report.mistakes if each["likelyMislabelled"]]
    wrong = [each for each in report.mistakes if each["wrong"]]
    tables = _mistake_table("Most confident mistakes", wrong, True)
    tables += _mistake_table("Rows whose label is probably wrong", suspects, False)
    return f"<section><h2>Mistakes</h2>{tables}</section>"


def _mistake_table(title: str, found: Sequence[Mistake], opened: bool) -> str:
    if not found:
        return ""
    rows = "".join(
        f"<tr><td>{each['rows']} {each['row']:,}</td><td><bdi>{text(_short(each['input']))}</bdi></td>"
        f"<td>{_listed(each['expected'])}</td>"
        f"<td>{_listed(each['predicted'])}</td>"
        f"<td>{_top(each)}</td></tr>"
        for each in found[:SHOWN_MISTAKES]
    )
    told = f"{len(found):,}" if len(found) <= SHOWN_MISTAKES else f"the first {SHOWN_MISTAKES} of {len(found):,}"
    return (
        f"<details{' open' if opened else ''}><summary>{title} ({told})</summary><div class=wide><table class=mistakes><thead><tr><th>row</th>"
        "<th>text</th><th>expected</th><th>predicted</th><th>probabilities</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _listed(labels: Sequence[str]) -> str:
    more = len(labels) - LISTED_LABELS
    shown = ", ".join(f"<bdi>{text(label)}</bdi>" for label in labels[:LISTED_LABELS])
    return (shown or "(none)") + (f" <small>and {more:,} more</small>" if more > 0 else "")


def _top(mistake: Mistake) -> str:
    first = list(mistake["probabilities"].items())[:3]
    return "".join(
        f"<div class=p><bdi>{text(label)}</bdi><span class=n>{value:.3f}</span></div>" for label, value in first
    )


def _origin(manifest: Manifest) -> str:
    entries = {
        "training": manifest.training_dataset,
        "test": manifest.test_dataset,
        "validation": manifest.validation_dataset,
    }
    facts: dict[str, Any] = {
        "base model": f"{manifest.base_model.reference} ({manifest.base_model.digest})",
        **{
            f"{name} rows": f"{entry.rows:,} of {entry.digest}"
            + (f", {entry.split.percent:g} % split" if entry.split else "")
            for name, entry in entries.items()
            if entry
        },
        "prompt template": manifest.prompt_template,
        "longest input": f"{manifest.max_seq_length:,} tokens",
        "parameters": manifest.parameters,
        "versions": manifest.versions,
    }
    return f"<section><h2>Where it comes from</h2><details><summary>Model, rows, parameters</summary>{tree(facts)}</details></section>"


def _range(interval: Sequence[float] | None) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""


def _short(words: str) -> str:
    return words if len(words) <= SHOWN_CHARACTERS else words[: SHOWN_CHARACTERS - 1] + "…"
