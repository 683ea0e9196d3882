"""Tables on a terminal, and the same ones as plain text for pipes and files."""

from __future__ import annotations

import sys

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table

WIDE = 100_000  # characters: a pipe has no edge at which a line would be broken


def terminal() -> bool:
    return sys.stdout.isatty()


def console() -> Console:
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=False)


def show(*parts: RenderableType) -> None:
    """Coloured and as wide as the terminal; without colour, cut or trailing space where there is none."""
    if terminal():
        for part in parts:
            screen = console()
            if isinstance(part, Table):  # as kubectl does: the terminal breaks a line that is too long, nothing is cut
                screen.width = max(
                    screen.width, Measurement.get(screen, screen.options.update(width=WIDE), part).maximum
                )
            screen.print(part)
        return
    plain = Console(file=sys.stdout, width=WIDE, color_system=None, highlight=False, markup=False, emoji=False)
    with plain.capture() as captured:
        plain.print(*parts, sep="\n")
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def table(*headings: str, right: tuple[str, ...] = ()) -> Table:
    """As kubectl's: capitals, no lines."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        made.add_column(heading, justify="right" if heading in right else "left", no_wrap=True, overflow="ellipsis")
    return made
