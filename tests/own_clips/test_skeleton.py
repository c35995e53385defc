"""Skeleton images: against the course's own label, and against coverage worked out point by point."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import numpy as np
from PIL import Image, ImageDraw

from vidcvae.own_clips import skeleton

# read off the real label train/train_label/150.png by eye, in pixels
REAL = {
    "nose": (32.5, 5.6), "right_eye": (31.6, 4.7), "left_eye": (33.6, 4.9), "neck": (32.5, 8.4),
    "mid_hip": (32.5, 14.5),
    "right_shoulder": (30.0, 8.4), "right_elbow": (29.3, 11.5), "right_wrist": (30.0, 14.0),
    "left_shoulder": (35.3, 8.4), "left_elbow": (35.8, 11.5), "left_wrist": (35.3, 14.0),
    "right_hip": (30.9, 14.6), "right_knee": (30.8, 19.5), "right_ankle": (30.1, 25.2), "right_big_toe": (28.8, 26.3),
    "left_hip": (34.0, 14.6), "left_knee": (33.9, 19.5), "left_ankle": (34.5, 24.8), "left_big_toe": (35.5, 26.3),
}  # fmt: skip


def test_it_looks_like_the_courses_label(dance: Path) -> None:
    real = 255 - iio.imread(dance / "train/train_label/150.png").astype(float).transpose(2, 0, 1)
    ours = 255 - skeleton.draw(REAL, (32, 64)).astype(float)
    assert likeness(real, ours) > 0.75
    # colours alone, without where the lines are: left and right have their own
    mirrored = {name.replace("left", "x").replace("right", "left").replace("x", "right"): p for name, p in REAL.items()}
    swapped = 255 - skeleton.draw(mirrored, (32, 64)).astype(float)
    assert likeness(real - real.mean(0), ours - ours.mean(0)) > 0.75
    assert likeness(real - real.mean(0), swapped - swapped.mean(0)) < 0.55


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_a_line_covers_what_it_should() -> None:
    """A slanted neck line: its ink is length x width, and lies within half a width of the line."""
    a, b = np.array([20.0, 20.0]), np.array([50.0, 44.0])
    image = skeleton.draw({"neck": tuple(a), "mid_hip": tuple(b)}, (64, 128))
    assert image.shape == (3, 64, 128) and image.dtype == np.uint8
    ink = (255 - image[0].astype(float)) / 255  # blue takes away all red
    # the width is 64 / 64; Pillow draws slanted lines up to a pixel (here an eighth) narrower
    assert 0.84 < ink.sum() / np.hypot(*(b - a)) < 1.06
    y, x = np.mgrid[0:64, 0:128] + 0.5
    along = np.clip(((x - a[0]) * (b - a)[0] + (y - a[1]) * (b - a)[1]) / ((b - a) @ (b - a)), 0, 1)
    distance = np.hypot(x - a[0] - along * (b - a)[0], y - a[1] - along * (b - a)[1])
    assert ink[distance > 1.6].max() == 0
    assert ink[distance < 0.3].min() > 0.5
    assert (image[2] == 255).all()


def test_a_joint_that_is_missing_or_nan_takes_its_limbs_along() -> None:
    whole = skeleton.draw(REAL, (32, 64))
    without = skeleton.draw({n: p for n, p in REAL.items() if n != "left_ankle"}, (32, 64))
    points = np.full((25, 2), np.nan)
    for name, p in REAL.items():
        if name != "left_ankle":
            points[skeleton.JOINTS.index(name)] = p
    assert np.array_equal(skeleton.draw(points, (32, 64)), without)
    changed = (whole != without).any(0)
    assert changed[20:28, 33:37].any() and not changed[:19].any()
    assert (skeleton.draw({}, (32, 64)) == 255).all()


def test_joints_far_outside_are_harmless() -> None:
    image = skeleton.draw({"neck": (1e30, -1e30), "mid_hip": (10.0, 10.0)}, (32, 64))
    assert image.shape == (3, 32, 64)


def test_every_limb_has_joints_and_colours() -> None:
    assert set(skeleton.COLOURS) == set(skeleton.JOINTS)
    assert {joint for limb in skeleton.LIMBS for joint in limb} == set(skeleton.JOINTS)


def test_limbs_are_drawn_piece_by_piece_in_even_colours() -> None:
    """Pixel for pixel what a plain loop draws that computes every limb by itself, so that drawn data stay the same."""
    size, scale = (32, 64), 8
    drawn = np.random.default_rng(0).uniform(-5, 60, (12, 25, 2))
    drawn[3, 4] = np.nan
    for joints in drawn:
        image = Image.new("RGB", (size[1] * scale, size[0] * scale), "white")
        pen = ImageDraw.Draw(image)
        for start, end in skeleton.LIMBS:
            a, b = joints[skeleton.JOINTS.index(start)], joints[skeleton.JOINTS.index(end)]
            if np.isnan([a, b]).any():
                continue
            points = a * scale + (b * scale - a * scale) * np.linspace(0, 1, 7)[:, None]
            first, last = (np.array(skeleton.COLOURS[name], float) for name in (start, end))
            for k in range(6):
                colour = first + (last - first) * np.linspace(0, 1, 6)[k]
                pen.line([*points[k], *points[k + 1]], fill=tuple(round(c) for c in colour), width=4)
        assert np.array_equal(skeleton.draw(joints, size), np.asarray(image.reduce(scale)).transpose(2, 0, 1))
