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
        if number in (signal.SIGINT, signal.SIGTERM):
            if self.stop is not None:
                os._exit(128 + number)  # the second one: nothing may hold us up; the last checkpoint stands
            self.stop = number
        else:
            self.save = True

    @property
    def exit_code(self) -> int:
        return EXIT_TERMINATED if self.stop == signal.SIGTERM else EXIT_INTERRUPTED


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
    before = [signal.signal(number, requests.handle) for number in numbers]
    try:
        yield requests
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
