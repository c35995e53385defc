"""Recovers the joints from a skeleton image: the inverse of ``skeleton.draw``.

The colour of a pixel shows its position along a limb, so the joints follow from the pixels by least squares. The limb
of each pixel is estimated from its colour and the current joints by expectation maximisation with narrowing widths,
which starts with a standing figure in the box around the ink. In images of 32 rows, joints are found to half a pixel on
average, in a few milliseconds; the course's images, with fainter lines, give nearly the same.
"""

from __future__ import annotations

import numpy as np

from vidcvae.own_clips import skeleton
from vidcvae.own_clips.skeleton import JOINTS, LIMBS, PIECES

INK = 16  # sum over the colours; pixels with less ink are ignored
ROUNDS = 16
NEAR, ALIKE = (0.3, 0.4), (0.12, 0.02)  # first and last width of the guess: in heights and in pixels; between colours
OTHERS, STRAY = 0.003, 0.01  # how likely a colour is mixed, and a pixel is of no limb, as the hands in the course's
STIFF, TIED, CALM = 0.1, 0.3, 0.003  # how much is held: short limbs, the middle of hips and shoulders, every joint
SURE, DRAWN, LEAST = 0.06, 0.3, 0.04  # width of a colour, least share of the usual ink, shortest limb in heights

_AT = {name: index for index, name in enumerate(JOINTS)}
_ENDS = np.array([(_AT[a], _AT[b]) for a, b in LIMBS])
# A standing figure from the front in heights: from its middle to the right, from the top down; in the order of JOINTS
_STANDING = np.array([
    (0, .08), (0, .18), (-.11, .21), (-.15, .37), (-.18, .51), (.11, .21), (.15, .37), (.18, .51),
    (0, .49), (-.06, .49), (-.07, .72), (-.08, .95), (.06, .49), (.07, .72), (.08, .95),
    (-.02, .06), (.02, .06), (-.04, .07), (.04, .07),
    (.09, .98), (.12, .97), (.08, .99), (-.09, .98), (-.12, .97), (-.08, .99),
])  # fmt: skip
_SHORT = [(a, b) for a, b in _ENDS if JOINTS[b].endswith(("eye", "ear", "toe", "heel"))]
_MIDDLES = (("mid_hip", "right_hip", "left_hip"), ("neck", "right_shoulder", "left_shoulder"))


def _pieces() -> tuple[np.ndarray, np.ndarray]:
    """For each piece of each limb (24 PIECES): the direction of its ink, and its position as weights of 25 joints."""
    ink = np.array([[255 - np.array(colour) for colour in skeleton.colours(*limb)] for limb in LIMBS], float)
    along = np.tile((np.arange(PIECES) + 0.5) / PIECES, len(LIMBS))
    first, last = np.repeat(_ENDS, PIECES, axis=0).T
    weights, rows = np.zeros((len(along), len(JOINTS))), np.arange(len(along))
    weights[rows, first], weights[rows, last] = 1 - along, along
    flat = ink.reshape(-1, 3)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True), weights


_DIRECTIONS, _WEIGHTS = _pieces()


def _held(height: float) -> tuple[np.ndarray, np.ndarray]:
    """Prior knowledge about every figure as normal equations: (25, 25) and (25, 2)."""
    rows, values = [], []
    for a, b in [*_SHORT, (_AT["neck"], _AT["nose"])]:
        row = np.zeros(len(JOINTS))
        row[b], row[a] = STIFF**0.5, -(STIFF**0.5)
        rows.append(row)
        values.append((_STANDING[b] - _STANDING[a]) * height * 0.8 * STIFF**0.5)
    for middle, right, left in _MIDDLES:
        row = np.zeros(len(JOINTS))
        row[[_AT[middle], _AT[right], _AT[left]]] = np.array([1, -0.5, -0.5]) * TIED**0.5
        rows.append(row)
        values.append(np.zeros(2))
    held, to = np.array(rows), np.array(values)
    return held.T @ held + CALM * np.eye(len(JOINTS)), held.T @ to


