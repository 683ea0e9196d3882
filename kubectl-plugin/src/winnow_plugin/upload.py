"""A file into a Dataset: its digest, the Dataset, the bytes to the import pod, and what the import makes of them.

Between these steps nothing is remembered but in the cluster: whichever step is interrupted, the same command goes on there.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from winnow_classifier.errors import ConfigError, StorageError
from winnow_classifier.rows import RowOptions
from winnow_plugin.cluster import Cluster, Place, connected
from winnow_plugin.datasets import dataset_in_full
from winnow_plugin.errors import ClusterError, Unreachable
from winnow_plugin.forward import forwarded, kubectl, signals_unwind
from winnow_plugin.meter import Meter
from winnow_plugin.objects import (
    DATASET,
    MODEL_SERVICE,
    POD,
    Object,
    condition,
    created,
    name_of,
    namespace_of,
    status_of,
)
from winnow_plugin.screen import show
from winnow_plugin.transfer import send
from winnow_plugin.upload_spec import EXIT_CODES, WORTH_ANOTHER_TRY, LocalFile, Stage, Wanted, agree, stage
from winnow_plugin.validate import validate

POD_PORT = 8082
# A file up to this size is judged here in seconds, so that wrong rows are known before anything is made.
CHECKED_BYTES = 32 << 20
LOOK_SECONDS = 1.0
GONE_SECONDS = 60.0
PATIENCE_SECONDS = 600.0  # without a byte sent or any other news
READ_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Request:
    file: Path
    wanted: Wanted
    options: RowOptions
    check: bool | None  # None: where the file is small
    upload: Object | None = None  # spec.source.upload of a manifest, which must be this file's


def upload(request: Request, place: Place) -> int:
    """The exit code. Raises a WinnowError."""
    program = kubectl()
    size_bytes = _size(request.file)
    with signals_unwind():
        asyncio.run(_model_service_exists(place, request.wanted.model_service))
        file = _digested(request.file, size_bytes)
        _fits_manifest(request, file)
        dataset = asyncio.run(_find(place, request.wanted, file))
        if dataset is None or _may_begin_anew(dataset):
            if (request.check or (request.check is None and size_bytes <= CHECKED_BYTES)) and (
                code := validate([request.file], request.options, as_json=False, quiet=True)
            ):
                return code
            dataset = asyncio.run(_create(place, request.wanted, file, dataset))
        elif stage(dataset) is Stage.READY:
            print(f"Dataset {request.wanted.name} holds this file already", file=sys.stderr)
            return _verdict(dataset, file)
        return _verdict(_Sending(program, place, namespace_of(dataset), file, request.wanted.name).until_done(), file)


class _Sending:
    """The loop: look at the Dataset and its pod, send where the pod awaits bytes, look again."""

    def __init__(self, program: Path, place: Place, namespace: str, file: LocalFile, name: str) -> None:
        self._program, self._place, self._namespace = program, place, namespace
        self._file, self._name = file, name
        self._said = ""
        self._done_by = ""  # the pod that has the whole file
        self._most = -1
        self._news = time.monotonic()

    def until_done(self) -> Object:
        """The Dataset, ready or failed. Raises Unreachable when there is no news for long, ClusterError."""
        with Meter(f"sending {self._file.path.name}", self._file.size_bytes) as meter:
            while True:
                try:
                    dataset, pod = asyncio.run(_look(self._place, self._name))
                    if stage(dataset) in (Stage.READY, Stage.FAILED):
                        return dataset
                    if pod is not None and stage(dataset) is Stage.AWAITING and self._done_by != _uid(pod):
                        self._send(name_of(pod), meter)
                        self._done_by = _uid(pod)
                        meter.say("The file is there; its rows are being read and checked")
                        continue
                    self._tell_waiting(dataset, meter)
                except Unreachable as err:
                    self._tell(f"{err}; trying again", meter)
                if time.monotonic() > self._news + PATIENCE_SECONDS and not self._done_by:
                    raise Unreachable(
                        f"nothing moved for {PATIENCE_SECONDS / 60:g} minutes; the last word was: {self._said}",
                        hint="the same command goes on where this one ended",
                    )
                time.sleep(LOOK_SECONDS)

    def _send(self, pod: str, meter: Meter) -> None:
        with forwarded(self._program, self._place, self._namespace, pod, POD_PORT) as port:

            def at(done: int) -> None:
                meter.at(done)
                if done > self._most:
                    self._most, self._news = done, time.monotonic()

            def begin(done: int) -> None:
                self._said = ""  # so that the next trouble is told, even if it is like the last one
                meter.begin(done)

            send(port, self._file, at, begin)

    def _tell_waiting(self, dataset: Object, meter: Meter) -> None:
        if stage(dataset) is Stage.AWAITING:
            if not self._done_by:
                self._tell("Waiting for the import pod to start", meter)
            return
        self._tell(condition(dataset, "Ready").get("message", "Waiting for the operator"), meter)

    def _tell(self, words: str, meter: Meter) -> None:
        if words != self._said:
            self._said, self._news = words, time.monotonic()
            meter.say(words)


async def _model_service_exists(place: Place, name: str) -> None:
    async with connected(place) as cluster:
        await cluster.get(MODEL_SERVICE, name)


async def _find(place: Place, wanted: Wanted, file: LocalFile) -> Object | None:
    """The Dataset of that name. Raises ConfigError where it is another one."""
    async with connected(place) as cluster:
        dataset = await cluster.find(DATASET, wanted.name)
        if dataset is None or "deletionTimestamp" in dataset["metadata"]:
            return None
        agree(dataset, wanted, file)
        return dataset


async def _create(place: Place, wanted: Wanted, file: LocalFile, failed: Object | None) -> Object:
    async with connected(place) as cluster:
        if failed is not None:
            print(f"The last upload ended: {condition(failed, 'Ready').get('message', '')}", file=sys.stderr)
            await cluster.delete(DATASET, failed)
        deadline = time.monotonic() + GONE_SECONDS
        while await cluster.find(DATASET, wanted.name) is not None:
            if time.monotonic() > deadline:
                raise Unreachable(f"the former Dataset {wanted.name} is still being deleted", hint="try again")
            await asyncio.sleep(LOOK_SECONDS)
        return await cluster.create(DATASET, wanted.manifest(file))


async def _look(place: Place, name: str) -> tuple[Object, Object | None]:
    """The Dataset, and its newest pod if that runs."""
    async with connected(place) as cluster:
        dataset = await cluster.find(DATASET, name)
        if dataset is None:
            raise ClusterError(f"the Dataset {name} was deleted meanwhile", hint="upload again")
        return dataset, await _pod(cluster, name) if stage(dataset) is Stage.AWAITING else None


async def _pod(cluster: Cluster, name: str) -> Object | None:
    found, _ = await cluster.list(POD, f"winnow.dev/kind=Dataset,winnow.dev/name={name}")
    running = [
        pod for pod in found if status_of(pod).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
    ]
    return max(running, key=created, default=None)


def _verdict(dataset: Object, file: LocalFile) -> int:
    """What the import found, in the words of `datasets NAME` and `validate`."""
    if stage(dataset) is Stage.READY:
        show(dataset_in_full(dataset, datetime.now(UTC)))
        return 0
    from winnow_classifier.row_files import Problem
    from winnow_classifier.verdict import problem_lines

    status, ready = status_of(dataset), condition(dataset, "Ready")
    found = status.get("problems") or []
    problems = [
        Problem(each.get("line", 0), each.get("column", 0), each["message"], each.get("file")) for each in found
    ]
    lines = problem_lines(problems, int(status.get("problemCount", len(problems))), file.path)
    print("\n".join([*lines, f"error: {ready.get('message', '')} ({ready.get('reason', '')})"]), file=sys.stderr)
    return EXIT_CODES.get(ready.get("reason", ""), ClusterError.exit_code)


def _may_begin_anew(dataset: Object) -> bool:
    return stage(dataset) is Stage.FAILED and condition(dataset, "Ready").get("reason") in WORTH_ANOTHER_TRY


def _size(path: Path) -> int:
    """Raises ConfigError for what cannot be uploaded."""
    if str(path) == "-":
        hint = (
            "write it to a file first: its digest is needed before its first byte is sent, and a broken upload goes on"
        )
        raise ConfigError("standard input cannot be uploaded", hint)
    if not path.exists():
        raise ConfigError(
            f"there is no file {path}", hint="a folder or a glob is uploaded as one file: cat shards/* > all"
        )
    if not path.is_file():
        raise ConfigError(f"{path} is no file", hint="files of one form can be joined: cat shards/*.jsonl > all.jsonl")
    if not (size := path.stat().st_size):
        raise ConfigError(f"{path} is empty", hint="there are no rows in it to upload")
    return size


def _digested(path: Path, size_bytes: int) -> LocalFile:
    digest, done = hashlib.sha256(), 0
    try:
        with path.open("rb") as stream, Meter(f"reading {path.name}", size_bytes) as meter:
            while piece := stream.read(READ_BYTES):
                digest.update(piece)
                meter.at(done := done + len(piece))
    except OSError as err:
        raise StorageError(f"{path} cannot be read: {err.strerror or err}") from err
    return LocalFile(path, done, digest.hexdigest())


def _fits_manifest(request: Request, file: LocalFile) -> None:
    named = request.upload
    if named and (named.get("sha256"), named.get("sizeBytes")) != (file.sha256, file.size_bytes):
        message = f"spec.source.upload of the manifest is another file than {file.path}"
        hint = f"this one has sizeBytes: {file.size_bytes} and sha256: {file.sha256}"
        raise ConfigError(message, hint)


def _uid(obj: Object) -> str:
    return str(obj["metadata"]["uid"])
