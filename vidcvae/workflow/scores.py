"""Scores of a trained model: made once for each checkpoint, and kept with its run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vidcvae import reading
from vidcvae.config.schema import Latent, LatentOrAll
from vidcvae.data.clips import VideoData
from vidcvae.errors import DataError, VidcvaeError
from vidcvae.evaluation import records
from vidcvae.evaluation import score as scoring
from vidcvae.evaluation.drift import long_run, long_run_of
from vidcvae.evaluation.latents import measure_bounds
from vidcvae.evaluation.perceptual import measure_perceptual
from vidcvae.evaluation.records import Record
from vidcvae.models.loading import Loaded
from vidcvae.storage import durable
from vidcvae.workflow import opening
from vidcvae.workflow.voice import SILENT, Voice


def score(
    loaded: Loaded,
    data: VideoData,
    split: str = "val",
    latent: LatentOrAll = "zero",
    *,
    seed: int = 0,
    importance_samples: int = 0,
    lpips: Path | None = None,
    fvd: Path | None = None,
    long: int = 0,
    voice: Voice = SILENT,
    **options: Any,
) -> Record:
    """The score record of a free run, as ``score.score_split`` describes it; ``options`` are passed to that.

    latent: "all" scores z = 0, and adds the other ways to choose z.
    importance_samples: adds ``"bounds"`` (``latents.measure_bounds``) from so many samples of z per frame.
    lpips, fvd: add ``"perceptual"`` (``perceptual.measure_perceptual``) from these TorchScript networks.
    long: adds a ``"long"`` run of so many frames (``drift.long_run``).
    """
    first: Latent = "zero" if latent == "all" else latent
    if long:
        long_run_of(loaded, data, split, long, first)  # raises an error now, not after minutes of scoring
    trained_on = _trained_on(loaded, data, voice)
    with voice.progress("free run") as advance:
        record = scoring.score_split(
            loaded,
            data,
            split,
            first,
            every_latent=latent == "all",
            progress=advance,
            trained_on=trained_on,
            seed=seed,
            **options,
        )
    protocol = record["protocol"]
    sequences, future = data.split(protocol["split"]), protocol["future"]
    lengths = [protocol["past"] + n for n in ([future] * len(sequences) if isinstance(future, int) else future)]
    if importance_samples:
        with voice.progress("ELBO") as advance:
            bounds = measure_bounds(
                loaded.model,
                sequences,
                loaded.config,
                lengths,
                samples=importance_samples,
                seed=seed,
                progress=advance,
            )
        record["bounds"] = bounds.to_json()
    if lpips or fvd:
        given = scoring.with_past(loaded, protocol["past"])
        with voice.progress("LPIPS and FVD") as advance:
            record["perceptual"] = measure_perceptual(
                given.model,
                sequences,
                given.config,
                lengths,
                lpips=lpips,
                fvd=fvd,
                latent=protocol["latent"],
                seed=seed,
                dtype=given.dtype,
                progress=advance,
            )
    if long:
        with voice.progress("long run") as advance:
            run = long_run(loaded, data, split, frames=long, latent=protocol["latent"], seed=seed, progress=advance)
        record["long"] = run.to_json()
    return record


def _trained_on(loaded: Loaded, data: VideoData, voice: Voice) -> VideoData | str:
    """The dance data that a model was trained on, which may be ``data``; or the reason why they cannot be read."""
    if data.kind != "dance" or records.was_trained_on(loaded, data):
        return data
    try:
        return opening.open_data(loaded, opening.data_of(loaded), voice)
    except VidcvaeError as error:
        return error.message


def keep(
    loaded: Loaded, record: Record, output: Path | None = None, whole: bool = True, voice: Voice = SILENT
) -> Path | None:
    """Write the record to ``output``, else into the run's folder; returns the path, or None for a lone checkpoint.

    ``whole``: the length was not limited (``records.name_of``).
    """
    if output:
        records.write(output, record)
        return output
    if loaded.run is None:
        return None
    path = records.path_in(loaded.run, records.name_of(loaded, record, whole))
    try:
        records.write(path, record)
    except DataError as error:  # the run may be read-only
        voice.warn(f"the record is not kept: {error.message}")
        return None
    return path


def record_of(loaded: Loaded, data: VideoData, title: str, split: str = "val", voice: Voice = SILENT) -> Record:
    """The ordinary score of this checkpoint on these data: read from the run, else made now and kept there.

    It is the score of the whole split with z = 0. title: announces the scoring.
    """
    if existing := kept(loaded, data, split):
        selection = records.selection_of(loaded.path, loaded.run, loaded.meta, existing[0]["protocol"])
        return {**existing[0], "selection": selection}  # of this file; the record may come from a copy of it
    voice.note(title)
    record = score(loaded, data, split, voice=voice)
    keep(loaded, record, voice=voice)
    return record


def kept(loaded: Loaded, data: VideoData, split: str = "val") -> list[Record]:
    """The records in the run's folder that are the ordinary score of this checkpoint on these data."""
    if loaded.run is None or loaded.batch_stats:
        return []
    return records.ordinary(loaded.run, asdict(scoring.protocol_of(loaded, data, split)))


def kept_latents(loaded: Loaded, data: VideoData, split: str = "val") -> Record | None:
    """The one of these records that compares the ways to choose z, or None."""
    return next((record for record in kept(loaded, data, split) if "latents" in record), None)


def measured(
    loaded: Loaded, data: VideoData, split: str, name: str, title: str, measure: Callable[..., Any] | None, voice: Voice
) -> dict[str, Any] | None:
    """The content of RUN/scores/NAME.json if it is of this checkpoint and data, else the result of ``measure``.

    Returns None if there is neither. The result is kept in that file. title: that of the progress.
    measure: takes ``progress``, and returns an object with ``to_json``.
    """
    digest = scoring.protocol_of(loaded, data, split).data_digest
    origin = {"checkpoint": loaded.digest, "weights": loaded.weights, "data": str(data.source), "data_digest": digest}
    path = records.path_in(loaded.run, name) if loaded.run else None
    if path:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            existing: dict[str, Any] = reading.parse_json(reading.read_bytes(path))
            if existing.items() >= origin.items():
                return existing
    if measure is None:
        return None
    with voice.progress(title) as advance:
        result: dict[str, Any] = origin | measure(progress=advance).to_json()
    if path:
        durable.write_json(path, result)
    return result
