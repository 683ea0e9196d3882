"""Metric functions of the user's: `def score(input_text, expected, predicted) -> float`, each in a process of its own.

A process lives as long as the training, has no environment, and is held to limits of time and memory. What a function does
wrong is told, and costs its own score only. Letters: N rows, C labels.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import numpy.typing as npt

from winnow_classifier.errors import ConfigError
from winnow_classifier.labels import LabelSchema
from winnow_trainer import metric_worker
from winnow_trainer.job import CustomMetric
from winnow_trainer.stopping import check

log = logging.getLogger(__name__)

SECONDS = 60.0  # wall time of a function for the rows of one evaluation; the same of CPU time
START_SECONDS = 30.0  # to import what it needs
END_SECONDS = 5.0  # between the end of its output and its own
MEMORY_BYTES = 2 << 30  # of addresses: numpy alone takes some 300 MiB of them
SOURCE_BYTES = 1 << 20  # as much as a ConfigMap holds
ROWS_AT_A_TIME = 256
SHOWN_CHARACTERS = 300
PR_SET_DUMPABLE = 4

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scored:
    """What one function made of the rows of one evaluation."""

    name: str
    scores: Floats | None  # (N,), None: it failed
    error: str | None = None
    row: int | None = None  # from 1, where it failed

    @property
    def value(self) -> float | None:
        with np.errstate(over="ignore"):
            return None if self.scores is None else float(self.scores.mean())


class MetricFunctions:
    """All functions of a job. Use it as a context, so that no process outlives it."""

    def __init__(
        self, custom: Sequence[CustomMetric], stop: Event, seconds: float = SECONDS, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self._functions = [_Function(metric.name, source_of(metric), seconds, memory_bytes) for metric in custom]
        self._stop = stop
        self.directions: Mapping[str, str] = {one.name: one.direction for one in custom if one.direction}

    @property
    def digests(self) -> Mapping[str, str]:
        """The SHA-256 of each one's source."""
        return {function.name: hashlib.sha256(function.source).hexdigest() for function in self._functions}

    def __enter__(self) -> MetricFunctions:
        return self

    def __exit__(self, *_: object) -> None:
        for function in self._functions:
            function.close()

    def score(
        self,
        texts: Sequence[str],
        targets: npt.NDArray[np.int8],
        probabilities: Floats,
        schema: LabelSchema,
    ) -> list[Scored]:
        """(N, C), (N, C). Raises Stopped."""
        if not self._functions:
            return []
        rows = _Rows(texts, targets, probabilities, schema)
        return [function.score(rows, lambda: check(self._stop)) for function in self._functions]


def source_of(metric: CustomMetric) -> bytes:
    """Raises ConfigError for a file that is not there, or no Python."""
    assert metric.file is not None  # the manifest was read
    path = Path(metric.file)
    where = f"metrics.custom: {metric.name}"
    try:
        source = path.read_bytes()
    except OSError as err:
        hint = "in a cluster, the ConfigMap has no such key; else give its path"
        raise ConfigError(f"{where}: {path} cannot be read: {err.strerror or err}", hint=hint) from err
    if len(source) > SOURCE_BYTES:
        raise ConfigError(f"{where}: {path} has {len(source):,} bytes; {SOURCE_BYTES:,} are allowed")
    try:
        compile(source, f"{metric.name}.py", "exec")
    except (SyntaxError, ValueError) as err:
        line = f", line {err.lineno}" if isinstance(err, SyntaxError) and err.lineno else ""
        what = err.msg if isinstance(err, SyntaxError) else str(err)
        raise ConfigError(f"{where}: {path}{line} is not Python: {what}") from err
    return source


class _Rows:
    """The rows as lines of JSON, made as they are needed, the same for each function."""

    def __init__(
        self, texts: Sequence[str], targets: npt.NDArray[np.int8], probabilities: Floats, schema: LabelSchema
    ) -> None:
        self.count = len(texts)
        self._texts, self._targets, self._probabilities = texts, targets, probabilities
        self._labels = schema.labels
        self._predicted = schema.predicted(probabilities)

    def line(self, start: int) -> bytes:
        part = slice(start, start + ROWS_AT_A_TIME)
        rows = [
            (
                text,
                dict(zip(self._labels, expected, strict=True)),
                [label for label, holds in zip(self._labels, expected, strict=True) if holds],
                dict(zip(self._labels, probabilities, strict=True)),
                predicted,
            )
            for text, expected, probabilities, predicted in zip(
                self._texts[part],
                self._targets[part].tolist(),
                self._probabilities[part].tolist(),
                self._predicted[part],
                strict=True,
            )
        ]
        return json.dumps({"first": start == 0, "rows": rows}).encode() + b"\n"


class _FailedError(Exception):
    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


