"""The number of threads of a run with auto, tried again while it trains: other programs come and go.

A trial is six steps of the training itself, in turns with the present number of threads and with another one. Trials
come at fixed steps, so that a run on a quiet machine, stopped and resumed, is the same as one that went through.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch

from vidcvae.config import Config
from vidcvae.models.arithmetic import thread_counts, threads_are_set

EVERY, TRIAL = 128, 6  # steps: between two trials, and of one; it costs about one step in a hundred
MARGIN = 0.9  # what is not faster by more than this share is no reason to change, which changes the last digits


def may_change(config: Config, device: str, ranks: int) -> bool:
    """Whether the number of threads is ours to choose while training."""
    train = config.training
    ours = train.precision == "auto" and not train.deterministic and not threads_are_set()
    return ours and device == "cpu" and ranks == 1


class Threads:
    """The present ``number`` of threads, which ``step`` sets; ``free``: trials may change it."""

    def __init__(self, number: int, free: bool) -> None:
        self.number, self.free = number, free
        self.change = ""  # a sentence, where the last step ended a trial that changed the number
        self._counts = sorted({number, *thread_counts(torch.get_num_threads())})
        self._rival = 0
        self._seconds: dict[int, list[float]] = {}

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """A block that computes step ``step`` of the training."""
        at, self.change = step % EVERY, ""
        if at == 0:
            self._rival, self._seconds = self._neighbour(step // EVERY), {}
        trial = bool(self._rival) and at < TRIAL
        number = self._rival if trial and at % 2 else self.number
        torch.set_num_threads(number)
        began = time.perf_counter()
        try:
            yield
        finally:
            torch.set_num_threads(self.number)
        if trial:
            self._seconds.setdefault(number, []).append(time.perf_counter() - began)
            if at == TRIAL - 1:
                self._decide()

    def _neighbour(self, trial: int) -> int:
        """The next lower or the next higher number, in turns; 0: no trial. At step 0 all were just measured."""
        if not self.free or trial == 0:
            return 0
        here = self._counts.index(self.number)
        beside = self._counts[max(here - 1, 0) : here] + self._counts[here + 1 : here + 2]
        return beside[trial % len(beside)] if beside else 0

    def _decide(self) -> None:
        """The first step of each is not counted: libraries choose their kernels in it."""
        best = {number: min(seconds[1:]) for number, seconds in self._seconds.items()}
        if best[self._rival] < MARGIN * best[self.number]:
            old, self.number = self.number, self._rival
            self.change = (
                f"threads: {self.number} from now on: {best[self.number]:.3g} s a step, {best[old]:.3g} with {old}"
            )
            torch.set_num_threads(self.number)
