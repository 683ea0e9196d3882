"""Who does what: work dealt out so that all processes have about as much of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def shares(weights: Sequence[int], among: int) -> list[list[int]]:
    """Which pieces each of `among` processes does, as indices in the given order, each piece once.

    The heaviest piece goes first, always to who has least (Graham 1969: at most a third more than the best deal). With
    fewer pieces than processes some get none.
    """
    if among == 1:
        return [list(range(len(weights)))]
    load = [(0, 0, process) for process in range(among)]  # tokens, pieces, who
    dealt: list[list[int]] = [[] for _ in range(among)]
    for index in sorted(range(len(weights)), key=lambda index: (-weights[index], index)):
        tokens, pieces, process = min(load)
        dealt[process].append(index)
        load[process] = (tokens + weights[index], pieces + 1, process)
    return [sorted(share) for share in dealt]
