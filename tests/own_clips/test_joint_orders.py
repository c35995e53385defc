"""BODY_25 told from BODY_25B, both of 25 points, by the people's shape: however they stand, lie or are turned."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from vidcvae.errors import DataError
from vidcvae.own_clips import joint_orders
from vidcvae.own_clips.joint_orders import order_of_25
from vidcvae.own_clips.keypoints import read_keypoints
from vidcvae.own_clips.skeleton import JOINTS
from vidcvae.scenes import dancer

from .. import video_clips as clips

EXTRA = ("upper_neck", "head_top")
ORDERS = {"body25": JOINTS, "body25b": (*clips.COCO, *EXTRA, *clips.FEET)}
# the order of Kinect's second edition, whose 25 joints are in neither
KINECT = ("mid_hip", "", "neck", "head_top", "left_shoulder", "left_elbow", "left_wrist", "", "right_shoulder",
          "right_elbow", "right_wrist", "", "left_hip", "left_knee", "left_ankle", "left_big_toe", "right_hip",
          "right_knee", "right_ankle", "right_big_toe", "upper_neck", "", "", "", "")  # fmt: skip
FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
POSES: dict[str, dict[str, float]] = {
    "stands": {},
    "walks to the side": {"yaw": 1.4, "gait": 0.6, "phase": 1.0},
    "is seen from behind": {"yaw": np.pi},
    "lifts the arms": {"right_raise": 2.8, "left_raise": 2.6},
    "waves": {"right_raise": 1.9, "right_flex": 1.5},
    "bends": {"yaw": 1.2, "lean": 1.25, "crouch": 0.25, "right_swing": 0.9, "left_swing": 0.9},
    "squats": {"crouch": 0.9, "yaw": 0.3, "right_swing": 1.4, "left_swing": 1.4},
    "does a split": {"spread": 0.6, "right_raise": 1.5, "left_raise": 1.5},
}
LIES, UPSIDE_DOWN, TILTED = np.pi / 2, np.pi, -0.7


def person(names: Sequence[str], pose: dict[str, float], turn: float = 0, seen: Sequence[str] = ()) -> np.ndarray:
    """The points ``names`` of somebody in the picture, (n, 2) in pixels; only those ``seen``, if any are named."""
    body = dancer.joints({**dict.fromkeys(dancer.PARAMETERS, 0.0), **pose})
    up = body["head"] - body["neck"]
    body |= {"upper_neck": body["neck"] + 0.3 * up, "head_top": body["head"] + 0.7 * up}
    hidden = {n for n in FACE if body[n][2] < body["head"][2] - 0.03}  # turned away
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = np.full((len(names), 2), np.nan)
    for row, name in enumerate(names):
        if name in body and name not in hidden and (not seen or name in seen):
            points[row] = 300 + 200 * turned @ (body[name][:2] * [1, -1])
    return points


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("pose", POSES)
def test_each_order_is_told_by_one_person_in_any_pose(order: str, pose: str) -> None:
    for turn in (0, LIES, UPSIDE_DOWN, TILTED):
        alone = person(ORDERS[order], POSES[pose], turn)
        assert order_of_25([alone]) == order, turn
        assert order_of_25([alone * [-1, 1]]) == order, turn  # a mirrored picture


PARTS = {
    "upper body": (*FACE, "neck", *EXTRA, *(n for n in JOINTS if n.endswith(("shoulder", "elbow", "wrist")))),
    "legs": tuple(n for n in JOINTS if n.endswith(("hip", "knee", "ankle", "toe", "heel"))),
    "no face, no feet": tuple(n for n in JOINTS if n.endswith(("hip", "knee", "ankle", "shoulder", "elbow", "wrist"))),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("part", PARTS)
def test_each_order_is_told_by_parts_of_people(order: str, part: str) -> None:
    assert order_of_25([person(ORDERS[order], pose, seen=PARTS[part]) for pose in POSES.values()]) == order


def inaccurate(order: str, count: int = 200) -> Iterator[np.ndarray]:
    """People of whom three points in ten are missing and the others up to a head's width off, as in a blurred clip."""
    draw = np.random.default_rng(0)
    for k in range(count):
        points = person(ORDERS[order], list(POSES.values())[k % len(POSES)], draw.uniform(0, 2 * np.pi))
        points += draw.normal(0, 8, points.shape)  # of a figure 340 pixels tall
        points[draw.random(25) < 0.3] = np.nan
        yield points


