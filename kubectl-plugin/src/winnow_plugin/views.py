"""Two views of a world that changes: a screen that is drawn anew, and for pipes and logs a line per change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from winnow_plugin.follow import Key, World
from winnow_plugin.objects import KINDS
from winnow_plugin.status import Line, fitting, lines, nothing, screen_table
from winnow_plugin.words import plain

FRAME_LINES = 4  # headings, what is left out, trouble, and the line that the cursor stands on
Clock = Callable[[], datetime]


class Screen:
    """Redraws a table on a terminal; use it as a context, so that the cursor comes back."""

    def __init__(self, console: Console, *, clock: Clock) -> None:
        self._console, self._clock = console, clock
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, world: World) -> None:
        self._live.update(self._drawn(world), refresh=True)

    def _drawn(self, world: World) -> RenderableType:
        found = lines(list(world.objects.values()))
        blocks = len({each.kind for each in found})
        shown, left_out = fitting(found, self._console.height - FRAME_LINES - 2 * blocks)
        parts: list[RenderableType] = [
            screen_table(shown, self._clock(), namespaces=world.namespace is None, width=self._console.width)
            if found
            else Text(nothing(world.namespace), style="dim")
        ]
        if left_out:
            parts.append(Text(f"… and {left_out} more that this window has no room for", style="dim"))
        if world.trouble:
            said = next(iter(world.trouble.values()))
            parts.append(Text(f"out of date, trying again: {plain(said)}", style="red"))
        return Group(*parts)


class Lines:
    """Prints what is there, and then each change, as it would stand in the table."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._told: dict[Key, Line] = {}
        self._trouble = ""

    def show(self, world: World) -> None:
        now = {(each.kind, each.namespace, each.name): each for each in lines(list(world.objects.values()))}
        for key, each in now.items():
            if self._told.get(key) != each:
                self._print(each, world)
        for key, gone in self._told.items():
            if key not in now:
                self._print(replace(gone, state="deleted", progress="", details=""), world)
        self._told = now
        if (trouble := next(iter(world.trouble.values()), "")) != self._trouble:
            self._trouble = trouble
            print(f"{self._time()}  {plain(trouble) if trouble else 'the cluster answers again'}", flush=True)

    def _print(self, each: Line, world: World) -> None:
        place = f"{each.namespace}/" if world.namespace is None else ""
        width = max(len(kind.name) for kind in KINDS)
        cells = (f"{each.kind:<{width}}", plain(place + each.name), each.state, each.progress, each.details)
        print("  ".join(filter(None, (self._time(), *cells))), flush=True)

    def _time(self) -> str:
        return self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
