"""The processes of a training on this machine, started and watched by torch's elastic agent, as torchrun does.

The agents of several machines find each other at `rendezvous`, a port of the first one. A process that ends badly ends the
others; what it said and its exit code become this program's. Nothing is started anew here: that is for whoever started this
program, and the run then goes on from its resume point.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from types import FrameType
from typing import Any, NoReturn

import orjson
import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous.api import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from winnow_classifier.errors import ConfigError, NoPeersError, PeerLostError
from winnow_classifier.words import count
from winnow_trainer.group import GroupEnded, message_file
from winnow_trainer.stopping import Stopped

log = logging.getLogger(__name__)

START_SECONDS = 1_800  # to wait for the other machines: an image with torch may have to be pulled
TRY_SECONDS = 2.0
GRACE_SECONDS = 115  # for a stopped process to write its resume point: less than a pod gets, to pass its last word on
EXIT_STOPPED = 128 + signal.SIGTERM
# Exit codes of processes that ended because others did: one with another code has the cause.
FOLLOWED = (PeerLostError.exit_code, EXIT_STOPPED, -signal.SIGTERM)
MESSAGE = "message"


@dataclass(frozen=True, slots=True)
class Place:
    """Which machine of how many this is, and where they meet."""

    nodes: int = 1
    node_rank: int = 0
    rendezvous: str | None = None  # host:port of the first machine

    @property
    def endpoint(self) -> tuple[str, int]:
        host, _, port = (self.rendezvous or "127.0.0.1:0").rpartition(":")
        return host, int(port)


def place(nodes: int, node_rank: int, rendezvous: str | None) -> Place:
    """Raises ConfigError for what does not fit together."""
    if nodes > 1 and rendezvous is None:
        raise ConfigError(
            f"nodes is {nodes}: start this command on {nodes} machines that share the storage, with --node-rank 0 to "
            f"{nodes - 1} and --rendezvous HOST:PORT of the first one; to use one machine, set processesPerNode instead"
        )
    if nodes == 1 and rendezvous is not None:
        raise ConfigError("--rendezvous is for jobs with nodes above 1")
    if not 0 <= node_rank < nodes:
        raise ConfigError(f"--node-rank {node_rank}: nodes is {nodes}, so it must be from 0 to {nodes - 1}")
    found = Place(nodes, node_rank, rendezvous)
    try:
        host, port = found.endpoint
    except ValueError:
        host, port = "", 0
    if rendezvous is not None and not (host and 0 < port < 65_536):
        raise ConfigError(f"--rendezvous must be HOST:PORT, found {rendezvous!r}")
    return found


def check_devices(processes_per_node: int) -> None:
    """Raises ConfigError if there are fewer GPUs than processes that want one."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else None
    if gpus is not None and gpus < processes_per_node:
        raise ConfigError(
            f"processesPerNode is {processes_per_node}, and this machine has {count(gpus, 'GPU')}",
            hint="each process uses one GPU; resources.limits of a TrainingJob are those of one pod",
        )


def run(where: Place, processes: int, arguments: Sequence[str], run_name: str, stop: Event) -> NoReturn:
    """Starts `processes` times this program with these arguments, and waits. Raises GroupEnded, NoPeersError, Stopped."""
    check_devices(processes)
    with TemporaryDirectory(prefix="winnow-") as folder:
        words = Path(folder)
        command = ["-m", "winnow_trainer", *arguments, "--termination-log", str(words / MESSAGE)]
        if where.node_rank > 0:
            await_first(where, stop)
        try:
            with signals_raise():
                elastic_launch(config(where, processes, run_name), sys.executable)(*command)
            code = 0
        except SignalException:
            code = stopped_code(words, processes)
        except ChildFailedError as error:
            raise ended(error.failures, words) from None
        except (RendezvousError, torch.distributed.DistError) as error:
            raise PeerLostError(f"The other machines of this training are gone: {error}") from error
        raise GroupEnded(code, last_word(words, 0) or said(code))


def config(where: Place, processes: int, run_name: str) -> LaunchConfig:
    host, port = where.endpoint
    first = where.node_rank == 0
    return LaunchConfig(
        min_nodes=where.nodes,
        max_nodes=where.nodes,
        nproc_per_node=processes,
        run_id=run_name,
        rdzv_backend="c10d",
        # The first one listens; it must not look itself up in a DNS that may not know it yet.
        rdzv_endpoint=f"127.0.0.1:{port}" if first else f"{host}:{port}",
        rdzv_configs={"is_host": first, "join_timeout": START_SECONDS},
        # Machines are counted in the order of these; the first is where all processes connect to.
        local_addr=host if first else f"{host}~{where.node_rank:04d}",
        max_restarts=0,
        shutdown_timeout=GRACE_SECONDS,
        signals_to_handle="SIGTERM,SIGINT",
    )


def await_first(where: Place, stop: Event) -> None:
    """Until the first machine listens. Raises NoPeersError, Stopped."""
    log.info("Waiting for the first machine", extra={"rendezvous": where.rendezvous})
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(where.endpoint, timeout=TRY_SECONDS).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise NoPeersError(
                    f"The first machine, {where.rendezvous}, was not there for {START_SECONDS // 60} minutes: {error}",
                    hint="all pods of the job must run at the same time; look at the others",
                ) from error
        if stop.wait(TRY_SECONDS):
            raise Stopped


class signals_raise:  # noqa: N801 - a context manager
    """Makes SIGTERM and SIGINT also end the wait for other machines; for processes the agent sees to that."""

    def __enter__(self) -> None:
        self.before = {number: signal.signal(number, self.end) for number in (signal.SIGTERM, signal.SIGINT)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    @staticmethod
    def end(number: int, _: FrameType | None) -> NoReturn:
        raise SignalException(f"signal {number}", signal.Signals(number))


def ended(failures: Mapping[int, ProcessFailure], words: Path) -> GroupEnded:
    """How the group ended, from the process that failed by itself, not because another one did."""
    first = min(failures.values(), key=lambda failure: (failure.exitcode in FOLLOWED, failure.timestamp))
    code = first.exitcode if first.exitcode >= 0 else 128 - first.exitcode
    return GroupEnded(code, last_word(words, first.local_rank) or said(code, first.local_rank))


def stopped_code(words: Path, processes: int) -> int:
    """A signal that comes when all is done stops nothing."""
    told = [last_word(words, local_rank) for local_rank in range(processes)]
    return 0 if all(word is not None and word["state"] == "Complete" for word in told) else EXIT_STOPPED


def last_word(words: Path, local_rank: int) -> dict[str, Any] | None:
    try:
        return dict(orjson.loads(message_file(words / MESSAGE, local_rank).read_bytes()))
    except (OSError, ValueError):
        return None


def said(code: int, local_rank: int = 0) -> dict[str, Any]:
    """The final word for a process that could not write one itself."""
    state, reason, message = "Failed", "InternalError", f"Process {local_rank} ended with exit code {code}"
    if code == EXIT_STOPPED:
        state, reason, message = "Stopped", "Stopped", "Stopped; goes on from the last resume point"
    elif code == 128 + signal.SIGKILL:
        reason, message = "OutOfMemory", f"Process {local_rank} was killed, as the kernel does when memory is used up"
    return {"kind": "train", "state": state, "reason": reason, "message": message}
