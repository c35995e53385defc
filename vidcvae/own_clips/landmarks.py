"""Reads MediaPipe's 33 landmarks per person, in the forms in which scripts save them.

JSON    a list with one entry for each frame, or {"frames": [..]}. An entry is a person (33 landmarks), a list of
        people, nothing (null or []), or an object that holds one of these under one of ``KEYS``. The object also has
        its "frame" if frames are left out. A landmark is {"x", "y", "visibility"} or [x, y, z, visibility].
CSV     wide: one row for each frame, with columns x0, y0, z0, v0 .. (or x1 .. x33, or nose_x ..), and perhaps "frame".
        long: one row for each landmark, with columns frame, landmark (number or name), x, y, and perhaps visibility.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidcvae import reading
from vidcvae.errors import DataError
from vidcvae.own_clips.keypoint_checks import (
    FARTHEST,
    HINT,
    MAX_PEOPLE,
    Keypoints,
    Person,
    add_person,
    as_items,
    as_number,
    as_person,
    as_points,
    read_file,
    wrong,
)

KEYS = ("landmarks", "pose_landmarks", "poseLandmarks")
COUNT = 33
NAMES = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer",
    "left_ear", "right_ear", "mouth_left", "mouth_right", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index", "left_thumb",
    "right_thumb", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "left_heel",
    "right_heel", "left_foot_index", "right_foot_index",
)  # fmt: skip
JOINT_ROWS = {name.replace("foot_index", "big_toe"): row for row, name in enumerate(NAMES)}

_FRAME_COLUMNS = ("frame", "frame_id", "frame_index", "frame_number")
_LANDMARK_COLUMNS = ("landmark", "landmark_id", "landmark_index", "landmark_name")
_SCORES = ("visibility", "v", "vis")


# --- JSON ------------------------------------------------------------------------------------------


def read_json(path: Path, value: Any, min_score: float) -> Keypoints:
    """The people in the JSON ``value`` of the file ``path``; raises ``DataError`` that names the place."""
    entries = as_items(
        value.get("frames") if isinstance(value, dict) and "frames" in value else value, path, "the file"
    )
    people: dict[int, list[Person]] = {}
    numbered, numbers = False, []
    for index, entry in enumerate(entries):
        where, number = f"frame {index}", index
        if isinstance(entry, dict):
            key = next((key for key in _FRAME_COLUMNS if key in entry), None)
            if key:
                numbered, number = True, as_number(entry[key], path, f"{key} of entry {index}")
            entry = next((entry[key] for key in KEYS if key in entry), entry)  # noqa: PLW2901
            if isinstance(entry, dict):
                raise wrong(path, where, f"has none of {', '.join(KEYS)}")
        numbers.append(number)
        for points in _people(path, entry, where):
            add_person(people, number, as_person(points, JOINT_ROWS, min_score), path, where)
    return _found(path, people, numbers, None if numbered else len(entries))


def _people(path: Path, entry: Any, where: str) -> list[np.ndarray]:
    """The people of a frame, (33, 3) each."""
    if entry is None or entry == []:
        return []
    items = as_items(entry, path, where)
    first = items[0][0] if isinstance(items[0], list) and items[0] else items[0]
    if isinstance(items[0], dict) or type(first) in (int, float):
        return [_landmarks(path, items, where)]  # these are landmarks, so this is one person
    found = [as_items(person, path, where) for person in as_items(items, path, where, MAX_PEOPLE)]
    return [_landmarks(path, person, f"person {k} of {where}") for k, person in enumerate(found) if person]


def _landmarks(path: Path, items: list[Any], where: str) -> np.ndarray:
    if len(items) != COUNT:
        raise wrong(path, where, f"has {len(items)} landmarks, not {COUNT}")
    flat: list[Any] = []
    for row, item in enumerate(items):
        if isinstance(item, dict) and "x" in item and "y" in item:
            flat += [item["x"], item["y"], next((item[key] for key in _SCORES if key in item), 1.0)]
        elif isinstance(item, list) and len(item) in (2, 3, 4):  # x, y, then z, then visibility
            flat += [item[0], item[1], item[3] if len(item) == 4 else 1.0]
        else:
            raise wrong(path, f"landmark {row} of {where}", f"is {reading.shown(item)}, without x and y")
    return as_points(flat, (COUNT,), path, where)


def _found(path: Path, people: Mapping[int, list[Person]], numbers: Iterable[int], frames: int | None) -> Keypoints:
    if not people:
        raise DataError(f"{path} has nobody in it.", "Choose a lower --min-score, or run the pose estimator again.")
    return Keypoints(path, "MediaPipe", people, min(numbers), frames, fractions=True)


# --- CSV -------------------------------------------------------------------------------------------


def read_csv(path: Path, min_score: float) -> Keypoints:
    """The people in the CSV file ``path``, wide or long; raises ``DataError`` that names the line."""
    try:
        lines = list(csv.reader(io.StringIO(read_file(path).decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not readable as CSV ({error}).", HINT) from None
    rows = [(number, row) for number, row in enumerate(lines, 1) if row]
    if len(rows) < 2:
        raise DataError(f"{path} describes no frame.", HINT)
    header = [name.strip().lower() for name in rows[0][1]]
    for number, row in rows[1:]:
        if len(row) != len(header):
            raise wrong(path, f"line {number}", f"has {len(row)} columns, and the first line {len(header)}")
    landmark = _column(header, _LANDMARK_COLUMNS)
    read = _wide(path, header, rows[1:]) if landmark is None else _long(path, header, rows[1:], landmark)
    people: dict[int, list[Person]] = {}
    numbers = []
    for where, number, points in read:
        numbers.append(number)
        add_person(people, number, as_person(points, JOINT_ROWS, min_score), path, where)
    complete = landmark is None and _column(header, _FRAME_COLUMNS) is None
    return _found(path, people, numbers, len(rows) - 1 if complete else None)


Rows = list[tuple[int, list[str]]]  # (line in the file, cells)
Read = Iterator[tuple[str, int, np.ndarray]]  # (place in the file, frame, points (33, 3))


def _wide(path: Path, header: list[str], rows: Rows) -> Read:
    columns: dict[tuple[int, str], int] = {}
    for column, name in enumerate(header):
        if key := _wide_column(name):
            columns[key] = column
    # some scripts count from 1
    base = int((0, "x") not in columns and (COUNT, "x") in columns)
    for landmark, name in enumerate(NAMES):
        if (landmark + base, "x") not in columns or (landmark + base, "y") not in columns:
            raise wrong(path, "line 1", f"has no x and y of landmark {landmark}, {name}")
    used = [(k - base, "xyv".index(axis), column) for (k, axis), column in columns.items() if base <= k < COUNT + base]
    frame = _column(header, _FRAME_COLUMNS)
    for index, (number, row) in enumerate(rows):
        where = f"line {number}"
        points = np.ones((COUNT, 3))
        for landmark, axis, column in used:
            points[landmark, axis] = _value(row[column], path, f"column {header[column]} of {where}")
        yield where, index if frame is None else _frame(row[frame], path, where), points


def _wide_column(name: str) -> tuple[int, str] | None:
    """Landmark and "x", "y" or "v" of a column such as x0, x_0, 0_x, landmark_0_x, nose_x or left_eye_visibility."""
    if found := re.fullmatch(r"(x|y|v|vis|visibility)_?(\d{1,2})", name):
        return int(found[2]), found[1][0]
    found = re.fullmatch(r"(?:landmark_?)?(\w+?)_(x|y|v|vis|visibility)", name)
    landmark = _landmark_row(found[1]) if found else None
    return None if found is None or landmark is None else (landmark, found[2][0])


def _long(path: Path, header: list[str], rows: Rows, landmark: int) -> Read:
    frame, x, y, score = (_column(header, names) for names in (_FRAME_COLUMNS, ("x",), ("y",), _SCORES))
    if frame is None or x is None or y is None:
        raise wrong(path, "line 1", "has a column for the landmark, but not all of frame, x and y")
    people: dict[int, np.ndarray] = {}
    for number, row in rows:
        where = f"line {number}"
        which = _landmark_row(row[landmark].strip().lower())
        if which is None or which >= COUNT:
            raise wrong(path, where, f"has the landmark {reading.shown(row[landmark])}, not one of the {COUNT}")
        points = people.setdefault(_frame(row[frame], path, where), np.full((COUNT, 3), np.nan))
        if np.isfinite(points[which, 2]):
            raise wrong(path, where, f"is the second one with {NAMES[which]} in this frame")
        values = [_value(row[column], path, where) for column in (x, y, *([] if score is None else [score]))]
        points[which] = [*values, 1.0][:3]
    yield from ((f"frame {number}", number, points) for number, points in people.items())


def _column(header: list[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _landmark_row(text: str) -> int | None:
    """The number of the landmark that ``text`` names or numbers."""
    if text.isascii() and text.isdecimal() and len(text) < 3:
        return int(text)
    return NAMES.index(text) if text in NAMES else None


def _frame(text: str, path: Path, where: str) -> int:
    text = text.strip().removesuffix(".0")  # pandas writes it if the column has had gaps
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else text
    return as_number(number, path, f"the frame in {where}")


def _value(text: str, path: Path, where: str) -> float:
    """The number in a cell; NaN for an empty one."""
    try:
        value = float(text) if text.strip() else float("nan")
    except ValueError:
        value = float("inf")
    if abs(value) > FARTHEST:
        raise wrong(path, where, f"has {reading.shown(text)} instead of a coordinate or visibility")
    return value
