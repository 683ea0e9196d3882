"""Base models that lie elsewhere: downloaded once, whole or not there, by one process for all that wait."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Protocol

from winnow_classifier.base_model import model_files, tokenizer_files, wanted
from winnow_classifier.errors import BaseModelError, StorageError, StorageFull
from winnow_classifier.files import is_full
from winnow_classifier.older_forms import renew

log = logging.getLogger(__name__)

COMPLETE = ".complete"
STALE_SECONDS = 24 * 3_600
TELL_SECONDS = 2


class Told(Protocol):
    """Is called with how far a download is, in words; with None once it is over."""

    def __call__(self, words: str | None, /) -> None: ...


@dataclass(frozen=True)
class RemoteModel:
    """A version of a model that lies elsewhere, and how to get at its files."""

    reference: str
    folder: Path  # of all its versions in storage
    version: str
    files: Callable[[], Mapping[str, int]]  # bytes of each
    download: Callable[[Path, Collection[str]], None]


def downloaded(model: RemoteModel, *, weights: bool = True, told: Told | None = None) -> Path:
    """folder/<version>, as it was downloaded before or is now; without `weights` perhaps folder/<version>.tokenizer. What is
    there is whole."""
    whole = model.folder / model.version
    found = whole if weights else model.folder / f"{model.version}.tokenizer"
    for there in (whole, found):
        if (there / COMPLETE).is_file():
            return there
    if told:
        told(f"base model {model.reference} is downloaded")  # perhaps by another pod
    try:
        model.folder.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(model.folder):
            if not (found / COMPLETE).is_file():
                _download_whole(model, found, weights, told)
    except OSError as err:
        message = f"{model.folder}: {err.strerror or err}, while {model.reference} was downloaded"
        raise (StorageFull(message, "it needs more room") if is_full(err) else StorageError(message)) from err
    finally:
        if told:
            told(None)
    return found


def _download_whole(model: RemoteModel, found: Path, weights: bool, told: Told | None) -> None:
    """Into `found`, which appears by a rename once all is there and can be used."""
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=model.folder))
    try:
        temporary.chmod(0o755)
        _download(model, temporary, weights, told)
        try:
            renew(temporary)
            model_files(temporary) if weights else tokenizer_files(temporary)
        except BaseModelError as err:
            raise BaseModelError(str(err).replace(str(temporary), model.reference), err.hint) from err
        (temporary / COMPLETE).write_text(model.version + "\n")
        shutil.rmtree(found, ignore_errors=True)
        temporary.rename(found)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _download(model: RemoteModel, directory: Path, weights: bool, told: Told | None) -> None:
    sizes = model.files()
    names = wanted(sizes, with_weights=weights)
    size, room = sum(sizes[name] for name in names), shutil.disk_usage(directory).free
    if size > room:
        message = f"{model.folder}: base model {model.reference} has {_in_words(size)}, and {_in_words(room)} are free"
        raise StorageFull(message, "it needs more room")
    log.info("Downloading base model", extra={"reference": model.reference, "version": model.version, "bytes": size})
    with _telling(model.reference, directory, size, told):
        model.download(directory, names)


@contextlib.contextmanager
def _telling(reference: str, directory: Path, size: int, told: Told | None) -> Iterator[None]:
    """How much of it lies in the folder, from time to time."""
    if told is None:
        yield
        return
    over = Event()

    def tell() -> None:
        while True:
            here = min(size, sum(_sizes_below(directory)))
            told(f"base model {reference} is downloaded: {_in_words(here)} of {_in_words(size)}")
            if over.wait(TELL_SECONDS):
                return

    teller = Thread(target=tell, name="download", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _sizes_below(directory: Path) -> Iterator[int]:
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):  # renamed meanwhile
            yield path.stat().st_size if path.is_file() else 0


def _in_words(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


@contextlib.contextmanager
def one_at_a_time(directory: Path) -> Iterator[None]:
    """When several processes want the same model, such as two imports that begin together, one of them fetches the gigabytes
    for all.

    Where a file system knows no locks, each fetches, and the last one's stays.
    """
    with (directory / ".lock").open("w") as lock:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in directory.glob(".tmp-*"):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)
        yield
