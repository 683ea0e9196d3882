"""Words that messages share."""

from collections.abc import Sequence


def count(value: int, noun: str) -> str:
    """`1 row`, `2,400 rows`."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def some(names: Sequence[str], most: int) -> str:
    """`a, b and 3 more`."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")
