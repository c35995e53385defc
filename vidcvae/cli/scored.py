"""The ordinary score of a run, z = 0 from the first frames on: taken once for each checkpoint, and kept with it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidcvae.cli import evaluate, ui
from vidcvae.errors import DataError

if TYPE_CHECKING:
    from vidcvae.data.clips import VideoData
    from vidcvae.evaluation.records import Record
    from vidcvae.models.loading import Loaded


def load(run: Path, which: str = "best", data: str | None = None) -> tuple[Loaded, VideoData]:
    """A run's checkpoint on the device it was trained on, and ``data``, or else what it was trained on."""
    from vidcvae.data import open_dataset
    from vidcvae.models.loading import load_model, pick_device

    loaded = load_model(run, which=which)
    loaded.model.to(pick_device(loaded.config.training.device))
    cache = loaded.run.cache if loaded.run else None
    with ui.progress("reading the data") as advance:
        return loaded, open_dataset(data or loaded.config.data.path, loaded.config.data.size, cache, advance)


def record_of(loaded: Loaded, data: VideoData, title: str, split: str = "val") -> Record:
    """The score record of this checkpoint on these data: as it lies with the run, else taken now and put there."""
    from vidcvae.evaluation import records
    from vidcvae.evaluation.freerun import run_length

    past = loaded.config.training.past
    sequences = data.split(split)
    digest = records.digest_of(sequences, [run_length(s, past) for s in sequences])
    wanted = {"checkpoint": loaded.digest, "data_digest": digest, "latent": "zero", "past": past}
    wanted |= {"weights": loaded.weights, "split": data.split_name(split)}
    for record in kept(loaded):
        if record["protocol"].items() >= wanted.items() and record["protocol"]["actions"] != "of other clips":
            return record
    ui.note(title)
    record = evaluate.score(loaded, data, split)
    evaluate.keep(loaded, record)
    return record


def kept(loaded: Loaded) -> list[Record]:
    """The score records of this very checkpoint that lie with its run."""
    from vidcvae.evaluation import records

    found = []
    for path in sorted((loaded.run.path / "scores").glob("*.json")) if loaded.run else []:
        with contextlib.suppress(DataError):
            record = records.read(path)
            if record["protocol"].get("checkpoint") == loaded.digest and not loaded.batch_stats:
                found.append(record)
    return found


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
