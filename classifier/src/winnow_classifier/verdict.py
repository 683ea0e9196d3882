"""What reading a row file came to, as people and as programs are told: the same words from an import and from
`kubectl winnow validate`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from winnow_classifier.errors import WinnowError
from winnow_classifier.labels import LabelSchema
from winnow_classifier.profile import Profile
from winnow_classifier.row_files import Problem
from winnow_classifier.rows import InvalidRowsError
from winnow_classifier.words import count

SHOWN_LABELS = 30


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of rows that can be used, perhaps after wrong ones were skipped."""

    schema: LabelSchema
    digest: str  # "sha256:…" of the canonical rows
    origin: str  # the files' format, or the service that they were written for
    profile: Profile
    skipped_rows: int
    problems: list[Problem]  # the first of the skipped rows


def summary(verdict: Verdict) -> list[str]:
    """The lines that a person reads on a terminal."""
    found = verdict.profile
    lines = [
        f"{count(found.rows, 'row')} · {verdict.schema.task_detail} · {count(len(found.labels), 'label')} · "
        f"{count(found.duplicates, 'duplicate')} · {count(found.conflicts, 'conflict')}",
        "",
        *_label_table(found.labels, found.rows),
    ]
    if tokens := found.tokens:
        lines += [
            "",
            f"tokens a row: mean {tokens.mean:g}, p50 {tokens.p50:,}, p95 {tokens.p95:,}, p99 {tokens.p99:,}, "
            f"max {tokens.max:,}",
        ]
    lines += ["", *(f"warning: {w.message} ({w.code})" for w in found.warnings)] if found.warnings else []
    if verdict.skipped_rows:
        lines += ["", f"{count(verdict.skipped_rows, 'row')} {'was' if verdict.skipped_rows == 1 else 'were'} skipped:"]
        lines += problem_lines(verdict.problems, verdict.skipped_rows)
    return [*lines, "", f"digest  {verdict.digest}"]


def error_lines(err: WinnowError, where: Path | None) -> list[str]:
    """Wrong rows, each with its place; then what is wrong as a whole, and what to do."""
    lines = problem_lines(err.problems, err.problem_count, where) if isinstance(err, InvalidRowsError) else []
    return [*lines, f"error: {err}", *([f"hint: {err.hint}"] if err.hint else [])]


def problem_lines(problems: list[Problem], total: int, where: Path | None = None) -> list[str]:
    """One line each, `file:line:column: message` as compilers write it, so that editors can jump there. `where`: the
    file that was read, or the folder of several, from which a problem names its own."""
    indent = "" if where else "  "
    lines = []
    for p in problems:
        file = Path(where or "", p.file) if p.file else where
        prefix = f"{file}:" if file else "line "
        lines.append(f"{indent}{prefix}{p.line}{f':{p.column}' if p.column else ''}: {p.message}")
    more = total - len(problems)
    return [*lines, f"{indent}… and {more:,} more"] if more > 0 else lines


def ready_message(verdict: Verdict, kind: str) -> dict[str, Any]:
    """For programs; kind is what was done: import or validate."""
    found = verdict.profile
    return {
        "kind": kind,
        "state": "Ready",
        "reason": "Verified",
        "message": f"{count(found.rows, 'row')}, {verdict.schema.task_detail}, {count(len(found.labels), 'label')}",
        "digest": verdict.digest,
        "taskDetail": verdict.schema.task_detail.value,
        "format": verdict.origin,
        "rows": found.rows,
        "labelCount": len(found.labels),
        "labels": [[label, count] for label, count in found.labels],
        "tokens": asdict(found.tokens) if found.tokens else None,
        "duplicates": found.duplicates,
        "conflicts": found.conflicts,
        "nearDuplicates": found.near_duplicates,
        "skippedRows": verdict.skipped_rows,
        "warnings": [asdict(warning) for warning in found.warnings],
        "problems": list(map(place, verdict.problems)),
        "problemCount": verdict.skipped_rows,
    }


def failed_message(kind: str, reason: str, message: str, error: BaseException) -> dict[str, Any]:
    wrong = error if isinstance(error, InvalidRowsError) else None
    return {
        "kind": kind,
        "state": "Failed",
        "reason": reason,
        "message": message,
        "problems": list(map(place, wrong.problems)) if wrong else [],
        "problemCount": wrong.problem_count if wrong else 0,
    }


def place(problem: Problem) -> dict[str, Any]:
    """A file is named only where several were read."""
    return {name: value for name, value in asdict(problem).items() if name != "file" or value is not None}


def in_one_line(err: WinnowError) -> str:
    return f"{str(err).rstrip('.')}; {err.hint}" if err.hint else str(err)


def _label_table(labels: list[tuple[str, int]], rows: int) -> list[str]:
    shown = labels[:SHOWN_LABELS]
    width = max(len("label"), *(len(label) for label, _ in shown))
    lines = [f"{'label':<{width}}  positives   share"]
    lines += [f"{label:<{width}}  {held:>9,}  {held / rows:>5.1%}" for label, held in shown]
    if len(labels) > len(shown):
        lines.append(f"… and {count(len(labels) - len(shown), 'more label')}")
    return lines
