"""Draws skeleton images in the course's style: thin lines on white, whose colour changes from joint to joint.

The colours were measured in the course's own pose images: the spine is blue, the right arm blue, the left arm cyan, the
right leg green, the left leg orange, and the face purple. Along a limb the colour changes evenly from end to end.
The joints are those of OpenPose's BODY_25.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]

JOINTS = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
    "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
)  # fmt: skip

COLOURS: dict[str, Colour] = {
    "nose": (110, 0, 160), "neck": (0, 0, 255), "mid_hip": (0, 0, 255),
    "right_eye": (180, 0, 200), "right_ear": (200, 0, 200), "left_eye": (130, 0, 95), "left_ear": (170, 0, 85),
    "right_shoulder": (0, 40, 255), "right_elbow": (0, 100, 255), "right_wrist": (0, 135, 255),
    "left_shoulder": (0, 170, 255), "left_elbow": (0, 230, 255), "left_wrist": (0, 255, 255),
    "right_hip": (0, 255, 210), "right_knee": (0, 255, 115), "right_ankle": (0, 255, 30),
    "right_heel": (0, 255, 0), "right_big_toe": (60, 255, 0), "right_small_toe": (96, 255, 0),
    "left_hip": (170, 30, 30), "left_knee": (255, 85, 0), "left_ankle": (255, 140, 0),
    "left_heel": (255, 175, 0), "left_big_toe": (255, 197, 0), "left_small_toe": (255, 215, 0),
}  # fmt: skip

LIMBS = (
    ("neck", "mid_hip"), ("neck", "nose"),
    ("nose", "right_eye"), ("right_eye", "right_ear"), ("nose", "left_eye"), ("left_eye", "left_ear"),
    ("neck", "right_shoulder"), ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"),
    ("neck", "left_shoulder"), ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
    ("mid_hip", "right_hip"), ("right_hip", "right_knee"), ("right_knee", "right_ankle"),
    ("right_ankle", "right_heel"), ("right_ankle", "right_big_toe"), ("right_big_toe", "right_small_toe"),
    ("mid_hip", "left_hip"), ("left_hip", "left_knee"), ("left_knee", "left_ankle"),
    ("left_ankle", "left_heel"), ("left_ankle", "left_big_toe"), ("left_big_toe", "left_small_toe"),
)  # fmt: skip

_SUPERSAMPLING = 8
PIECES = 6  # of one colour each, along a limb


def draw(joints: Mapping[str, Point] | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The skeleton as uint8 (3, H, W) on white.

    joints: (x, y) in pixels of the image, by name, or an array (25, 2) in the order of ``JOINTS``. A limb is not
        drawn if an end is missing or NaN.
    size: height and width; lines are 1/64 of the height wide.
    """
    if isinstance(joints, np.ndarray):
        joints = {name: (float(x), float(y)) for name, (x, y) in zip(JOINTS, joints, strict=True)}
    height, width = size
    scale = _SUPERSAMPLING
    image = Image.new("RGB", (width * scale, height * scale), "white")
    pen = ImageDraw.Draw(image)
    thickness = max(1, round(height / 64 * scale))
    wanted = [(start, end) for start, end in LIMBS if start in joints and end in joints]
    ends = np.array([[joints[start], joints[end]] for start, end in wanted], float).reshape(-1, 2, 2)
    # points far outside would overflow Pillow's integers, and are not visible anyway
    points = _between(np.clip(ends, -4 * max(size), 8 * max(size)) * scale, PIECES + 1).tolist()
    for limb, known, along in zip(wanted, np.isfinite(ends).all((1, 2)), points, strict=True):
        if known:
            for a, b, colour in zip(along, along[1:], colours(*limb), strict=False):
                pen.line([*a, *b], fill=colour, width=thickness)
    return np.ascontiguousarray(np.asarray(image.reduce(scale)).transpose(2, 0, 1))


@cache
def colours(start: str, end: str) -> tuple[Colour, ...]:
    """The colours of a limb's pieces."""
    red, green, blue = _between(np.array([COLOURS[start], COLOURS[end]], float), PIECES).round().astype(int).T.tolist()
    return tuple(zip(red, green, blue, strict=True))


def _between(ends: np.ndarray, count: int) -> np.ndarray:
    """``count`` evenly spaced points from the first to the second of ``ends`` (..., 2, D), as (..., count, D)."""
    first, last = ends[..., :1, :], ends[..., 1:, :]
    return np.asarray(first + (last - first) * np.linspace(0, 1, count)[:, None])
