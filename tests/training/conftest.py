"""A small real training: few channels, small frames, a moving square whose pose image tells where it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vidcvae import config as settings
from vidcvae.config import Config
from vidcvae.data.clips import Sequence, VideoData
from vidcvae.training.batches import Batches
from vidcvae.training.engine import Engine
from vidcvae.training.step import Scheduled


def tiny_config(**sections: dict[str, object]) -> Config:
    base: dict[str, dict[str, object]] = {
        "model": {"frame_channels": 8, "pose_channels": 4, "latent_channels": 4, "decoder_channels": 8},
        "data": {"size": [8, 16]},
        "training": {"epochs": 3, "clip_length": 4, "batch_size": 2, "log_every": 2, "device": "cpu"},
    }
    return settings.resolve(base, sections)


def small_config(name: str) -> Config:
    """A model of each kind, with all that a step can have."""
    model: dict[str, object]
    training: dict[str, object] = {"batch_size": 4, "clip_length": 5, "ema": 0.9, "latent_dropout": 0.3, "replay": 0.5}
    base: dict[str, dict[str, object]] = {"optimizer": {"gradient_clip": 1.0}, "kl": {"free_bits": 0.1}}
    if name == "pose-cvae":
        model = {"frame_channels": 8, "pose_channels": 4, "latent_channels": 4, "decoder_channels": 8}
        training |= {"checkpoint_activations": True}
        base |= {"data": {"size": [8, 16], "flip": True, "shift": 2}, "loss": {"motion": 2.0}}
    elif name == "anchor-cvae":
        model = {"name": name, "channels": 8, "latent_channels": 2, "prior": "learned"}
        training |= {"noise": 0.1, "accumulate": 2}
        base |= {"data": {"size": [8, 16], "flip": True, "shift": 2}}
    else:
        model = {"name": name, "backbone": "dcgan64", "frame_dim": 16, "hidden_dim": 16, "latent_dim": 4}
        training |= {"past": 2}
        base |= {"data": {"size": [64, 64]}}
    return settings.resolve(base, {"model": model, "training": training})


def data_of(config: Config) -> VideoData:
    frames = np.zeros((12, 3, *config.data.size), np.uint8)
    tracks = {"action": np.zeros((12, 4), np.float32), "position": np.zeros((12, 3), np.float32)}
    if config.model.condition_kind == "pose":
        tracks = {"pose": frames}
    sequences = tuple(Sequence(name, frames, tracks) for name in "ab")
    return VideoData("zeros", "dance", 25, Path("zeros"), {"train": sequences})


MASKS = (  # (B, T-1) for ``small_config``: each step's share of the truth
    torch.ones(4, 4),
    torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 1]] * 2),
    torch.tensor([[1.0, 0.5, 0.5, 0.5]] * 4),
)


def loop_step(engine: Engine, batches: Batches, step: int, mask: Tensor) -> None:
    """A step as the training loop makes it, from the choice of clips to the books."""
    places, batch = batches.of(step, 5)
    draws = batches.draws(step, mask)
    if bool((mask == 1).all()):  # all frames at once, where there is no dropout either
        draws = replace(draws, keep=None)
    terms, ends = engine.step(batch, draws, Scheduled(0.1, 1e-3))
    assert engine.state.replay is not None
    engine.state.replay.add(ends, places, 5)
    engine.state.progress.window.add({**terms, "beta": 0.1})
    engine.state.progress.step = step + 1


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
