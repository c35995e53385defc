"""Load a run or a checkpoint file as a model that is ready to use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vidcvae import __version__, reading
from vidcvae import config as settings
from vidcvae.config.schema import Weights
from vidcvae.errors import DataError, UsageError
from vidcvae.models import build_model
from vidcvae.models.interface import VideoModel
from vidcvae.models.layers import use_image_statistics
from vidcvae.storage import checkpoint
from vidcvae.storage.course_import import read_course_checkpoint
from vidcvae.storage.run import RunFolder, find_checkpoint


@dataclass(frozen=True)
class Loaded:
    """A model in eval mode, its config, and its origin.

    weights: "raw" or "ema".
    batch_stats: images are normalised by their own statistics.
    run: None for a file outside a run.
    dtype: arithmetic of free runs.
    """

    model: VideoModel
    config: settings.Config
    meta: checkpoint.CheckpointMeta
    path: Path
    digest: str
    run: RunFolder | None
    weights: str
    batch_stats: bool
    dtype: torch.dtype = torch.float32

    @property
    def device(self) -> torch.device:
        return self.model.device


def load_model(
    source: str | Path | None = None,
    *,
    which: str = "best",
    device: str = "cpu",
    batch_stats: bool = False,
    weights: Weights = "auto",
) -> Loaded:
    """Load a checkpoint file, a run folder, or (None) the newest run.

    which: "best" or "last", of a run folder. device: "auto" takes the GPU if there is one.
    weights: "raw", "ema", or "auto", which takes the moving average if there is one.
    Raises ``DataError`` for a missing or damaged checkpoint, or one of another model.
    """
    path, run = find_checkpoint(None if source is None else Path(source), which)
    saved = checkpoint.read(path)
    config = _config(saved)
    has_ema = any(name.startswith("ema.") for name in saved.tensors)
    if weights == "ema" and not has_ema:
        raise UsageError(f"{path} holds no moving average of the weights.", "Use --weights raw.")
    chosen = "ema" if has_ema and weights != "raw" else "raw"
    state = saved.part("model")
    if chosen == "ema":
        state |= saved.part("ema")
    model = build_filled(config, state, path)
    if batch_stats:
        use_image_statistics(model)
    device = pick_device(device) if device == "auto" else device
    return Loaded(model.eval().to(device), config, saved.meta, path, saved.digest, run, chosen, batch_stats)


def _config(saved: checkpoint.Checkpoint) -> settings.Config:
    if not saved.meta.config:
        raise DataError(f"{saved.path} does not describe its model: it has no config.")
    try:
        return settings.resolve_saved(saved.meta.config)
    except UsageError as error:
        raise DataError(f"{saved.path} cannot be used: {error.message}", "Was it written by another version?") from None


def build_filled(config: settings.Config, state: dict[str, Tensor], path: Path) -> VideoModel:
    """The model that ``config`` describes, with the weights ``state``; raises ``DataError`` as ``load_weights`` does.

    The shapes are checked on a model without memory first: a small file must not allocate a huge model.
    """
    check_fit(config, state, path)
    model = build_model(config)
    model.load_state_dict(state)
    return model


def import_course(course: Path, output: Path) -> tuple[int, int]:
    """Convert one of the course's checkpoints; returns its number of parameters and its epoch."""
    found = read_course_checkpoint(course)
    try:
        config = settings.resolve_saved(settings.read_preset("course") | {"model": vars(found.model)})
    except UsageError as error:
        raise DataError(f"{course} cannot be imported: {error.message}") from None
    model = build_filled(config, found.weights, course)
    meta = checkpoint.CheckpointMeta(
        version=__version__, config=settings.to_table(config), epoch=found.epoch, imported_from=course.name
    )
    checkpoint.save(output, {f"model.{name}": t for name, t in model.state_dict().items()}, meta)
    return sum(p.numel() for p in model.parameters()), found.epoch


def check_fit(config: settings.Config, state: dict[str, Tensor], path: Path) -> None:
    """Raise ``DataError`` unless ``state``, read from ``path``, fits the model that ``config`` describes."""
    with torch.device("meta"):
        sketch = build_model(config)
    _check_fit(sketch, state, path)


def load_weights(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Copy ``state`` into ``model``; raises ``DataError`` naming the first tensor that does not fit."""
    _check_fit(model, state, path)
    model.load_state_dict(state)


def _check_fit(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    for name, tensor in own.items():
        if name not in state:
            raise DataError(f"{path} is a checkpoint of another model: it has no tensor {name}.")
        if state[name].is_floating_point() != tensor.is_floating_point():
            raise DataError(f"{path} is a checkpoint of another model: {name} has another type of numbers there.")
        if state[name].shape != tensor.shape:
            raise DataError(
                f"{path} is a checkpoint of another model: {name} is {list(state[name].shape)} there, "
                f"and {list(tensor.shape)} in {type(model).__name__}."
            )
    if unknown := sorted(set(state) - set(own)):
        raise DataError(
            f"{path} is a checkpoint of another model: "
            f"{reading.label(unknown[0])} has no place in {type(model).__name__}."
        )


def pick_device(device: str) -> str:
    """Resolve "auto" to CUDA if there is a GPU; raises ``UsageError`` for a CUDA device that is missing."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        built = torch.version.cuda
        reason = "this PyTorch was built without CUDA" if built is None else "PyTorch finds no usable GPU"
        raise UsageError(f"there is no CUDA device here: {reason}.", "Use --device cpu, or --device auto.")
    if device not in ("cpu", "cuda"):
        raise UsageError(f"--device is {device!r}; it must be auto, cpu or cuda.")
    return device
