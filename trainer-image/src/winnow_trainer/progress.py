"""Where a run stands, for everyone who asks: /progress as JSON, /metrics for Prometheus, a line on the terminal."""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from threading import Event, Lock
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from winnow_trainer.termination import fitted

PROGRESS_BYTES = 64 * 1_024  # the operator reads no more
FIELDS = frozenset(
    [
        "state",
        "percent",
        "epoch",
        "totalEpochs",
        "step",
        "totalSteps",
        "etaSeconds",
        "tokensPerSecond",
        "loss",
        "learningRate",
        "overlap",
        "trainingRows",
        "testRows",
        "validationRows",
        "validationOverlap",
        "selectedOn",
        "warnings",
        "primaryMetric",
        "higherIsBetter",
        "bestCheckpoint",
        "epochs",
        "checkpoints",
        "message",
        "reason",
    ]
)
_GAUGES: Mapping[str, tuple[str, str]] = {
    "percent": ("winnow_training_progress_ratio", "Part of the optimizer steps that is done, from 0 to 1"),
    "epoch": ("winnow_training_epoch", "Epoch that runs, from 1"),
    "totalEpochs": ("winnow_training_planned_epochs", "Epochs of the run"),
    "step": ("winnow_training_step", "Optimizer steps done"),
    "totalSteps": ("winnow_training_planned_steps", "Optimizer steps of the run"),
    "etaSeconds": ("winnow_training_eta_seconds", "Seconds left, as estimated"),
    "tokensPerSecond": ("winnow_training_tokens_per_second", "Training tokens a second, smoothed"),
    "loss": ("winnow_training_loss", "Mean loss of the rows of the newest steps, in nats"),
    "learningRate": ("winnow_training_learning_rate", "Learning rate of the newest step"),
}

Listener = Callable[[Mapping[str, Any], Mapping[str, Any]], None]  # what changed, all that is known


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Progress:
    """Thread-safe: the loop updates, the server reads. An update costs microseconds."""

    def __init__(self, clock: Callable[[], datetime] = _utc_now) -> None:
        self._clock = clock
        self._listener: Listener | None = None
        self._lock = Lock()
        self._state: dict[str, Any] = {"state": "Running", "percent": 0.0}
        self._updated = clock()
        self._end_was_read = Event()
        self.epochs_read = 0  # the last epoch that somebody has read

    def listen(self, listener: Listener) -> None:
        """It is called after each update, in the updater's thread."""
        self._listener = listener

    def update(self, **fields: Any) -> None:
        """Fields by their names in /progress; a value of None is taken out."""
        if unknown := fields.keys() - FIELDS:
            raise TypeError(f"/progress has no field {', '.join(sorted(unknown))}")
        with self._lock:
            self._state = {k: v for k, v in {**self._state, **fields}.items() if v is not None}
            self._updated = self._clock()
            state = self._state
        if self._listener:
            self._listener(fields, state)

    def snapshot(self) -> dict[str, Any]:
        with self._lock:
            moment = self._updated.isoformat(timespec="seconds").replace("+00:00", "Z")
            return {**self._state, "updatedAt": moment}

    def was_read(self, state: Mapping[str, Any]) -> None:
        """Somebody got this state as an answer."""
        self.epochs_read = max([self.epochs_read, *(epoch["epoch"] for epoch in state.get("epochs", []))])
        if state["state"] != "Running":
            self._end_was_read.set()

    def wait_for_a_reader(self, seconds: float, stop: Event) -> None:
        """Wait until somebody has read the end, or `stop` is set, at most so many seconds."""
        deadline = time.monotonic() + seconds
        while not stop.is_set() and time.monotonic() < deadline and not self._end_was_read.wait(0.1):
            pass

    def as_json(self) -> bytes:
        """At most 64 KiB: metrics of older epochs go first where a long run has more."""
        return fitted(self.snapshot(), PROGRESS_BYTES, lists=False)

    def collect(self) -> Iterable[Metric]:
        """prometheus_client's protocol for a custom collector."""
        state = self.snapshot()
        for name, (metric, text) in _GAUGES.items():
            if name in state:
                value = state[name] / 100 if name == "percent" else state[name]
                yield GaugeMetricFamily(metric, text, value=value)
        if epochs := state.get("epochs"):
            for rows, metric, field in (
                ("test", "winnow_training_metric", "metrics"),
                ("validation", "winnow_training_validation_metric", "validationMetrics"),
            ):
                text = f"Metrics of the newest evaluated epoch, on the {rows} rows"
                family = GaugeMetricFamily(metric, text, labels=["metric"])
                for name, value in epochs[-1].get(field, {}).items():
                    if value is not None:
                        family.add_metric([name], value)
                yield family
            loss = epochs[-1].get("trainLoss")
            if loss is not None:
                yield GaugeMetricFamily(
                    "winnow_training_epoch_loss", "Mean training loss of the newest whole epoch, in nats", value=loss
                )
