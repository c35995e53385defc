"""Drift, age test and long runs of models whose decay is known in closed form."""

from __future__ import annotations

import json
import math
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vidcvae.config import Config, DataConfig
from vidcvae.data.clips import Sequence, VideoData
from vidcvae.errors import DataError, UsageError
from vidcvae.evaluation import drift
from vidcvae.models.loading import Loaded
from vidcvae.storage.checkpoint import CheckpointMeta

H, W = 8, 16
CONFIG = replace(Config(), data=DataConfig(size=(H, W)))
STEP = 0.001  # by how much each frame is brighter than it should be


class Brightening(nn.Module):
    """What the pose shows, and with each step from the given frame a thousandth too bright."""

    device = torch.device("cpu")

    def __init__(self, step: float = STEP) -> None:
        super().__init__()
        self.step_size = nn.Parameter(torch.tensor(step))
        self.made: weakref.WeakSet[Tensor] = weakref.WeakSet()
        self.most_alive = 0

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        return 1, height, width

    def encode_frames(self, frames: Tensor) -> Tensor:
        return frames

    def encode_condition(self, condition: Tensor, like: Tensor) -> Tensor:
        return condition

    def initial_state(self, first_frame: Tensor, first_condition: Tensor) -> Tensor:
        return first_frame - first_condition

    def prior(self, state: Tensor, previous: Tensor, condition: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        zero = torch.zeros_like(previous[:, :1])
        return (zero, zero), state

    def step(self, state: Tensor, previous: Tensor, condition: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        error = state + self.step_size
        frame = condition + error
        self.made.add(frame)
        self.most_alive = max(self.most_alive, len(self.made))
        return frame, error


def _data(*lengths: int) -> VideoData:
    """Videos that are their own poses."""
    random = np.random.default_rng(0)
    videos = [random.integers(0, 200, (n, 3, H, W), dtype=np.uint8) for n in lengths]
    sequences = tuple(Sequence(f"val/{i}", v, {"pose": v.copy()}) for i, v in enumerate(videos))
    return VideoData("tiny", "dance", 25, Path("tiny"), {"val": sequences})


def _loaded(model: nn.Module | None = None) -> Loaded:
    return Loaded(
        (model or Brightening()).eval(), CONFIG, CheckpointMeta(), Path("x.safetensors"), "abc", None, "raw", False
    )


def _decibels(age: int) -> float:
    return -20 * math.log10(age * STEP)


def test_the_psnr_of_each_frame_is_that_of_its_age() -> None:
    found = drift.drift(_loaded(), _data(64), every=10)
    assert found.frames == list(range(1, 64))
    assert found.free == pytest.approx([_decibels(t) for t in range(1, 64)], abs=1e-3)
    assert found.restarted[:10] == [None] * 10  # frames 1..10
    assert found.restarted[10:] == pytest.approx([_decibels((t - 1) % 10 + 1) for t in range(11, 64)], abs=1e-3)
    assert found.gap[20] == pytest.approx(_decibels(1) - _decibels(21), abs=1e-3)
    slope = np.polyfit(range(1, 64), [_decibels(t) for t in range(1, 64)], 1)[0] * 100
    assert found.slope_per_100 == pytest.approx(slope, abs=1e-2)
    assert found.gap_slope_per_100 > 10
    json.dumps(found.to_json(), allow_nan=False)


def test_a_model_that_does_not_age_has_no_gap() -> None:
    found = drift.drift(_loaded(Brightening(0.0)), _data(40))
    assert found.every == 4
    assert [gap for gap in found.gap if gap is not None] == pytest.approx([0.0] * 35)
    assert (found.slope_per_100, found.age_test.lost) == pytest.approx((0, 0))


def test_the_age_test_of_a_whole_dance_is_frames_580_to_629() -> None:
    found = drift.age_test(_loaded(), _data(630))
    assert (found.tail, found.restart) == ((580, 629), 480)
    assert found.from_start == pytest.approx(np.mean([_decibels(t) for t in range(580, 630)]), abs=1e-3)
    assert found.from_restart == pytest.approx(np.mean([_decibels(t - 480) for t in range(580, 630)]), abs=1e-3)
    assert found.to_json()["lost"] == pytest.approx(found.from_restart - found.from_start)


def test_the_age_test_of_other_lengths_is_in_proportion_and_the_same_within_the_drift_report() -> None:
    data = _data(63, 31)
    alone, within = drift.age_test(_loaded(), data), drift.drift(_loaded(), data).age_test
    assert (alone.tail, alone.restart) == ((58, 62), 48)
    assert alone == within
    old = [*range(58, 63), *range(29, 31)]  # the shorter one: restart at 24, its last 2 frames
    assert alone.from_start == pytest.approx(np.mean([_decibels(t) for t in old]), abs=1e-3)
    with pytest.raises(DataError, match="val/0 has 3 frames, too few to restart"):
        drift.age_test(_loaded(), _data(3))


def test_the_drift_of_several_sequences_is_their_mean_where_they_have_the_frame() -> None:
    both = drift.drift(_loaded(), _data(20, 30), every=7)
    assert both.free == pytest.approx([_decibels(t) for t in range(1, 30)], abs=1e-3)
    assert len(both.restarted) == 29


def test_poses_are_played_there_and_back() -> None:
    assert [drift.there_and_back(t, 3) for t in range(9)] == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    poses = np.arange(5)[:, None]
    played = drift._ThereAndBack(poses, 3, 9)
    assert played[:, 1:8].flatten().tolist() == [1, 2, 3, 2, 1, 0, 1]
    assert played[:, 0].flatten().tolist() == [0]


def test_a_long_run_is_scored_pass_by_pass_in_constant_memory() -> None:
    model = Brightening(1e-5)
    found = drift.long_run(_loaded(model), _data(11), frames=1005)
    assert len(found.passes) == 100  # the last 4 frames are no whole pass
    expected = [np.mean([-20 * math.log10(t * 1e-5) for t in range(k * 10 + 1, k * 10 + 11)]) for k in (0, 99)]
    assert [found.passes[0], found.passes[-1]] == pytest.approx(expected, abs=0.1)
    assert found.lost == pytest.approx(expected[0] - expected[1], abs=0.1)
    assert model.most_alive <= 4


@pytest.mark.parametrize(("frames", "passes"), [(21, 2), (30, 2), (31, 3), (32, 3)])
def test_a_pass_that_ends_with_the_run_is_counted(frames: int, passes: int) -> None:
    """Ten steps there, ten steps back: frame 0 is given, so that frames 1..10 are the first pass."""
    found = drift.long_run(_loaded(), _data(11), frames=frames)
    expected = [np.mean([_decibels(t) for t in range(k * 10 + 1, k * 10 + 11)]) for k in range(passes)]
    assert found.passes == pytest.approx(expected, abs=1e-3)


def test_what_cannot_be_run_long_is_refused() -> None:
    with pytest.raises(UsageError, match="--long 20 is less than two passes over the 11 frames"):
        drift.long_run(_loaded(), _data(11), frames=20)
    with pytest.raises(UsageError, match="needs the truth"):
        drift.long_run(_loaded(), _data(11), frames=100, latent="posterior")
    with pytest.raises(DataError, match="not finite numbers in pass 1"):
        drift.long_run(_loaded(Brightening(math.nan)), _data(11), frames=100)


def test_a_run_that_catches_up_gains_and_loses_nothing_below_zero() -> None:
    """100 frames later the free run is 0.5 dB nearer to fresh restarts, or farther, or as it was."""
    age = drift.AgeTest((51, 101), 51, 20.0, 20.0)
    for free, says in (([20.0, 20.5], "gains 0.50"), ([20.0, 19.5], "loses 0.50"), ([20.0, 20.0], "loses 0.00")):
        found = drift.Drift([1, 101], free, [21.0, 21.0], 50, age)
        assert f"against fresh restarts it {says} dB per 100 frames" in found.lines()[0]
