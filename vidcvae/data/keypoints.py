"""Keypoint files as pose estimators write them, as the 25 joints of ``skeleton``.

coco        one JSON file: results [{"image_id", "keypoints"}, ..] or {"images", "annotations"}; 17 joints
            (x, y, score), or COCO-WholeBody's 133, its feet also apart as "foot_kpts"
openpose    a folder of JSON files, one a frame: {"people": [{"pose_keypoints_2d"}, ..]}; BODY_25 or COCO's 18 joints
mediapipe   33 landmarks a person in fractions of the picture: JSON, one entry a frame, or CSV (see ``landmarks``)

Whatever is in such a file was written elsewhere: each value is checked, and what is wrong is named with its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vidcvae import reading
from vidcvae.data import landmarks
from vidcvae.data.keypoint_checks import (
    HINT,
    MAX_NUMBER,
    MAX_PEOPLE,
    Keypoints,
    Person,
    add_person,
    as_frame_number,
    as_items,
    as_person,
    as_points,
    file_number,
    load_json,
    wrong,
)
from vidcvae.data.skeleton import JOINTS
from vidcvae.errors import DataError, UsageError

FORMATS = ("coco", "openpose", "mediapipe")

_COCO17 = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
_FEET = ("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel")
_COCO = {17: _COCO17, 133: _COCO17 + _FEET}  # of COCO-WholeBody face and hands follow, which are not drawn
_OPENPOSE = {25: JOINTS, 18: tuple(name for name in JOINTS[:19] if name != "mid_hip")}


def read_keypoints(path: Path, form: str = "auto", min_score: float = 0.3) -> Keypoints:
    """The people in the file or folder ``path``; joints with a score below ``min_score`` are not found.

    form: one of ``FORMATS``, or "auto" to tell by what is there.
    Raises ``DataError`` that names file and place for anything that is not as the format wants it.
    """
    if form not in (*FORMATS, "auto"):
        raise UsageError(f"--keypoint-format is {form!r}.", f"Choose one of auto, {', '.join(FORMATS)}.")
    if path.is_dir():
        if form in ("coco", "mediapipe"):
            raise DataError(f"{path} is a folder, but {form} keypoints are a file.", "Name the file.")
        return _read_openpose(path, min_score)
    if not path.exists():
        raise DataError(f"there are no keypoints {path}.", HINT)
    if form == "openpose":
        raise DataError(f"{path} is a file, but OpenPose's keypoints are a folder of files.", "Name the folder.")
    if path.suffix.lower() == ".csv":
        if form == "coco":
            raise DataError(f"{path} is a CSV file, but COCO's keypoints are JSON.", HINT)
        return landmarks.read_csv(path, min_score)
    value = load_json(path)
    if form == "auto":
        form = _format_of(path, value)
    return _read_coco(path, value, min_score) if form == "coco" else landmarks.read_json(path, value, min_score)


def _format_of(path: Path, value: Any) -> str:
    top = value.keys() if isinstance(value, dict) else set()
    first = value[0] if isinstance(value, list) and value else None
    if "annotations" in top or (isinstance(first, dict) and "image_id" in first):
        return "coco"
    if "people" in top:
        raise DataError(f"{path} is OpenPose's file of one frame.", "Name the folder that holds those of all frames.")
    if "frames" in top or (isinstance(value, list) and value):
        return "mediapipe"
    what = "tells of no frame" if value in ([], {}) else "has keypoints of no format that is known"
    raise DataError(f"{path} {what}.", HINT)


# --- COCO ------------------------------------------------------------------------------------------


def _read_coco(path: Path, value: Any, min_score: float) -> Keypoints:
    numbers: dict[Any, int] | None = None
    size = None
    if isinstance(value, dict):
        numbers, size = _coco_images(path, value.get("images"))
        value = value.get("annotations")
    people: dict[int, list[Person]] = {}
    joints = 17
    for index, record in enumerate(as_items(value, path, "annotations")):
        where = f"annotation {index}"
        if not isinstance(record, dict) or "keypoints" not in record or "image_id" not in record:
            raise wrong(path, where, "has no image_id or no keypoints")
        image_id = record["image_id"]
        if numbers is None:
            number = file_number(image_id) if isinstance(image_id, str) else image_id
            number = as_frame_number(number, path, f"image_id of {where}")
        elif not isinstance(image_id, str | int) or image_id not in numbers:
            raise wrong(path, f"image_id of {where}", f"is {reading.shown(image_id)}, which is none of the images")
        else:
            number = numbers[image_id]
        points = as_points(record["keypoints"], tuple(_COCO), path, f"keypoints of {where}")
        names = _COCO[len(points)]
        if "foot_kpts" in record and len(points) == 17:
            feet = as_points(record["foot_kpts"], (len(_FEET),), path, f"foot_kpts of {where}")
            points, names = np.concatenate([points, feet]), _COCO[133]
        joints = max(joints, len(points))
        person = as_person(points, {name: row for row, name in enumerate(names)}, min_score)
        add_person(people, number, person, path, where)
    if not people:
        raise DataError(f"{path} has nobody in it.", "Choose a lower --min-score, or run the pose estimator again.")
    form = "COCO-17" if joints == 17 else "COCO-WholeBody"
    if numbers is None:
        return Keypoints(path, form, people, min(people))
    return Keypoints(path, form, people, min(numbers.values()), len(numbers), size=size)


def _coco_images(path: Path, images: Any) -> tuple[dict[Any, int] | None, tuple[int, int] | None]:
    """The number of the frame that each image id means: that in its file's name, or else its rank; and their size."""
    if images is None:
        return None, None
    names: dict[Any, int | None] = {}
    sizes = set()
    for index, record in enumerate(as_items(images, path, "images")):
        where = f"image {index}"
        key = record.get("id") if isinstance(record, dict) else None
        if type(key) not in (int, str) or key in names:
            raise wrong(path, where, "has no id of its own")
        names[key] = file_number(record.get("file_name"))
        side = record.get("width"), record.get("height")
        if side != (None, None):
            sizes.add((as_frame_number(side[0], path, f"width of {where}"), as_frame_number(side[1], path, where)))
    if None in names.values() or len(set(names.values())) < len(names):
        ids = list(names)
        names = {key: rank for rank, key in enumerate(sorted(ids) if all(type(k) is int for k in ids) else ids)}
    return {k: n for k, n in names.items() if n is not None}, sizes.pop() if len(sizes) == 1 else None


