"""Poses out of datasets and clips, and another person's motion on a figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidcvae.data import packed, pose_folder
from vidcvae.errors import DataError
from vidcvae.own_clips import recovery, skeleton
from vidcvae.scenes import dancing, pushing
from vidcvae.workflow import given_poses
from vidcvae.workflow.generation import Files

from .. import video_clips as clips

SIZE = (48, 96)
AT = {name: row for row, name in enumerate(skeleton.JOINTS)}


def test_a_dataset_stands_for_its_longest_sequence(tmp_path: Path) -> None:
    data = dancing.dance(12, 30, 1, 0, SIZE)
    pose_folder.write_folder(data, tmp_path / "images")
    packed.write(data, tmp_path / "packed")
    for name in ("images", "packed"):
        poses, joints = given_poses.read(Files(poses=tmp_path / name), SIZE, lambda: 25)
        np.testing.assert_array_equal(poses, data.split("val")[0].tracks["pose"])
        assert joints is None


def test_a_dataset_without_whole_poses_is_refused_with_one_sentence(tmp_path: Path) -> None:
    packed.write(pushing.push(1, 0, 0, 3, 0), tmp_path / "push")
    pose_folder.write_folder(dancing.dance(12, 0, 0, 0, SIZE), tmp_path / "gap")
    (tmp_path / "gap/train/train_label/7.png").unlink()
    (tmp_path / "bare/train/train_img").mkdir(parents=True)
    for name, message in (
        ("push", "{} has no poses."),
        ("gap", "{0}/train/train_img/7.png has no pose: {0}/train/train_label/7.png is missing."),
        ("bare", "{}/train/train_label is missing."),
    ):
        with pytest.raises(DataError) as caught:
            given_poses.read(Files(poses=tmp_path / name), SIZE, lambda: 25)
        assert caught.value.message == message.format(tmp_path / name)
        assert caught.value.hint


def test_a_clip_is_shown_at_the_rate_of_the_model(tmp_path: Path) -> None:
    """10 frames a second become 25, the joints between on straight lines; frames 0 to 9, with nobody, are left out."""
    clip = clips.make_clip(40, SIZE)
    joints = clip.joints.copy()
    joints[:10] = np.nan
    clips.write_video(tmp_path / "other.mp4", clip.frames, fps=10)
    keypoints = clips.write_coco(tmp_path / "k.json", joints)
    files = Files(poses=tmp_path / "other.mp4", keypoints=keypoints)
    poses, found = given_poses.read(files, SIZE, lambda: 25)
    assert found is not None and len(poses) == len(found) == 1 + 29 * 25 // 10
    wrist = clip.joints[10:, AT["right_wrist"]]
    pixels = np.linalg.norm(found[:, AT["right_wrist"]] - found[0, AT["right_wrist"]], axis=1)
    between = [np.interp(np.arange(73) / 2.5, np.arange(30), axis) for axis in wrist.T]
    true = np.linalg.norm(np.stack(between, 1) - wrist[0], axis=1)
    moves = true > 1
    assert np.ptp(pixels[moves] / true[moves]) < 1e-6  # but for the size of the window, the same way
    for pose, points in zip(poses[::10], found[::10], strict=True):
        np.testing.assert_array_equal(pose, skeleton.draw(points, SIZE))


def test_a_gif_is_poses_or_a_clip_as_it_is_said() -> None:
    assert not given_poses.is_clip(Files(poses=Path("a.gif")))
    assert given_poses.is_clip(Files(poses=Path("a.gif"), estimate=True))
    assert given_poses.is_clip(Files(poses=Path("a.mp4"))) and not given_poses.is_clip(Files())


@pytest.mark.parametrize("dark", [1.0, 0.5])
def test_another_persons_motion_has_the_figures_proportions(dark: float) -> None:
    """The target's legs are 1.4 times as long for the trunk as the other's; its lines are as dark as they are."""
    other = clips.make_clip(60, (120, 240), seed=1).joints
    mine = clips.make_clip(60, (64, 128), seed=2).joints
    legs = [row for name, row in AT.items() if name.endswith(("knee", "ankle", "heel", "toe"))]
    mine[:, legs] = mine[:, [AT["mid_hip"]]] + 1.4 * (mine[:, legs] - mine[:, [AT["mid_hip"]]])
    theirs = [255 - ((255 - skeleton.draw(points, (96, 128))) * dark).astype(np.uint8) for points in mine]
    fitted = given_poses.onto(other, theirs, theirs[0], (96, 128))
    found = np.array([recovery.joints_of(pose) for pose in fitted.poses])

    def proportion(joints: np.ndarray) -> float:
        trunk = np.linalg.norm(joints[:, AT["neck"]] - joints[:, AT["mid_hip"]], axis=1)
        shin = np.linalg.norm(joints[:, AT["right_knee"]] - joints[:, AT["right_ankle"]], axis=1)
        return float(np.nanquantile(shin, 0.8) / np.nanquantile(trunk, 0.8))

    assert proportion(found) == pytest.approx(proportion(mine), rel=0.15)
    assert proportion(other) < 0.8 * proportion(mine)
    ink = [255.0 - np.array(poses).min() for poses in (fitted.poses, theirs)]
    assert ink[0] == pytest.approx(ink[1], rel=0.15)
