"""Reads the keypoint files that pose estimators write, as the 25 joints of ``skeleton``.

COCO JSON   one file: results [{"image_id", "keypoints"}, ..], or {"images", "annotations"}; with 17 joints, the feet
            may be separate, as "foot_kpts"
OpenPose    a folder with one JSON file for each frame: {"people": [{"pose_keypoints_2d"}, ..]}
MediaPipe   33 landmarks per person, in fractions of the picture: JSON or CSV (see ``landmarks``)

The first two hold x, y and score of each point, in one of the orders of ``joint_orders``.
The files come from other programs, so every value is checked, and an error names its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidcvae import reading
from vidcvae.data import numbered
from vidcvae.errors import DataError, UsageError, did_you_mean
from vidcvae.own_clips import joint_orders, landmarks
from vidcvae.own_clips.joint_orders import COUNTS, FEET, FORMATS, ORDERS, TITLES
from vidcvae.own_clips.keypoint_checks import (
    HINT,
    MAX_NUMBER,
    MAX_PEOPLE,
    Keypoints,
    Person,
    add_person,
    as_items,
    as_number,
    as_person,
    as_points,
    found_points,
    load_json,
    wrong,
)


@dataclass(frozen=True)
class _Listed:
    """A person in a file. points: (n, 3), x, y and score; points at the end that are never drawn may be left out."""

    frame: int
    points: np.ndarray
    count: int  # number of points in the file
    path: Path
    where: str


def read_keypoints(path: Path, form: str = "auto", min_score: float = 0.3) -> Keypoints:
    """The people in the file or folder ``path``; joints with a score below ``min_score`` are not found.

    form: one of ``FORMATS``, or "auto" to detect it.
    Raises ``DataError`` that names file and place for anything that does not fit the format, and if the order of 25
    points per person is unclear.
    """
    if form not in (*FORMATS, "auto"):
        raise UsageError(
            f"--keypoint-format is {form!r}.{did_you_mean(form, FORMATS)}",
            f"Choose one of auto, {', '.join(FORMATS)}.",
        )
    if path.is_dir():
        if form == "mediapipe33":
            raise DataError(f"{path} is a folder, but {form} keypoints are a file.", "Name the file.")
        return _read_openpose(path, form, min_score)
    if not path.exists():
        raise DataError(f"there are no keypoints {path}.", HINT)
    if path.suffix.lower() == ".csv":
        if form not in ("auto", "mediapipe33"):
            raise DataError(f"{path} is a CSV file, but {form} keypoints are JSON.", HINT)
        return landmarks.read_csv(path, min_score)
    value = load_json(path)
    if form == "mediapipe33" or (form == "auto" and not _is_coco(path, value)):
        return landmarks.read_json(path, value, min_score)
    return _read_coco(path, value, form, min_score)


def _is_coco(path: Path, value: Any) -> bool:
    """Whether a JSON file has COCO's format, not MediaPipe's; raises ``DataError`` if it has neither."""
    top = value.keys() if isinstance(value, dict) else set()
    first = value[0] if isinstance(value, list) and value else None
    if "annotations" in top or (isinstance(first, dict) and "image_id" in first):
        return True
    if "people" in top:
        raise DataError(f"{path} is OpenPose's file of one frame.", "Name the folder that holds those of all frames.")
    if "frames" in top or (isinstance(value, list) and value):
        return False
    what = "describes no frame" if value in ([], {}) else "has keypoints in an unknown format"
    raise DataError(f"{path} {what}.", HINT)


# --- the order of the points -----------------------------------------------------------------------


def _counts(form: str) -> tuple[int, ...]:
    """The numbers of points that a person may have."""
    return tuple(sorted(set(COUNTS.values()))) if form == "auto" else (COUNTS[form],)


def _listed(frame: int, points: np.ndarray, path: Path, where: str) -> _Listed:
    drawn = max(map(len, ORDERS.values()))  # the rest of 133 points would only take memory
    return _Listed(frame, points[:drawn].copy(), len(points), path, where)


def _people(
    source: Path, listed: Sequence[_Listed], form: str, min_score: float
) -> tuple[str, dict[int, list[Person]]]:
    """The title of the order, and the people's joints by frame."""
    order = _order(source, listed, min_score) if form == "auto" else form
    people: dict[int, list[Person]] = {}
    for one in listed:
        index = {name: row for row, name in enumerate(ORDERS[order][: len(one.points)])}  # 17 points have no feet
        add_person(people, one.frame, as_person(one.points, index, min_score), one.path, one.where)
    if not people:
        raise DataError(f"{source} has nobody in it.", "Choose a lower --min-score, or run the pose estimator again.")
    return TITLES[order], people


def _order(source: Path, listed: Sequence[_Listed], min_score: float) -> str:
    by_count = {count: order for order, count in COUNTS.items()}
    for one in listed[1:]:
        # in COCO's own files only some people have feet
        if one.count != listed[0].count and {one.count, listed[0].count} != {17, 133}:
            raise wrong(one.path, one.where, f"has {one.count} points, and the first person {listed[0].count}")
    count = max((one.count for one in listed), default=17)
    if count != 25:
        return by_count[count]
    found = [found_points(one.points, min_score)[:, :2] for one in listed]
    if not np.isfinite(found).any():
        return "body25"  # nobody was found, so the order does not matter
    if order := joint_orders.order_of_25(found):
        return order
    raise DataError(
        f"{source} has 25 points per person, and it is unclear whether their order is OpenPose's BODY_25 or BODY_25B.",
        "Look at point 1 of somebody who stands, counted from 0 (numbers 4 and 5 of pose_keypoints_2d). If it is "
        "at the neck, use --keypoint-format body25; if it is at the left eye, --keypoint-format body25b. If it is at "
        "neither, this order is not supported.",
    )


