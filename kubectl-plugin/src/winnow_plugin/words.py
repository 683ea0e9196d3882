"""Numbers, times and other people's texts as they stand in a table. Pure."""

from __future__ import annotations

from datetime import datetime

NOTHING = "-"
DIGEST_DIGITS = 12  # as git and docker shorten theirs
EIGHTHS = " ▏▎▍▌▋▊▉"
MINUTE, HOUR, DAY = 60, 3_600, 86_400
_NO_REST = (0, "")
_AGES = (  # seconds below which it is told in these units
    (2 * MINUTE, (1, "s"), _NO_REST),
    (10 * MINUTE, (MINUTE, "m"), (1, "s")),
    (3 * HOUR, (MINUTE, "m"), _NO_REST),
    (8 * HOUR, (HOUR, "h"), (MINUTE, "m")),
    (2 * DAY, (HOUR, "h"), _NO_REST),
    (8 * DAY, (DAY, "d"), (HOUR, "h")),
)


def plain(text: object) -> str:
    """One line that a terminal cannot take for a command: names and messages are other people's."""
    return "".join(char if char.isprintable() else "�" if char not in "\n\r\t" else " " for char in str(text))


def number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def percent(share: float) -> str:
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def short_digest(digest: str | None) -> str:
    return digest.removeprefix("sha256:")[:DIGEST_DIGITS] if digest else NOTHING


def age(since: str | None, now: datetime) -> str:
    """As kubectl prints it: `95s`, `3m20s`, `45m`, `5h10m`, `30h`, `3d4h`, `12d`."""
    if not since:
        return NOTHING
    seconds = max(0, int((now - datetime.fromisoformat(since)).total_seconds()))
    for below, (size, letter), (small, small_letter) in _AGES:
        if seconds < below:
            whole, rest = seconds // size, seconds % size // small if small else 0
            return f"{whole}{letter}{f'{rest}{small_letter}' if rest else ''}"
    return f"{seconds // DAY}d"


def bar(share: float, width: int) -> str:
    """A part of one as a bar, exact to an eighth of a character."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (EIGHTHS[rest] if rest else "")).ljust(width)
