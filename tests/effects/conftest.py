"""A training that can be worked out by hand, and a record of every step that it makes.

Data: frame t of sequence s is t everywhere in red and s in green, and in blue each pixel tells its place, so that a
clip says where it is from and how it was moved. Pose images are the same, 100 higher in red.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vidcvae import config as settings
from vidcvae.config import Config
from vidcvae.data.clips import ClipBatch, Sequence, VideoData
from vidcvae.storage.run import RunFolder
from vidcvae.training import loop
from vidcvae.training.engine import Engine
from vidcvae.training.step import Draws, Scheduled, Terms

SIZE = (8, 16)
PLACES = np.arange(8 * 16, dtype=np.uint8).reshape(SIZE)  # what each pixel of a frame says in blue


def config(**sections: dict[str, Any]) -> Config:
    """A small ``pose-cvae`` that is not validated, with the settings to be tested on top."""
    base: dict[str, dict[str, Any]] = {
        "model": {"frame_channels": 8, "pose_channels": 4, "latent_channels": 4, "decoder_channels": 8},
        "data": {"size": list(SIZE)},
        "training": {"epochs": 2, "clip_length": 4, "batch_size": 2, "log_every": 1, "device": "cpu"},
        "validation": {"every": 0},
        "checkpoint": {"every": 1000},  # at the end only: each one waits for the disk
    }
    if sections.get("model", {}).get("name", "pose-cvae") != "pose-cvae":
        del base["model"]
    return settings.resolve(base, sections)


def video(name: str, length: int, number: int = 0) -> Sequence:
    frames = np.empty((length, 3, *SIZE), np.uint8)
    frames[:, 0] = np.arange(length)[:, None, None]
    frames[:, 1] = number
    frames[:, 2] = PLACES
    poses = frames.copy()
    poses[:, 0] += 100
    return Sequence(name, frames, {"pose": poses})


def dataset(*lengths: int, val: int = 5) -> VideoData:
    """Training sequences of these lengths, and one of ``val`` frames to validate on."""
    train = tuple(video(f"s{i}", length, i) for i, length in enumerate(lengths))
    return VideoData("numbered", "dance", 25, Path("numbered"), {"train": train, "val": (video("v", val, 9),)})


def begins(batch: ClipBatch) -> list[tuple[int, int]]:
    """(sequence, first frame) of each clip of a batch, read off its pixels."""
    return [(int(clip[0, 1, 0, 0]), int(clip[0, 0, 0, 0])) for clip in batch.frames]


class Known(nn.Module):
    """frame = gain x previous frame + mix x z, of one z a pixel (1, H, W).

    The posterior is N(mu, exp(logvar)) and the prior N(prior_mu, 1), the same everywhere: all can be worked out by
    hand. ``encoded`` counts the frames that went through ``encode_frames``, ``steps`` the calls of ``step``.
    """

    uses_anchor = False
    scene = None
    device = torch.device("cpu")

    def __init__(self, gain: float = 0.5, mix: float = 0.0, mu: float = 0.0, logvar: float = 0.0) -> None:
        super().__init__()
        values = {"gain": gain, "mix": mix, "mu": mu, "logvar": logvar}
        for name, value in values.items():
            setattr(self, name, nn.Parameter(torch.tensor(float(value))))
        self.prior_mu = 0.0
        self.steps = 0
        self.batches: list[int] = []

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        return 1, height, width

    def encode_frames(self, frames: Tensor, level: Tensor | None = None) -> Tensor:
        self.batches.append(len(frames))
        return frames

    def encode_condition(self, condition: Tensor | None, like: Tensor) -> Tensor:
        return like[:, :, :0] if condition is None else condition

    def posterior(self, frames: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        shape = frames[:, :, :1].shape
        return self.mu.expand(shape), self.logvar.expand(shape)

    def initial_state(self, first_frame: Tensor, first_condition: Tensor | None, anchor: Any = None) -> tuple[()]:
        return ()

    def prior(self, state: tuple[()], previous: Tensor, condition: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[()]]:
        mu = torch.full_like(previous[:, :1], self.prior_mu)
        return (mu, torch.zeros_like(mu)), state

    def step(self, state: tuple[()], previous: Tensor, condition: Tensor, z: Tensor) -> tuple[Tensor, tuple[()]]:
        self.steps += 1
        return self.gain * previous + self.mix * z, state

    def forced(
        self, state: tuple[()], previous: Tensor, condition: Tensor, z: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        mu = torch.full_like(z, self.prior_mu)
        return self.gain * previous + self.mix * z, (mu, torch.zeros_like(mu))


@dataclass
class Step:
    """One update: what it was given, what it found, and the parameters and gradients around it."""

    batch: ClipBatch
    draws: Draws
    weights: Scheduled
    terms: Terms
    ends: Tensor
    before: dict[str, Tensor]
    gradients: dict[str, Tensor]
    after: dict[str, Tensor]


@dataclass
class Trained:
    run: RunFolder
    events: list[dict[str, Any]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    state: Any = None

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["kind"] == kind]

    def curve(self, name: str) -> list[float]:
        """A number of every logged step."""
        return [event[name] for event in self.of_kind("step")]


Train = Callable[..., Trained]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """``train(config, data)`` trains as the command does, and watches; ``model`` takes the place of the built one."""

    def run(config: Config, data: VideoData, model: nn.Module | None = None) -> Trained:
        folder = tmp_path / f"run{sum(1 for _ in tmp_path.iterdir())}"
        folder.mkdir()
        found = Trained(RunFolder(folder))
        found.run.config.write_text(settings.to_toml(config))

        def parameters(engine: Engine) -> dict[str, Tensor]:
            return {name: p.detach().clone() for name, p in engine.state.model.named_parameters()}

        class Watched(Engine):
            def step(self, batch: ClipBatch, draws: Draws, weights: Scheduled) -> tuple[Terms, Tensor]:
                found.state, before = self.state, parameters(self)
                terms, ends = super().step(batch, draws, weights)
                gradients = {
                    name: p.grad.clone() for name, p in self.state.model.named_parameters() if p.grad is not None
                }
                found.steps.append(Step(batch, draws, weights, terms, ends, before, gradients, parameters(self)))
                return terms, ends

        with monkeypatch.context() as patch:
            patch.setattr(loop, "Engine", Watched)
            if model is not None:
                patch.setattr(loop, "build_model", lambda config: model)
            loop.train(found.run, config, data, report=found.events.append)
        return found

    return run
