"""The empty scene behind somebody who moves."""

from __future__ import annotations

import numpy as np
import pytest

from vidcvae.data import scene
from vidcvae.data.clips import Sequence
from vidcvae.errors import DataError


def walked(width: int = 64, count: int = 40, height: int = 32, wall: int = 0) -> tuple[np.ndarray, Sequence]:
    """A wall of random stones, and somebody of another colour each frame who walks along it, a stick in the poses."""
    stones = np.random.default_rng(wall).integers(0, 256, (3, height, width), dtype=np.uint8)
    frames, poses = np.repeat(stones[None], count, 0), np.full((count, 3, height, width), 255, np.uint8)
    for t in range(count):
        x = 4 + t * (width - 8) // count
        frames[t, :, 6:28, x - 2 : x + 3] = (t * 37) % 256
        poses[t, 1:, 6:28, x] = 0  # a red line
    return stones, Sequence("walk", frames, {"pose": poses})


def test_the_scene_is_what_nobody_stands_before() -> None:
    stones, sequence = walked()
    assert np.array_equal(scene.behind([sequence], [40]).picture, stones)


def test_where_somebody_always_stands_the_scene_is_the_median_of_all_frames() -> None:
    stones, sequence = walked()
    poses = np.full_like(sequence.tracks["pose"], 255)
    poses[:, :, 16, 32] = 0
    found = scene.behind([Sequence("still", sequence.frames, {"pose": poses})], [40]).picture
    assert np.array_equal(found, np.median(sequence.frames.astype(float), axis=0).round().astype(np.uint8))
    assert np.array_equal(found[:, :, :2], stones[:, :, :2])


def test_only_frames_in_use_with_known_poses_are_looked_at() -> None:
    """The second sequence, the later frames of the first, and one whose pose is a stand-in, show another wall."""
    stones, sequence = walked()
    _, other = walked(wall=1)
    frames = np.concatenate([sequence.frames, other.frames])
    frames[0] = 0
    poses = np.concatenate([sequence.tracks["pose"], other.tracks["pose"]])
    mixed = Sequence("mixed", frames, {"pose": poses}, frozenset([0]))
    assert np.array_equal(scene.behind([mixed, other], [40, 0]).picture, stones)
    assert not np.array_equal(scene.behind([mixed, other], [80, 40]).picture, stones)


def test_without_a_known_pose_there_is_no_scene() -> None:
    _, sequence = walked(count=4)
    unknown = Sequence("walk", sequence.frames, sequence.tracks, frozenset(range(4)))
    with pytest.raises(DataError, match="no training frame has a known pose") as caught:
        scene.behind([unknown], [4])
    assert "--set model.scene=false" in caught.value.hint


def test_many_frames_are_sampled_over_all_of_them() -> None:
    """300 frames of one wall, then 900 of another: three quarters of the frames looked at show the second."""
    _, early = walked(count=300)
    late_stones, late = walked(count=900, wall=1)
    assert np.array_equal(scene.behind([early, late], [300, 900]).picture, late_stones)


def test_near_a_limb_is_a_square_around_every_dark_pixel() -> None:
    """Against every pixel of the square in turn, up to the edges; 0.09 of a height of 30 is a reach of 3."""
    random = np.random.default_rng(0)
    pose = np.full((3, 30, 41), 255, np.uint8)
    pose[:, random.integers(0, 30, 6), random.integers(0, 41, 6)] = [[0], [250], [255]]  # one dark channel is enough
    pose[:, 0, 0] = 239
    pose[:, 29, 20] = 240  # paper
    near = np.zeros((30, 41), bool)
    for y, x in np.argwhere((pose < 240).any(0)):
        near[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4] = True
    assert near.any() and not near.all()
    assert np.array_equal(scene._near_a_limb(pose), near)
