"""Which clips a step has: the shares of data.partial and fast_train, whatever else is set."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vidcvae import config as settings
from vidcvae.config import Config, schema
from vidcvae.data.clips import Place, Sequence, VideoData
from vidcvae.errors import DataError, VidcvaeError
from vidcvae.models import build_model
from vidcvae.training import batches as batches_module
from vidcvae.training import host_memory
from vidcvae.training.batches import Batches, run_length
from vidcvae.training.distributed import ALONE
from vidcvae.training.state import new_state
from vidcvae.training.step import clip_terms, draw

from .conftest import moving_square, small_config, tiny_config


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


def test_a_batch_larger_than_the_clips_is_explained(squares: VideoData) -> None:
    """5 windows of 4 frames; the clips of a full batch would be the same ones again."""
    config = tiny_config(training={"batch_size": 6})
    (text,) = batches_module.warnings(config, squares)
    assert "training.batch_size (6) is larger than the 5 clips of an epoch" in text and "--batch-size 5" in text
    assert batches_module.warnings(tiny_config(training={"batch_size": 5}), squares) == []


@pytest.mark.parametrize(("sampling", "repeats"), [("windows", True), ("random", False)])
def test_where_an_epoch_is_a_count_of_steps_only_the_same_windows_come_again(
    squares: VideoData, sampling: str, repeats: bool
) -> None:
    """Clips from anywhere go on in the next order, which has others."""
    config = tiny_config(training={"batch_size": 6, "steps_per_epoch": 3}, data={"sampling": sampling})
    batches = batches_of(config, 20)
    assert all(len({*picked}) < 6 for picked in map(batches._picks, range(3))) == repeats, "in every batch"
    assert bool(batches_module.warnings(config, squares)) == repeats


def test_data_that_cannot_be_validated_are_refused_or_told_of(squares: VideoData) -> None:
    """A validation video of one frame has none to score."""
    short = replace(squares, splits={**squares.splits, "val": (moving_square(1, 5),)})
    with pytest.raises(DataError, match=r"^val: sequence square-5 has 1 frame with truth") as caught:
        run_length(tiny_config(), short)
    assert "--set validation.every=0" in caught.value.hint
    without = tiny_config(validation={"every": 0})
    assert run_length(without, short) == run_length(tiny_config(), squares)
    lone = replace(squares, splits={"train": squares.split("train")})
    (text,) = batches_module.warnings(tiny_config(), lone)
    assert text.startswith("squares has no val split: nothing is validated") and "--split train" in text
    assert batches_module.warnings(without, lone) == []


@pytest.mark.parametrize("name", ["pose-cvae", "anchor-cvae", "svg-lp"])
def test_what_a_step_needs_is_estimated_from_below(name: str) -> None:
    """Against the tensors that autograd keeps in a real forward pass."""
    config = settings.with_values(small_config(name), {"training": {"checkpoint_activations": False, "accumulate": 1}})
    model = build_model(config).train()
    (clips, length), size = (4, config.training.clip_length), config.data.size
    frames = torch.rand(clips, length, 3, *size)
    condition = frames if config.model.condition_kind == "pose" else torch.rand(clips, length, 7)
    kept: dict[int, int] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    mask = torch.zeros(clips, length - 1)
    mask[:, : config.training.past] = 1
    eps = torch.randn(clips, length - 1, *model.latent_shape(*size))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        terms, _ = clip_terms(model, frames, condition, draw(eps, mask), config)
    activations = sum(kept.values())
    assert terms
    assert 0.5 * activations < host_memory.needed(config) < 2 * activations


@pytest.mark.parametrize("embedding", [0, 3])
@pytest.mark.parametrize("conditions", schema.choices(schema.SvgConditions))
def test_what_a_step_needs_is_estimated_whatever_conditions_robot_pushing_has(conditions: str, embedding: int) -> None:
    """A few numbers beside frames of 64x64: they change it by next to nothing."""
    usual, config = (
        settings.with_values(small_config("svg-fp"), {"model": model})
        for model in ({}, {"conditions": conditions, "condition_embedding": embedding})
    )
    assert host_memory.needed(config) == pytest.approx(host_memory.needed(usual), rel=0.01)


def test_a_batch_that_the_host_cannot_hold_is_refused_with_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(training={"batch_size": 64, "accumulate": 2})
    host_memory.must_suffice(config, 1, 64)
    monkeypatch.setattr(host_memory, "available", lambda: host_memory.needed(config) // 2)
    with pytest.raises(VidcvaeError) as caught:
        host_memory.must_suffice(config, 1, 64)
    fits = int(re.search(r"--batch-size (\d+)", caught.value.hint)[1])  # type: ignore[index]
    assert 16 <= fits < 64 and fits % 2 == 0
    with pytest.raises(VidcvaeError) as caught:  # more than an epoch's clips would only be told of next
        host_memory.must_suffice(config, 1, 7)
    assert caught.value.hint == "Use --batch-size 6."
    host_memory.must_suffice(settings.with_values(config, {"training": {"batch_size": fits}}), 1, 64)
