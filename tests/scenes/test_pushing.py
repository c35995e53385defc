"""The synthetic pushes: actions cause positions and frames and cannot be guessed; a seed gives the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vidcvae.data import trajectories
from vidcvae.data.clips import VideoData
from vidcvae.errors import UsageError
from vidcvae.scenes import pushing


@pytest.fixture(scope="module")
def data() -> VideoData:
    return pushing.push(clips=40, val=3, test=2, frames=12, seed=5)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over frames (..., 3, H, W) of 0..255."""
    mse = np.square(a.astype(float) - b).mean(axis=(-3, -2, -1))
    return float(np.mean(10 * np.log10(255**2 / np.maximum(mse, 1e-9))))


def test_shapes_and_splits(data: VideoData) -> None:
    assert {split: len(found) for split, found in data.splits.items()} == {"train": 40, "validate": 3, "test": 2}
    assert data.kind == "push" and data.size == (64, 64)
    for clip in data.split("train"):
        assert clip.frames.dtype == np.uint8 and clip.frames.shape == (12, 3, 64, 64)
        assert clip.tracks["action"].shape == (12, 4) and clip.tracks["position"].shape == (12, 3)
        assert all(np.isfinite(rows).all() and rows.dtype == np.float32 for rows in clip.tracks.values())


def test_row_t_of_actions_causes_frame_t_plus_1(data: VideoData) -> None:
    for clip in data.split("train"):
        action, position = clip.tracks["action"], clip.tracks["position"]
        np.testing.assert_allclose(position[1:], position[:-1] + action[:-1, :3], atol=1e-6)
        assert np.abs(position[:, :2]).max() <= 1 + 1e-6


def test_position_shows_the_gripper_in_the_frame(data: VideoData) -> None:
    """Near the position the picture changes when the arm comes or goes: the table there is light, the arm is not."""
    mean = np.mean([clip.frames for clip in data.split("train")], axis=(0, 1))
    clips = data.split("train")

    def change_at(positions_of: int) -> float:
        """Where the gripper is, going by the positions of another clip ``positions_of`` further on."""
        found = []
        for k, clip in enumerate(clips):
            change = np.abs(clip.frames - mean).mean(axis=1)  # (T, 64, 64)
            positions = clips[(k + positions_of) % len(clips)].tracks["position"]
            pixels = np.rint(pushing.to_pixels(positions)).astype(int)
            found += [change[t, y - 3 : y + 4, x - 3 : x + 4].mean() for t, (x, y) in enumerate(pixels)]
        return float(np.mean(found))

    assert change_at(0) > 1.7 * change_at(1)


def test_actions_cannot_be_guessed_from_what_was_before(data: VideoData) -> None:
    moves = np.stack([clip.tracks["action"][:, :2] for clip in data.split("train")])  # (N, T, 2)
    correlation = np.corrcoef(moves[:, 1:].ravel(), moves[:, :-1].ravel())[0, 1]
    assert abs(correlation) < 0.12
    # nor from where the hand is, but for the edge of the workspace
    place = np.stack([clip.tracks["position"][:, :2] for clip in data.split("train")])
    centre = np.abs(place) < 0.5
    assert abs(np.corrcoef(place[centre], moves[centre])[0, 1]) < 0.12


def test_the_next_frame_follows_from_the_action() -> None:
    """One scene, one step: the same action gives the same frame, another a frame that differs visibly."""
    table = pushing.draw_table(np.random.default_rng(0))
    scene = pushing.draw_scene(np.random.default_rng(1), 2)

    def after(move: tuple[float, float]) -> np.ndarray:
        position = scene.position.copy()
        position[1] = position[0] + np.float32([*move, 0])
        moved = replace(scene, position=position)
        objects, angles = pushing.simulate(position[None], scene.objects[None], scene.radii[None])
        return pushing.render(moved, objects[0], angles[0], table)

    left, again, right = after((-0.3, 0)), after((-0.3, 0)), after((0.3, 0))
    np.testing.assert_array_equal(left, again)
    np.testing.assert_array_equal(left[0], right[0])
    assert psnr(left[1], right[1]) < 21


def test_copying_the_last_frame_leaves_much_to_gain(data: VideoData) -> None:
    frames = np.stack([clip.frames for clip in data.split("train")])
    assert 16 < psnr(frames[:, 2:], frames[:, 1:2]) < 21


