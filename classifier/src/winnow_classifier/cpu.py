"""What this process has of the machine's CPUs: how many, in a container fewer than there are, and what they can do."""

from __future__ import annotations

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

# Iterations, some 80 µs: longer than a network takes from one parallel loop to the next, so no thread has to be woken in
# between, which takes as long as a small loop does. libgomp, which torch brings, reads it when torch is imported.
SPIN_COUNT = "5000"
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


def spin_briefly(environ: MutableMapping[str, str]) -> bool:
    """Sets how a thread that waits for the others waits, unless that has been said already; before torch is imported.

    Spinning without an end, it takes the core from the one it waits for as soon as anything else runs there: a batch of one
    took 390 ms instead of 14 on two busy cores.
    """
    if "OMP_WAIT_POLICY" in environ or "GOMP_SPINCOUNT" in environ:
        return False
    environ["GOMP_SPINCOUNT"] = SPIN_COUNT
    return True


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
