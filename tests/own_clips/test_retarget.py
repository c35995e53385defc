"""Poses fitted to another figure: known scales and shifts are found, on drawn skeletons."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from vidcvae.data import pose_folder
from vidcvae.data.clips import Sequence
from vidcvae.errors import DataError
from vidcvae.output import video
from vidcvae.own_clips import retarget, skeleton
from vidcvae.scenes import dancer, dancing

SIZE = (64, 128)


@functools.cache
def walk(scale: float, near: float, far: float, middle: float, count: int = 60) -> np.ndarray:
    """Skeletons that come from far to near and go back, taller when near; feet on row ``near`` or ``far``."""
    made = []
    standing = dancer.joints(dict.fromkeys(dancer.PARAMETERS, 0.0))
    for t in range(count):
        way = 0.5 - 0.5 * np.cos(2 * np.pi * t / count)
        pixels = scale * (0.8 + 0.2 * way)
        feet = far + way * (near - far)
        x = middle + 10 * scale / 20 * np.sin(2 * np.pi * t / count)
        joints = {name: (x + p[0] * pixels, feet - p[1] * pixels) for name, p in standing.items()}
        made.append(skeleton.draw({n: joints[n] for n in skeleton.JOINTS}, SIZE))
    return np.stack(made)


def boxes(poses: np.ndarray) -> np.ndarray:
    """Top, bottom, left and right of the ink, by another way than the code's."""
    found = []
    for pose in poses:
        y, x = np.nonzero(pose.min(0) < 215)
        found.append([y.min(), y.max() + 1, x.min(), x.max() + 1])
    return np.array(found, float)


def test_a_walk_near_and_far_is_laid_upon_the_others() -> None:
    source, target = walk(18, 50, 40, 40), walk(28, 61, 54, 80)
    fitted = retarget.fit_poses(source, retarget.figures(target))
    np.testing.assert_allclose(boxes(fitted.poses), boxes(target), atol=3)
    assert np.abs(boxes(fitted.poses) - boxes(target)).mean() < 1.2
    assert fitted.scale.mean() == pytest.approx(28 / 18, rel=0.06) and fitted.outside == 0


def test_the_first_frames_own_pose_is_what_pose_0_is_laid_upon() -> None:
    source, target = walk(18, 50, 40, 40), walk(28, 61, 54, 80)
    fitted = retarget.fit_poses(source, retarget.figures(target[:1]))
    np.testing.assert_allclose(boxes(fitted.poses)[0], boxes(target)[0], atol=1.5)
    assert fitted.scale == pytest.approx(np.full(60, 28 / 18), rel=0.06)


def test_poses_begin_where_the_frame_most_like_the_first_has_its_figure() -> None:
    source, target = walk(18, 50, 40, 40), walk(28, 61, 54, 80)
    frames = np.random.default_rng(0).integers(0, 256, (600, 3, *SIZE), dtype=np.uint8)
    seen = Sequence("0", frames, {"pose": np.concatenate([target] * 10)})
    noisy = np.clip(frames[415].astype(int) + np.random.default_rng(1).integers(-9, 9, frames[415].shape), 0, 255)
    pose = retarget.likely_pose(noisy.astype(np.uint8), [seen])
    np.testing.assert_array_equal(pose, target[415 % 60])
    fitted = retarget.fit_poses(source, retarget.figures(target), retarget.figures([pose]))
    assert boxes(fitted.poses)[0, 2:].mean() == pytest.approx(boxes(pose[None])[0, 2:].mean(), abs=1)
    assert abs(boxes(fitted.poses)[0, 2:].mean() - boxes(target)[0, 2:].mean()) > 5
    # but not where the dance would lead out of the picture from there
    edge = retarget.figures([np.roll(pose, 45, axis=-1)])
    kept = retarget.fit_poses(source, retarget.figures(target), edge)
    np.testing.assert_array_equal(kept.poses, retarget.fit_poses(source, retarget.figures(target)).poses)


def test_a_dancer_who_stays_at_the_back_is_not_enlarged_to_the_middle_of_the_room() -> None:
    """Poses of the very figure that is wanted, but for where it mostly stands: nothing is to be scaled."""
    room = walk(28, 60, 55, 64)
    wanted = retarget.figures(room)
    back = room[wanted.feet <= np.quantile(wanted.feet, 0.4)]
    assert not wanted.deep and len(back) > 10
    fitted = retarget.fit_poses(back, wanted)
    assert (fitted.scale == 1).all()
    np.testing.assert_allclose(boxes(fitted.poses)[:, :2], boxes(back)[:, :2], atol=1)  # half a pixel to the side


def test_a_real_dancers_other_dances_keep_their_size(shared: Path) -> None:
    data = pose_folder.stream(shared / "data/dance", (32, 64)).collect()
    wanted = retarget.figures(pose for s in data.split("train") for pose in s.tracks["pose"])
    for sequence in (*data.split("val"), data.split("test")[0]):
        assert (retarget.fit_poses(sequence.tracks["pose"], wanted).scale == 1).all()


