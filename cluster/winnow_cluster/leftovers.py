"""Ending what containers leave: tasks, shims, mounts and cgroups, by what marks them as ours."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from winnow_cluster.control_plane import Program
from winnow_cluster.images import ctr
from winnow_cluster.node import BUILD_CGROUP, CONTAINERD_SOCKET, POD_CGROUP

CGROUPS = Path("/sys/fs/cgroup")
OUR_CGROUPS = (POD_CGROUP, BUILD_CGROUP)
POLL_SECONDS = 0.05


def remove_containers(program: Program) -> None:
    """Through containerd while it runs: kill every task, forget every container and its snapshot."""

    for kind, options in (("tasks", ["--force"]), ("containers", [])):
        listed = subprocess.run(ctr(program, kind, "list", "--quiet"), capture_output=True, text=True, timeout=30)
        if identifiers := listed.stdout.split():
            command = ctr(program, kind, "delete", *options, *identifiers)
            subprocess.run(command, capture_output=True, timeout=120)


def kill_shims() -> None:
    """Those of this containerd, known by its socket on their command line, and the processes they leave behind."""

    def ours() -> list[int]:
        address = str(CONTAINERD_SOCKET).encode()
        return [pid for pid, line in _command_lines() if b"containerd-shim" in line[0] and address in line]

    _kill_all(ours)
    _kill_all(lambda: [pid for cgroup in _our_cgroups() for pid in _members(cgroup)])


def _kill_all(find: Callable[[], Iterable[int]]) -> None:
    deadline = time.monotonic() + 5
    while (pids := list(find())) and time.monotonic() < deadline:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(POLL_SECONDS)


def _command_lines() -> Iterable[tuple[int, list[bytes]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            yield int(entry.name), line


def mounts_below(mountinfo: str, folders: Iterable[Path]) -> list[str]:
    """Mount points inside the folders, the innermost first; `mountinfo` as in /proc/self/mountinfo."""
    prefixes = tuple(f"{folder}/" for folder in folders)
    points = [line.split()[4].encode().decode("unicode_escape") for line in mountinfo.splitlines()]
    return sorted((point for point in points if f"{point}/".startswith(prefixes)), key=len, reverse=True)


def unmount(*folders: Path) -> None:
    for point in mounts_below(Path("/proc/self/mountinfo").read_text(), folders):
        # Lazily: a mount that is busy for another moment must not stop the rest.
        subprocess.run(["umount", "--lazy", point], capture_output=True)


def _our_cgroups() -> list[Path]:
    """Deepest first, in every hierarchy of cgroup v1 and in the one of v2."""
    roots = [CGROUPS, *(entry for entry in CGROUPS.iterdir() if entry.is_dir() and not entry.is_symlink())]
    found = [root / name for root in roots for name in OUR_CGROUPS if (root / name).is_dir()]
    inside = [Path(folder) for cgroup in found for folder, _, _ in os.walk(cgroup)]
    return sorted(set(inside), key=lambda path: len(path.parts), reverse=True)


def has_pods() -> bool:
    """Does any process run in a pod, whoever made it?"""
    return any(_members(cgroup) for cgroup in _our_cgroups())


def _members(cgroup: Path) -> list[int]:
    try:
        return [int(pid) for pid in (cgroup / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def remove_cgroups() -> None:
    for cgroup in _our_cgroups():
        try:
            cgroup.rmdir()
        except OSError:  # still draining; the second round of `down`, or the next one, gets it
            continue
