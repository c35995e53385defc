"""Checkpoints of the course's own trainer: ``torch.save`` of state_dict, optimizer, lr, tfr, last_epoch.

They are read with ``weights_only=True``: tensors and plain containers, never code. What they call "optimizer"
is the model's weights again, so training cannot be resumed from them, only continued with a fresh optimizer.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vidcvae.config import PoseCvae
from vidcvae.errors import DataError

_MODULES = {
    "frame_transformation": "frame_encoder",
    "label_transformation": "pose_encoder",
    "Gaussian_Predictor": "gaussian_predictor",
    "Decoder_Fusion": "fusion",
    "Generator": "generator",
}
_BLOCKS = {
    "block.0.conv1.0": "pointwise1",
    "block.0.depth_conv": "depthwise",
    "block.0.conv2": "pointwise2",
    "block.0.adaptor": "skip",
    "block.1.conv": "expand",
    "block.1.conv_out": "contract",
}


@dataclass(frozen=True)
class CourseCheckpoint:
    """Weights under our names, the dimensions read off them, and how many epochs they were trained."""

    weights: dict[str, Tensor]
    model: PoseCvae
    epoch: int


def from_course_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under our names: ``Generator.0.block.1.conv.bias`` -> ``generator.0.expand.bias``."""
    renamed = {}
    for name, tensor in weights.items():
        module, _, rest = name.partition(".")
        index, _, inner = rest.partition(".")
        block, _, kind = inner.rpartition(".")
        parts = [_MODULES.get(module, module), index, _BLOCKS.get(block, block), kind]
        renamed[".".join(part for part in parts if part)] = tensor
    return renamed


def read_course_checkpoint(path: Path) -> CourseCheckpoint:
    """Read a course checkpoint; raises ``DataError`` if it is damaged, holds code, or is something else."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}.") from None
    except pickle.UnpicklingError:
        raise DataError(
            f"{path} holds more than weights (it would run code when loaded), so it is refused; nothing of it was run.",
            "Save it again from the course's code: torch.save({'state_dict': model.state_dict()}, PATH)",
        ) from None
    except Exception as error:  # torch.load raises whatever its parsers meet in a damaged file
        raise DataError(
            f"{path} cannot be read as a checkpoint: {_first_line(error)}.", "Is the file complete?"
        ) from None
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise DataError(f"{path} has no state_dict of tensors.", "Expected a file that the course's trainer saved.")
    if missing := [name for name in _MODULES if not any(str(key).startswith(f"{name}.") for key in state)]:
        raise DataError(
            f"{path} is a checkpoint of another model: it has no module {missing[0]}.",
            "Only the course's five-module model can be imported.",
        )
    weights = from_course_names(
        {str(name): tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    )
    try:
        model = PoseCvae(
            frame_channels=len(weights["frame_encoder.6.bias"]),
            pose_channels=len(weights["pose_encoder.4.conv2.bias"]),
            latent_channels=len(weights["gaussian_predictor.6.bias"]) // 2,
            decoder_channels=len(weights["fusion.5.bias"]),
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is a checkpoint of another model: {error} is missing.") from None
    epoch = content.get("last_epoch")
    return CourseCheckpoint(weights, model, epoch if isinstance(epoch, int) else 0)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
