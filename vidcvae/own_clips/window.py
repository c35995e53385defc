"""The part of a clip's pictures that becomes the frames: one fixed window for the whole clip, and the frames' size.

Boxes are (left, top, right, bottom) in pixels of a picture; pictures are (width, height), frames (height, width).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from vidcvae.own_clips import skeleton

FITS = ("pad", "crop", "stretch")
CROPS = ("person", "none")
BUDGETS = {"small": 2048, "medium": 9216, "large": 28672}  # pixels of a frame: 32x64, 72x128, 128x224
LEAST_SIDE = 16
_MARGIN = 0.12  # of the figure's height: hair, hands and shoes extend beyond the joints
_RARE = 0.005  # share of the frames that may exceed each side, so that single estimation errors do not matter
_HELPS = 0.75  # of the picture: if the person needs less, cropping is worth the lost surroundings

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Fit:
    """The mapping from pictures to frames: ``box`` of the picture is resized to ``place`` in the frame."""

    box: Box
    place: tuple[int, int, int, int]  # left, top, right, bottom
    size: tuple[int, int]  # height, width

    def frame(self, image: Image.Image) -> np.ndarray:
        """uint8 (3, H, W); black outside the picture."""
        left, top, right, bottom = self.place
        part = image.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=self.box)
        frame = np.zeros((3, *self.size), np.uint8)
        frame[:, top:bottom, left:right] = np.asarray(part).transpose(2, 0, 1)
        return frame

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Convert points (..., 2) of a picture to points of the frame."""
        box, place = np.array(self.box), np.array(self.place, float)
        scale = (place[2:] - place[:2]) / (box[2:] - box[:2])
        return np.asarray((xy - box[:2]) * scale + place[:2])


def fit(box: Box, size: tuple[int, int], how: str) -> Fit:
    """Fit the part ``box`` of a picture into a frame of ``size`` (height, width).

    how: "pad" adds black bars, "crop" cuts the longer side evenly at both ends, "stretch" distorts.
    """
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    high, wide = size
    if how == "stretch":
        return Fit(box, (0, 0, wide, high), size)
    scale = (max if how == "crop" else min)(wide / width, high / height)
    if how == "crop":
        across, down = max(0.0, width - wide / scale) / 2, max(0.0, height - high / scale) / 2
        return Fit((left + across, top + down, right - across, bottom - down), (0, 0, wide, high), size)
    across, down = max(1, round(width * scale)), max(1, round(height * scale))
    x, y = (wide - across) // 2, (high - down) // 2
    return Fit(box, (x, y, x + across, y + down), size)


def choose(
    joints: np.ndarray, picture: tuple[int, int], size: tuple[int, int] | int, how: str | None, crop: str | None
) -> tuple[Fit, bool]:
    """Choose the window; returns its mapping to frames, and whether it is cropped to the person.

    joints: (N, 25, 2), the dancer's joints in all used frames; NaN if unknown.
    size: height and width of the frames, or a number of pixels: then the frames take the window's shape.
    how: one of ``FITS``; None pads to a given height and width, and otherwise crops the remainder of rounding to 8.
    crop: one of ``CROPS``; None crops to the person if that window is clearly smaller than the picture.
    """
    whole, person = (0.0, 0.0, float(picture[0]), float(picture[1])), _person(joints, picture)
    share = (person[2] - person[0]) * (person[3] - person[1]) / (picture[0] * picture[1])
    cropped = share < _HELPS if crop is None else crop == "person"
    box = person if cropped else whole
    how = how or ("crop" if isinstance(size, int) else "pad")
    if isinstance(size, int):
        size = _shape(box, size)
    return fit(_grown(box, size[1] / size[0], picture) if cropped else box, size, how), cropped


def _person(joints: np.ndarray, picture: tuple[int, int]) -> Box:
    """The box around all joints, with a margin, within the picture."""
    low, high = np.nanmin(joints, axis=1), np.nanmax(joints, axis=1)
    margin = _MARGIN * float(np.median((high - low).max(1)))
    limits = np.array(picture, float)
    first = np.clip(np.quantile(low, _RARE, axis=0) - margin, 0, limits - 1)
    last = np.clip(np.quantile(high, 1 - _RARE, axis=0) + margin, first + 1, limits)
    left, top = first.tolist()
    right, bottom = last.tolist()
    return left, top, right, bottom


def _grown(box: Box, aspect: float, picture: tuple[int, int]) -> Box:
    """``box`` extended to the ratio ``aspect`` of width to height, as far as the picture allows."""
    width, height = box[2] - box[0], box[3] - box[1]
    width, height = max(width, min(picture[0], height * aspect)), max(height, min(picture[1], width / aspect))
    left = min(max(0.0, (box[0] + box[2] - width) / 2), picture[0] - width)
    top = min(max(0.0, (box[1] + box[3] - height) / 2), picture[1] - height)
    return left, top, left + width, top + height


def _shape(box: Box, pixels: int) -> tuple[int, int]:
    """Height and width, multiples of 8, with about ``pixels`` pixels and about the aspect ratio of ``box``."""
    aspect = (box[2] - box[0]) / (box[3] - box[1])
    sides = range(LEAST_SIDE, 8 * max(2, pixels // LEAST_SIDE // 8) + 1, 8)
    sizes = [(high, max(LEAST_SIDE, (int(high * aspect / 8) + more) * 8)) for high in sides for more in (0, 1)]
    off = [2 * abs(np.log(wide / high / aspect)) + abs(np.log(wide * high / pixels)) for high, wide in sizes]
    return sizes[int(np.argmin(off))]


def preview(image: Image.Image, fit: Fit, own: np.ndarray, others: np.ndarray, rows: int = 480) -> Image.Image:
    """A picture of the clip, ``rows`` high, with its joints ``own`` (25, 2) drawn and the outside of the window
    darkened. Thin boxes show the dancer's positions in ``others``, (N, 25, 2)."""
    scale = rows / image.height
    small = image.resize((max(1, round(image.width * scale)), rows), Image.Resampling.BILINEAR)
    box = [round(value * scale) for value in fit.box]
    shown = Image.blend(small, Image.new("RGB", small.size), 0.65)
    shown.paste(small.crop(tuple(box)), (box[0], box[1]))  # type: ignore[arg-type]
    drawn = Image.fromarray(skeleton.draw(own * scale, (small.height, small.width)).transpose(1, 2, 0))
    shown.paste(drawn, mask=drawn.convert("L").point(lambda level: 255 * (level < 250)))
    pen = ImageDraw.Draw(shown)
    for corners in np.concatenate([np.nanmin(others, axis=1), np.nanmax(others, axis=1)], axis=1) * scale:
        pen.rectangle(corners.tolist(), outline=(255, 255, 255))
    pen.rectangle([box[0], box[1], box[2] - 1, box[3] - 1], outline=(255, 220, 0), width=2)
    return shown
