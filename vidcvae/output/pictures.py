"""Pictures of small frames: enlarged, side by side under their titles, or in a row over time.

Frames are uint8 (3, H, W). Enlarging repeats pixels, and so adds no detail.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Frame = np.ndarray  # uint8 (3, H, W)

BAR, GAP, MARGIN = 22, 6, 110  # heights of title bars, spaces between frames, width of row titles, in pixels
FONT_SIZE = 13
INK, PAPER = (30, 30, 30), (236, 236, 236)  # poses are drawn on white: paper must differ from it


def enlarge(frame: Frame, scale: int) -> Frame:
    """Repeat every pixel as a square of ``scale`` x ``scale``."""
    return frame.repeat(scale, axis=-2).repeat(scale, axis=-1)


def laid_over(frame: Frame, pose: Frame) -> Frame:
    """A pose image over a frame: its paper is transparent, its lines are opaque."""
    opaque = np.clip((255 - pose.min(0).astype(float)) / 85, 0, 1)
    return np.asarray(np.rint(frame + (pose - frame.astype(float)) * opaque).astype(np.uint8))


def fitting_scale(height: int) -> int:
    """The scale at which frames are about 128 pixels high."""
    return max(1, 128 // height)


def panel(frames: Sequence[Frame], titles: Sequence[str], scale: int = 0) -> Frame:
    """Frames side by side, each under its title. ``scale`` 0: ``fitting_scale``."""
    scale = scale or fitting_scale(frames[0].shape[1])
    columns = []
    for frame, title in zip(frames, titles, strict=True):
        picture = enlarge(frame, scale)
        columns += [np.concatenate([_title(title, picture.shape[2]), picture], axis=1)]
    return _join(columns, axis=2)


def strip(rows: Sequence[Sequence[Frame]], titles: Sequence[str], times: Sequence[int], scale: int = 0) -> Frame:
    """One picture of chosen time steps: a row for each of ``titles``, a column for each of ``times``."""
    scale = scale or max(1, 64 // rows[0][0].shape[1])
    width, height = rows[0][0].shape[2] * scale, rows[0][0].shape[1] * scale
    head = _join([_blank(BAR, MARGIN), *(_title(f"t = {t}", width) for t in times)], axis=2)
    lines = [head]
    for row, title in zip(rows, titles, strict=True):
        label = _blank(height, MARGIN)
        label[:, (height - BAR) // 2 : (height - BAR) // 2 + BAR] = _title(title, MARGIN)
        lines.append(_join([label, *(enlarge(frame, scale) for frame in row)], axis=2))
    return _join(lines, axis=1)


def _join(parts: Sequence[Frame], axis: int) -> Frame:
    """Parts side by side (axis 2) or one below another (axis 1), with gaps between them."""
    _, height, width = parts[0].shape
    gap = _blank(height, GAP) if axis == 2 else _blank(GAP, width)
    spaced = [piece for part in parts for piece in (gap, part)]
    return np.concatenate(spaced[1:], axis=axis)


def _blank(height: int, width: int) -> Frame:
    return np.full((3, height, width), PAPER[0], np.uint8)


@functools.lru_cache(maxsize=64)
def _title(text: str, width: int) -> Frame:
    """A bar with ``text`` in its middle, shortened by an ellipsis if it does not fit."""
    bar = Image.new("RGB", (width, BAR), PAPER)
    draw, font = ImageDraw.Draw(bar), ImageFont.load_default(FONT_SIZE)
    while len(text) > 1 and draw.textlength(text, font) > width - 2:
        text = text.rstrip("…")[:-1] + "…"
    draw.text((width / 2, BAR / 2), text, INK, font, anchor="mm")
    return np.asarray(bar).transpose(2, 0, 1)
