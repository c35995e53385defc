"""Transfers a motion to a figure of other proportions, limb by limb, from known joints.

Limbs keep their directions and take the target's lengths. The path of the hips, and the height of the lowest foot above
the floor, are scaled with the legs. A limb's length is measured where it is not foreshortened.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidcvae.errors import DataError
from vidcvae.own_clips.skeleton import JOINTS, LIMBS

_WHOLE = 0.8  # quantile over the frames that gives a limb's length; shorter ones are foreshortened
_SEEN = 0.1  # of the frames: the figure does not have limbs that are drawn less often
_ODD = 2.0  # the most that a limb's ratio may differ from the legs' (toes are only a pixel or two long)
_RARE = 0.02  # share of the frames that may leave the picture at a side without shifting the motion

_AT = {name: index for index, name in enumerate(JOINTS)}
_ENDS = np.array([(_AT[a], _AT[b]) for a, b in LIMBS])
_HIP = _AT["mid_hip"]
_FEET = [index for name, index in _AT.items() if name.endswith(("ankle", "heel", "toe"))]
_OTHER_SIDE = {"right": "left", "left": "right"}


def _mirror(name: str) -> str:
    side, _, rest = name.partition("_")
    return f"{_OTHER_SIDE[side]}_{rest}" if side in _OTHER_SIDE else name


_PAIRS = [LIMBS.index((_mirror(a), _mirror(b))) for a, b in LIMBS]  # for each limb, its counterpart on the other side
_LEGS = [row for row, (_, end) in enumerate(LIMBS) if end.endswith(("knee", "ankle"))]
_FACE = [row for row, (_, end) in enumerate(LIMBS) if end.endswith(("eye", "ear"))]
_NECK = LIMBS.index(("neck", "nose"))
_TRUNK = LIMBS.index(("neck", "mid_hip"))


@dataclass(frozen=True)
class Build:
    """A figure: lengths (24,) of its limbs, NaN if missing; the row of the floor; the usual column of the hips."""

    lengths: np.ndarray
    floor: float
    middle: float


def build(joints: np.ndarray) -> Build:
    """Measure the figure with ``joints`` (N, 25, 2); raises ``DataError`` if hips or feet are never seen."""
    vectors = joints[:, _ENDS[:, 1]] - joints[:, _ENDS[:, 0]]
    lengths = np.hypot(vectors[..., 0], vectors[..., 1])
    both = np.concatenate([lengths, lengths[:, _PAIRS]])  # right and left are alike
    seen = np.isfinite(both).mean(0)
    whole = np.array(
        [np.nanquantile(each, _WHOLE) if share >= _SEEN else np.nan for each, share in zip(both.T, seen, strict=True)]
    )
    feet, hips = _lowest(joints), joints[:, _HIP, 0]
    if not (np.isfinite(feet).any() and np.isfinite(hips).any()):
        raise DataError("nobody's hips and feet are seen in it.", "Choose poses that show all of a person.")
    return Build(whole, float(np.nanmedian(feet)), float(np.nanmedian(hips)))


def _lowest(joints: np.ndarray) -> np.ndarray:
    """The row of the lowest foot in each frame; NaN if no foot is known."""
    return np.asarray(np.fmax.reduce(joints[:, _FEET, 1], axis=1))


@dataclass(frozen=True)
class Moved:
    """joints: (N, 25, 2). scale: ratio of the legs. outside: number of frames in which joints leave the picture."""

    joints: np.ndarray
    scale: float
    outside: int


def move(joints: np.ndarray, target: Build, size: tuple[int, int], start: float | None = None) -> Moved:
    """Transfer the motion of ``joints`` (N, 25, 2), in pixels of any picture, to ``target`` in pictures of ``size``.

    start: column of the hips in the first frame; None centres the motion at the target's usual column.
        A motion that would leave the picture is shifted back into it.
    """
    source = build(joints)
    scale = _ratio(target.lengths, source.lengths)
    ratios = target.lengths / source.lengths
    ratios = np.clip(np.where(np.isfinite(ratios), ratios, scale), scale / _ODD, scale * _ODD)
    ratios[_FACE] = ratios[_NECK]  # eyes and ears are a pixel apart
    made = joints * scale  # for joints without a known neighbour
    for (a, b), ratio in zip(_ENDS, ratios, strict=True):
        along = made[:, a] + ratio * (joints[:, b] - joints[:, a])
        made[:, b] = np.where(np.isfinite(along), along, made[:, b])
    down = target.floor + scale * (_lowest(joints) - source.floor) - _lowest(made)
    across = target.middle + scale * (joints[:, _HIP, 0] - source.middle) - made[:, _HIP, 0]
    if start is not None and np.isfinite(across[0]):
        across = across + start - (made[0, _HIP, 0] + across[0])
    shifts = np.stack([across, down], 1)
    made = made + np.where(np.isfinite(shifts), shifts, np.nanmedian(shifts, axis=0))[:, None]
    made[..., 0] += _into(made[..., 0], size[1])
    outside = _outside(made[..., 0], size[1]) | _outside(made[..., 1], size[0])
    for (_, b), length in zip(_ENDS, target.lengths, strict=True):
        if np.isnan(length):
            made[:, b] = np.nan
    return Moved(made, scale, int(outside.sum()))


def _into(columns: np.ndarray, width: int) -> float:
    """The smallest shift that brings columns (N, 25) into the picture, except in a few frames; if they do not fit, the
    shift that centres them."""
    left = float(np.nanquantile(np.fmin.reduce(columns, axis=1), _RARE))
    right = float(np.nanquantile(np.fmax.reduce(columns, axis=1), 1 - _RARE))
    if right - left > width:
        return (width - left - right) / 2
    return max(0.0, -left) - max(0.0, right - width)


def _outside(places: np.ndarray, limit: int) -> np.ndarray:
    """Whether any joint is more than a pixel outside; (N, 25) -> (N,)."""
    return np.asarray(((places < -1) | (places > limit + 1)).any(1))


def _ratio(target: np.ndarray, source: np.ndarray) -> float:
    """The ratio of the target's legs to the source's, or of their trunks if no legs are known."""
    ratios = target[_LEGS] / source[_LEGS]
    ratio = np.nanmean(ratios) if np.isfinite(ratios).any() else target[_TRUNK] / source[_TRUNK]
    if not np.isfinite(ratio):
        raise DataError("neither legs nor trunk are seen of both figures.", "Choose poses that show all of a person.")
    return float(ratio)
