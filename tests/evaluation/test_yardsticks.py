"""Still and moving pixels: which they are, and the scores over each, against loops over pixels."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.evaluation.test_nearest_pose import DATA, VAL, loaded
from tests.evaluation.test_score import Average
from vidcvae.data.clips import Sequence, VideoData
from vidcvae.evaluation.free_run import COLUMNS, MORE_COLUMNS, RunVariant, measure
from vidcvae.evaluation.score import score_split
from vidcvae.evaluation.yardsticks import STILL_PIXELS, still_pixels, yardstick

H, W = 8, 16


def test_a_pixel_is_still_where_every_channel_deviates_by_less_than_8() -> None:
    frames = np.full((4, 3, 1, 6), 100, np.uint8)
    frames[::2, :, 0, 1] = 115  # a deviation of 7.5
    frames[::2, :, 0, 2] = 116  # of 8
    frames[::2, 1, 0, 3] = 117  # of 8.5, in one channel
    frames[0, :, 0, 4] = 118  # 18 in one of four frames: 18 * sqrt(3) / 4 = 7.79
    frames[0, 2, 0, 5] = 119  # 19 * sqrt(3) / 4 = 8.23
    assert still_pixels(frames).tolist() == [[True, True, False, False, True, False]]


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_still_pixels_are_numpy_s(length: int) -> None:
    random = np.random.default_rng(length)
    spread = random.integers(0, 30, (3, H, W))
    frames = (100 + random.integers(-1, 2, (length, 3, H, W)) * spread).astype(np.uint8)
    expected = frames.std(axis=0).max(axis=0) < 8
    assert (length == 1) == expected.all()
    assert np.array_equal(still_pixels(frames), expected)


def test_long_videos_take_no_more_memory() -> None:
    frames = np.zeros((5000, 3, H, W), np.uint8)  # 1.9 MB
    tracemalloc.start()
    still_pixels(frames)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400_000


def sequence(name: str, seed: int, spread: np.ndarray, length: int = 6) -> Sequence:
    random = np.random.default_rng(seed)
    frames = (100 + random.integers(-1, 2, (length, 3, H, W)) * spread).astype(np.uint8)
    return Sequence(name, frames, {"pose": random.integers(0, 256, (length, 3, H, W), np.uint8)})


def over(pixels: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB over the chosen pixels, one after the other."""
    errors = [(a[c, i, j] - b[c, i, j]) ** 2 for c in range(3) for i in range(H) for j in range(W) if pixels[i, j]]
    return float(-10 * np.log10(np.mean(errors)))


MIXED = np.where(np.arange(W) < 5, 4, 60)  # the left columns hardly change
CLIPS = (sequence("a", 0, MIXED), sequence("b", 1, np.array(4), 4))  # b stands still as a whole


def test_psnr_over_each_kind_of_pixel_is_that_of_a_loop() -> None:
    data = VideoData("tiny", "dance", 25, Path("tiny"), {"train": (sequence("t", 2, MIXED),), "val": CLIPS})
    record = score_split(loaded((H, W)), data)
    found: dict[str, list[float]] = {}
    shares = []
    for clip in CLIPS:
        still = clip.frames[1:].std(axis=0).max(axis=0) < 8
        frames, poses = clip.frames / 255, clip.tracks["pose"] / 255
        guess = frames[0]
        for t in range(1, len(frames)):
            guess = 0.5 * (guess + poses[t])
            shares.append(still.mean())
            copies = {"baseline_copy_first_": frames[0], "baseline_copy_previous_truth_": frames[t - 1]}
            for name, image in {"": guess, **copies}.items():
                for part, pixels in (("still", still), ("moving", ~still)):
                    if pixels.any():
                        found.setdefault(f"{name}psnr_{part}", []).append(over(pixels, image, frames[t]))
    assert len(found["psnr_still"]) == 8 and len(found["psnr_moving"]) == 5
    for key, values in found.items():
        assert record[key] == pytest.approx(np.mean(values), abs=1e-3), key
    assert record["share_still"] == pytest.approx(np.mean(shares)) and 0.5 < record["share_still"] < 0.6
    assert record["still_pixels"] == STILL_PIXELS and "under 8 of 255" in STILL_PIXELS
    a, b = record["sequences"]
    assert a["share_still"] == 5 / 16 and (b["share_still"], b["psnr_moving"]) == (1, None)
    assert b["baseline_nearest_pose_psnr_moving"] is None and b["baseline_nearest_pose_psnr_still"] > 0
    assert record["baseline_nearest_pose_psnr_moving"] == a["baseline_nearest_pose_psnr_moving"]


@pytest.mark.parametrize(("spread", "absent", "there"), [(4, "moving", "still"), (60, "still", "moving")])
def test_where_there_are_no_such_pixels_it_is_null(spread: int, absent: str, there: str) -> None:
    data = VideoData("tiny", "dance", 25, Path("tiny"), {"val": (sequence("a", 0, np.array(spread)),)})
    record = json.loads(json.dumps(score_split(loaded((H, W)), data), allow_nan=False))
    assert record[f"psnr_{absent}"] is None and record[f"baseline_copy_first_psnr_{absent}"] is None
    assert record[f"psnr_{there}"] == pytest.approx(record["psnr_mean"], abs=1e-3)
    assert record["share_still"] == (there == "still")


def test_a_run_without_yardsticks_measures_what_it_always_did() -> None:
    """As the validations of a training do; and its numbers are the same with them."""
    config, ways = loaded((8, 64)).config, [RunVariant("zero"), RunVariant("prior")]
    plain = measure(Average(), [VAL], config, ways)
    more = measure(Average(), [VAL], config, ways, yardsticks=[yardstick(VAL, 1, 4, None)])
    for way in ways:
        assert plain[way][0].shape == (3, len(COLUMNS)) and more[way][0].shape == (3, len(COLUMNS) + len(MORE_COLUMNS))
        assert torch.equal(plain[way][0], more[way][0][:, : len(COLUMNS)])


def test_what_is_measured_beside_other_latents_has_both_kinds_of_pixels() -> None:
    record = score_split(loaded((8, 64)), DATA, every_latent=True)
    assert {"psnr_still", "psnr_moving"} <= record["by_latent"]["prior"].keys()
    assert "share_still" not in record["by_latent"]["prior"]
