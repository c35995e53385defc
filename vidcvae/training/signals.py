"""Asking a running training to stop: the first signal finishes the step and saves, the second leaves at once."""

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
LAST_WORDS = 0.5  # seconds that a screen has to show them


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
class PendingRequests:
    """What all ranks know is asked of them: a signal's number, a checkpoint; and how late it is."""

    stop: int | None = None
    save: bool = False
    minutes: float = 0.0


# SIGBREAK is Windows': Ctrl-Break, and what one process can ask of another there
_STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name))
_SAVES = (signal.SIGUSR1,) if hasattr(signal, "SIGUSR1") else ()


def _answer(signals: socket.socket, report: Report) -> None:
    """Read signals' numbers as they come, answer those that ask to stop, and end the process with the second one.

    In a thread, since Python calls a handler only when the operation is over that PyTorch is busy with. Nothing may
    hold us up, a screen that stands still neither; the last checkpoint stands.
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
                event = {"kind": "leaving", "text": f"{name}: ended at once; the newest checkpoint stands"}
            telling = threading.Thread(target=report, args=(event,), daemon=True)
            telling.start()
            if stops == 2:
                telling.join(LAST_WORDS)
                os._exit(128 + stop)


def exit_code(stop: int) -> int:
    """What a training that was stopped by this signal leaves with."""
    return EXIT_TERMINATED if stop == signal.SIGTERM else EXIT_INTERRUPTED


@contextlib.contextmanager
def listening(report: Report = lambda event: None) -> Iterator[Requests]:
    """Collect SIGINT, SIGTERM (Windows: SIGBREAK) and SIGUSR1 in a ``Requests`` while the block runs.

    ``report`` is told at once, from another thread, what a signal to stop does: events "stopping", and "leaving".
    Signals reach the main thread only; trained from another one, nothing is caught.
    """
    requests = Requests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    numbers = (*_STOPS, *_SAVES)
    reading, writing = socket.socketpair()  # not a pipe, which Windows cannot make non-blocking
    writing.setblocking(False)  # as ``set_wakeup_fd`` demands
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
