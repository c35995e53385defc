"""Asking a running training to stop: the first signal finishes the step and saves, the second leaves at once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from vidcvae.errors import EXIT_INTERRUPTED, EXIT_TERMINATED


class Requests:
    """What signals have asked for: ``stop`` is the signal's number or None, ``save`` asks for a checkpoint."""

    def __init__(self) -> None:
        self.stop: int | None = None
        self.save = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        if number in _STOPS:
            self.stop = number
        else:
            self.save = True


@dataclass
class Asked:
    """What all ranks know is asked of them: a signal's number, a checkpoint; and how late it is."""

    stop: int | None = None
    save: bool = False
    minutes: float = 0.0


# SIGBREAK is Windows': Ctrl-Break, and what one process can ask of another there
_STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name))
_SAVES = (signal.SIGUSR1,) if hasattr(signal, "SIGUSR1") else ()


def _leave_at_the_second(signals: socket.socket) -> None:
    """Read signals' numbers as they come, and end the process with the second one that asks it to stop.

    In a thread, since Python calls a handler only when the operation is over that PyTorch is busy with. Nothing may
    hold us up; the last checkpoint stands.
    """
    stops = 0
    with signals:
        while number := signals.recv(1):
            stops += number[0] in _STOPS
            if stops == 2:
                os._exit(128 + number[0])


def exit_code(stop: int) -> int:
    """What a training that was stopped by this signal leaves with."""
    return EXIT_TERMINATED if stop == signal.SIGTERM else EXIT_INTERRUPTED


@contextlib.contextmanager
def listening() -> Iterator[Requests]:
    """Collect SIGINT, SIGTERM (Windows: SIGBREAK) and SIGUSR1 in a ``Requests`` while the block runs.

    Signals reach the main thread only; trained from another one, nothing is caught.
    """
    requests = Requests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    numbers = (*_STOPS, *_SAVES)
    reading, writing = socket.socketpair()  # not a pipe, which Windows cannot make non-blocking
    writing.setblocking(False)  # as ``set_wakeup_fd`` demands
    threading.Thread(target=_leave_at_the_second, args=(reading,), daemon=True).start()
    woken = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    before = [signal.signal(number, requests.handle) for number in numbers]
    try:
        yield requests
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken)
        writing.close()  # which ends the thread
