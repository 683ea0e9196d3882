"""What went wrong, in words for the person at the terminal."""

from pathlib import Path

LOG_LINES_SHOWN = 15


class ClusterError(Exception):
    """Says what failed, and what to do about it; printed without a traceback."""


def log_tail(log: Path) -> str:
    """The end of a log, indented, with the path above it."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return f"log: {log} (not written yet)"
    return "\n".join([f"log: {log}", *(f"    {line[:400]}" for line in text[-LOG_LINES_SHOWN:])])