def test_a_lowered_gripper_pushes_and_a_lifted_one_does_not() -> None:
    """Along x through a thing at (32, 36), whose centre ends where the circles touch."""
    position = np.array([[-0.6, 0, 0], [-0.2, 0, 0], [0.2, 0, 0]], np.float32)
    objects, radii = np.array([[[32, 36]]], np.float32), np.array([[5]], np.float32)
    pushed, _ = pushing.simulate(position[None], objects, radii)
    hand = pushing.to_pixels(position)[2]
    np.testing.assert_allclose(pushed[0, 2, 0], hand + np.array([pushing.GRIPPER_RADIUS + 5, 0]), atol=1e-3)
    np.testing.assert_allclose(pushed[0, 0, 0], [32, 36])  # not touched yet
    lifted, _ = pushing.simulate(position[None] + np.float32([0, 0, 1]), objects, radii)
    np.testing.assert_allclose(lifted[0, :, 0], [[32, 36]] * 3)


def test_things_stay_on_the_table_and_beside_each_other() -> None:
    rng = np.random.default_rng(3)
    scenes = [pushing.draw_scene(rng, 30) for _ in range(20)]
    position, start, radii = (np.stack([getattr(s, name) for s in scenes]) for name in ("position", "objects", "radii"))
    objects, _ = pushing.simulate(position, start, radii)
    assert np.all(objects - radii[:, None, :, None] >= 4 - 1e-4)
    assert np.all(objects + radii[:, None, :, None] <= 60 + 1e-4)
    moved = np.linalg.norm(objects[:, -1] - objects[:, 0], axis=-1)
    assert 0.2 < (moved > 2).mean() < 0.9
    distance = np.linalg.norm(objects[:, :, :, None] - objects[:, :, None], axis=-1)
    overlap = radii[:, None, :, None] + radii[:, None, None] - distance
    overlap[..., range(4), range(4)] = 0
    assert (overlap > 3).mean() < 0.01  # hardly ever, squeezed between the gripper and the rim


def test_same_seed_same_bytes_and_clips_do_not_depend_on_their_number(data: VideoData) -> None:
    fewer = pushing.push(clips=2, val=0, test=0, frames=12, seed=5)
    for a, b in zip(fewer.split("train"), data.split("train")[:2], strict=True):
        np.testing.assert_array_equal(a.frames, b.frames)
        np.testing.assert_array_equal(a.tracks["action"], b.tracks["action"])
    other = pushing.push(clips=1, val=1, test=0, frames=12, seed=6)
    assert not np.array_equal(other.split("train")[0].tracks["action"], fewer.split("train")[0].tracks["action"])
    assert not np.array_equal(other.split("train")[0].frames, other.split("validate")[0].frames)


def test_written_folder_reads_back_exactly(tmp_path: Path) -> None:
    made = pushing.push(clips=2, val=1, test=0, frames=11, seed=0)
    pushing.write_folder(made, tmp_path / "pushes")
    read = trajectories.stream(tmp_path / "pushes", (64, 64)).collect()
    assert (read.name, read.kind, read.fps) == (made.name, "push", made.fps)
    for split in ("train", "validate"):
        for a, b in zip(made.split(split), read.split(split), strict=True):
            assert a.name == b.name
            np.testing.assert_array_equal(a.frames, b.frames)
            for track in ("action", "position"):
                np.testing.assert_array_equal(a.tracks[track], b.tracks[track])
    with pytest.raises(UsageError, match="pushes is not an empty folder"):
        pushing.write_folder(made, tmp_path / "pushes")


@pytest.mark.parametrize(("clips", "val", "test", "frames"), [(0, 0, 0, 12), (1, -1, 0, 12), (1, 0, 0, 1)])
def test_impossible_counts_are_refused(clips: int, val: int, test: int, frames: int) -> None:
    with pytest.raises(UsageError, match="cannot make"):
        pushing.push(clips, val, test, frames, seed=0)


def test_progress_counts_clips() -> None:
    seen: list[tuple[int, int]] = []
    pushing.push(2, 1, 1, 2, 0, progress=lambda *counts: seen.append(counts))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
