"""A checkpoint in storage, got at by way of a pod of the user's own: chosen from a training's status, and the trainer's
programs run beside its files."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, cast

from winnow_classifier.errors import ConfigError, DataError, OutOfMemoryError_, WinnowError
from winnow_classifier.files import DECISION
from winnow_plugin import storage_pod
from winnow_plugin.cluster import Cluster, Place, connected
from winnow_plugin.errors import ClusterError, Unreachable
from winnow_plugin.forward import kubectl, signals_unwind
from winnow_plugin.objects import BATCH_JOB, POD, TRAINING_JOB, Object, created, name_of, namespace_of, status_of
from winnow_plugin.storage_pod import Purpose
from winnow_plugin.words import plain

Checkpoint = Mapping[str, Any]  # an entry of status.checkpoints
START_SECONDS = 300.0  # an image may have to be pulled
LOOK_SECONDS = 1.0
PIECE_BYTES = 1 << 20
SAID_BYTES = 8_000  # of stderr
EXIT_KILLED = 137  # 128 + SIGKILL
_ENDED = re.compile(r"^command terminated with exit code (\d+)$", re.MULTILINE)  # kubectl's words for the program's own


@dataclass(frozen=True, slots=True)
class Training:
    job: Object
    batch_jobs: Sequence[Object]

    @property
    def batch_job(self) -> Object:
        """The newest, which says where storage is. Raises ClusterError."""
        if not self.batch_jobs:
            raise ClusterError(
                f"the batch Job of TrainingJob {name_of(self.job)} is gone, and with it where its storage is",
                hint="its files stand in storage below runs/" + storage_pod.run_of(self.job),
            )
        return max(self.batch_jobs, key=created)

    @property
    def checkpoints(self) -> list[Checkpoint]:
        return cast(list[Checkpoint], status_of(self.job).get("checkpoints") or [])

    def checkpoint(self, asked: str) -> Checkpoint:
        """By its name, or the best. Raises ClusterError where there is none, or none any more."""
        name = status_of(self.job).get("bestCheckpoint") if asked == "best" else asked
        there = ", ".join(str(each["name"]) for each in self.checkpoints if not each.get("removed")) or "none yet"
        found = next((each for each in self.checkpoints if each["name"] == name), None)
        if found is None:
            raise ClusterError(f"TrainingJob {name_of(self.job)} has no checkpoint {asked}", hint=f"it has: {there}")
        if found.get("removed"):
            raise ClusterError(
                f"checkpoint {name} of TrainingJob {name_of(self.job)} was removed from storage by spec.retention of "
                f"ModelService {self.job['spec']['modelService']}, and does not come back",
                hint=f"it has: {there}",
            )
        return found


async def look(cluster: Cluster, name: str) -> Training:
    """Raises ClusterError."""
    job = await cluster.get(TRAINING_JOB, name)
    found, _ = await cluster.list(BATCH_JOB, f"winnow.dev/kind=TrainingJob,winnow.dev/name={name}")
    uid = job["metadata"]["uid"]
    owned = [each for each in found if any(o["uid"] == uid for o in each["metadata"].get("ownerReferences") or ())]
    return Training(job, owned)


class StoragePod:
    """A running pod, and kubectl exec into it."""

    def __init__(self, program: Path, place: Place, job: Object, batch_job: Object, pod: Object) -> None:
        self._program, self._place, self._job, self._batch_job, self._pod = program, place, job, batch_job, pod

    @contextmanager
    def running(self, purpose: Purpose, checkpoint: str, options: Sequence[str]) -> Iterator[IO[bytes]]:
        """Run a program of the trainer in the pod and give its stdout; its warnings go to our stderr. Raises the error that
        it ended with, ClusterError without the right to exec, Unreachable where the connection broke."""
        command = [str(self._program), "exec", "-n", namespace_of(self._pod), name_of(self._pod)]
        command += ["-c", storage_pod.CONTAINER, *self._place.kubectl_options]
        command += ["--", *storage_pod.command(self._job, self._batch_job, purpose, checkpoint, options)]
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
                    except tarfile.TarError as err:  # kubectl says why the connection broke
                        broken = err
                    while process.stdout.read(PIECE_BYTES):  # what tar adds at its end
                        pass
                code = process.wait()
            finally:
                process.kill()
                process.wait()
            said.seek(0)
            words = said.read()[-SAID_BYTES:].decode(errors="replace")
        if code:
            raise failure(words, name_of(self._pod), namespace_of(self._pod))
        if broken:
            raise broken
        for line in words.splitlines():
            if line.startswith("warning: "):
                print(plain(line), file=sys.stderr)

    def beside(self, checkpoint: str) -> bytes | None:
        """decision.json, where there is one: as it is now, and with no digest in status to hold it to."""
        found = None
        with (
            self.running("artifacts", checkpoint, ["--file", DECISION]) as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            for entry in archive:
                if entry.name == DECISION and (content := archive.extractfile(entry)) is not None:
                    found = content.read()
        return found


def failure(said: str, pod: str, namespace: str) -> WinnowError:
    """What kubectl exec, or the program that it ran, said when it ended with another code than 0. Pure."""
    lines = [plain(line) for line in said.splitlines()]
    if ended := _ENDED.search(said):
        code = int(ended[1])
        told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        hints = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
        if code == EXIT_KILLED and not told:
            return OutOfMemoryError_(
                f"the program in the pod {pod} was killed: it had too little memory, or the pod was deleted",
                hint="a LimitRange of the namespace may bound its memory; if not, try again",
            )
        kinds: dict[int, type[WinnowError]] = {10: ConfigError, 11: DataError, 12: OutOfMemoryError_, 20: Unreachable}
        message = told[-1] if told else f"the program in the pod {pod} ended with {code}: {' '.join(lines)[-1_000:]}"
        return kinds.get(code, ClusterError)(message, hint=hints[-1] if told and hints else None)
    words = " ".join(lines).strip()[-1_000:]
    if "forbidden" in words.lower():
        return ClusterError(
            f"you may not run programs in pods of the namespace {namespace}: {words}",
            hint="create pods, get and delete them, and create pods/exec are needed; the role edit has them",
        )
    return Unreachable(f"kubectl exec into the pod {pod} broke off: {words or 'without a word'}", hint="try again")


@contextmanager
def opened(place: Place, training: Training, purpose: Purpose) -> Iterator[StoragePod]:
    """The pod is gone afterwards, however it ends."""
    program = kubectl()
    made: list[Object] = []
    with signals_unwind():
        try:
            asyncio.run(_create(place, storage_pod.pod(training.job, training.batch_job, purpose), made))
            _await_start(place, made[0])
            yield StoragePod(program, place, training.job, training.batch_job, made[0])
        finally:
            for pod in made:
                asyncio.run(_delete(place, pod))


async def _create(place: Place, pod: Object, made: list[Object]) -> None:
    async with connected(place) as cluster:
        made.append(await cluster.create(POD, pod))


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
            raise Unreachable(f"the pod {name_of(pod)} did not start: {_why(found) or phase}", hint="try again")
        time.sleep(LOOK_SECONDS)


def _why(pod: Object | None) -> str:
    status = status_of(pod) if pod else {}
    waiting = [(each.get("state") or {}).get("waiting") or {} for each in status.get("containerStatuses") or []]
    words = [each.get("message") or each.get("reason", "") for each in waiting]
    words += [each.get("message", "") for each in status.get("conditions") or [] if each.get("status") == "False"]
    return plain(next(filter(None, words), ""))
