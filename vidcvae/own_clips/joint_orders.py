"""The order in which each keypoint format lists the points of a person.

Sources: the papers of COCO and COCO-WholeBody; OpenPose's poseParameters.cpp for BODY_25 and COCO-18, and the same file
in the branch of experimental models for BODY_25B; the README of Halpe-FullBody for HALPE-26. For MediaPipe, see
``landmarks``.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vidcvae.own_clips.skeleton import JOINTS

_COCO17 = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
FEET = ("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel")

# Points whose names are not joints of ``skeleton`` are not drawn. The neck of HALPE-26 is one of them, because its data
# sets place it at different heights: the middle of the shoulders is used, as in OpenPose's own training data.
ORDERS: dict[str, tuple[str, ...]] = {
    "coco17": _COCO17,
    "wholebody133": _COCO17 + FEET,  # followed by face and hands, which are not drawn
    "body25": JOINTS,
    "body25b": (*_COCO17, "upper_neck", "head_top", *FEET),
    "coco18": tuple(name for name in JOINTS[:19] if name != "mid_hip"),
    "halpe26": (
        *_COCO17, "head_top", "upper_neck", "middle_of_hips",
        "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe", "left_heel", "right_heel",
    ),
}  # fmt: skip
COUNTS = {"coco17": 17, "wholebody133": 133, "body25": 25, "body25b": 25, "coco18": 18, "halpe26": 26}
FORMATS = (*ORDERS, "mediapipe33")
TITLES = {
    "coco17": "COCO-17", "wholebody133": "COCO-WholeBody", "body25": "OpenPose BODY_25",
    "body25b": "OpenPose BODY_25B", "coco18": "OpenPose COCO-18", "halpe26": "HALPE-26", "mediapipe33": "MediaPipe",
}  # fmt: skip

_BONES = (
    ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"),
    *((f"{side}_{a}" if a != "nose" else a, f"{side}_{b}") for side in ("left", "right") for a, b in (
        ("nose", "eye"), ("eye", "ear"), ("shoulder", "elbow"), ("elbow", "wrist"), ("shoulder", "hip"),
        ("hip", "knee"), ("knee", "ankle"), ("ankle", "heel"), ("ankle", "big_toe"),
    )),
)  # fmt: skip
_MIN_BONES = 4  # a person with fewer visible bones does not vote
_CLEARLY = 0.8  # a person votes if the bones in one order are shorter than this share of those in the other
_AGREED = 0.9  # share of the votes that decides
_BODY = 0.75  # of the mean distance between two points: longer bones mean that the points are in a third order


def order_of_25(people: Iterable[np.ndarray]) -> str | None:
    """The order of the people's points, "body25" or "body25b"; None if they do not show it clearly.

    people: (25, 2) each; NaN for a point that was not found.

    In the wrong order, lines cross the body, so bones are long. This does not depend on how a person stands, lies or
    turns. For 100 real people in BODY_25B, the mean bone is 0.32 to 0.42 times as long as the mean distance between two
    points in the right order, and 0.82 to 1.03 times as long in the wrong one.
    """
    votes: dict[str, list[float]] = {"body25": [], "body25b": []}
    for points in people:
        length = {order: _bone_length(points, order) for order in votes}
        best, other = sorted(votes, key=lambda order: length[order])
        if length[best] < _CLEARLY * length[other]:  # false if one is NaN
            votes[best].append(length[best])
    chosen = max(votes, key=lambda order: len(votes[order]))
    count = sum(map(len, votes.values()))
    if not count or len(votes[chosen]) < _AGREED * count or np.median(votes[chosen]) > _BODY:
        return None
    return chosen


def _bone_length(points: np.ndarray, order: str) -> float:
    """The mean length of the visible bones over the mean distance between points; NaN if too few are visible."""
    names = ORDERS[order]
    starts, ends = ([names.index(bone[end]) for bone in _BONES] for end in (0, 1))
    bones = np.hypot(*(points[starts] - points[ends]).T)
    bones = bones[np.isfinite(bones)]
    seen = points[np.isfinite(points).all(1)]
    apart = np.hypot(*(seen[:, None] - seen).T).sum() / max(1, len(seen) * (len(seen) - 1))
    return float(bones.mean() / apart) if len(bones) >= _MIN_BONES and apart > 0 else float("nan")
