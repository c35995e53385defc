"""Somebody's motion for a figure of other proportions, bone by bone, where the joints are known.

Limbs keep their directions and take the lengths of the target's; the way of the hips is scaled as the legs are; the
lowest foot is as far above the floor, in legs, as it was. What a limb's length is, it shows when not foreshortened.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidcvae.errors import DataError
from vidcvae.own_clips.skeleton import JOINTS, LIMBS

_WHOLE = 0.8  # quantile of a limb's length over the frames that is taken for its own: less is foreshortened
_SEEN = 0.1  # of the frames: a limb that is drawn more rarely is none of the figure's
_ODD = 2.0  # times the legs' ratio, beyond which another limb's is a slip: toes are a pixel or two long
_RARE = 0.02  # of the frames may leave the picture at a side rather than move the beginning

_AT = {name: index for index, name in enumerate(JOINTS)}
_ENDS = np.array([(_AT[a], _AT[b]) for a, b in LIMBS])
_HIP = _AT["mid_hip"]
_FEET = [index for name, index in _AT.items() if name.endswith(("ankle", "heel", "toe"))]
_OTHER_SIDE = {"right": "left", "left": "right"}


def _mirror(name: str) -> str:
    side, _, rest = name.partition("_")
    return f"{_OTHER_SIDE[side]}_{rest}" if side in _OTHER_SIDE else name


_PAIRS = [LIMBS.index((_mirror(a), _mirror(b))) for a, b in LIMBS]  # of each limb, that of the other side
_LEGS = [row for row, (_, end) in enumerate(LIMBS) if end.endswith(("knee", "ankle"))]
_FACE = [row for row, (_, end) in enumerate(LIMBS) if end.endswith(("eye", "ear"))]
_NECK = LIMBS.index(("neck", "nose"))
_TRUNK = LIMBS.index(("neck", "mid_hip"))


@dataclass(frozen=True)
class Build:
    """A figure: lengths (24,) of its limbs, NaN where it has none; the row of the floor, and its usual column."""

    lengths: np.ndarray
    floor: float
    middle: float


def build(joints: np.ndarray) -> Build:
    """The figure whose joints, (N, 25, 2), are known in many frames; raises ``DataError`` where nobody is."""
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
    """The row of the lowest foot in each frame, NaN without one."""
    return np.asarray(np.fmax.reduce(joints[:, _FEET, 1], axis=1))


@dataclass(frozen=True)
class Moved:
    """joints: (N, 25, 2). scale: of the legs. outside: how many of the figures leave the picture in part."""

    joints: np.ndarray
    scale: float
    outside: int


def move(joints: np.ndarray, target: Build, size: tuple[int, int], start: float | None = None) -> Moved:
    """The motion of ``joints``, (N, 25, 2) in pixels of any picture, for ``target``, in its pictures ``size``.

    start: the column of the hips in the first frame; None puts the middle of the motion where the target usually is.
        What leads out of the picture from there is moved into it.
    """
    source = build(joints)
    scale = _ratio(target.lengths, source.lengths)
    ratios = target.lengths / source.lengths
    ratios = np.clip(np.where(np.isfinite(ratios), ratios, scale), scale / _ODD, scale * _ODD)
    ratios[_FACE] = ratios[_NECK]  # eyes and ears are a pixel apart
    made = joints * scale  # what hangs on nothing that is known
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
    """The least shift that brings (N, 25) columns into the picture, but for a few frames; as much out left as right
    where they do not fit."""
    left = float(np.nanquantile(np.fmin.reduce(columns, axis=1), _RARE))
    right = float(np.nanquantile(np.fmax.reduce(columns, axis=1), 1 - _RARE))
    if right - left > width:
        return (width - left - right) / 2
    return max(0.0, -left) - max(0.0, right - width)


def _outside(places: np.ndarray, limit: int) -> np.ndarray:
    """In which frames a joint is more than a pixel outside; (N, 25) to (N,)."""
    return np.asarray(((places < -1) | (places > limit + 1)).any(1))


def _ratio(target: np.ndarray, source: np.ndarray) -> float:
    """How much longer the target's legs are, or else its trunk."""
    ratios = target[_LEGS] / source[_LEGS]
    ratio = np.nanmean(ratios) if np.isfinite(ratios).any() else target[_TRUNK] / source[_TRUNK]
    if not np.isfinite(ratio):
        raise DataError("neither legs nor trunk are seen of both figures.", "Choose poses that show all of a person.")
    return float(ratio)
