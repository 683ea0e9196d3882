"""The checkpoints of a training, and the files of one: listed, or fetched from storage by way of a pod that reads them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, cast

from rich.filesize import decimal

from winnow_classifier.errors import ConfigError, StorageError
from winnow_plugin import artifacts_pod
from winnow_plugin.cluster import Place, connected
from winnow_plugin.errors import ClusterError, Unreachable
from winnow_plugin.forward import kubectl
from winnow_plugin.meter import Meter
from winnow_plugin.objects import BATCH_JOB, POD, TRAINING_JOB, Object, created, name_of, namespace_of, status_of
from winnow_plugin.screen import show, table
from winnow_plugin.upload import signals_unwind
from winnow_plugin.words import plain

MANIFEST = "checkpoint.json"
BESIDE = "decision.json"
START_SECONDS = 300.0  # an image may have to be pulled
LOOK_SECONDS = 1.0
TRIES = 3
PIECE_BYTES = 1 << 20


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
    job, batch_jobs = asyncio.run(_look(place, wanted.job))
    if wanted.checkpoint is None:
        if wanted.files:
            raise ConfigError("--file needs a checkpoint", hint=f"kubectl winnow artifacts {wanted.job} best")
        _list_checkpoints(job)
        return
    checkpoint = _chosen(job, wanted.checkpoint)
    if not batch_jobs:
        raise ClusterError(
            f"the batch Job of TrainingJob {wanted.job} is gone, and with it where its storage is",
            hint="its files stand in storage below runs/" + artifacts_pod.run_of(job),
        )
    batch_job = max(batch_jobs, key=created)
    with signals_unwind(), _reader(place, job, batch_job) as reader:
        files = _files(reader, checkpoint)
        chosen = [file for file in files if not wanted.files or _named(file, wanted.files)]
        beside = not wanted.files or any(fnmatchcase(BESIDE, pattern) for pattern in wanted.files)
        if not chosen and not beside:
            raise ConfigError(
                f"{checkpoint['name']} has no file {', '.join(wanted.files)}", hint="without --file all are listed"
            )
        if wanted.download is None:
            _list_files(chosen, _beside(reader, str(checkpoint["name"])) if beside else None)
            return
        folder = wanted.download / str(checkpoint["name"])
        _fetch(reader, str(checkpoint["name"]), chosen, folder)
        if beside:
            _fetch_beside(reader, str(checkpoint["name"]), folder)
        print(folder)


async def _look(place: Place, name: str) -> tuple[Object, list[Object]]:
    async with connected(place) as cluster:
        job = await cluster.get(TRAINING_JOB, name)
        found, _ = await cluster.list(BATCH_JOB, f"winnow.dev/kind=TrainingJob,winnow.dev/name={name}")
        uid = job["metadata"]["uid"]
        owned = [each for each in found if any(o["uid"] == uid for o in each["metadata"].get("ownerReferences") or ())]
        return job, owned


def _checkpoints(job: Object) -> list[Mapping[str, Any]]:
    return cast(list[Mapping[str, Any]], status_of(job).get("checkpoints") or [])


def _chosen(job: Object, asked: str) -> Mapping[str, Any]:
    status = status_of(job)
    name = status.get("bestCheckpoint") if asked == "best" else asked
    for checkpoint in _checkpoints(job):
        if checkpoint["name"] == name:
            return checkpoint
    names = ", ".join(str(each["name"]) for each in _checkpoints(job)) or "none yet"
    raise ClusterError(f"TrainingJob {name_of(job)} has no checkpoint {asked}", hint=f"it has: {names}")


def _list_checkpoints(job: Object) -> None:
    status = status_of(job)
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
    for each in _checkpoints(job):
        value = (each.get(rows) or {}).get(metric)
        shown.add_row(
            plain(str(each["name"])),
            str(each.get("epoch", "")),
            "" if value is None else f"{value:.4f}",
            decimal(int(each.get("sizeBytes", 0))),
            "best" if each.get("best") else "",
            ", ".join(each.get("deployedBy") or ()),
        )
    if not _checkpoints(job):
        print(f"TrainingJob {name_of(job)} has no checkpoints yet", file=sys.stderr)
        return
    show(shown)


def _list_files(files: Sequence[_File], beside: bytes | None) -> None:
    if beside is not None:
        own = _File(BESIDE, len(beside), hashlib.sha256(beside).hexdigest())
        files = sorted([*files, own], key=lambda file: file.name)
    shown = table("FILE", "SIZE", "SHA-256", right=("SIZE",))
    for file in files:
        shown.add_row(plain(file.name), decimal(file.size_bytes), file.sha256)
    show(shown)


def _named(file: _File, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(file.name, pattern) for pattern in patterns)


class _Reader:
    """A running pod, and kubectl exec into it."""

    def __init__(self, program: Path, place: Place, job: Object, batch_job: Object, pod: Object) -> None:
        self._program, self._place, self._job, self._batch_job, self._pod = program, place, job, batch_job, pod

    @contextmanager
    def reading(self, checkpoint: str, files: Sequence[str]) -> Iterator[IO[bytes]]:
        """What the trainer writes; raises Unreachable where it did not end well."""
        command = [str(self._program), "exec", "-n", namespace_of(self._pod), name_of(self._pod), "-c", "reader"]
        command += ["--kubeconfig", str(self._place.kubeconfig)] if self._place.kubeconfig else []
        command += ["--context", self._place.context] if self._place.context else []
        command += ["--", *artifacts_pod.command(self._job, self._batch_job, checkpoint, files)]
        with TemporaryFile() as said:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, start_new_session=True
            )
            assert process.stdout is not None
            broken: tarfile.TarError | None = None
            try:
                with process.stdout:
                    try:
                        yield process.stdout
                    except tarfile.TarError as err:  # why it broke off is what kubectl says
                        broken = err
                    while process.stdout.read(PIECE_BYTES):  # what tar adds at its end
                        pass
                code = process.wait()
            finally:
                process.kill()
                process.wait()
            said.seek(0)
            words = plain(said.read()[-2_000:].decode(errors="replace")).strip()
        if code:
            if "forbidden" in words.lower():
                raise ClusterError(
                    f"you may not run programs in pods of the namespace {namespace_of(self._pod)}: {words}",
                    hint="create pods, get and delete them, and create pods/exec are needed; the role edit has them",
                )
            raise Unreachable(f"the pod {name_of(self._pod)} did not hand out the files: {words or code}")
        if broken:
            raise broken


@contextmanager
def _reader(place: Place, job: Object, batch_job: Object) -> Iterator[_Reader]:
    """Gone afterwards, however it ends."""
    program = kubectl()
    made: list[Object] = []
    try:
        asyncio.run(_create(place, job, batch_job, made))
        _await_start(place, made[0])
        yield _Reader(program, place, job, batch_job, made[0])
    finally:
        for pod in made:
            asyncio.run(_delete(place, pod))


async def _create(place: Place, job: Object, batch_job: Object, made: list[Object]) -> None:
    async with connected(place) as cluster:
        made.append(await cluster.create(POD, artifacts_pod.pod(job, batch_job)))


async def _delete(place: Place, pod: Object) -> None:
    async with connected(place) as cluster:
        await cluster.delete(POD, pod)


async def _find(place: Place, name: str) -> Object | None:
    async with connected(place) as cluster:
        return await cluster.find(POD, name)


def _await_start(place: Place, pod: Object) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        found = asyncio.run(_find(place, name_of(pod)))
        phase = status_of(found).get("phase") if found else "gone"
        if phase == "Running":
            return
        if phase in ("gone", "Failed", "Succeeded") or time.monotonic() > deadline:
            raise Unreachable(
                f"the pod {name_of(pod)} that reads the files did not start: {_why(found) or phase}", hint="try again"
            )
        time.sleep(LOOK_SECONDS)


def _why(pod: Object | None) -> str:
    status = status_of(pod) if pod else {}
    waiting = [(each.get("state") or {}).get("waiting") or {} for each in status.get("containerStatuses") or []]
    words = [each.get("message") or each.get("reason", "") for each in waiting]
    words += [each.get("message", "") for each in status.get("conditions") or [] if each.get("status") == "False"]
    return plain(next(filter(None, words), ""))


def _files(reader: _Reader, checkpoint: Mapping[str, Any]) -> list[_File]:
    """As the manifest names them, which is held to the digest in status."""
    with reader.reading(str(checkpoint["name"]), ()) as stream:
        content = stream.read()
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    if digest != checkpoint.get("digest", digest):
        raise StorageError(f"{MANIFEST} of {checkpoint['name']} was changed in storage: its digest is {digest}")
    try:
        entries = json.loads(content)["files"]
        found = [
            _File(name, int(entry["size_bytes" if "size_bytes" in entry else "sizeBytes"]), entry["sha256"])
            for name, entry in entries.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise StorageError(f"{MANIFEST} of {checkpoint['name']} cannot be read: {err}") from err
    if wrong := [file.name for file in found if Path(file.name).name != file.name]:
        raise StorageError(f"{MANIFEST} of {checkpoint['name']} names a file in another folder: {wrong[0]!r}")
    own = _File(MANIFEST, len(content), digest.removeprefix("sha256:"))
    return sorted([*found, own], key=lambda file: file.name)


def _fetch(reader: _Reader, checkpoint: str, files: Sequence[_File], folder: Path) -> None:
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
                    with reader.reading(checkpoint, [file.name for file in missing]) as stream:
                        _unpack(stream, {file.name: file for file in missing}, folder, meter, done)
                except (Unreachable, tarfile.TarError) as err:
                    if not left:
                        raise Unreachable(f"{err}", hint="the same command goes on where this one ended") from err
                    meter.say(f"{err}; trying again")
    except OSError as err:
        raise StorageError(f"{folder} cannot be written: {err.strerror or err}") from err
    raise Unreachable("the files did not arrive as they are in storage", hint="try again")


def _fetch_beside(reader: _Reader, checkpoint: str, folder: Path) -> None:
    if (content := _beside(reader, checkpoint)) is not None:
        (folder / BESIDE).write_bytes(content)


def _beside(reader: _Reader, checkpoint: str) -> bytes | None:
    """Calibration and thresholds, where there are any: always as they are now, and with no digest to hold them to."""
    found = None
    with reader.reading(checkpoint, [BESIDE]) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for entry in archive:
            if entry.name == BESIDE and (content := archive.extractfile(entry)) is not None:
                found = content.read()
    return found


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
            with part.open("wb") as out:
                while piece := content.read(PIECE_BYTES):
                    out.write(piece)
                    digest.update(piece)
                    meter.at(done := done + len(piece))
            if digest.hexdigest() != file.sha256:
                part.unlink()
                raise StorageError(f"{file.name} was changed in storage: its SHA-256 is {digest.hexdigest()}")
            part.replace(folder / file.name)
