"""Properties of this computer, without PyTorch."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path

LIMITS = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")


def processor() -> str:
    """The processor's model name, or its architecture if the name is unknown."""
    with contextlib.suppress(OSError):  # the only place where Linux has the name
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
        names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        if name := next(names, ""):
            return name
    return platform.processor() or platform.machine()


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available() -> int:
    """Bytes of memory that programs can still allocate, including swap."""
    import psutil

    free: int = psutil.virtual_memory().available + psutil.swap_memory().free
    limits = [path.read_text("utf-8").strip() for path in LIMITS if path.exists()]
    return min([free, *(int(limit) for limit in limits if limit.isdigit())])
