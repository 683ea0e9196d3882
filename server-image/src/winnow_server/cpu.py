"""How many CPUs this process may use: a container's limit, not the host's cores."""

import math
import os
from collections.abc import Iterable
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cpus(cgroup: Path = CGROUP) -> int:
    """At least 1: the cores this process may run on, within the quota of its cgroup (v2, else v1), rounded up."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, min([allowed, *(math.ceil(quota) for quota in quotas(cgroup))]))


def quotas(cgroup: Path) -> Iterable[float]:
    """CPUs by each limit that is set."""
    v2 = _words(cgroup / "cpu.max")
    if len(v2) == 2 and v2[0] != "max":
        yield int(v2[0]) / int(v2[1])
    v1_quota, v1_period = _words(cgroup / "cpu/cpu.cfs_quota_us"), _words(cgroup / "cpu/cpu.cfs_period_us")
    if v1_quota and v1_period and int(v1_quota[0]) > 0:
        yield int(v1_quota[0]) / int(v1_period[0])


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
