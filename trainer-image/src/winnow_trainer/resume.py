"""Resume points: all that a training needs to go on as if it had never stopped.

`resume/step-<n>/` holds `state.pt` and `point.json` with its SHA-256. It appears by a rename; the one before it is deleted
afterwards, so there is always a whole one; the same goes for its copy in a bucket.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from winnow_classifier.errors import StorageAway, StorageFull
from winnow_classifier.files import sha256_of_file, sync
from winnow_classifier.mirror import VOLUME, Mirror
from winnow_trainer import step_losses
from winnow_trainer.step_losses import Sums

log = logging.getLogger(__name__)

STATE, POINT = "state.pt", "point.json"


@dataclass(frozen=True, slots=True)
class Position:
    """Where a training stands."""

    epoch: int = 1  # the epoch that runs
    step: int = 0  # steps done in it
    loss_sum: float = 0.0  # of the rows of those steps, nats
    rows: int = 0  # how many rows those were
    step_losses: Sums = ()  # of the run so far; points of older versions have none


def save(
    folder: Path, total_steps_done: int, position: Position, state: Mapping[str, Any], mirror: Mirror = VOLUME
) -> Path:
    point = folder / f"step-{total_steps_done}"
    temporary = folder / f".tmp-{point.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with (temporary / STATE).open("wb") as file:
            try:
                torch.save(dict(state), file)
            except RuntimeError as err:
                # torch's archive fails anew as it closes after the disk refused a write, and hides why.
                raise (err.__context__ if isinstance(err.__context__, OSError) else err) from None
        content = {"position": asdict(position), "sha256": sha256_of_file(temporary / STATE)}
        (temporary / POINT).write_text(json.dumps(content))
        for path in (temporary / STATE, temporary / POINT, temporary):
            sync(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)  # a full disk needs the room
        raise
    shutil.rmtree(point, ignore_errors=True)
    temporary.rename(point)
    sync(folder)
    try:
        mirror.publish(point, POINT)
    except StorageFull:
        mirror.remove(point)  # the one before counts again, here and there
        raise
    except StorageAway:
        mirror.release(point)
        raise
    for other in {*folder.iterdir(), *mirror.folders(folder)} - {point}:
        mirror.remove(other)
    return point


def load(folder: Path, mirror: Mirror = VOLUME, mapped: bool = False) -> tuple[Position, dict[str, Any]] | None:
    """The latest whole resume point, or None. A damaged one is passed over, and said so in the log.

    `mapped`: its tensors stay in the file, for who copies a part of them before another point is written.
    """
    points = [path for path in mirror.folders(folder) if path.name.startswith("step-")]
    for point in sorted(points, key=lambda path: int(path.name.removeprefix("step-")), reverse=True):
        mirror.fetch_folder(point, POINT)
        try:
            content = json.loads((point / POINT).read_bytes())
            if sha256_of_file(point / STATE) != content["sha256"]:
                raise ValueError(f"{STATE} has another SHA-256 than {POINT} says")
            names = {field.name for field in fields(Position)}  # those of older versions have others
            where = {name: value for name, value in content["position"].items() if name in names}
            position = Position(**{**where, "step_losses": step_losses.read(where.get("step_losses", ()))})
            state = torch.load(point / STATE, map_location="cpu", weights_only=True, mmap=mapped)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("Resume point ignored", extra={"path": str(point), "error": str(error)})
            continue
        return position, state
    return None
