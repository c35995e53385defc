"""Training from Python: the same runs as those of the command line, which either can start and resume."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidcvae.storage.run import find_run
from vidcvae.workflow import training
from vidcvae.workflow.training import Longer
from vidcvae.workflow.voice import SILENT, Voice

if TYPE_CHECKING:
    from vidcvae.config import Config
    from vidcvae.data.clips import VideoData
    from vidcvae.training.loop import Outcome

Report = Callable[[dict[str, Any]], None]


def train(
    config: Config,
    data: VideoData | None = None,
    path: str | Path | None = None,
    *,
    init: str | Path | None = None,
    report: Report = lambda event: None,
    voice: Voice | None = None,
) -> Outcome:
    """Make a run folder with the settings, and train in it.

    data: None opens ``config.data.path``.
    path: the run folder, new or empty; None makes runs/NAME-N.
    init: a run or checkpoint whose weights the training starts from.
    report: is called with every event, a dict with a "kind". voice: receives messages and progress.

    Raises ``VidcvaeError``: ``UsageError`` for settings or a folder that cannot be used, ``DataError`` for the data,
    ``NonFiniteError`` for a NaN, ``Stopped`` after SIGINT or SIGTERM, with everything saved.
    """
    audience, place = _Audience(report, voice), Path(path) if path else None
    prepared = training.prepare(config, audience, path=place, init=Path(init) if init else None, data=data)
    training.start(prepared, audience, name=data.name if data else Path(config.data.path).name, path=place)
    assert audience.outcome
    return audience.outcome


def resume(
    run: str | Path | None = None,
    data: VideoData | None = None,
    *,
    epochs: int | None = None,
    max_minutes: float | None = None,
    more_epochs: int | None = None,
    more_minutes: float | None = None,
    report: Report = lambda event: None,
    voice: Voice | None = None,
) -> Outcome | None:
    """Continue a run exactly where it stopped; returns None if it has had all its epochs or minutes.

    run: a run folder or its name; None is the newest run.
    data: the training data, if they are not a dataset on disk.
    epochs, max_minutes: the new length in total. more_epochs, more_minutes: the length to add.

    Raises as ``train`` does, and ``DataError`` for a damaged checkpoint.
    """
    audience = _Audience(report, voice)
    longer = Longer(epochs, max_minutes, more_epochs, more_minutes)
    training.resume(find_run(Path(run) if run else None), audience, longer=longer, data=data)
    return audience.outcome


class _Audience:
    """Passes events to ``report`` and messages to ``voice``, and keeps the outcome."""

    def __init__(self, report: Report, voice: Voice | None) -> None:
        self.report = report
        self.outcome: Outcome | None = None
        self.finished = report
        voice = voice or SILENT
        self.note, self.detail, self.warn, self.progress = voice.note, voice.detail, voice.warn, voice.progress

    def tell_failures(self) -> None: ...

    def watching(self) -> contextlib.AbstractContextManager[Report]:
        return contextlib.nullcontext(self.report)

    def trained(self, outcome: Outcome, data: VideoData) -> None:
        self.outcome = outcome
