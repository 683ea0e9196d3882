"""What an import found, as a person reads it on a terminal."""

from pathlib import Path

from winnow_classifier.row_files import Problem
from winnow_trainer.importer import Imported

SHOWN_LABELS = 30


def summary(imported: Imported) -> str:
    found, dataset = imported.profile, imported.dataset
    lines = [
        f"{found.rows:,} rows · {dataset.schema.task_detail} · {len(found.labels)} labels · "
        f"{found.duplicates:,} duplicates · {found.conflicts:,} conflicts",
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
    if imported.skipped_rows:
        lines += ["", f"{imported.skipped_rows:,} rows were skipped:"]
        lines += problem_lines(imported.problems, imported.skipped_rows)
    return "\n".join([*lines, "", f"digest  {dataset.digest}", f"stored  {dataset.path}"])


def problem_lines(problems: list[Problem], total: int, file: Path | None = None) -> list[str]:
    """One line each, `file:line:column: message` as compilers write it, so that editors can jump there."""
    prefix = f"{file}:" if file else "  line "
    lines = [f"{prefix}{p.line}{f':{p.column}' if p.column else ''}: {p.message}" for p in problems]
    more = total - len(problems)
    return [*lines, f"{'' if file else '  '}… and {more:,} more"] if more > 0 else lines


def _label_table(labels: list[tuple[str, int]], rows: int) -> list[str]:
    shown = labels[:SHOWN_LABELS]
    width = max(len("label"), *(len(label) for label, _ in shown))
    lines = [f"{'label':<{width}}  positives   share"]
    lines += [f"{label:<{width}}  {count:>9,}  {count / rows:>5.1%}" for label, count in shown]
    if len(labels) > len(shown):
        lines.append(f"… and {len(labels) - len(shown)} more labels")
    return lines