@pytest.mark.parametrize("order", ORDERS)
def test_each_order_is_told_by_many_who_are_seen_badly(order: str) -> None:
    assert order_of_25(inaccurate(order)) == order


def test_where_it_stays_unclear_none_is_told() -> None:
    draw = np.random.default_rng(0)
    standing = {order: person(names, {}) for order, names in ORDERS.items()}
    assert order_of_25([]) is None
    assert order_of_25([np.full((25, 2), np.nan), np.full((25, 2), 7.0)]) is None  # nobody; all in one place
    assert order_of_25([person(JOINTS, {}, seen=("nose", "neck", "left_shoulder"))]) is None  # too few points
    assert order_of_25([standing["body25"]] * 5 + [standing["body25b"]] * 5) is None
    assert order_of_25([standing["body25"]] * 19 + [standing["body25b"]]) == "body25"  # one of twenty may be wrong
    assert order_of_25([standing["body25"]] * 9 + [standing["body25b"]]) == "body25"  # one of ten
    assert order_of_25([standing["body25"]] * 8 + [standing["body25b"]] * 2) is None
    assert order_of_25(person(KINECT, pose) for pose in POSES.values()) is None
    assert order_of_25(draw.uniform(0, 300, (200, 25, 2))) is None


def test_bones_are_measured_by_the_distances_between_points_where_four_are_seen() -> None:
    """Five points in a row, 5 pixels apart, joined by four bones: of ten pairs four are one bone apart, three two, two
    three and one four, on average two bones."""
    arms = ("right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist")
    points = np.full((25, 2), np.nan)
    for x, name in enumerate(arms):
        points[JOINTS.index(name)] = (7 + 3 * x, 5 - 4 * x)
    assert joint_orders._bone_length(points, "body25") == pytest.approx(0.5)
    points[JOINTS.index("left_wrist")] = np.nan
    assert np.isnan(joint_orders._bone_length(points, "body25")), "of three it is not told"


def write(folder: Path, people: Sequence[np.ndarray]) -> Path:
    folder.mkdir()
    for number, points in enumerate(people):
        flat = [v for x, y in points.tolist() for v in ((x, y, 0.8) if np.isfinite(x) else (0, 0, 0))]
        text = json.dumps({"people": [{"pose_keypoints_2d": flat}]})
        (folder / f"clip_{number:012d}_keypoints.json").write_text(text)
    return folder


def test_a_folder_is_read_in_the_order_that_its_people_are_in(tmp_path: Path) -> None:
    for order, names in ORDERS.items():
        people = [person(names, pose, LIES) for pose in POSES.values()]
        found = read_keypoints(write(tmp_path / order, people))
        assert found.form == {"body25": "OpenPose BODY_25", "body25b": "OpenPose BODY_25B"}[order]
        for number, points in enumerate(people):
            for name in ("left_wrist", "right_ankle", "left_eye", "right_heel"):
                place = found.people[number][0][JOINTS.index(name)]
                np.testing.assert_allclose(place, points[names.index(name)], err_msg=name)


def test_an_unclear_folder_is_refused_with_what_to_look_at_and_what_to_type(tmp_path: Path) -> None:
    folder = write(tmp_path / "k", [person(KINECT, pose) for pose in POSES.values()])
    with pytest.raises(DataError, match="unclear whether their order is OpenPose's BODY_25 or BODY_25B") as error:
        read_keypoints(folder)
    for words in ("point 1", "at the neck", "--keypoint-format body25;", "at the left eye", "body25b."):
        assert words in error.value.hint
    assert read_keypoints(folder, "body25").form == "OpenPose BODY_25"
    assert read_keypoints(folder, "body25b").form == "OpenPose BODY_25B"


def test_real_files_of_body_25b(shared: Path) -> None:
    """100 files that OpenPose wrote; joints are where its documentation of BODY_25B says they stand in the list."""
    folder = shared / "data" / "clips" / "body25b" / "json"
    found = read_keypoints(folder)
    assert (found.form, found.frames) == ("OpenPose BODY_25B", 100)
    raw = json.loads((folder / "cam03.0050.json").read_text())["people"][0]["pose_keypoints_2d"]
    (person,) = found.people[50]
    documented = {"left_shoulder": 5, "right_elbow": 8, "left_hip": 11, "right_knee": 14, "left_ankle": 15}
    for name, row in documented.items():
        np.testing.assert_array_equal(person[JOINTS.index(name)], raw[3 * row : 3 * row + 2], err_msg=name)
