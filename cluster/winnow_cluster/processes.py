"""Long-running programs: each in a session of its own, with a pid file and a log, ended by exactly that pid."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from winnow_cluster.errors import ClusterError, log_tail

POLL_SECONDS = 0.05


def start_ticks(pid: int) -> str | None:
    """When a process began, in clock ticks since boot; None for one that is gone or a zombie.

    Pids are used again: a pid file that holds this too never points at a stranger.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


@dataclass(frozen=True)
class Process:
    """One program that outlives us, known by its name."""

    name: str
    pids: Path  # a folder with a file for each
    logs: Path

    @property
    def log(self) -> Path:
        return self.logs / f"{self.name}.log"

    @property
    def pid_file(self) -> Path:
        return self.pids / self.name

    def pid(self) -> int | None:
        """The pid while it runs."""
        try:
            pid, _, ticks = self.pid_file.read_text().split("\n")[0].partition(" ")
        except FileNotFoundError:
            return None
        return int(pid) if pid.isdigit() and start_ticks(int(pid)) == ticks else None

    def start(self, command: Sequence[str]) -> bool:
        """Start it unless it runs as asked; True where it was started."""
        asked = json.dumps(list(command))
        if self.pid() is not None:
            if self.pid_file.read_text().partition("\n")[2] == asked:
                return False
            self.stop()  # built anew, or asked for other settings
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            log.write(f"--- {time.strftime('%F %T')} {' '.join(command)}\n".encode())
            log.flush()
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid_file.write_text(f"{child.pid} {start_ticks(child.pid)}\n{asked}")
        return True

    def stop(self, grace_seconds: float = 10) -> None:
        """Ask, wait, then insist; the pid file goes last."""
        for sign, patience in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 5.0)):
            pid = self.pid()
            if pid is None:
                break
            os.kill(pid, sign)
            deadline = time.monotonic() + patience
            while self.pid() is not None and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
            _reap(pid)
        self.pid_file.unlink(missing_ok=True)

    def expect_alive(self) -> None:
        if self.pid() is None:
            raise ClusterError(f"{self.name} ended right after its start.\n{log_tail(self.log)}")


def _reap(pid: int) -> None:
    """Collect our own child, so that it does not stay a zombie; others are not ours to collect."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