def test_the_same_figure_stays_as_it_is() -> None:
    poses = dancing.dance(60, 0, 0, 1).splits["train"][0].tracks["pose"]
    fitted = retarget.fit_poses(poses, retarget.figures(poses))
    np.testing.assert_array_equal(fitted.poses, poses)


def test_who_only_steps_and_bends_is_scaled_by_one_factor(dance: Path) -> None:
    """On real labels: the synthetic dancer's feet move two rows, and theirs nine; rows must not be stretched by 9/2."""
    real = video.read_poses(dance / "val" / "val_label", (32, 64))
    poses = np.concatenate([s.tracks["pose"] for s in dancing.dance(120, 0, 0, 0).splits["train"]])
    fitted = retarget.fit_poses(poses, retarget.figures(real))
    assert np.ptp(fitted.scale) == 0 and 0.8 < fitted.scale[0] < 1.1
    feet = [np.nanmedian(retarget.figures(p).feet) for p in (fitted.poses, real)]
    assert abs(feet[0] - feet[1]) <= 1


def blocks(*places: tuple[int, int, int]) -> np.ndarray:
    """Figures that are black blocks: (how many, row of the feet, height) each, six columns wide about column 40."""
    poses = [np.full((count, 3, *SIZE), 255, np.uint8) for count, _, _ in places]
    for part, (_, feet, height) in zip(poses, places, strict=True):
        part[:, :, feet - height : feet, 37:43] = 0
    return np.concatenate(poses)


@pytest.mark.parametrize(("far", "near"), [(9, 1), (19, 1), (28, 2), (38, 2), (57, 3), (1, 1), (20, 20)])
def test_a_gap_between_who_is_far_and_who_is_near_makes_no_hole(far: int, near: int) -> None:
    """The 95th percentile, or the median, lies between two groups of figures, where nobody stands."""
    poses, others = blocks((far, 40, 20), (near, 62, 28)), walk(28, 61, 54, 80)
    seen = retarget.figures(poses)
    assert seen.near == (62 if near > 0.05 * (far + near) else 40)
    for feet, height in ((seen.near, 28 if seen.near == 62 else 20), (seen.far, 20), (60, 28), (42, 20)):
        assert seen.height_at(feet) == height
    for source, target in ((poses, others), (others, poses), (poses, poses)):
        fitted = retarget.fit_poses(source, retarget.figures(target))
        assert np.isfinite(fitted.scale).all() and (fitted.scale > 0.1).all()
        assert (fitted.poses != 255).any((1, 2, 3)).all()
    np.testing.assert_array_equal(fitted.poses, poses)


def test_a_step_to_and_fro_has_a_middle_where_nobody_stands() -> None:
    """Feet on rows 40 and 44, which is no walk: all is measured at the median, row 42."""
    poses = blocks((20, 40, 30), (20, 44, 30))
    fitted = retarget.fit_poses(poses, retarget.figures(blocks((20, 50, 15), (20, 52, 15))))
    assert fitted.scale.tolist() == [0.5] * 40  # 15 rows high for 30
    assert boxes(fitted.poses)[:, 1].tolist() == [50] * 20 + [52] * 20


def test_nobody_is_scaled_by_more_than_near_and_far() -> None:
    """By hand. Far: 20 rows high for 10; near: 30 for 20. One jumps above the farthest, one crouches below the nearest:
    their feet go on along the line, 35 and 70, and their scale stays 2 and 1.5, not 2.125 and 1.25."""
    source = blocks((1, 25, 10), (20, 30, 10), (20, 50, 20), (1, 60, 20))
    target = blocks((20, 40, 20), (20, 60, 30))
    fitted = retarget.fit_poses(source, retarget.figures(target))
    assert fitted.scale.tolist() == [2.0] * 21 + [1.5] * 21
    found = boxes(fitted.poses[:41])
    assert found[:, 0].tolist() == [15] + [20] * 20 + [30] * 20
    assert found[:, 1].tolist() == [35] + [40] * 20 + [60] * 20
    assert boxes(fitted.poses[41:])[0, :2].tolist() == [40, 64]  # 30 rows above row 70, cut at the picture's edge
    assert fitted.outside == 1


def test_a_pose_without_a_figure_stays_empty_and_a_figure_outside_is_counted() -> None:
    source = walk(18, 50, 40, 40).copy()
    source[7] = 255
    fitted = retarget.fit_poses(source, retarget.figures(walk(28, 61, 54, 80)))
    assert (fitted.poses[7] == 255).all() and np.isfinite(np.delete(fitted.scale, 7)).all()
    low = retarget.figures(walk(28, 61, 54, 80))
    beyond = retarget.Figures(low.feet + 30, low.height, low.middle)
    assert retarget.fit_poses(source, beyond).outside > 50


def test_poses_without_any_figure_are_refused() -> None:
    empty = np.full((3, 3, *SIZE), 255, np.uint8)
    with pytest.raises(DataError, match="none of the pose images has a figure"):
        retarget.figures(empty)
    source = walk(18, 50, 40, 40).copy()
    source[0] = 255
    with pytest.raises(DataError, match="pose 0 shows nobody"):
        retarget.fit_poses(source, retarget.figures(walk(28, 61, 54, 80)[:1]))
