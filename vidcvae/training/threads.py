"""Adjust the number of threads of a run with precision auto while it trains, as other programs come and go.

A trial is six steps of the training itself, alternately with the current number of threads and with another one. Trials
come at fixed steps, so that on a quiet machine a resumed run equals an uninterrupted one. A run that is resumed within
a trial goes on with it. It has timed fewer steps then, so it may decide otherwise, and makes no change if it has timed
a number only once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch

from vidcvae.config import Config
from vidcvae.models.arithmetic import thread_counts, threads_are_set

EVERY, TRIAL = 128, 6  # steps from one trial to the next, and of one trial: about 1% of the time
MARGIN = 0.9  # change only for a step that takes less than this share of the time: a change alters the last digits


def may_change(config: Config, device: str, ranks: int) -> bool:
    """Whether training may change the number of threads."""
    train = config.training
    free = train.precision == "auto" and not train.deterministic and not threads_are_set()
    return free and device == "cpu" and ranks == 1


class Threads:
    """The current ``number`` of threads, which ``step`` sets; ``free``: trials may change it."""

    def __init__(self, number: int, free: bool) -> None:
        self.number, self.free = number, free
        self.change = ""  # a sentence, if the last step ended a trial that changed the number
        self._counts = sorted({number, *thread_counts(torch.get_num_threads())})
        self._seconds: dict[int, list[float]] = {}

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """A context that computes step ``step`` of the training."""
        at, self.change = step % EVERY, ""
        if at == 0:
            self._seconds = {}
        rival = self._neighbour(step // EVERY) if at < TRIAL else 0
        number = rival if rival and at % 2 else self.number
        torch.set_num_threads(number)
        began = time.perf_counter()
        try:
            yield
        finally:
            torch.set_num_threads(self.number)
        if rival:
            self._seconds.setdefault(number, []).append(time.perf_counter() - began)
            if at == TRIAL - 1 and all(len(self._seconds.get(n, ())) > 1 for n in (rival, self.number)):
                self._decide(rival)

    def _neighbour(self, trial: int) -> int:
        """Alternately the next lower and the next higher number; 0: no trial. At step 0 all were just measured."""
        if not self.free or trial == 0:
            return 0
        i = self._counts.index(self.number)
        neighbours = self._counts[max(i - 1, 0) : i] + self._counts[i + 1 : i + 2]
        return neighbours[trial % len(neighbours)] if neighbours else 0

    def _decide(self, rival: int) -> None:
        """Take the rival if it is faster. The first step of each is ignored: libraries choose their kernels in it."""
        best = {number: min(seconds[1:]) for number, seconds in self._seconds.items()}
        if best[rival] < MARGIN * best[self.number]:
            old, self.number = self.number, rival
            self.change = (
                f"threads: {self.number} from now on: {best[self.number]:.3g} s a step, {best[old]:.3g} with {old}"
            )
            torch.set_num_threads(self.number)