# --- OpenPose --------------------------------------------------------------------------------------


def _read_openpose(folder: Path, min_score: float) -> Keypoints:
    files: dict[int, Path] = {}
    for path in folder.iterdir():
        if path.suffix.lower() != ".json" or path.name.startswith("."):
            continue
        number = file_number(path.name.lower().replace("_keypoints", "").replace("_pose", ""))
        if number is None or number > MAX_NUMBER:
            raise DataError(
                f"{path} has no frame number in its name.", "OpenPose names them CLIP_000000000012_keypoints.json"
            )
        if number in files:
            raise DataError(f"{path} and {files[number]} have the same frame number.", "Give each clip its own folder.")
        files[number] = path
    if not files:
        raise DataError(f"{folder} has no JSON files.", HINT)
    people: dict[int, list[Person]] = {}
    found = set()
    for number, path in sorted(files.items()):
        value = load_json(path)
        if not isinstance(value, dict) or "people" not in value:
            raise wrong(path, "the file", "has no people")
        for index, record in enumerate(as_items(value["people"], path, "people", MAX_PEOPLE)):
            where = f"person {index}"
            if not isinstance(record, dict) or "pose_keypoints_2d" not in record:
                raise wrong(path, where, "has no pose_keypoints_2d")
            if record["pose_keypoints_2d"] == []:  # a face or a hand without a body
                continue
            points = as_points(record["pose_keypoints_2d"], tuple(_OPENPOSE), path, f"pose_keypoints_2d of {where}")
            found.add(len(points))
            person = as_person(points, {n: row for row, n in enumerate(_OPENPOSE[len(points)])}, min_score)
            add_person(people, number, person, path, where)
    if not people:
        raise DataError(f"{folder} has nobody in it.", "Choose a lower --min-score, or run the pose estimator again.")
    form = "OpenPose COCO-18" if found == {18} else "OpenPose BODY_25"
    return Keypoints(folder, form, people, min(files), len(files))