# --- COCO ------------------------------------------------------------------------------------------


def _read_coco(path: Path, value: Any, form: str, min_score: float) -> Keypoints:
    numbers: dict[Any, int] | None = None
    size = None
    if isinstance(value, dict):
        numbers, size = _coco_images(path, value.get("images"))
        value = value.get("annotations")
    listed: list[_Listed] = []
    counts = _counts(form)
    for index, record in enumerate(as_items(value, path, "annotations")):
        where = f"annotation {index}"
        if not isinstance(record, dict) or "keypoints" not in record or "image_id" not in record:
            raise wrong(path, where, "has no image_id or no keypoints")
        image_id = record["image_id"]
        if numbers is None:
            number = numbered.last_number(Path(image_id).stem) if isinstance(image_id, str) else image_id
            number = as_number(number, path, f"image_id of {where}")
        elif not isinstance(image_id, str | int) or image_id not in numbers:
            raise wrong(path, f"image_id of {where}", f"is {reading.shown(image_id)}, which is none of the images")
        else:
            number = numbers[image_id]
        feet_apart = form in ("auto", "wholebody133") and "foot_kpts" in record
        points = as_points(record["keypoints"], (17, *counts) if feet_apart else counts, path, f"keypoints of {where}")
        if feet_apart and len(points) == 17:
            feet = as_points(record["foot_kpts"], (len(FEET),), path, f"foot_kpts of {where}")
            points = np.concatenate([points, feet, np.zeros((COUNTS["wholebody133"] - 17 - len(FEET), 3))])
        listed.append(_listed(number, points, path, where))
    title, people = _people(path, listed, form, min_score)
    if numbers is None:
        return Keypoints(path, title, people, min(people))
    return Keypoints(path, title, people, min(numbers.values()), len(numbers), size=size)


def _coco_images(path: Path, images: Any) -> tuple[dict[Any, int] | None, tuple[int, int] | None]:
    """The frame number of each image id (the number in its file name, else its rank), and the size of the images."""
    if images is None:
        return None, None
    names: dict[Any, int | None] = {}
    sizes = set()
    for index, record in enumerate(as_items(images, path, "images")):
        where = f"image {index}"
        key = record.get("id") if isinstance(record, dict) else None
        if type(key) not in (int, str) or key in names:
            raise wrong(path, where, "has no id, or that of another image")
        file_name = record.get("file_name")
        names[key] = numbered.last_number(Path(file_name).stem) if isinstance(file_name, str) else None
        side, what = (record.get("width"), record.get("height")), "a whole number of pixels"
        if side != (None, None):
            width = as_number(side[0], path, f"width of {where}", what)
            sizes.add((width, as_number(side[1], path, f"height of {where}", what)))
    if None in names.values() or len(set(names.values())) < len(names):
        ids = list(names)
        names = {key: rank for rank, key in enumerate(sorted(ids) if all(type(k) is int for k in ids) else ids)}
    return {k: n for k, n in names.items() if n is not None}, sizes.pop() if len(sizes) == 1 else None


# --- OpenPose --------------------------------------------------------------------------------------


def _openpose_number(stem: str) -> int | None:
    """The frame number in CLIP_000000000012_keypoints or CLIP_12_pose_keypoints."""
    number = numbered.last_number(stem.lower().replace("_keypoints", "").replace("_pose", ""))
    return number if number is not None and number <= MAX_NUMBER else None


def _read_openpose(folder: Path, form: str, min_score: float) -> Keypoints:
    named = numbered.sort(numbered.visible(folder), (".json",), _openpose_number)
    for path in named.unnumbered:
        raise DataError(
            f"{path} has no frame number in its name.", "OpenPose names them CLIP_000000000012_keypoints.json"
        )
    for path, other in named.duplicates:
        raise DataError(f"{path} and {other} have the same frame number.", "Give each clip its own folder.")
    files = named.by_number
    if not files:
        raise DataError(f"{folder} has no JSON files.", HINT)
    listed: list[_Listed] = []
    counts = _counts(form)
    for number, path in files.items():
        value = load_json(path)
        if not isinstance(value, dict) or "people" not in value:
            raise wrong(path, "the file", "has no people")
        for index, record in enumerate(as_items(value["people"], path, "people", MAX_PEOPLE)):
            where = f"person {index}"
            if not isinstance(record, dict) or "pose_keypoints_2d" not in record:
                raise wrong(path, where, "has no pose_keypoints_2d")
            if record["pose_keypoints_2d"] == []:  # a face or a hand without a body
                continue
            points = as_points(record["pose_keypoints_2d"], counts, path, f"pose_keypoints_2d of {where}")
            listed.append(_listed(number, points, path, where))
    title, people = _people(folder, listed, form, min_score)
    return Keypoints(folder, title, people, min(files), len(files))
