"""Removing from storage what nothing refers to any more: rows by their digest, problems by the name of their dataset,
checkpoints by their run and name, and what killed imports left behind.

It may be killed at any moment: a folder is renamed away before it is emptied, so that a dataset is there whole or not
at all. And it may meet an import of the same rows, which finds them stored and writes nothing but the time of their
dataset.json: rows that were stored or found again since `before` stay. A bucket knows no rename: there dataset.json goes
first, and that no import runs meanwhile is seen to by whoever starts this.
"""

import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from winnow_classifier.dataset import DATASET_FILE, remove_stale, storage_errors
from winnow_classifier.errors import ConfigError
from winnow_classifier.mirror import VOLUME, BucketMirror, Mirror
from winnow_classifier.words import count

REMOVED = ".removed-"
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass
class Collected:
    before: datetime
    removed: list[str] = field(default_factory=list)  # digests
    kept: list[str] = field(default_factory=list)  # digests: an import has found their rows again
    absent: list[str] = field(default_factory=list)  # digests and RUN/CHECKPOINT that were not there
    checkpoints: list[str] = field(default_factory=list)  # RUN/CHECKPOINT
    problems: list[str] = field(default_factory=list)  # datasets whose problems.jsonl is gone
    leftovers: int = 0  # temporary files and folders of imports that were killed
    freed_bytes: int = 0

    def message(self) -> dict[str, Any]:
        """For programs."""
        counts = {name: len(getattr(self, name)) for name in ("removed", "checkpoints", "absent", "problems")}
        return {
            "kind": "collect",
            "state": "Done",
            "message": self.words(),
            **counts,
            "leftovers": self.leftovers,
            "freedBytes": self.freed_bytes,
            "kept": self.kept,
        }

    def words(self) -> str:
        """One line for people."""
        kinds = (("checkpoint", self.checkpoints), ("dataset", self.removed), ("problem file", self.problems))
        removed = " and ".join(count(len(names), kind) for kind, names in kinds if names)
        found = [f"{removed} removed, {self.freed_bytes:,} bytes freed"] if removed else []
        if self.kept:
            since = self.before.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            found.append(f"{len(self.kept)} kept, because an import has found the rows again since {since}")
        if self.absent:
            found.append(f"{len(self.absent)} not there")
        if self.leftovers:
            found.append(f"{count(self.leftovers, 'leftover')} of killed imports removed")
        return "; ".join(found) or "nothing to remove"


def collect(
    storage: Path,
    digests: Sequence[str],
    datasets: Sequence[str],
    before: datetime,
    mirror: Mirror = VOLUME,
    checkpoints: Sequence[str] = (),
) -> Collected:
    """`checkpoints` are RUN/CHECKPOINT of runs that have ended. Raises ConfigError for a digest or a name that is none,
    StorageError where something cannot be removed."""
    if not storage.is_dir():
        raise ConfigError(f"--storage: there is no folder {storage}")
    folders = [(digest, storage / "datasets" / _hexadecimal(digest)) for digest in dict.fromkeys(digests)]
    problems = [storage / "imports" / _one_name(name) for name in dict.fromkeys(datasets)]
    ended = [(name, _checkpoint(storage, name)) for name in dict.fromkeys(checkpoints)]
    found = Collected(before)
    for name, folder in ended:
        with storage_errors(folder):
            _remove_checkpoint(name, folder, found, mirror)
    if isinstance(mirror, BucketMirror):
        _collect_bucket(folders, problems, found, mirror)
        return found
    for digest, folder in folders:
        with storage_errors(folder):
            _remove_rows(digest, folder, found)
    for folder in problems:
        with storage_errors(folder):
            if _remove(folder, found):
                found.problems.append(folder.name)
    with storage_errors(storage):
        now = time.time()
        found.leftovers = remove_stale(storage / "datasets", now)
        found.leftovers += sum(remove_stale(folder, now) for folder in (storage / "imports").glob("*/"))
    return found


def _collect_bucket(
    folders: Sequence[tuple[str, Path]], problems: Sequence[Path], found: Collected, mirror: BucketMirror
) -> None:
    for digest, folder in folders:
        times = mirror.times(folder)
        if not times:
            found.absent.append(digest)
        elif times.get(DATASET_FILE, max(times.values())) >= found.before.timestamp():
            found.kept.append(digest)
        else:
            found.freed_bytes += mirror.remove(folder)
            found.removed.append(digest)
    for folder in problems:
        if size := mirror.remove(folder):
            found.freed_bytes += size
            found.problems.append(folder.name)


def _remove_rows(digest: str, folder: Path, found: Collected) -> None:
    if not folder.is_dir():
        found.absent.append(digest)
        return
    before = found.before.timestamp()
    aside = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent))
    unwanted = False
    try:
        if _last_wanted(folder) < before:
            folder.rename(aside / folder.name)
            # Judged again, now that the folder is renamed: an import that looks for it from here on finds nothing, and stores
            # its rows anew.
            unwanted = _last_wanted(aside / folder.name) < before
        if unwanted:
            _remove(aside / folder.name, found)
            found.removed.append(digest)
        else:
            found.kept.append(digest)
    except FileNotFoundError:
        found.absent.append(digest)
    finally:
        if not unwanted:  # a stop before the second judgement ends here too
            with contextlib.suppress(OSError):  # it stands there, or was stored anew
                (aside / folder.name).rename(folder)
        shutil.rmtree(aside, ignore_errors=True)


def _last_wanted(folder: Path) -> float:
    """When an import last stored the rows, or found them stored."""
    try:
        return (folder / DATASET_FILE).stat().st_mtime
    except FileNotFoundError:
        return folder.stat().st_mtime


def _remove(folder: Path, found: Collected) -> bool:
    """Remove it. Returns whether it was there."""
    if not folder.is_dir():
        return False
    size = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
    shutil.rmtree(folder)
    found.freed_bytes += size
    return True


def _remove_checkpoint(name: str, folder: Path, found: Collected, mirror: Mirror) -> None:
    if isinstance(mirror, BucketMirror):
        freed = mirror.remove(folder)
        found.freed_bytes += freed
        (found.checkpoints if freed else found.absent).append(name)
        return
    aside = folder.with_name(f"{REMOVED}{folder.name}")
    there = folder.is_dir()
    if there:
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)  # whole or not there at all, whenever this is killed
    gone = _remove(aside, found) or there
    (found.checkpoints if gone else found.absent).append(name)


def _checkpoint(storage: Path, name: str) -> Path:
    run, _, checkpoint = name.partition("/")
    for part in (run, checkpoint):
        if not part or part.startswith(".") or Path(part).name != part:
            hint = "it is RUN/CHECKPOINT, as spam-v1/epoch-2"
            raise ConfigError(f"--remove-checkpoint: {name!r} is no name of a checkpoint", hint=hint)
    return storage / "runs" / run / "checkpoints" / checkpoint


def _hexadecimal(digest: str) -> str:
    if not (match := DIGEST.fullmatch(digest)):
        raise ConfigError(f"--remove: {digest!r} is no digest", hint="it is sha256: and 64 hexadecimal digits")
    return match[1]


def _one_name(name: str) -> str:
    if not name or name in (".", "..") or Path(name).name != name:
        raise ConfigError(f"--remove-problems-of: {name!r} is no name of a dataset")
    return name
