"""What this process has of the machine's CPUs: how many, in a container fewer than there are, and what they can do."""

from __future__ import annotations

import math
import os
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "quota period" in microseconds, or "max period"


def usable_cpus(cpu_max: Path = CPU_MAX) -> int:
    """CPUs by affinity, and by the container's limit, rounded up. More threads than that only wait for each other."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text().split()
        return max(1, min(allowed, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return allowed


def multiplies_bfloat16(cpu_info: Path = CPU_INFO) -> bool:
    """Whether the CPU has instructions for products of bfloat16: two to three times as many of them as of float32.

    Without such instructions bfloat16 is slower than float32. Intel since Cooper Lake, AMD since Zen 4.
    """
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags
