"""Properties of this computer, without PyTorch."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from pathlib import Path

_LIMITS = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")


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
    return min(free, *memory_limits())


def memory_limits() -> list[int]:
    """The bytes of memory that a container allows its programs; more than any machine has if there is no limit."""
    texts = [path.read_text("utf-8").strip() for path in _LIMITS if path.exists()]
    return [sys.maxsize, *(int(text) for text in texts if text.isdecimal())]
