"""Files that have to last: written through to the disk, known by their SHA-256, and refused in words where there is no room."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from winnow_classifier.errors import StorageFull

# Of a checkpoint. Named here and not in modules with torch, which take seconds to import: who hands files out knows them too.
MANIFEST = "checkpoint.json"
METRICS, PREDICTIONS = "metrics.json", "predictions.jsonl"
DECISION = "decision.json"  # no part of what is published: it can be fitted anew, and may not be there


def sync(path: Path) -> None:
    """A file's content, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_files(paths: Iterable[Path]) -> list[str]:
    """hashlib lets go of the interpreter lock, so the shards of a large model are read side by side."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(sha256_of_file, paths))


def is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def full(where: Path) -> StorageFull:
    return StorageFull(f"{where}: no space is left", hint="enlarge the volume or delete old runs")
