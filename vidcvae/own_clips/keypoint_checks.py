"""Helpers of all keypoint readers: checks whose errors name the place, and conversion of points to joints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidcvae import reading
from vidcvae.errors import DataError
from vidcvae.own_clips.skeleton import JOINTS

Person = np.ndarray  # float64 (25, 2), x and y in the order of JOINTS; NaN where a joint was not found

MAX_BYTES = 512 << 20  # of one file
MAX_PEOPLE = 100  # in one frame
MAX_NUMBER = 10_000_000  # of a frame: four days at 25 a second
FARTHEST = 1e6  # pixels; the largest coordinate
HINT = "Keypoints are COCO JSON, a folder of OpenPose JSON, or MediaPipe landmarks in JSON or CSV."

_BETWEEN = {"neck": ("left_shoulder", "right_shoulder"), "mid_hip": ("left_hip", "right_hip")}


@dataclass(frozen=True)
class Keypoints:
    """The people in each frame, by the file's own frame numbers.

    first: the lowest frame number in the file, whether or not anybody is in that frame.
    frames: the number of frames, if the file lists every frame, even empty ones; else None.
    fractions: whether x and y are fractions of the picture's width and height instead of pixels.
    size: width and height of the pictures, if the file states them.
    """

    path: Path
    form: str
    people: Mapping[int, list[Person]]
    first: int
    frames: int | None = None
    fractions: bool = False
    size: tuple[int, int] | None = None


def read_file(path: Path) -> bytes:
    """All of a keypoint file; raises ``DataError`` if it cannot be read or is too large."""
    try:
        return reading.read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.", HINT) from None


def load_json(path: Path) -> Any:
    """The contents of the JSON file ``path``; raises ``DataError`` if it is not JSON."""
    try:
        return reading.parse_json(read_file(path))
    except ValueError as error:
        raise DataError(
            f"{path} is not readable JSON ({error}).", "Correct it, or write it again: it may be cut off."
        ) from None


def wrong(path: Path, where: str, what: str) -> DataError:
    return DataError(f"{path}: {where} {what}.", HINT)


def as_items(value: Any, path: Path, where: str, most: int = MAX_NUMBER) -> list[Any]:
    if not isinstance(value, list):
        raise wrong(path, where, "is not a list")
    if len(value) > most:
        raise wrong(path, where, f"has {len(value)} entries, more than {most}")
    return value


def as_number(value: Any, path: Path, where: str, what: str = "the number of a frame") -> int:
    if type(value) is not int or not 0 <= value <= MAX_NUMBER:
        raise wrong(path, where, f"is {reading.shown(value)}, not {what}")
    return value


def as_points(values: Any, counts: Sequence[int], path: Path, where: str) -> np.ndarray:
    """A flat list of x, y, score as (n, 3), where n is one of ``counts``; it may contain NaN for missing points."""
    if not isinstance(values, list):
        raise wrong(path, where, "is not a list of numbers")
    if len(values) not in [3 * n for n in counts]:
        known = " or ".join(filter(None, (", ".join(map(str, counts[:-1])), str(counts[-1]))))
        raise wrong(path, where, f"has {len(values)} numbers, not 3 for each of {known} joints")
    for value in values:
        if type(value) not in (int, float) or abs(value) > FARTHEST:
            raise wrong(path, where, f"has {reading.shown(value)} instead of a coordinate or score")
    return np.array(values, float).reshape(-1, 3)


def found_points(points: np.ndarray, min_score: float) -> np.ndarray:
    """Rows of x, y, score; all NaN if the score is 0 or below ``min_score``, so the point was not found."""
    return np.where((points[:, 2:] > 0) & (points[:, 2:] >= min_score), points, np.nan)


def as_person(points: np.ndarray, index: Mapping[str, int], min_score: float) -> Person | None:
    """Rows of x, y, score as joints; missing neck and mid-hip are computed. None if no joint was found."""
    points = found_points(points, min_score)
    person = np.full((len(JOINTS), 2), np.nan)
    for row, name in enumerate(JOINTS):
        if name in index:
            person[row] = points[index[name], :2]
        elif name in _BETWEEN:
            left, right = (points[index[side], :2] for side in _BETWEEN[name])
            person[row] = (left + right) / 2
    person[~np.isfinite(person).all(1)] = np.nan
    return person if np.isfinite(person).any() else None


def add_person(people: dict[int, list[Person]], number: int, person: Person | None, path: Path, where: str) -> None:
    if person is None:
        return
    present = people.setdefault(number, [])
    if len(present) >= MAX_PEOPLE:
        raise wrong(path, where, f"is the {len(present) + 1}th person of frame {number}")
    present.append(person)
