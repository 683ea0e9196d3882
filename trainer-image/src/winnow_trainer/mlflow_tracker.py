"""A run in MLflow, told by a thread of its own: a server that is slow or down never holds the training up."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

from winnow_classifier.mirror import VOLUME, Mirror
from winnow_trainer.mlflow_api import Metric, MlflowApi, RefusedError, UnreachableError
from winnow_trainer.run_folder import write_json

log = logging.getLogger(__name__)

T = TypeVar("T")

WAITING = 10_000  # of log()'s calls; more than an hour of most runs
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
CLOSE_SECONDS = 15.0  # that the end of a run may wait for what is still to be told
ENDS = {"Complete": "FINISHED", "Stopped": "KILLED", "Failed": "FAILED"}


class MlflowTracker:
    """`memory` remembers the run's id, so that a training that goes on after a stop is one run in MLflow too."""

    def __init__(
        self,
        api: MlflowApi,
        experiment: str,
        name: str,
        params: Mapping[str, str],
        memory: Path,
        mirror: Mirror = VOLUME,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._experiment = experiment
        self._name = name
        self._params = params
        self._memory = memory
        self._mirror = mirror
        self._clock = clock
        self._queue: Queue[list[Metric]] = Queue(WAITING)
        self._end = ""
        self._closing = Event()
        self._warned = self._over = False
        self._thread = Thread(target=self._work, name="mlflow", daemon=True)  # a process may end without it
        self._thread.start()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        now = self._now()
        try:
            self._queue.put_nowait([(name, value, now, step) for name, value in values.items()])
        except Full:
            if not self._over:
                self._warn(f"{WAITING} messages wait already, further ones are left out")

    def flush(self) -> None:
        """It is told as it comes."""

    def close(self, state: str) -> None:
        self._end = ENDS[state]
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._warn(f"the end of the run was not told within {CLOSE_SECONDS:.0f} s")

    def _work(self) -> None:
        try:
            run_id = self._until_done(self._run)
            while run_id and not (self._closing.is_set() and self._queue.empty()):
                if metrics := self._take():
                    self._until_done(lambda told=metrics: self._api.log(run_id, told))  # type: ignore[misc]
            if run_id:
                self._until_done(lambda: self._api.end(run_id, self._end, self._now()))
        except (RefusedError, UnreachableError, OSError) as error:
            self._warn(f"{error}; nothing more is told there")
        finally:
            self._over = True
            self._api.close()

    def _take(self) -> list[Metric]:
        """What waits, soon after it comes."""
        found: list[Metric] = []
        try:
            found += self._queue.get(timeout=0.2)
            while True:
                found += self._queue.get_nowait()
        except Empty:
            return found

    def _until_done(self, call: Callable[[], T]) -> T:
        """Raises UnreachableError only once the run has ended."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return call()
            except UnreachableError as error:
                if self._closing.is_set():
                    raise
                if not self._warned:
                    self._warn(f"{error}; it is tried again for as long as the training runs")
            self._closing.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _run(self) -> str:
        """The id of this training's run."""
        self._mirror.fetch(self._memory)
        if self._memory.is_file():
            run_id = str(json.loads(self._memory.read_bytes())["runId"])
            if self._api.go_on(run_id):
                return run_id
        run_id = self._api.start(self._api.experiment(self._experiment), self._name, self._params, self._now())
        write_json(self._memory, {"runId": run_id})
        self._mirror.store(self._memory)
        return run_id

    def _now(self) -> int:
        return int(self._clock() * 1_000)

    def _warn(self, error: str) -> None:
        self._warned = True
        log.warning("MLflow is not told, training goes on", extra={"error": error})
