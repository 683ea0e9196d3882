"""A checkpoint's files on stdout, for `kubectl winnow artifacts`: its manifest, or the named files as a tar archive."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from winnow_classifier.errors import CheckpointError, ConfigError
from winnow_classifier.files import DECISION, MANIFEST
from winnow_classifier.mirror import Mirror

NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


def hand_out(storage: Path, mirror: Mirror, run: str, checkpoint: str, names: Sequence[str], out: IO[bytes]) -> None:
    """Raises ConfigError for names that lead elsewhere, CheckpointError for what is not there."""
    for name in (run, checkpoint):
        if not NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is no name of a run or checkpoint")
    folder = storage / "runs" / run / "checkpoints" / checkpoint
    mirror.fetch(folder / MANIFEST)
    try:
        content = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"There is no checkpoint in {mirror.shown(folder)}: {MANIFEST} is missing.") from None
    if not names:
        out.write(content)
        out.flush()
        return
    known = json.loads(content)["files"]
    with tarfile.open(fileobj=out, mode="w|") as archive:
        for name in names:
            if name not in (*known, MANIFEST, DECISION):
                raise ConfigError(f"{checkpoint} has no file {name!r}", hint="its manifest lists them")
            path = folder / name
            mirror.fetch(path)
            if name == DECISION and not path.is_file():
                continue
            if not path.is_file():
                raise CheckpointError(f"Checkpoint {mirror.shown(folder)} has lost {name}.")
            archive.add(path, arcname=name, recursive=False, filter=_plain)
            if name != MANIFEST:
                mirror.release(path)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
