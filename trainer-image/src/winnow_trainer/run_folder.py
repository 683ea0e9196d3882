"""The folder of one run: whose it is, what it published, and how it ended.

`run.json` says which job the folder belongs to, `parallelism.json` whether a run that is not done keeps the model whole or cut over
its processes, `result.json` how it ended; each appears by a rename. Where storage is a bucket, the folder is a copy of what is
there, and holds only the manifest of a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winnow_classifier.checkpoint import Published, inspect
from winnow_classifier.errors import CheckpointError, ConfigError
from winnow_classifier.files import MANIFEST, sync
from winnow_classifier.mirror import Mirror

DIRECTIONS = "directions"  # in run.json, of the user's metric functions; earlier versions did not write them


@dataclass(frozen=True, slots=True)
class Changed:
    """A checkpoint that is no longer as it was published, so that nothing will load it."""

    name: str
    why: str  # which file, and what is wrong with it


class RunFolder:
    def __init__(self, path: Path, mirror: Mirror) -> None:
        self.path = path
        self.mirror = mirror
        self.checkpoints = path / "checkpoints"
        self.resume = path / "resume"
        self.tensorboard = path / "tensorboard"
        self._parallelism = path / "parallelism.json"

    def check(self, identity: Mapping[str, Any]) -> bool:
        """Whether the folder is this job's already. Raises ConfigError if it is another's, and says what differs."""
        found = self._read(self.path / "run.json")
        if found is None:
            return False
        wanted = json.loads(json.dumps(identity))
        if DIRECTIONS not in found.get("metrics", {}):
            wanted.get("metrics", {}).pop(DIRECTIONS, None)
        if different := differences(found, wanted):
            raise ConfigError(
                f"{self.mirror.shown(self.path)} holds the files of another job: {'; '.join(different)}. "
                "Give this job another name, or delete that folder."
            )
        return True

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Make the folder this job's. Raises ConfigError as `check` does."""
        if not self.check(identity):
            path = self.path / "run.json"
            write_json(path, identity)
            self.mirror.store(path)

    def result(self) -> dict[str, Any] | None:
        """How the run ended, if it did."""
        return self._read(self.path / "result.json")

    def finish(self, result: Mapping[str, Any]) -> None:
        path = self.path / "result.json"
        write_json(path, result)
        self.mirror.store(path)
        self.clear()

    def clear(self) -> None:
        """Remove what only a run that goes on needs."""
        self.mirror.remove(self.resume)
        self.mirror.remove(self._parallelism)

    def parallelism(self) -> str | None:
        """FSDP or DDP, as the run began, where the job leaves that open: at a restart free memory may suggest the other one."""
        found = self._read(self._parallelism)
        return None if found is None else str(found["parallelism"])

    def keep_parallelism(self, parallelism: str) -> None:
        write_json(self._parallelism, {"parallelism": parallelism})
        self.mirror.store(self._parallelism)

    def checkpoint(self, epoch: int) -> Path:
        return self.checkpoints / f"epoch-{epoch}"

    def _read(self, path: Path) -> dict[str, Any] | None:
        """The content of a file that `write_json` wrote, None if there is none. Raises ConfigError if it is damaged."""
        self.mirror.fetch(path)
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_bytes())
            if not isinstance(content, dict):
                raise ValueError("it is no JSON object")
        except ValueError as error:
            hint = f"bring it back as it was, or delete {self.mirror.shown(self.path)} and train again"
            raise ConfigError(f"{self.mirror.shown(path)} is damaged: {error}", hint=hint) from error
        return content

    def published(self) -> tuple[list[Published], list[Changed]]:
        """The whole checkpoints, by epoch, and those that were changed since, which are left as they are."""
        found, changed = [], []
        for folder in self.mirror.folders(self.checkpoints):
            self.mirror.fetch(folder / MANIFEST)
            if not (folder / MANIFEST).is_file():
                continue
            try:
                found.append(inspect(folder, sizes=self.mirror.sizes(folder)))
            except CheckpointError as error:
                changed.append(Changed(folder.name, str(error)))
        return sorted(found, key=lambda checkpoint: checkpoint.manifest.epoch), changed

    def file(self, epoch: int, name: str) -> Path:
        """A file of the epoch's checkpoint, here as it is stored."""
        path = self.checkpoint(epoch) / name
        self.mirror.fetch(path)
        return path

    def remove(self, epoch: int) -> None:
        """The epoch's checkpoint, so that it can be made again."""
        self.mirror.remove(self.checkpoint(epoch))

    def release(self, epoch: int) -> None:
        """Where storage is a bucket: remove this machine's copy of the epoch's checkpoint."""
        self.mirror.release(self.checkpoint(epoch))

    def stored(self, epoch: int) -> None:
        """The epoch's checkpoint, written here, goes where it is kept."""
        self.mirror.publish(self.checkpoint(epoch), MANIFEST)
        self.release(epoch)


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """In words, field by field: `parameters.seed was 0, now 1`."""
    words = []
    for name in sorted(found.keys() | wanted.keys()):
        before, now = found.get(name), wanted.get(name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            words += differences(before, now, f"{prefix}{name}.")
        elif before != now:
            words.append(f"{prefix}{name} was {json.dumps(before)}, now {json.dumps(now)}")
    return words


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        sync(temporary)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # on a full disk it is empty
        raise
    sync(path.parent)
