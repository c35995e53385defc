"""Which clips a step has: the shares of data.partial and fast_train, whatever else is set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vidcvae import config as settings
from vidcvae.config import Config
from vidcvae.data.clips import Place, Sequence, VideoData
from vidcvae.models import build_model
from vidcvae.training.batches import Batches, run_length
from vidcvae.training.distributed import ALONE
from vidcvae.training.state import new_state


def anchor_config(**sections: dict[str, object]) -> Config:
    base = {"model": {"name": "anchor-cvae", "channels": 8, "latent_channels": 2}, "data": {"size": [8, 16]}}
    return settings.resolve(base, {"training": {"batch_size": 4, "clip_length": 4, "device": "cpu"}}, sections)


def batches_of(config: Config, *lengths: int) -> Batches:
    frames = np.zeros((max(lengths), 3, *config.data.size), np.uint8)
    sequences = tuple(Sequence(str(n), frames[:n], {"pose": frames[:n]}) for n in lengths)
    data = VideoData("zeros", "dance", 25, Path("zeros"), {"train": sequences})
    state = new_state(build_model(config), config)
    return Batches(config, sequences, run_length(config, data), state, ALONE)


def steps_of(batches: Batches, steps: range) -> list[Place]:
    """The places of the steps' clips; every step's last frames are remembered, as in training."""
    found: list[Place] = []
    for step in steps:
        places, batch = batches.of(step, batches.config.training.clip_length)
        if batches.state.replay:
            batches.state.replay.add(torch.zeros(len(places), *batch.frames.shape[2:]), places, batch.frames.shape[1])
        found += places
    return found


@pytest.mark.parametrize("shuffle", [True, False])
def test_after_the_fast_epochs_every_clip_is_reached(shuffle: bool) -> None:
    """20 windows, 8 of them while fast; 2 fast epochs of 3 steps of 4 clips are 12 + 12 clips."""
    data = {"size": [8, 16], "sampling": "windows", "shuffle": shuffle, "fast_train": True, "fast_train_epochs": 2}
    config = anchor_config(data=data)
    config = settings.with_values(config, {"training": {"epochs": 4, "steps_per_epoch": 3}})
    batches = batches_of(config, 80)
    fast, slow = ([p.first for p in steps_of(batches, steps)] for steps in (range(6), range(6, 11)))
    assert set(fast) == set(range(0, 32, 4)), "the first 40%, all of them"
    assert sorted(slow) == list(range(0, 80, 4)), "then each clip once in 5 steps"
    if not shuffle:
        assert fast == 3 * list(range(0, 32, 4)) and slow == list(range(0, 80, 4))


@pytest.mark.parametrize("sampling", ["random", "windows"])
def test_replay_and_anchors_stay_inside_the_share(sampling: str) -> None:
    """Half of two videos is the first one; a quarter is half of it."""
    quarter = {"random": 21, "windows": 20}[sampling]  # starts 0 to 17 of 74; 5 windows of 20
    for partial, frames in ((0.5, 40), (0.25, quarter)):
        data = {"size": [8, 16], "sampling": sampling, "partial": partial}
        config = anchor_config(data=data, training={"batch_size": 4, "clip_length": 4, "replay": 0.9, "device": "cpu"})
        places = steps_of(batches_of(config, 40, 40), range(200))
        assert {p.sequence for p in places} == {0}
        assert max(p.first + 4 for p in places) == frames
        assert max(p.anchor for p in places) < frames
        assert len({p.first for p in places}) > frames // 4, "replay did go on from clip to clip"
