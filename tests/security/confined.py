"""Run a piece of code in a process of its own, with little memory and time, and say what it took."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vidcvae.errors import VidcvaeError

SECONDS, MEMORY = 30, 8 << 30  # far above what is expected: what is expected is asserted


class Outcome(NamedTuple):
    """message: of the ``VidcvaeError``, or "" without one; error: any other; mebibytes: more than at the start."""

    message: str
    code: int
    error: str
    mebibytes: int


def confined(work: Callable[[], object]) -> Outcome:
    """What comes of ``work`` and how much memory it needs at its peak, in a fork of this process."""
    before = _peak(lambda: None)[1]
    (message, code, error), after = _peak(work)
    return Outcome(message, code, error, (after - before) >> 10)


def _peak(work: Callable[[], object]) -> tuple[tuple[str, int, str], int]:
    """The outcome, and the largest resident memory of the fork in kibibytes."""
    read, write = os.pipe()
    gc.disable()  # a fork must not collect what it inherits: that of PyAV waits for threads which no fork has
    child = os.fork()
    if not child:
        gc.freeze()
    gc.enable()
    if not child:
        found = "", 0, ""
        try:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
            signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the fork
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            work()
        except VidcvaeError as refused:
            found = refused.message, refused.exit_code, ""
        except BaseException as error:
            found = "", 0, f"{type(error).__name__}: {error}"
        finally:
            os.write(write, pickle.dumps(tuple(part[:2000] if isinstance(part, str) else part for part in found)))
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    _, status, usage = os.wait4(child, 0)
    if not told:
        return ("", 0, f"ended by signal {status & 127}"), usage.ru_maxrss
    return pickle.loads(told), usage.ru_maxrss
