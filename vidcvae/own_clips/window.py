"""Which part of a clip's pictures becomes the frames: one fixed window for the whole clip, and the frames' size.

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
_MARGIN = 0.12  # of the figure's height: joints end at eyes and ankles, and hair, hands and shoes go on
_RARE = 0.005  # of the frames may go beyond on each side: an estimator's slip in one frame makes no window
_HELPS = 0.75  # of the picture: where the person needs less, the window is worth more than the surroundings

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Fit:
    """How pictures of one size become frames: what is in ``box`` goes to ``place``, in pixels of the frame."""

    box: Box
    place: tuple[int, int, int, int]  # left, top, right, bottom
    size: tuple[int, int]  # height, width

    def frame(self, image: Image.Image) -> np.ndarray:
        """uint8 (3, H, W); black where the picture does not reach."""
        left, top, right, bottom = self.place
        part = image.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=self.box)
        frame = np.zeros((3, *self.size), np.uint8)
        frame[:, top:bottom, left:right] = np.asarray(part).transpose(2, 0, 1)
        return frame

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Points of a picture (..., 2) as points of the frame."""
        box, place = np.array(self.box), np.array(self.place, float)
        scale = (place[2:] - place[:2]) / (box[2:] - box[:2])
        return np.asarray((xy - box[:2]) * scale + place[:2])


def fit(box: Box, size: tuple[int, int], how: str) -> Fit:
    """How the part ``box`` of a picture goes into a frame ``size`` (height, width).

    "pad" shows all of it between black bars, "crop" cuts its longer side evenly, "stretch" distorts it.
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
    """The window and what becomes of it, and whether the window is the person's.

    joints: (N, 25, 2), the dancer's in all frames that are used; NaN where not known.
    size: height and width of the frames, or how many pixels they may have: then they take the window's shape.
    how: one of ``FITS``; None cuts the little that is left over by sides in multiples of 8, and pads a size that was
        asked for. crop: one of ``CROPS``; None is the person's window where that is clearly smaller than the picture.
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
    """Everywhere that the joints go, with a margin, inside the picture."""
    low, high = np.nanmin(joints, axis=1), np.nanmax(joints, axis=1)
    margin = _MARGIN * float(np.median((high - low).max(1)))
    limits = np.array(picture, float)
    first = np.clip(np.quantile(low, _RARE, axis=0) - margin, 0, limits - 1)
    last = np.clip(np.quantile(high, 1 - _RARE, axis=0) + margin, first + 1, limits)
    left, top = first.tolist()
    right, bottom = last.tolist()
    return left, top, right, bottom


def _grown(box: Box, aspect: float, picture: tuple[int, int]) -> Box:
    """``box`` made as wide for its height as ``aspect`` says by what lies around it, as far as the picture reaches."""
    width, height = box[2] - box[0], box[3] - box[1]
    width, height = max(width, min(picture[0], height * aspect)), max(height, min(picture[1], width / aspect))
    left = min(max(0.0, (box[0] + box[2] - width) / 2), picture[0] - width)
    top = min(max(0.0, (box[1] + box[3] - height) / 2), picture[1] - height)
    return left, top, left + width, top + height


def _shape(box: Box, pixels: int) -> tuple[int, int]:
    """Height and width, multiples of 8, about as many pixels as that and about as wide for their height as ``box``."""
    aspect = (box[2] - box[0]) / (box[3] - box[1])
    sides = range(LEAST_SIDE, 8 * max(2, pixels // LEAST_SIDE // 8) + 1, 8)
    sizes = [(high, max(LEAST_SIDE, (int(high * aspect / 8) + more) * 8)) for high in sides for more in (0, 1)]
    off = [2 * abs(np.log(wide / high / aspect)) + abs(np.log(wide * high / pixels)) for high, wide in sizes]
    return sizes[int(np.argmin(off))]


def preview(image: Image.Image, fit: Fit, own: np.ndarray, others: np.ndarray, rows: int = 480) -> Image.Image:
    """A picture of the clip, ``rows`` high, with its joints (25, 2) drawn and what lies outside the window darkened;
    thin boxes show where the dancer is in ``others``, (N, 25, 2)."""
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
