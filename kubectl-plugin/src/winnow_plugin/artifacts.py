"""The checkpoints of a training, and the files of one: listed, or fetched from storage by way of a pod that reads them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from rich.filesize import decimal

from winnow_classifier.errors import ConfigError, StorageError
from winnow_classifier.files import DECISION, MANIFEST
from winnow_plugin import storage_access
from winnow_plugin.cluster import Place, connected
from winnow_plugin.errors import Unreachable
from winnow_plugin.meter import Meter
from winnow_plugin.objects import name_of, status_of
from winnow_plugin.screen import show, table
from winnow_plugin.storage_access import PIECE_BYTES, Checkpoint, StoragePod, Training
from winnow_plugin.words import plain

TRIES = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    job: str
    checkpoint: str | None  # None: list the checkpoints
    download: Path | None
    files: tuple[str, ...]  # names or globs; none: all


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    size_bytes: int
    sha256: str


def artifacts(wanted: Wanted, place: Place) -> None:
    """Raises a WinnowError."""
    training = asyncio.run(_look(place, wanted.job))
    if wanted.checkpoint is None:
        if wanted.files:
            raise ConfigError("--file needs a checkpoint", hint=f"kubectl winnow artifacts {wanted.job} best")
        _list_checkpoints(training)
        return
    checkpoint = training.checkpoint(wanted.checkpoint)
    with storage_access.opened(place, training, "artifacts") as reader:
        files = _files(reader, checkpoint)
        asked = not wanted.files or _named(DECISION, wanted.files)
        decision = reader.beside(str(checkpoint["name"])) if asked else None
        names = [file.name for file in files] + ([DECISION] if decision is not None else [])
        for pattern in wanted.files:
            if not any(_named(name, [pattern]) for name in names):
                raise _no_file(str(checkpoint["name"]), pattern, names)
        chosen = [file for file in files if not wanted.files or _named(file.name, wanted.files)]
        if wanted.download is None:
            _list_files(chosen, decision)
            return
        folder = wanted.download / str(checkpoint["name"])
        _fetch(reader, str(checkpoint["name"]), chosen, folder)
        if decision is not None:
            _keep(decision, folder)
        print(folder)


def _no_file(checkpoint: str, pattern: str, names: Sequence[str]) -> ConfigError:
    if pattern == DECISION:
        return ConfigError(f"{checkpoint} has no {DECISION}: nothing was fitted", hint="kubectl winnow refit fits it")
    return ConfigError(f"{checkpoint} has no file {pattern}", hint=f"it has: {', '.join(sorted(names))}")


async def _look(place: Place, name: str) -> Training:
    async with connected(place) as cluster:
        return await storage_access.look(cluster, name)


def _list_checkpoints(training: Training) -> None:
    if not training.checkpoints:
        print(f"TrainingJob {name_of(training.job)} has no checkpoints yet", file=sys.stderr)
        return
    status = status_of(training.job)
    metric = status.get("primaryMetric")
    rows = "validationMetrics" if status.get("selectedOn") == "Validation" else "metrics"
    shown = table(
        "CHECKPOINT",
        "EPOCH",
        plain(str(metric or "metric")).upper(),
        "SIZE",
        "BEST",
        "DEPLOYED BY",
        right=("EPOCH", "SIZE"),
    )
    for each in training.checkpoints:
        value = (each.get(rows) or {}).get(metric)
        shown.add_row(
            plain(str(each["name"])),
            str(each.get("epoch", "")),
            "" if value is None else f"{value:.4f}",
            "removed" if each.get("removed") else decimal(int(each.get("sizeBytes", 0))),
            "best" if each.get("best") else "",
            ", ".join(each.get("deployedBy") or ()),
        )
    show(shown)


def _list_files(files: Sequence[_File], beside: bytes | None) -> None:
    if beside is not None:
        own = _File(DECISION, len(beside), hashlib.sha256(beside).hexdigest())
        files = sorted([*files, own], key=lambda file: file.name)
    shown = table("FILE", "SIZE", "SHA-256", right=("SIZE",))
    for file in files:
        shown.add_row(plain(file.name), decimal(file.size_bytes), file.sha256)
    show(shown)


def _named(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _files(reader: StoragePod, checkpoint: Checkpoint) -> list[_File]:
    """As the manifest names them, which is held to the digest in status."""
    with reader.running("artifacts", str(checkpoint["name"]), ()) as stream:
        content = stream.read()
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    if digest != checkpoint.get("digest", digest):
        raise StorageError(f"{MANIFEST} of {checkpoint['name']} was changed in storage: its digest is {digest}")
    try:
        entries = json.loads(content)["files"]
        found = [_File(name, int(entry["sizeBytes"]), entry["sha256"]) for name, entry in entries.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise StorageError(f"{MANIFEST} of {checkpoint['name']} cannot be read: {err}") from err
    if wrong := [file.name for file in found if Path(file.name).name != file.name]:
        raise StorageError(f"{MANIFEST} of {checkpoint['name']} names a file in another folder: {wrong[0]!r}")
    own = _File(MANIFEST, len(content), digest.removeprefix("sha256:"))
    return sorted([*found, own], key=lambda file: file.name)


def _fetch(reader: StoragePod, checkpoint: str, files: Sequence[_File], folder: Path) -> None:
    """Raises Unreachable when it broke off too often: the same command goes on."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        total = sum(file.size_bytes for file in files)
        with Meter(f"fetching {checkpoint}", total) as meter:
            for left in reversed(range(TRIES)):
                missing = [file for file in files if not _is_there(folder / file.name, file)]
                done = total - sum(file.size_bytes for file in missing)
                meter.begin(done)
                if not missing:
                    return
                try:
                    named = [part for file in missing for part in ("--file", file.name)]
                    with reader.running("artifacts", checkpoint, named) as stream:
                        _unpack(stream, {file.name: file for file in missing}, folder, meter, done)
                except (Unreachable, tarfile.TarError) as err:
                    if not left:
                        raise Unreachable(f"{err}", hint="the same command goes on where this one ended") from err
                    meter.say(f"{err}; trying again")
    except OSError as err:
        raise StorageError(f"{folder} cannot be written: {err.strerror or err}") from err
    raise Unreachable("the files did not arrive as they are in storage", hint="try again")


def _keep(decision: bytes, folder: Path) -> None:
    """Whole or not at all, as the files that have a digest."""
    part = folder / f".{DECISION}.part"
    try:
        part.write_bytes(decision)
        part.replace(folder / DECISION)
    except OSError as err:
        with suppress(OSError):
            part.unlink()
        raise StorageError(f"{folder / DECISION} cannot be written: {err.strerror or err}") from err


def _is_there(path: Path, file: _File) -> bool:
    if not path.is_file() or path.stat().st_size != file.size_bytes:
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256


def _unpack(stream: IO[bytes], wanted: Mapping[str, _File], folder: Path, meter: Meter, done: int) -> None:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for entry in archive:
            file, content = wanted.get(entry.name), archive.extractfile(entry)
            if file is None or content is None:
                continue
            part, digest = folder / f".{file.name}.part", hashlib.sha256()
            try:
                with part.open("wb") as out:
                    while piece := content.read(PIECE_BYTES):
                        out.write(piece)
                        digest.update(piece)
                        meter.at(done := done + len(piece))
                if digest.hexdigest() != file.sha256:
                    raise StorageError(f"{file.name} was changed in storage: its SHA-256 is {digest.hexdigest()}")
                part.replace(folder / file.name)
            finally:
                part.unlink(missing_ok=True)  # no other fetch would go on with it
