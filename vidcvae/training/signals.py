"""Asking a running training to stop: the first signal finishes the step and saves, the second leaves at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
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


_STOPS = (signal.SIGINT, signal.SIGTERM)


def _leave_at_the_second(fd: int) -> None:
    """Read signals' numbers as they come, and end the process with the second one that asks it to stop.

    In a thread, since Python calls a handler only when the operation is over that PyTorch is busy with. Nothing may
    hold us up; the last checkpoint stands.
    """
    stops = 0
    while number := os.read(fd, 1):
        stops += number[0] in _STOPS
        if stops == 2:
            os._exit(128 + number[0])
    os.close(fd)


def exit_code(stop: int) -> int:
    """What a training that was stopped by this signal leaves with."""
    return EXIT_TERMINATED if stop == signal.SIGTERM else EXIT_INTERRUPTED


@contextlib.contextmanager
def listening() -> Iterator[Requests]:
    """Collect SIGINT, SIGTERM and SIGUSR1 in a ``Requests`` while the block runs.

    Signals reach the main thread only; trained from another one, nothing is caught.
    """
    requests = Requests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)  # as ``set_wakeup_fd`` demands
    threading.Thread(target=_leave_at_the_second, args=(reading,), daemon=True).start()
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = [signal.signal(number, requests.handle) for number in numbers]
    try:
        yield requests
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken)
        os.close(writing)  # which ends the thread
