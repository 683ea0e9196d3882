"""How each benchmark ends: which of its bars it missed, in words, and an exit code that a script can go by."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def verdict(missed: Sequence[str]) -> int:
    """Exit code 1 if there are any."""
    for failure in missed:
        print(f"below the bar: {failure}", file=sys.stderr)
    return 1 if missed else 0
