"""Open a trained model and a dataset by the names that a user gives: a run, a dataset, a device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from vidcvae.config.schema import Device, Precision, Weights
from vidcvae.data.clips import VideoData
from vidcvae.data.dataset import resize_note
from vidcvae.errors import UsageError, an
from vidcvae.models import arithmetic
from vidcvae.models.loading import Loaded, load_model, pick_device
from vidcvae.storage.run import find_data
from vidcvae.workflow.datasets import open_dataset
from vidcvae.workflow.voice import SILENT, Voice


def load(
    run: Path | None,
    device: Device = "auto",
    batch_stats: bool = False,
    weights: Weights = "auto",
    voice: Voice = SILENT,
) -> Loaded:
    """The model of ``run``, or of the newest run if None. Raises ``VidcvaeError`` as ``load_model`` does."""
    loaded = load_model(run, device=pick_device(device), batch_stats=batch_stats, weights=weights)
    if batch_stats and not loaded.config.model.image_statistics:  # this model would ignore it
        raise UsageError(
            f"--batch-stats is for the course's pose-cvae, and {loaded.path} is {an(loaded.config.model.name)}.",
            "Leave it out.",
        )
    if run is None:
        voice.note(f"no RUN given: using the newest, {loaded.path}")
    step = loaded.meta.step
    voice.detail(f"model: {loaded.config.model.name}, step {step} of {loaded.path}, {loaded.weights} weights")
    dtype = str(next(loaded.model.parameters()).dtype).removeprefix("torch.")
    voice.detail(f"device: {loaded.device}, {dtype}, {torch.get_num_threads()} threads")
    return loaded


def load_with_data(
    run: Path, which: str = "best", data: str | None = None, *, device: str | None = None, voice: Voice = SILENT
) -> tuple[Loaded, VideoData]:
    """A run's checkpoint and a dataset; None means the device or the data that the model was trained on."""
    loaded = load_model(run, which=which)
    loaded.model.to(pick_device(device or loaded.config.training.device))
    return loaded, _read(loaded, data, voice)


def computing(loaded: Loaded, precision: Precision, rows: int = 1, voice: Voice = SILENT) -> Loaded:
    """The same model, set to ``precision`` for free runs of ``rows`` videos at once."""
    choice = arithmetic.free_run(precision, loaded.model, loaded.config, rows)
    torch.set_num_threads(choice.threads)
    voice.detail(choice.description())
    return replace(loaded, dtype=choice.dtype)


def data_of(loaded: Loaded) -> str:
    """The path of the dataset that the model was trained on."""
    if not loaded.config.data.path:
        raise UsageError(f"{loaded.path} does not say which data it was trained on.", "Name a dataset: --data FOLDER")
    return find_data(loaded.run.path if loaded.run else loaded.path, loaded.run, loaded.config.data.path)


def open_data(loaded: Loaded, given: str | None, voice: Voice = SILENT) -> VideoData:
    """The dataset ``given``, else the one that the model was trained on, at the model's frame size."""
    path = given or data_of(loaded)
    if given is None:
        voice.note(f"no --data given: using {path}, which the model was trained on")
    voice.detail(f"data: {path}, cache of decoded images: {loaded.run.cache if loaded.run else 'none'}")
    return _read(loaded, given, voice)


def _read(loaded: Loaded, given: str | None, voice: Voice) -> VideoData:
    cache = loaded.run.cache if loaded.run else None
    with voice.progress("reading the data") as advance:
        data = open_dataset(given or data_of(loaded), loaded.config.data.frame_size, cache, advance)
    if given and (resized := resize_note(data)):  # for the training's own data the training has said so
        voice.note(resized)
    return data