def joints_of(pose: np.ndarray) -> np.ndarray | None:
    """The joints (25, 2) of a skeleton image, uint8 (3, H, W): (x, y) in pixels, NaN for joints not drawn.

    None if the image has no figure.
    """
    width = pose.shape[-1]
    ink = 255.0 - pose.reshape(3, -1).T  # (H W, 3)
    amount = ink.sum(1)
    inked = np.flatnonzero(amount >= INK)
    if len(inked) < 4:
        return None
    places = np.stack([inked % width, inked // width], 1) + 0.5  # (P, 2)
    amount, ink = amount[inked], ink[inked]
    unlike = 2 - 2 * (ink / np.linalg.norm(ink, axis=1, keepdims=True)) @ _DIRECTIONS.T  # (P, pieces), of colours
    share = (amount / np.percentile(amount, 90))[:, None]
    top, tall = places[:, 1].min() - 0.5, max(4.0, float(np.ptp(places[:, 1])) + 1)
    joints = _STANDING * tall + np.array([np.average(places[:, 0], weights=amount), top])
    held, towards = _held(tall)
    square = (places**2).sum(1)[:, None]
    for near, alike in zip(np.geomspace(NEAR[0] * tall, NEAR[1], ROUNDS), np.geomspace(*ALIKE, ROUNDS), strict=True):
        middles = _WEIGHTS @ joints  # (pieces, 2)
        apart = square - 2 * places @ middles.T + (middles**2).sum(1)
        long = np.linalg.norm(joints[_ENDS[:, 0]] - joints[_ENDS[:, 1]], axis=1) / PIECES
        wide = near**2 + np.repeat(long**2 / 12, PIECES) + 0.1
        belongs = (np.exp(-unlike / (2 * alike**2)) + OTHERS) * np.exp(-apart / (2 * wide))
        belongs *= share / (belongs.sum(1, keepdims=True) + STRAY)
        mass = belongs.sum(0)
        matrix = _WEIGHTS.T @ (mass[:, None] * _WEIGHTS) + held
        joints = np.linalg.solve(matrix, _WEIGHTS.T @ (belongs.T @ places) + towards + CALM * joints)
    sure = (belongs * np.exp(-unlike / (2 * SURE**2))).sum(0).reshape(len(LIMBS), PIECES).sum(1)
    return _without_missing(joints, sure, tall)


def _without_missing(joints: np.ndarray, ink: np.ndarray, tall: float) -> np.ndarray:
    """Set the end joints of limbs with hardly any ink in their own colours to NaN. ink: (24,)."""
    long = np.linalg.norm(joints[_ENDS[:, 0]] - joints[_ENDS[:, 1]], axis=1)
    density = ink / np.maximum(long, LEAST * tall)
    joints = joints.copy()
    for row in range(len(LIMBS) - 1, -1, -1):  # from the ends inwards
        start, end = _ENDS[row]
        beyond = _ENDS[_ENDS[:, 0] == end, 1]
        if (
            density[row] < DRAWN * np.median(density)
            and not np.isfinite(joints[beyond, 0]).any()
            and start != _AT["neck"]
        ):
            joints[end] = np.nan
    return joints


def draw_as(joints: np.ndarray, size: tuple[int, int], strength: float) -> np.ndarray:
    """The skeleton as drawn by ``skeleton.draw``, with lines ``strength`` times as dark."""
    drawn = skeleton.draw(joints, size)
    return drawn if strength == 1 else (255 - strength * (255.0 - drawn)).round().astype(np.uint8)


def strength(poses: list[np.ndarray]) -> float:
    """How dark the lines of skeleton images (3, H, W) are relative to those of ``skeleton.draw``."""
    ratios = []
    for pose in poses:
        if (joints := joints_of(pose)) is not None:
            drawn = 255.0 - skeleton.draw(joints, pose.shape[1:])
            ratios.append(float((drawn * (255.0 - pose)).sum() / max(1.0, (drawn**2).sum())))
    share = float(np.median(ratios)) if ratios else 1.0
    return 1.0 if share > 0.8 else share
