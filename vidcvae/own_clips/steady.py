"""Estimates the small motion of a hand-held camera, so that the background can be held still.

Each picture is aligned with the first by a shift, a rotation and a zoom, with people masked: Lucas and Kanade 1981
("An iterative image registration technique"). A gain and an offset model changes of exposure, which stay in the clip.
Other moving things are outliers: their mismatch is large compared with the median.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from vidcvae.own_clips.keypoint_checks import Person

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels

_SIDE = 320  # pixels of the longer side of the reduced pictures that are compared; "pixels" below are these
_SLOPE = 1.5  # grey levels per pixel: flatter places show only noise
_MOST, _LEAST = 6_000, 0.01  # places compared; share of the picture that has to be steep
_EDGE = 4  # pixels at each side that the blur mixes with what lies beyond
_UNSURE = 0.15  # pixels: the largest standard error of the position of a corner
_LEFT = 0.4  # pixels: the largest remaining mismatch, as a shift that would cause it; noise alone gives 0.45
_STEPS, _CLOSE = 10, 0.01  # the largest number of iterations; a step of fewer pixels than this ends them
_SHARED = 12  # pixels that share their noise after the blur: 4 pi sigma^2
_DARK = 24  # grey levels of the bars beside a picture
_PAN = 0.1  # of the longer side: how far a corner may move
_STILL = 0.2  # pixels: a smaller motion is not worth the blur of resampling
_GAIN = 0.9  # holding still must bring the mismatch below this share of it
_BRIDGED, _FORGIVEN = 5, 0.1  # how many pictures may fail, in a flash for example; how many each good one cancels

FLAT = "too little of the background is visible to hold the camera still"
LOST = "the background changes too much for the camera to be held still"
PANS = "the camera moves too much to be held still"
IN_VAIN = "holding the camera still would not make the background any stiller"


class Motion(NamedTuple):
    """Whether the matrices hold the background still, and a note that says so or why not.

    The note is empty if the camera did not move.
    """

    hold: bool
    note: str


class Camera:
    """The camera of one clip. It stores the first picture and the last estimate, so memory is constant."""

    def __init__(self) -> None:
        self._first: _First | None = None
        self._size = (0, 0)  # width, height of the pictures
        self._scale = 1.0  # their pixels per pixel of the reduced pictures
        self._lit = [np.zeros(1), np.zeros(1)]  # the brightest value so far of each column, and of each row
        self._people: Sequence[Person] = ()
        self._estimate = np.zeros(6)
        self._moved = 0.0  # pixels of the pictures
        self._mismatch = np.zeros(2)  # without and with the estimates, summed over the pictures
        self._failed = 0.0
        self._refused = ""

    def follow(self, picture: Image.Image, people: Sequence[Person]) -> np.ndarray:
        """Estimate the camera's position for the next picture, RGB, all of one size.

        Returns float64 (2, 3), from pixels of the steady picture to those of ``picture``, as Pillow's AFFINE takes it.
        people: joints of each person, in pixels; if nobody is found, those of the last picture are used.
        Use the matrices only if ``motion`` says so after the last picture.
        """
        self._people = people or self._people
        if self._refused:
            return np.eye(2, 3)
        self._size, self._scale = picture.size, max(1.0, max(picture.size) / _SIDE)
        grey = _reduced(picture, self._scale)
        joints = [person[np.isfinite(person).all(1)] / self._scale for person in self._people]
        self._lit = [np.maximum(lit, grey.max(axis)) for axis, lit in enumerate(self._lit)]
        first = self._first is None
        if self._first is None:
            self._first = _First(grey, [_between_bars(lit) for lit in self._lit], joints)
        estimate, mismatch, why = self._first.fit(grey, joints, self._estimate)
        if not why:
            self._estimate = estimate
            self._mismatch += mismatch
        self._failed = self._failed + 1 if why else max(0.0, self._failed - _FORGIVEN)
        if first or self._failed > _BRIDGED:
            self._refused = why
        matrix = self._first.matrix(self._estimate, self._scale)
        corners = np.array([(x, y) for x in (0, picture.width) for y in (0, picture.height)])
        moved = np.linalg.norm(corners @ matrix[:, :2].T + matrix[:, 2] - corners, axis=1).max()
        self._moved = max(self._moved, float(moved))
        if moved > _PAN * max(picture.size):
            self._refused = PANS
        return matrix

    def motion(self) -> Motion:
        """The result, after the last picture."""
        if self._refused or self._moved < _STILL * self._scale:
            return Motion(False, self._refused)
        if self._mismatch[1] > _GAIN * self._mismatch[0]:
            return Motion(False, IN_VAIN)
        pixels = max(1, round(self._moved))
        return Motion(True, f"the camera moved by up to {pixels} pixel{'s' * (pixels > 1)}; this motion is removed")

    def window(self, matrices: np.ndarray) -> Box:
        """The largest part of the steady picture that every picture covers, without black bars at the sides.

        matrices: (N, 2, 3), one for each picture.
        """
        filmed = np.array([_between_bars(lit) for lit in self._lit]).T  # (2, 2): from x, y to x, y
        bars = filmed != [[0, 0], [len(lit) for lit in self._lit]]
        inwards = np.array([[3], [-3]]) * bars  # as far as the blur reaches
        filmed = np.where(bars, (filmed + inwards) * self._scale, [[0, 0], self._size])
        straight, across = matrices[:, (0, 1), (0, 1)], matrices[:, (0, 1), (1, 0)]
        box = filmed
        for _ in range(20):  # each side depends on the ends of the two beside it; this converges
            reach = matrices[:, :, 2] + across * box[:, None, ::-1]  # (2, N, 2)
            sides = (filmed[:, None, None] - reach) / straight  # (2 sides, 2 ends of each, N, 2)
            box = np.stack([np.maximum(filmed[0], sides[0].max((0, 1))), np.minimum(filmed[1], sides[1].min((0, 1)))])
        left, top = (math.ceil(v - 1e-6) for v in box[0])
        right, bottom = (math.floor(v + 1e-6) for v in box[1])
        return left, top, right, bottom


def points(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Convert points (..., 2) of a picture to points of the steady picture."""
    return np.asarray((xy - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T)


def _reduced(picture: Image.Image, scale: float) -> np.ndarray:
    """Grey values float32 (h, w), blurred by a Gaussian with a standard deviation of one pixel."""
    width, height = (max(2, int(side / scale)) for side in picture.size)
    box = (0.0, 0.0, min(picture.width, width * scale), min(picture.height, height * scale))
    grey = picture.convert("L").resize((width, height), Image.Resampling.BILINEAR, box, reducing_gap=2.0)
    blurred: np.ndarray = np.pad(np.asarray(grey, np.float32), 2, mode="edge")
    for _ in range(2):  # along the columns, then (transposed) along the rows
        blurred = (blurred[:-4] + blurred[4:] + 4 * (blurred[1:-3] + blurred[3:-1]) + 6 * blurred[2:-2]).T / 16
    return np.ascontiguousarray(blurred)


def _between_bars(lit: np.ndarray) -> tuple[int, int]:
    """The range of columns or rows that are not black: first, and last + 1."""
    bright = np.flatnonzero(lit > _DARK)
    return (int(bright[0]), int(bright[-1]) + 1) if len(bright) else (0, len(lit))


class _First:
    """The first picture, reduced, with which all others are aligned.

    An estimate is float64 (6,): zoom, rotation, shift to the right and down, offset and gain. Zoom and rotation are in
    pixels by which they move a corner, the gain is in per cent. Zeros mean no change.
    """

    def __init__(self, grey: np.ndarray, lit: Sequence[tuple[int, int]], people: Sequence[np.ndarray]) -> None:
        self.height, self.width = grey.shape
        self.radius = math.hypot(*grey.shape) / 2
        # without the edge of a black bar, which stands still whatever the camera does
        (left, right), (top, bottom) = ((low + _EDGE, high - _EDGE) for low, high in lit)
        inside = np.zeros(grey.shape, bool)
        inside[top:bottom, left:right] = True
        down, across = np.gradient(grey)
        slopes = np.hypot(across, down).ravel()
        steep = np.flatnonzero(inside.ravel() & (slopes > _SLOPE))
        steep = steep[self._clear(steep, people, np.zeros(6))]
        self.places = np.sort(steep[np.argsort(slopes[steep])[-_MOST:]])
        self.slopes, self.least = slopes[self.places], _LEAST * grey.size
        x, y = ((self._xy(self.places) - [self.width / 2, self.height / 2]) / self.radius).T
        gx, gy, self.values = (plane.ravel()[self.places] for plane in (across, down, grey))
        columns = [gx * x + gy * y, gy * x - gx * y, gx, gy, np.ones_like(gx), self.values / 100]
        self.changes = np.stack(columns, 1).astype(np.float32)  # of the values, per unit of each number of an estimate

    def matrix(self, estimate: np.ndarray, scale: float = 1) -> np.ndarray:
        """float64 (2, 3), from pixels of the first picture to pixels of the picture with this estimate."""
        zoom, turn, *shift = estimate[:4]
        linear = np.eye(2) + np.array([[zoom, -turn], [turn, zoom]]) / self.radius
        middle = np.array([self.width / 2, self.height / 2])
        return np.column_stack([linear, scale * (shift + middle - linear @ middle)])

    def _xy(self, places: np.ndarray) -> np.ndarray:
        return np.stack([places % self.width, places // self.width], 1) + 0.5

    def _clear(self, places: np.ndarray, people: Sequence[np.ndarray], estimate: np.ndarray) -> np.ndarray:
        """Whether each place shows no part of a person; hair and hands are included."""
        clear, xy = np.ones(len(places), bool), self._xy(places)
        for person in people:
            if len(person):
                joints = points(self.matrix(estimate), person)
                low, high = joints.min(0), joints.max(0)
                around = 5 + 0.08 * (high - low).max()
                clear &= ((xy < low - around) | (xy > high + around)).any(1)
        return clear

    def fit(
        self, grey: np.ndarray, people: Sequence[np.ndarray], start: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, str]:
        """The estimate for a picture; the mismatch without and with it, as a shift in pixels; why it failed."""
        picture, estimate = Image.fromarray(grey), start.copy()
        clear = self._clear(self.places, people, start)
        if clear.sum() < self.least:
            return start, np.zeros(2), FLAT
        for _ in range(_STEPS):
            matrix = tuple(self.matrix(estimate).ravel())
            moved = picture.transform(
                picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=-1
            )
            values = np.asarray(moved).ravel()[self.places]
            inside = clear & (values >= 0)
            if inside.sum() < self.least:
                return start, np.zeros(2), LOST
            gap = values - self.values
            left = np.abs(gap - self.changes[:, 4:] @ estimate[4:])
            fits = inside & (left < 1 + 3 * np.median(left[inside]))
            changes = self.changes[fits]
            normal = (changes.T @ changes).astype(float) + 1e-3 * np.eye(6)
            step = np.linalg.solve(normal, changes.T @ gap[fits])
            estimate = np.append(estimate[:4] - step[:4], step[4:])
            if np.hypot(*step[:2]) + np.hypot(*step[2:4]) < _CLOSE:
                break
        light = self.changes[inside, 4:]
        before = (grey.ravel()[self.places] - self.values)[inside]
        before = np.abs(before - light @ np.linalg.lstsq(light, before, rcond=None)[0])
        mismatch = np.array([np.median(before), np.median(left[inside])]) / np.median(self.slopes[inside])
        noise = max(0.25, float((left[fits] ** 2).mean()))
        unsure = math.sqrt(_SHARED * noise * np.trace(np.linalg.inv(normal)[:4, :4]))
        return estimate, mismatch, LOST if mismatch[1] > _LEFT else FLAT if unsure > _UNSURE else ""
