"""Joints found in skeleton images: of drawings whose joints are known, and of the course's own labels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.conftest import SHARED
from vidcvae.own_clips import recovery, skeleton
from vidcvae.own_clips.skeleton import JOINTS
from vidcvae.scenes import dancer, dancing

LABELS = SHARED / "data/dance/train/train_label"
FACE = [JOINTS.index(name) for name in JOINTS if name.endswith(("eye", "ear"))]


def drawn(seed: int, size: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Joints (25, 2), NaN where hidden, and their drawing, of dancers that are wholly in the picture."""
    tracks, found = dancer.choreography(400, seed, 0), []
    for t in range(0, 400, 10):
        pose = {name: float(track[t]) for name, track in tracks.items()}
        seen = dancing._seen(dancer.joints(pose), pose, size)
        joints = np.array([seen.get(name, (np.nan, np.nan)) for name in JOINTS])
        if np.nanmin(joints[:, 0]) > 0 and np.nanmax(joints[:, 0]) < size[1]:
            found.append((joints, skeleton.draw(joints, size)))
    assert len(found) > 10
    return found


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(((a.astype(float) - b) ** 2).mean() / 255**2 + 1e-12))


@pytest.mark.parametrize("size", [(32, 64), (64, 128)])
def test_joints_of_a_drawing_are_found_again(size: tuple[int, int]) -> None:
    errors, scores = [], []
    for joints, picture in drawn(5, size):
        found = recovery.joints_of(picture)
        assert found is not None
        body = [j for j in range(25) if j not in FACE]
        assert np.isfinite(found[body]).mean() > 0.9
        errors.append(np.linalg.norm(found - joints, axis=1))
        scores.append(psnr(skeleton.draw(found, size), picture))
    off = np.nanmean(errors) / size[0]
    assert off < 0.02, "of the height: two thirds of a pixel in 32 rows"
    limbs = [
        JOINTS.index(f"{side}_{part}") for side in ("left", "right") for part in ("wrist", "elbow", "knee", "ankle")
    ]
    assert np.nanpercentile(np.array(errors)[:, limbs], 90) < 0.05 * size[0]
    assert np.mean(scores) > 35, "drawn again, they give nearly the same picture"


def test_what_is_not_drawn_is_not_found() -> None:
    size, gone, wrongly, there = (32, 64), [], 0, 0
    for joints, picture in drawn(5, size)[::3]:
        found = recovery.joints_of(picture)
        assert found is not None
        wrongly += int((np.isnan(found[:, 0]) & np.isfinite(joints[:, 0])).sum())
        there += int(np.isfinite(joints[:, 0]).sum())
        for limb in ("left_knee left_ankle left_heel left_big_toe left_small_toe", "right_elbow right_wrist"):
            without = {n: p for n, p in zip(JOINTS, joints, strict=True) if n not in limb.split()}
            found = recovery.joints_of(skeleton.draw(without, size))
            assert found is not None
            gone.append(np.isnan(found[JOINTS.index(limb.split()[1])]).all())
    assert np.mean(gone) > 0.7 and wrongly < 0.03 * there
    assert recovery.joints_of(np.full((3, 32, 64), 255, np.uint8)) is None


def test_joints_of_the_courses_labels() -> None:
    if not LABELS.is_dir():
        pytest.skip("the course's dance is not there")
    paths = sorted(LABELS.glob("*.png"))[5::60]
    poses = [np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1) for path in paths]
    share = recovery.strength(poses)
    assert 0.25 < share < 0.6, "its lines are fainter than ours"
    scores, blank = [], []
    for pose in poses:
        found = recovery.joints_of(pose)
        assert found is not None
        scores.append(psnr(255 - share * (255.0 - skeleton.draw(found, pose.shape[1:])), pose))
        blank.append(psnr(np.full_like(pose, 255), pose))
    assert np.mean(scores) > np.mean(blank) + 4, "more than half of the ink's squares is explained"
    assert recovery.strength([picture for _, picture in drawn(6, (32, 64))]) == 1
