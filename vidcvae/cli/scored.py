"""The ordinary score of a run, z = 0 from the first frames on: taken once for each checkpoint, and kept with it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidcvae.cli import evaluate, trained, ui

if TYPE_CHECKING:
    from vidcvae.data.clips import VideoData
    from vidcvae.evaluation.records import Record
    from vidcvae.models.loading import Loaded


def load(
    run: Path, which: str = "best", data: str | None = None, *, device: str | None = None, quiet: bool = False
) -> tuple[Loaded, VideoData]:
    """A run's checkpoint on ``device``, or the one it was trained on, and ``data``, or else what it was trained on."""
    from vidcvae.models.loading import load_model, pick_device
    from vidcvae.workflow.datasets import open_dataset

    loaded = load_model(run, which=which)
    loaded.model.to(pick_device(device or loaded.config.training.device))
    cache = loaded.run.cache if loaded.run else None
    with ui.progress("reading the data", quiet) as advance:
        return loaded, open_dataset(data or trained.data_of(loaded), loaded.config.data.size, cache, advance)


def record_of(loaded: Loaded, data: VideoData, title: str, split: str = "val", quiet: bool = False) -> Record:
    """The ordinary score of this checkpoint on these data: as it lies with the run, else taken now and put there."""
    from vidcvae.evaluation import records

    if found := kept(loaded, data, split):
        selection = records.selection_of(loaded.path, loaded.run, loaded.meta, found[0]["protocol"])
        return {**found[0], "selection": selection}  # as this file was chosen; the record may be of another name of it
    ui.note(title)
    record = evaluate.score(loaded, data, split, quiet=quiet)
    evaluate.keep(loaded, record)
    return record


def kept(loaded: Loaded, data: VideoData, split: str = "val") -> list[Record]:
    """The records with the run that are the ordinary score of this very checkpoint on these data."""
    from vidcvae.evaluation import records, score

    if loaded.run is None or loaded.batch_stats:
        return []
    return records.ordinary(loaded.run, asdict(score.protocol_of(loaded, data, split)))


def measured(
    loaded: Loaded, data: VideoData, name: str, measure: Callable[[], dict[str, Any]] | None
) -> dict[str, Any] | None:
    """What RUN/scores/NAME.json holds of this checkpoint and these data; else what ``measure`` finds, put there."""
    from vidcvae import reading
    from vidcvae.storage import durable

    origin = {"checkpoint": loaded.digest, "weights": loaded.weights, "data": str(data.source)}
    path = loaded.run.path / "scores" / f"{name}.json" if loaded.run else None
    if path:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            found: dict[str, Any] = reading.parse_json(reading.read_bytes(path))
            if found.items() >= origin.items():
                return found
    if measure is None:
        return None
    found = origin | measure()
    if path:
        durable.write_json(path, found)
    return found
