"""Writes that must not cross, by name: many share it, or one has it alone. In memory, because one process writes: the leader.

Look, decide and the first write follow each other without a pause, but a write takes a moment, and until it is answered the
store does not know of it. Where two kinds of objects decide about each other (a training takes up its Dataset while that lets
go of its finalizer), the second one comes again a moment later and looks anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from winnow_operator.plan import Turn


class BusyError(Exception):
    """Something else has to end first; the same plan works a little later."""


class Turns:
    def __init__(self) -> None:
        self._shared: Counter[str] = Counter()
        self._alone: set[str] = set()

    @contextmanager
    def take(self, turn: Turn) -> Iterator[None]:
        """Raises BusyError, before anything is written, while another has its turn."""
        taken = {name for name in turn.alone if self._shared[name]} | ((turn.shared | turn.alone) & self._alone)
        if taken:
            raise BusyError(f"Another write to {', '.join(sorted(taken))} is under way")
        self._shared.update(turn.shared)
        self._alone |= turn.alone
        try:
            yield
        finally:
            self._shared -= Counter(turn.shared)
            self._alone -= turn.alone