class _Function:
    def __init__(self, name: str, source: bytes, seconds: float, memory_bytes: int) -> None:
        self.name = name
        self.source = source
        self._seconds, self._memory_bytes = seconds, memory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._read = b""

    def score(self, rows: _Rows, look: Callable[[], None]) -> Scored:
        try:
            self._start(look)
            scores: list[float] = []
            deadline = time.monotonic() + self._seconds
            for start in range(0, rows.count, ROWS_AT_A_TIME):
                answer = self._ask(rows.line(start), deadline, look)
                if "error" in answer:
                    raise _FailedError(answer["error"], start + answer["row"] + 1)
                scores += answer["scores"]
            found = Scored(self.name, np.array(scores, dtype=np.float64))
            if found.value is not None and not np.isfinite(found.value):
                raise _FailedError("the mean of its scores is no finite number: they are too large")
            return found
        except _FailedError as failed:
            self.close()  # the next evaluation begins anew
            # A lone surrogate, as of a file name that is no UTF-8, can neither be stored nor told.
            error = str(failed)[:SHOWN_CHARACTERS].encode("utf-8", "backslashreplace").decode()
            log.warning("Metric function failed", extra={"metric": self.name, "error": error, "row": failed.row})
            return Scored(self.name, None, error, failed.row)
        except BaseException:
            self.close()
            raise

    def _start(self, look: Callable[[], None]) -> None:
        if self._process is not None:
            return
        _hide_memory()
        self._folder = tempfile.TemporaryDirectory(prefix="metric-")
        file = Path(self._folder.name) / f"{self.name}.py"
        file.write_bytes(self.source)
        # As isolated as -I makes it, which would not read PYTHONHASHSEED.
        command = [sys.executable, "-P", "-s", metric_worker.__file__, str(file), str(int(self._seconds) or 1)]
        self._process = subprocess.Popen(
            [*command, str(self._memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.name,
            # Nothing of ours: there may be keys of storage in it. One thread, or each takes its share of the addresses. Sets
            # of labels in the same order in each process: sums over them would end in other bits after a restart.
            env={
                "HOME": self._folder.name,
                "LANG": "C.UTF-8",
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "PYTHONHASHSEED": "0",
            },
            start_new_session=True,  # what it starts ends with it
        )
        assert self._process.stdin and self._process.stdout
        for stream in (self._process.stdin, self._process.stdout):
            os.set_blocking(stream.fileno(), False)
        self._read = b""
        answer = self._answer(b"", time.monotonic() + START_SECONDS, START_SECONDS, look)
        if "error" in answer:
            raise _FailedError(answer["error"])

    def _ask(self, line: bytes, deadline: float, look: Callable[[], None]) -> dict[str, Any]:
        answer = self._answer(line, deadline, self._seconds, look)
        if "error" not in answer and not _numbers(answer.get("scores")):
            raise _FailedError("the function wrote to its process's own output")
        return answer

    def _answer(self, line: bytes, deadline: float, seconds: float, look: Callable[[], None]) -> dict[str, Any]:
        """Write the line, read the next one. Raises _FailedError, and what look raises."""
        process = self._process
        assert process and process.stdin and process.stdout
        unsent = memoryview(line)
        while b"\n" not in self._read:
            look()
            left = deadline - time.monotonic()
            if left <= 0:
                raise _FailedError(f"TimeoutError: it took longer than {seconds:g} seconds")
            writers = [process.stdin] if unsent else []
            ready, writable, _ = select.select([process.stdout], writers, [], min(left, 0.2))
            if writable:
                with contextlib.suppress(BlockingIOError, BrokenPipeError):
                    unsent = unsent[os.write(process.stdin.fileno(), unsent) :]
            if ready:
                piece = os.read(process.stdout.fileno(), 1 << 20)
                if not piece:
                    raise _FailedError(self._ended(process))
                self._read += piece
        answer, _, self._read = self._read.partition(b"\n")
        try:
            found = json.loads(answer)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise _FailedError("the function wrote to its process's own output")
        return found

    def _ended(self, process: subprocess.Popen[bytes]) -> str:
        try:
            code = process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return "the function closed its process's own output"
        if code == -signal.SIGXCPU:
            return f"TimeoutError: it took more than {self._seconds:g} seconds of CPU time"
        if code in (-signal.SIGKILL, -signal.SIGSEGV, -signal.SIGABRT):
            mebibytes = self._memory_bytes >> 20
            return f"MemoryError: its process was ended, probably for memory: {mebibytes:,} MiB are allowed"
        return f"SystemExit: its process ended with {code}"

    def close(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream:
                    stream.close()
        if self._folder is not None:
            self._folder.cleanup()
        self._process = self._folder = None


def _numbers(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, int | float) for value in values)


def _hide_memory() -> None:
    """This process's environment and memory are closed to others of its user: storage keys are in them."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)
