"""Signals to a running training: the first one finishes the step and saves, the second one exits at once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from vidcvae.errors import EXIT_INTERRUPTED, EXIT_TERMINATED

Report = Callable[[dict[str, Any]], None]
LAST_WORDS = 0.5  # seconds that the screen gets to show the last message


@dataclass
class Requests:
    """The requests of signals: ``stop`` is the number of the signal or None, ``save`` requests a checkpoint."""

    stop: int | None = None
    save: bool = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        if number in _STOPS:
            self.stop = number
        else:
            self.save = True


# SIGBREAK exists on Windows: Ctrl-Break, and the only one of these that a process can send to another there
_STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name))
_SAVES = (signal.SIGUSR1,) if hasattr(signal, "SIGUSR1") else ()


def _answer(signals: socket.socket, report: Report) -> None:
    """Read the numbers of signals as they arrive, answer those that ask to stop, and end the process at the second.

    Runs in a thread, because Python calls a handler only after PyTorch's current operation. Nothing may delay the exit,
    not even a screen that hangs; the last checkpoint is valid.
    """
    stops = 0
    with signals:
        while number := signals.recv(1):
            if (stop := number[0]) not in _STOPS:
                continue
            stops += 1
            name = "Ctrl-C" if stop == signal.SIGINT else signal.Signals(stop).name
            event = {"kind": "stopping", "text": f"{name}: finishing the step, then saving; once more ends at once"}
            if stops == 2:
                event = {"kind": "leaving", "text": f"{name}: ended at once; the newest checkpoint is intact"}
            reporting = threading.Thread(target=report, args=(event,), daemon=True)
            reporting.start()
            if stops == 2:
                reporting.join(LAST_WORDS)
                os._exit(128 + stop)


def exit_code(stop: int) -> int:
    """The exit code of a training that this signal stopped."""
    return EXIT_TERMINATED if stop == signal.SIGTERM else EXIT_INTERRUPTED


@contextlib.contextmanager
def listening(report: Report = lambda event: None) -> Iterator[Requests]:
    """Collect SIGINT, SIGTERM (Windows: SIGBREAK) and SIGUSR1 in a ``Requests`` while the block runs.

    A signal to stop sends ``report`` an event, "stopping" or "leaving", at once and from another thread.
    Python delivers signals to the main thread only; on any other thread this collects nothing.
    """
    requests = Requests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    numbers = (*_STOPS, *_SAVES)
    reading, writing = socket.socketpair()  # not a pipe: on Windows pipes cannot be non-blocking
    writing.setblocking(False)  # ``set_wakeup_fd`` requires it
    threading.Thread(target=_answer, args=(reading, report), daemon=True).start()
    woken = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    before = [signal.signal(number, requests.handle) for number in numbers]
    try:
        yield requests
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken)
        writing.close()  # which ends the thread
