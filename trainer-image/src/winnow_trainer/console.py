"""A training's progress on a terminal: one line that moves, and one that stays for each epoch."""

import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from winnow_trainer.logs import ERASE_LINE

REDRAW_SECONDS = 0.2
BAR_CHARACTERS = 20


class TerminalLine:
    """Redraws one line; each epoch's scores stay above it."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._drawn = float("-inf")
        self._epochs = 0

    def __call__(self, changed: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        epochs = state.get("epochs", [])
        for epoch in epochs[self._epochs :]:
            self._stream.write(f"{ERASE_LINE}{epoch_line(epoch, state.get('primaryMetric'))}\n")
        self._epochs = len(epochs)
        if state.get("state") != "Running":
            self.close()
        elif self._clock() - self._drawn >= REDRAW_SECONDS:
            self._drawn = self._clock()
            # A line that wraps would not be erased.
            self._stream.write(ERASE_LINE + progress_line(state)[: shutil.get_terminal_size().columns - 1])
            self._stream.flush()

    def close(self) -> None:
        self._stream.write(ERASE_LINE)
        self._stream.flush()


def progress_line(state: Mapping[str, Any]) -> str:
    if "message" in state:  # nothing trains meanwhile
        return str(state["message"])
    parts = []
    if "totalEpochs" in state:
        parts.append(f"epoch {state.get('epoch', 0)}/{state['totalEpochs']}")
    if "totalSteps" in state:
        parts.append(f"step {state.get('step', 0):,}/{state['totalSteps']:,}")
    percent = state.get("percent", 0.0)
    done = int(BAR_CHARACTERS * percent / 100)
    parts.append(f"[{'#' * done}{'.' * (BAR_CHARACTERS - done)}] {percent:.0f} %")
    if "loss" in state:
        parts.append(f"loss {state['loss']:.4f}")
    if state.get("tokensPerSecond"):
        parts.append(f"{state['tokensPerSecond']:,.0f} tokens/s")
    if "etaSeconds" in state:
        parts.append(f"{duration(state['etaSeconds'])} left")
    return "  ".join(parts)


def epoch_line(epoch: Mapping[str, Any], primary: str | None) -> str:
    validated = epoch.get("validationMetrics")
    metrics = validated or epoch.get("metrics", {})
    names = sorted(metrics, key=lambda name: (name != primary, name))  # the one that counts stands first
    scores = "".join(
        f"  {name} {'undefined' if metrics[name] is None else format(metrics[name], '.4f')}" for name in names[:6]
    )
    loss = epoch.get("trainLoss")
    trained = f"  train loss {loss:.4f}" if loss is not None else ""
    return f"{epoch.get('checkpoint', 'epoch')}:{trained}{'  on validation rows' if validated else ''}{scores}"


def duration(seconds: float) -> str:
    """3m20s, as the operator writes it too."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
