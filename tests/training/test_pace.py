"""The clock of a training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vidcvae.data.clips import VideoData
from vidcvae.errors import Stopped
from vidcvae.storage.history import read_history
from vidcvae.training import pace, validation
from vidcvae.training.loop import train

from .conftest import tiny_config
from .test_loop import KillAt, last, new_run


def test_clips_per_second_are_those_of_the_steps_alone(
    tmp_path: Path, squares: VideoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of our own: two clips in a step of one second; a validation after each third step takes a minute.

    A line for five steps then covers some before a validation and some after it, or before a resume and after it.
    """
    clock, measured, stop = SimpleNamespace(now=0.0), validation.measured, KillAt("progress", 7)

    def slow(*args: Any) -> Any:
        clock.now += 60
        return measured(*args)

    def report(event: dict[str, Any]) -> None:
        clock.now += event["kind"] == "progress"
        stop(event)

    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(validation, "measured", slow)
    config = tiny_config(training={"epochs": 5, "log_every": 5})
    run = new_run(tmp_path / "run", config)
    with pytest.raises(Stopped):
        train(run, config, squares, report=report)
    clock.now += 1000
    train(run, config, squares, report=report, resume=last(run))
    steps = [line for line in read_history(run.history) if line["kind"] == "step"]
    assert [(line["step"], line["clips_per_second"]) for line in steps] == [(5, 2.0), (10, 2.0), (15, 2.0)]
