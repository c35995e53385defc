"""The clock of a training: elapsed time, speed, and the number of steps that a time budget allows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from vidcvae.config import Config
from vidcvae.training import schedules
from vidcvae.training.schedules import Length
from vidcvae.training.state import Meter

LOSSES_EVERY = 1.0  # seconds between two progress events with losses, since reading those waits for a GPU
SPEED_STEPS, SPEED_SECONDS = 3, 5.0  # the speed is known after this many steps, or after one that took this long


class Pace:
    """The clock of a training that continues at ``step``, after ``minutes`` of training before."""

    def __init__(self, config: Config, length: Length, step: int, minutes: float) -> None:
        self.config, self.length = config, length
        self.began, self.minutes_before = time.monotonic(), minutes
        self.last_validation = 0.0  # minutes of a validation after the time budget is used up
        self._losses_at = 0.0
        self._from: tuple[int, float] | None = None  # the end of the first step, which may include compilation
        self._warned = not config.training.max_minutes
        self._window = step, self.began

    def minutes(self) -> float:
        """Minutes of training over all resumes, without a validation after the time budget is used up."""
        return self.minutes_before + (time.monotonic() - self.began) / 60 - self.last_validation

    @contextmanager
    def beyond_the_budget(self) -> Iterator[None]:
        """A context whose time does not count towards the budget."""
        before = time.monotonic()
        try:
            yield
        finally:
            self.last_validation += (time.monotonic() - before) / 60

    def begin_window(self, step: int) -> None:
        """Start to measure the clips/s of the next ``record`` of kind "step", after ``step`` steps."""
        self._window = step, time.monotonic()

    def at(self, step: int) -> dict[str, Any]:
        """The position of a record after ``step`` steps."""
        return {"step": step, "epoch": self.length.epoch(max(step - 1, 0)), "epochs_done": self.length.done(step)}

    def record(self, kind: str, step: int, meter: Meter) -> dict[str, Any]:
        """A line of the history, of kind "step" or "epoch": the means of ``meter`` after ``step`` steps."""
        record = {"kind": kind, **self.at(step), **meter.means()}
        record["minutes"] = self.minutes()
        if kind == "step":
            first, since = self._window
            self.begin_window(step)
            record["clips_per_second"] = (step - first) * self.config.training.batch_size / (self._window[1] - since)
        return record

    def after_step(self, step: int, numbers: Mapping[str, Tensor | float]) -> dict[str, Any]:
        """A progress event; once per LOSSES_EVERY seconds it includes the losses of the last step."""
        now = time.monotonic()
        self._from = self._from or (step, now)
        event = {"kind": "progress", "step": step, "epoch": self.length.epoch(step - 1), "minutes": self.minutes()}
        if now - self._losses_at >= LOSSES_EVERY:
            self._losses_at = now
            event |= {name: float(value) for name, value in numbers.items()}
            event["clips_per_second"] = self._steps_per_second(step, now) * self.config.training.batch_size
        return event

    def warning(self, step: int) -> dict[str, Any] | None:
        """An event, once the speed is known, if the budget allows only part of the steps."""
        if self._warned or self._from is None:
            return None
        now = time.monotonic()
        done, seconds = step - self._from[0], now - self._from[1]
        if done < 1 or (done < SPEED_STEPS and seconds < SPEED_SECONDS):
            return None
        self._warned = True
        left = self.config.training.max_minutes - self.minutes()
        possible = step + round(left * 60 * self._steps_per_second(step, now))
        if possible >= 0.9 * self.length.steps:
            return None
        text, spoilt = schedules.fitted_to_time(self.config, self.length, possible)
        return {"kind": "warning" if spoilt else "note", "text": text}

    def _steps_per_second(self, step: int, now: float) -> float:
        """The speed without the first step, unless that is the only one."""
        assert self._from is not None
        first, since = self._from if step > self._from[0] else (step - 1, self.began)
        return (step - first) / max(now - since, 1e-9)
