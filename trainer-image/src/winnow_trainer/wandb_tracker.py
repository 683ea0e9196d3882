"""A run in Weights & Biases, told by its own client, which runs in a process of its own.

The client starts threads, hooks and a program in Go, and what goes wrong in them must not reach the training (ADR 89).
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from winnow_classifier.addresses import ALLOWING, Network, NotPublicError, allowed_addresses
from winnow_classifier.mirror import Mirror
from winnow_trainer.fetch import shown
from winnow_trainer.run_folder import write_json
from winnow_trainer.teller import RefusedError, Teller, UnreachableError

KEY = "WANDB_API_KEY"
COMMAND = [sys.executable, "-P", "-m", "winnow_trainer.wandb_process"]
# Of our environment, beside WANDB_…; there may be keys of storage in the rest.
PASSED = ("PATH", "LANG", "USER", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
CONNECT_SECONDS = 10.0
PRINTED = "printed.log"  # by the client, for people
GAVE_UP = "Fatal error while uploading data"


@dataclass(frozen=True, slots=True)
class WandbRun:
    base_url: str
    project: str
    entity: str | None
    name: str
    params: Mapping[str, str]


class WandbTracker:
    """`memory` remembers the run's id, so that a training that goes on after a stop is one run there too."""

    def __init__(
        self,
        run: WandbRun,
        memory: Path,
        environ: Mapping[str, str],
        networks: Iterable[Network],
        mirror: Mirror,
    ) -> None:
        self._run = run
        self._memory = memory
        self._environ = environ
        self._networks = tuple(networks)
        self._mirror = mirror
        self._end = ""
        self._process: subprocess.Popen[str] | None = None
        self._teller: Teller[dict[str, Any]] = Teller("Weights & Biases", self._work)
        self._teller.start()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._teller.put({"step": step, "at": time.time(), "values": dict(values)})

    def flush(self) -> None:
        """It is told as it comes."""

    def close(self, state: str) -> str | None:
        self._end = state
        lack = self._teller.close()
        self._kill()
        return lack

    def _work(self) -> None:
        if not self._environ.get(KEY):
            raise RefusedError(f"there is no key: the environment has no {KEY}")
        with tempfile.TemporaryDirectory(prefix="wandb-", ignore_cleanup_errors=True) as folder:
            try:
                process = self._teller.until_done(lambda: self._begun(Path(folder)))
                self._tell(process, Path(folder))
            finally:
                self._end_process()

    def _begun(self, folder: Path) -> subprocess.Popen[str]:
        """The client's process, once the server knows the run."""
        self._end_process()
        self._check_address()
        wanted = {
            "id": self._id(),
            "baseUrl": self._run.base_url,
            "project": self._run.project,
            "entity": self._run.entity,
            "name": self._run.name,
            "config": dict(self._run.params),
        }
        with (folder / PRINTED).open("wb") as printed:
            self._process = process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=printed,
                cwd=folder,
                env=environment(self._environ, folder),
                start_new_session=True,  # what it starts ends with it
                text=True,
            )
        self._write(process, wanted)
        self._answer(process)
        return process

    def _tell(self, process: subprocess.Popen[str], folder: Path) -> None:
        while not self._teller.told:
            for message in self._teller.waiting():
                self._write(process, message)
        self._write(process, {"end": self._end})
        if process.wait():
            self._answer(process)
        # It ends as if all were well where the server refused what came in between.
        if GAVE_UP in (folder / PRINTED).read_text(errors="replace"):
            raise RefusedError(
                "values are missing there, since the server did not take them: see whether the key still holds"
            )

    def _write(self, process: subprocess.Popen[str], message: Mapping[str, Any]) -> None:
        assert process.stdin
        try:
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            self._answer(process)
            raise RefusedError("its client ended") from None

    def _answer(self, process: subprocess.Popen[str]) -> None:
        """Returns if the run has begun. Raises what the process says otherwise."""
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            raise RefusedError(f"its client ended with exit code {process.wait()}")
        said = json.loads(line)
        if "error" in said:
            raise (RefusedError if said["final"] else UnreachableError)(said["error"])

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _end_process(self) -> None:
        self._kill()
        if self._process is not None:
            with suppress(BrokenPipeError), self._process:  # what was not written yet is written as the pipe closes
                self._process.wait()

    def _check_address(self) -> None:
        """Whether somebody is there, and may be connected to: the client itself asks neither."""
        parts = urlsplit(self._run.base_url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            address, *_ = allowed_addresses(parts.hostname or "", port, self._networks)
            socket.create_connection((address, port), CONNECT_SECONDS).close()
        except OSError as error:
            raise UnreachableError(f"{shown(self._run.base_url)}: {error.strerror or error}") from error
        except NotPublicError as error:
            message = f"{error}, which is not public, and Weights & Biases is spoken with at public addresses only"
            raise RefusedError(f"{message}: {ALLOWING}") from error

    def _id(self) -> str:
        self._mirror.fetch(self._memory)
        if self._memory.is_file():
            return str(json.loads(self._memory.read_bytes())["runId"])
        run_id = secrets.token_hex(8)
        write_json(self._memory, {"runId": run_id})
        self._mirror.store(self._memory)
        return run_id


def environment(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Everything that the client writes stays in the folder, and it reports nothing of itself unless it is asked to."""
    passed = {name: value for name, value in environ.items() if name in PASSED or name.startswith("WANDB_")}
    return {"WANDB_ERROR_REPORTING": "false", **passed, "HOME": str(folder), "TMPDIR": str(folder)}
