"""Resume points beside the training: what they hold is copied in memory, and a thread writes the copy.

One is written at a time. How often is bounded by what they cost: the copy holds the training up, and on a CPU the thread
takes time from it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from winnow_classifier.mirror import VOLUME, Mirror
from winnow_trainer import resume
from winnow_trainer.resume import Position
from winnow_trainer.room import lack

COST = 0.02  # of the training's time, at most


class ResumeWriter:
    def __init__(self, folder: Path, mirror: Mirror = VOLUME) -> None:
        self._folder = folder
        self._mirror = mirror
        self._thread: Thread | None = None
        self._error: BaseException | None = None
        # Why the last point was not written: storage was full or away. The point before stays, and the training goes on.
        self.lack: str | None = None
        self.seconds = 0.0  # by which the last point slowed the training

    def affordable(self, since: float) -> bool:
        """Whether another point may be written, `since` seconds after the last one."""
        return self._thread is None and since * COST >= self.seconds

    def save(
        self, steps_done: int, position: Position, state: Mapping[str, Any], collected: float | None = None
    ) -> None:
        """Copy `state`, which the training goes on changing, and begin to write the copy. `collected`: the seconds that it took to
        make `state`, where that is a copy already. Waits for the point before; raises what kept that from being written, unless
        storage was full or away."""
        self.wait()
        began = time.monotonic()
        copied = copy(state) if collected is None else state
        held_up = time.monotonic() - began if collected is None else collected
        self._thread = Thread(target=self._write, args=(steps_done, position, copied, held_up), name="resume-point")
        self._thread.start()

    def check(self) -> None:
        """Raises what kept the last point from being written, if that is known by now, unless storage was full or away."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Until the last point is written. Raises what kept it from that, unless storage was full or away."""
        self.close()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Until nothing is written any more."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, steps_done: int, position: Position, state: Mapping[str, Any], held_up: float) -> None:
        began = time.thread_time()
        try:
            resume.save(self._folder, steps_done, position, state, self._mirror)
            self.lack = None
        except BaseException as error:  # it is raised again where it can be told
            self.lack = lack(error)
            self._error = None if self.lack else error
        self.seconds = held_up + time.thread_time() - began


def copy(value: Any) -> Any:
    """The same in memory of its own, on the CPU: the training goes on with the tensors that were given."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone() if value.device.type == "cpu" else value.detach().cpu()
    if isinstance(value, Mapping):
        return {name: copy(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copy(part) for part in value)
    return value
