"""Datasets by name: a folder, or synthetic data drawn in memory."""

from __future__ import annotations

from pathlib import Path

from vidcvae import config as settings
from vidcvae.config.schema import LAB_SIZE, ConditionKind, Config
from vidcvae.data import dataset
from vidcvae.data.clips import VideoData
from vidcvae.data.sizes import text
from vidcvae.errors import DataError, UsageError
from vidcvae.progress import Progress, unreported
from vidcvae.scenes import dancing, pushing


def check_kind(path: str, condition_kind: ConditionKind) -> None:
    """Raise ``DataError``, before anything is read, if the data cannot have what the model is conditioned on."""
    kind = path.removeprefix("synthetic:") if path.startswith("synthetic:") else dataset.layout(Path(path))
    if condition_kind == "pose" and kind == "push":
        raise DataError(
            f"{path} has no poses, but the model is conditioned on pose.",
            "Use a dataset in the course's dance layout; for robot pushing: --preset svg-bair",
        )
    if condition_kind.startswith("actions") and kind == "dance":
        raise DataError(
            f"{path} has no actions.csv, but the model is conditioned on {condition_kind}.",
            "Use a dataset of robot pushing, or a model of poses: --preset anchor",
        )


def sized(config: Config, data: VideoData | None = None) -> Config:
    """``config`` with data.size as numbers: its own, else the size of ``data``, or of the dataset that it names.

    Raises ``UsageError`` if the model cannot take that size, or ``data`` have another; ``DataError`` as ``own_size``.
    """
    if data:
        config = settings.with_size(config, data.size)
        if data.size != config.data.frame_size:
            size = text(config.data.frame_size)
            raise UsageError(
                f"{data.source} has frames of {text(data.size)}, but data.size is {size}.",
                f'Leave data.size at "auto", or open the data at {size}.',
            )
    if config.data.size != "auto" or config.data.path.startswith("synthetic:"):
        return settings.with_size(config)
    return settings.with_size(config, dataset.own_size(Path(config.data.path)))


def open_dataset(
    path: str | Path, size: tuple[int, int] | None = None, cache: Path | None = None, progress: Progress = unreported
) -> VideoData:
    """The dataset at ``path``, of any layout, with frames of ``size`` (height, width), or of its own size if None.

    path: a folder, or "synthetic:dance" or "synthetic:push" for data drawn in memory.
    cache: a folder for the decoded images in packed form, so that they are decoded only once; None, or a folder that
        cannot be written, decodes them into memory.
    Raises ``DataError`` that names the place if ``path`` is not a dataset, is damaged, or was packed at another size.
    """
    if path == "synthetic:dance":
        return dancing.dance(1600, 400, 2, 0, size or LAB_SIZE, progress)
    if path == "synthetic:push":
        return pushing.push(256, 32, 32, 30, 0, progress)
    return dataset.open_dataset(Path(path), size, cache, progress)
