"""Runs whose score records can be worked out by hand.

Frames have one value a channel; a step adds the first three of its actions to them, and a tenth of z.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidcvae import config as settings
from vidcvae.config import Config
from vidcvae.data.clips import Sequence, VideoData
from vidcvae.models.loading import Loaded
from vidcvae.storage.checkpoint import CheckpointMeta

PAST, LENGTH = 2, 5
PREDICTED = LENGTH - PAST
FIFTH = 51  # of 255


def config(conditions: str = "actions", past: int = PAST, **training: Any) -> Config:
    model = {"name": "svg-fp", "backbone": "dcgan64", "frame_dim": 4, "latent_dim": 2, "hidden_dim": 8}
    sections = {"model": {**model, "conditions": conditions}, "data": {"size": [64, 64], "path": "trained/on"}}
    return settings.resolve(sections, {"training": {"past": past, **training}})


class Adds(nn.Module):
    """One latent number, of posterior N(1, e^-40) and prior N(0, 1): a KL of (1 + e^-40 - 1 + 40) / 2 = 20 nats.

    ``rows``: how many frames were made in each step; ``kinds``: what the linear layer computed in.
    """

    device = torch.device("cpu")
    channels, logvar = 3, -40  # actions that are added to a frame; of the posterior

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)  # 9 parameters, which change nothing
        self.rows: list[int] = []
        self.kinds: set[torch.dtype] = set()

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        return (1, 1, 1)

    def encode_frames(self, frames: Tensor) -> Tensor:
        return frames

    def encode_condition(self, condition: Tensor | None, like: Tensor) -> Tensor:
        return torch.zeros(*like.shape[:2], self.channels) if condition is None else condition

    def posterior(self, frames: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        assert frames.shape[:2] == condition.shape[:2]
        mu = torch.ones(*frames.shape[:2], 1, 1, 1)
        return mu, torch.full_like(mu, self.logvar)

    def initial_state(self, first_frame: Tensor, first_condition: Tensor | None) -> tuple[()]:
        return ()

    def prior(self, state: tuple[()], previous: Tensor, condition: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[()]]:
        zero = torch.zeros(len(previous), 1, 1, 1)
        return (zero, zero), state

    def step(self, state: tuple[()], previous: Tensor, condition: Tensor, z: Tensor) -> tuple[Tensor, tuple[()]]:
        self.rows.append(len(previous))
        self.kinds.add(self.linear(previous.new_zeros(1, 2)).dtype)
        return previous + condition[:, : self.channels, None, None] + z / 10, state


def clip(name: str, begin: int, rise: int, errors: tuple[float, ...], length: int = LENGTH) -> Sequence:
    """``begin`` fifths of grey at first, ``rise`` more in each frame; the actions say that, but for ``errors``."""
    frames = np.empty((length, 3, 64, 64), np.uint8)
    frames[:] = ((begin + rise * np.arange(length)) * FIFTH)[:, None, None, None]
    actions = np.zeros((length, 4), np.float32)
    actions[:, :3] = rise / 5 + np.array(errors)
    return Sequence(name, frames, {"action": actions})


CLIPS = (clip("a", 0, 1, (0.01, 0.02, 0.1)), clip("b", 3, 0, (0.03, 0.03, 0.03)))
DATA = VideoData("tiny", "push", 10, Path("there/tiny"), {"validate": CLIPS})


def loaded(model: nn.Module | None = None, chosen: Config | None = None, **parts: Any) -> Loaded:
    meta = CheckpointMeta(step=7, progress={"minutes": 2.5})
    given = {"meta": meta, "path": Path("x.safetensors"), "digest": "abc", "run": None, "weights": "raw"}
    return Loaded((model or Adds()).eval(), chosen or config(), batch_stats=False, **(given | parts))


def decibels(error: float) -> float:
    return 100.0 if error < 1e-5 else -20 * math.log10(error)


def psnrs(errors: Any) -> tuple[list[float], list[float]]:
    """Of the error of each frame and channel: the PSNR of each frame, and the mean of those of its channels."""
    whole = [decibels(math.sqrt(sum(e * e for e in frame) / 3)) for frame in errors]
    return whole, [sum(decibels(abs(e)) for e in frame) / 3 for frame in errors]


def growing(*each: float) -> list[list[float]]:
    """An error of every channel that is made once more in each predicted frame."""
    return [[k * e for e in each] for k in range(1, PREDICTED + 1)]


def mean_of(curves: list[list[float]]) -> list[float]:
    return [sum(values) / len(values) for values in zip(*curves, strict=True)]


OWN = growing(0.01, 0.02, 0.1), growing(0.03, 0.03, 0.03)
SWAPPED = growing(-0.17, -0.17, -0.17), growing(0.21, 0.22, 0.3)  # b's actions for a, a's for b
PARTS = ("still", "moving")
BESIDE = {
    *("psnr_mean", "psnr_per_channel_mean", "ssim_mean", "mse_mean", "temporal_difference_error_mean"),
    *("psnr_per_frame", "psnr_per_channel_per_frame", "ssim_per_frame"),
    *("psnr_still", "psnr_moving"),
}
BASELINES = {
    *(f"baseline_copy_{name}_psnr_{part}" for name in ("first", "last_past", "previous_truth") for part in PARTS),
    *("baseline_copy_first_psnr", "baseline_copy_first_psnr_per_channel"),
    *("baseline_copy_last_past_psnr", "baseline_copy_last_past_psnr_per_channel"),
    *("baseline_copy_previous_truth_psnr", "baseline_copy_previous_truth_psnr_per_channel"),
}
CURVE = "baseline_copy_last_past_psnr_per_frame"
SUMMARY = BESIDE | BASELINES | {CURVE, "share_still"}
RECORD = SUMMARY | {
    *("kl", "active_units", "latent_dimensions", "model", "data", "config", "whole", "selection", "protocol"),
    "still_pixels",
}


def curve(errors: tuple[list[list[float]], ...], kind: int = 0) -> list[float]:
    return mean_of([psnrs(e)[kind] for e in errors])
