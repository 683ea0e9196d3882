"""A run in MLflow."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from winnow_classifier.mirror import VOLUME, Mirror
from winnow_trainer.mlflow_api import Metric, MlflowApi
from winnow_trainer.run_folder import write_json
from winnow_trainer.teller import Teller

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
    ) -> None:
        self._api = api
        self._experiment = experiment
        self._name = name
        self._params = params
        self._memory = memory
        self._mirror = mirror
        self._end = ""
        self._teller: Teller[list[Metric]] = Teller("MLflow", self._work)
        self._teller.start()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        now = self._now()
        self._teller.put([(name, value, now, step) for name, value in values.items()])

    def flush(self) -> None:
        """It is told as it comes."""

    def close(self, state: str) -> str | None:
        self._end = ENDS[state]
        return self._teller.close()

    def _work(self) -> None:
        teller = self._teller
        try:
            run_id = teller.until_done(self._run)
            while not teller.told:
                if metrics := [metric for several in teller.waiting() for metric in several]:
                    teller.until_done(lambda told=metrics: self._api.log(run_id, told))  # type: ignore[misc]
            teller.until_done(lambda: self._api.end(run_id, self._end, self._now()))
        finally:
            self._api.close()

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
        return int(time.time() * 1_000)
