"""A small real training: few channels, small frames, a moving square whose pose image tells where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidcvae import config as settings
from vidcvae.config import Config
from vidcvae.data.clips import Sequence, VideoData


def tiny_config(**sections: dict[str, object]) -> Config:
    base: dict[str, dict[str, object]] = {
        "model": {"frame_channels": 8, "pose_channels": 4, "latent_channels": 4, "decoder_channels": 8},
        "data": {"size": [8, 16]},
        "training": {"epochs": 3, "clip_length": 4, "batch_size": 2, "log_every": 2, "device": "cpu"},
    }
    return settings.resolve(base, sections)


def moving_square(frames: int, seed: int) -> Sequence:
    x = (np.arange(frames) + seed) % 12
    video = np.full((frames, 3, 8, 16), 40, np.uint8)
    poses = np.full((frames, 3, 8, 16), 255, np.uint8)
    for t in range(frames):
        video[t, :, 2:6, x[t] : x[t] + 4] = 220
        poses[t, seed % 3, 4, x[t] : x[t] + 4] = 0
    return Sequence(f"square-{seed}", video, {"pose": poses})


@pytest.fixture
def squares() -> VideoData:
    splits = {"train": (moving_square(14, 0), moving_square(11, 3)), "val": (moving_square(6, 5),)}
    return VideoData("squares", "dance", 25, Path("squares"), splits)
