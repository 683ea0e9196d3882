"""How many CPUs this process may use: in a container that is fewer than the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "quota period" in microseconds, or "max period"


def usable_cpus(cpu_max: Path = CPU_MAX) -> int:
    """CPUs by affinity, and by the container's limit, rounded up. More threads than that only wait for each other."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text().split()
        return max(1, min(allowed, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return allowed
