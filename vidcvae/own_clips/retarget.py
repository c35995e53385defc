"""Adapts one person's poses to another's figure: the global pose normalisation of Everybody Dance Now.

Chan et al. 2019: the nearest and farthest position of the feet, and the figure's height at both, are measured in each
sequence; positions and scales in between are interpolated linearly. Here they are measured in pose images: a figure is
the box around its ink, and its feet are the lower edge of the box. Heights are medians instead of the paper's maxima,
since lifted arms make the box higher.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vidcvae.data.clips import Sequence
from vidcvae.errors import DataError

_INK = 40  # sum over the colours from which a pixel counts as drawn; half of a thin line's ink at 32 rows
_NEAR = 0.25  # of the distance between far and near: what counts as far or near
_FLAT = 0.15  # of the figure's height: with less between far and near, nobody walks towards the camera
_ALIKE = 0.05  # of the height: figures on one spot that differ by less count as the same person
_SUPERSAMPLING = 8
_LOST = 0.05  # of the figures: how many more may leave the picture to begin where the first frame's figure is
_CHUNK = 256  # frames compared at once


@dataclass(frozen=True)
class Figures:
    """The figures of a sequence, in pixels; NaN in frames without a figure.

    feet, height, middle: (T,) rows of the feet from the top, heights, and columns of the centre.
    """

    feet: np.ndarray
    height: np.ndarray
    middle: np.ndarray

    @property
    def near(self) -> float:
        """The row of the feet nearest to the camera, lowest in the picture; 5% of the frames may be lower."""
        # an observed value: an interpolated one may lie where nobody ever stands
        return float(np.nanpercentile(self.feet, 95, method="inverted_cdf"))

    @property
    def far(self) -> float:
        """The row of the farthest feet: no farther above the median than the nearest are below, to exclude jumps."""
        middle = float(np.nanmedian(self.feet))
        return float(np.nanmin(np.where(self.feet >= 2 * middle - self.near - 0.5, self.feet, np.nan)))

    @property
    def deep(self) -> bool:
        """Whether the figure walks towards the camera and away."""
        return self.near - self.far > _FLAT * float(np.nanmedian(self.height))

    def height_at(self, feet: float) -> float:
        """The median height of the figures whose feet are near the row ``feet``, or of the nearest ones."""
        apart = np.abs(self.feet - feet)
        span = max(1.0, _NEAR * (self.near - self.far), float(np.nanmin(apart)))
        return float(np.nanmedian(np.where(apart <= span, self.height, np.nan)))


def paper_share(pictures: np.ndarray) -> float:
    """The share of the pixels of ``pictures``, uint8 (N, 3, H, W), that are white, as the paper of pose images is."""
    return float((3 * 255 - pictures.sum(1, dtype=int) < _INK).mean())


def figures(poses: Iterable[np.ndarray]) -> Figures:
    """Measure pose images, uint8 (3, H, W) each; raises ``DataError`` if nobody is drawn in any of them."""
    boxes = []
    for pose in poses:
        ink = 3 * 255 - pose.sum(0, dtype=int) >= _INK
        rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
        found = (
            (rows[-1] + 1, rows[-1] + 1 - rows[0], (columns[0] + columns[-1] + 1) / 2) if len(rows) else (np.nan,) * 3
        )
        boxes.append(found)
    if np.isnan(boxes).all():
        raise DataError("none of the pose images has a figure on white in it.", "Poses are skeletons drawn on white.")
    return Figures(*np.array(boxes).T)


@dataclass(frozen=True)
class Fitted:
    """poses: uint8 (T, 3, H, W). scale: (T,) of the figures. outside: how many partly leave the picture."""

    poses: np.ndarray
    scale: np.ndarray
    outside: int


def likely_pose(frame: np.ndarray, sequences: Iterable[Sequence]) -> np.ndarray:
    """The pose, uint8 (3, H, W), of the frame in ``sequences`` that is most like ``frame``, uint8 (3, H, W)."""
    best, pose = np.inf, None
    for sequence in sequences:
        for start in range(0, len(sequence), _CHUNK):
            apart = (sequence.frames[start : start + _CHUNK].astype(np.int32) - frame) ** 2
            means = apart.mean((1, 2, 3))
            if means.min() < best:
                best, pose = means.min(), sequence.tracks["pose"][start + int(means.argmin())]
    if pose is None:
        raise DataError("there are no frames to look for it in.")
    return np.asarray(pose)


def fit_poses(poses: np.ndarray, wanted: Figures, own: Figures | None = None) -> Fitted:
    """Scale and shift the figures in ``poses``, uint8 (T, 3, H, W), to those that are ``wanted``.

    wanted: figures of the person in the first frame. A single figure is the first frame's own pose: pose 0 is aligned
        with it. Several are matched near and far if both sequences walk towards the camera and away. Otherwise they are
        matched in the middle, and figures that are as tall there as the wanted ones keep their size and feet.
    own: figure of the first frame's own pose, if known or likely; pose 0 then begins in its column, unless the
        dance would leave the picture from there.
    """
    source, single = figures(poses), len(wanted.feet) == 1
    if single and np.isnan(source.feet[0]):
        raise DataError("pose 0 shows nobody, so it cannot be laid upon the first frame's.", "Begin where somebody is.")
    if single:
        start, end = (np.array([f.feet[0], f.middle[0]]) for f in (source, wanted))
    else:
        start, end = (np.array([np.nanmedian(f.feet), np.nanmedian(f.middle)]) for f in (source, wanted))
    tall, wanted_there = source.height_at(start[0]), wanted.height_at(start[0])
    among_them = wanted.far - 0.5 <= start[0] <= wanted.near + 0.5
    if not single and among_them and abs(wanted_there - tall) <= max(1.0, _ALIKE * tall):
        end[0], scale = start[0], np.ones(len(poses))
    else:
        scale = np.full(len(poses), wanted.height_at(end[0]) / tall)
    feet = end[0] + scale * (source.feet - start[0])
    if not single and source.deep and wanted.deep:
        way = (source.feet - source.far) / (source.near - source.far)  # 0 far away, 1 near
        near, far = (wanted.height_at(b) / source.height_at(a)
                     for a, b in ((source.near, wanted.near), (source.far, wanted.far)))  # fmt: skip
        scale = far + np.clip(way, 0, 1) * (near - far)
        feet = wanted.far + way * (wanted.near - wanted.far)
    height, width = poses.shape[-2:]
    middle = end[1] + scale * (source.middle - start[1])
    if own is not None and np.isfinite([own.middle[0], source.middle[0]]).all():
        beginning_there = own.middle[0] + scale * (source.middle - source.middle[0])
        lost, lost_there = (((m < 0) | (m > width)).mean() for m in (middle, beginning_there))
        middle = beginning_there if lost_there <= lost + _LOST else middle
    made = np.full_like(poses, 255)
    for t in np.flatnonzero(~np.isnan(source.feet)):
        made[t] = _moved(poses[t], scale[t], (source.middle[t], source.feet[t]), (middle[t], feet[t]))
    outside = (feet > height + 1) | (feet - scale * source.height < -1) | (middle < 0) | (middle > width)
    return Fitted(made, scale, int(outside.sum()))


def _moved(pose: np.ndarray, scale: float, start: tuple[float, float], end: tuple[float, float]) -> np.ndarray:
    """Scale a pose image about the point ``start``, which moves to ``end``; uncovered pixels are white."""
    height, width = pose.shape[-2:]
    fine = scale * _SUPERSAMPLING
    offset = [a - b * _SUPERSAMPLING / fine for a, b in zip(start, end, strict=True)]
    image = Image.fromarray(np.ascontiguousarray(pose.transpose(1, 2, 0))).transform(
        (width * _SUPERSAMPLING, height * _SUPERSAMPLING),
        Image.Transform.AFFINE,
        (1 / fine, 0, offset[0], 0, 1 / fine, offset[1]),
        Image.Resampling.NEAREST,  # with the reduction below: the mean over the area of a pixel
        fillcolor="white",
    )
    return np.asarray(image.reduce(_SUPERSAMPLING)).transpose(2, 0, 1)
