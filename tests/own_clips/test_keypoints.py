"""Keypoint files: what each format's joints become, and that whatever is wrong in one is named with its place."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidcvae.errors import DataError, UsageError
from vidcvae.own_clips import landmarks
from vidcvae.own_clips.keypoints import read_keypoints
from vidcvae.own_clips.skeleton import JOINTS

from .. import video_clips as clips

SIZE = (60, 80)
NAMED = {name: row for row, name in enumerate(JOINTS)}


@pytest.fixture(scope="module")
def joints() -> np.ndarray:
    """Four frames of known places, nobody in frame 2, no left ankle in frame 3."""
    places = np.random.default_rng(0).uniform(5, 55, (4, 25, 2))
    for name, sides in {"neck": "shoulder", "mid_hip": "hip"}.items():
        both = places[:, NAMED[f"left_{sides}"]] + places[:, NAMED[f"right_{sides}"]]
        places[:, NAMED[name]] = both / 2
    places[2] = np.nan
    places[3, NAMED["left_ankle"]] = np.nan
    return places


def check(found: Any, joints: np.ndarray, names: tuple[str, ...], scale: Any = 1.0) -> None:
    """Every joint of ``names`` is where it was put, and the others are missing."""
    assert sorted(found.people) == [0, 1, 3]
    for frame, people in found.people.items():
        (person,) = people
        for name, row in NAMED.items():
            expected = joints[frame, row] if name in (*names, "neck", "mid_hip") else [np.nan, np.nan]
            np.testing.assert_allclose(person[row] * scale, expected, atol=1e-9, err_msg=f"{name} of {frame}")


def test_coco_results(joints: np.ndarray, tmp_path: Path) -> None:
    found = read_keypoints(clips.write_coco(tmp_path / "k.json", joints))
    assert (found.form, found.frames, found.fractions) == ("COCO-17", None, False)
    check(found, joints, clips.COCO)


def test_coco_wholebody_has_feet(joints: np.ndarray, tmp_path: Path) -> None:
    names = (*clips.COCO, *clips.FEET)
    found = read_keypoints(clips.write_coco(tmp_path / "k.json", joints, names=names, length=133))
    assert found.form == "COCO-WholeBody"
    check(found, joints, names)


def test_coco_annotations_tell_of_every_image(joints: np.ndarray, tmp_path: Path) -> None:
    """Ids in any order and of any size: the number in the image's file name counts, and feet stand apart."""
    records = clips.coco(joints)
    for record in records:
        record["foot_kpts"] = clips.triples(joints[record["image_id"]], clips.FEET, 2)
        record["image_id"] = 900 - record["image_id"]
    images = [{"id": 900 - t, "file_name": f"out/frame_{t:05d}.jpg", "width": 80, "height": 60} for t in range(4)]
    (tmp_path / "k.json").write_text(json.dumps({"images": images, "annotations": records, "categories": []}))
    found = read_keypoints(tmp_path / "k.json")
    assert (found.form, found.first, found.frames, found.size) == ("COCO-WholeBody", 0, 4, (80, 60))
    check(found, joints, (*clips.COCO, *clips.FEET))


def test_openpose_of_25_and_of_18_joints(joints: np.ndarray, tmp_path: Path) -> None:
    # places drawn at random are no body's, whose order could be told
    found = read_keypoints(clips.write_openpose(tmp_path / "25", joints), "body25")
    assert (found.form, found.first, found.frames) == ("OpenPose BODY_25", 0, 4)
    check(found, joints, JOINTS)
    found = read_keypoints(clips.write_openpose(tmp_path / "18", joints, clips.OPENPOSE18))
    assert found.form == "OpenPose COCO-18"
    check(found, joints, clips.OPENPOSE18)


ORDERS = {"coco17": clips.COCO, "coco18": clips.OPENPOSE18, "body25": JOINTS, "body25b": clips.BODY25B,
          "halpe26": clips.HALPE26, "wholebody133": (*clips.COCO, *clips.FEET)}  # fmt: skip


@pytest.mark.parametrize("form", ORDERS)
@pytest.mark.parametrize("container", ["COCO JSON", "OpenPose folder"])
def test_every_order_is_read_from_either_container(
    joints: np.ndarray, tmp_path: Path, form: str, container: str
) -> None:
    names = (*ORDERS[form], *[""] * (133 - 23 if form == "wholebody133" else 0))
    if container == "COCO JSON":
        path = clips.write_coco(tmp_path / "k.json", joints, names=names)
    else:
        path = clips.write_openpose(tmp_path / "k", joints, names)
    check(read_keypoints(path, form), joints, ORDERS[form])
    if "25" not in form:  # places drawn at random are no body's, whose order could be told
        check(read_keypoints(path), joints, ORDERS[form])


def test_people_of_another_number_of_points_are_named(joints: np.ndarray, tmp_path: Path) -> None:
    folder = clips.write_openpose(tmp_path / "k", joints[:1])
    clips.write_openpose(tmp_path / "18", joints[:1], clips.OPENPOSE18, first=1)
    next((tmp_path / "18").iterdir()).rename(folder / "clip_1_keypoints.json")
    with pytest.raises(DataError, match=r"clip_1_keypoints.json: person 0 has 18 points, and the first person 25"):
        read_keypoints(folder)
    # but feet may be known of some people only
    both = clips.coco(joints[:1]) + clips.coco(joints[1:2], 1)
    both[1]["foot_kpts"] = clips.triples(joints[1], clips.FEET)
    (tmp_path / "k.json").write_text(json.dumps(both))
    first, second = (people[0] for people in read_keypoints(tmp_path / "k.json").people.values())
    assert np.isfinite(first).all(1).sum() == 19 and np.isfinite(second).all()


@pytest.mark.parametrize("name", ["m.json", "m.csv"])
def test_mediapipe(joints: np.ndarray, tmp_path: Path, name: str) -> None:
    found = read_keypoints(clips.write_mediapipe(tmp_path / name, joints, SIZE))
    assert (found.form, found.fractions) == ("MediaPipe", True)
    check(found, joints, clips.MEDIAPIPE, scale=[80, 60])


def test_mediapipe_as_other_scripts_write_it(joints: np.ndarray, tmp_path: Path) -> None:
    """Long CSV by names; wide CSV that counts from 1, without a frame; JSON of results and of plain numbers."""
    people = [clips.landmarks(frame, SIZE) if np.isfinite(frame).any() else [] for frame in joints]
    with (tmp_path / "long.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["frame", "landmark_name", "x", "y", "visibility"]]
            + [[t, name.upper(), p["x"], p["y"], p["visibility"]]
               for t, person in enumerate(people) for name, p in zip(landmarks.NAMES, person, strict=False)]
        )  # fmt: skip
    with (tmp_path / "wide.csv").open("w", newline="") as file:
        rows = [[v for p in person for v in p.values()] or [""] * 132 for person in people]
        head = [f"{axis}{k}" for k in range(1, 34) for axis in "xyzv"]
        csv.writer(file).writerows([["class", *head], *(["dance", *row] for row in rows)])
    (tmp_path / "results.json").write_text(
        json.dumps({"frames": [{"pose_landmarks": [p] if p else []} for p in people]})
    )
    plain = [[list(p.values()) for p in person] or None for person in people]
    (tmp_path / "plain.json").write_text(json.dumps(plain))
    for name, frames in (("long.csv", None), ("wide.csv", 4), ("results.json", 4), ("plain.json", 4)):
        found = read_keypoints(tmp_path / name)
        assert found.frames == frames, name
        check(found, joints, clips.MEDIAPIPE, scale=[80, 60])


def test_the_first_frame_is_known_even_if_nobody_is_in_it(joints: np.ndarray, tmp_path: Path) -> None:
    late = joints.copy()
    late[0] = np.nan
    found = read_keypoints(clips.write_mediapipe(tmp_path / "m.csv", late, SIZE))
    assert sorted(found.people) == [1, 3] and found.first == 0 and found.frames is None


def test_joints_below_the_score_are_missing(tmp_path: Path) -> None:
    points = [10.0, 10.0, 0.4] * 16 + [20.0, 20.0, 0.2]
    (tmp_path / "k.json").write_text(json.dumps([{"image_id": 0, "keypoints": points}]))
    (person,) = read_keypoints(tmp_path / "k.json").people[0]
    assert np.isnan(person[NAMED["right_ankle"]]).all() and np.isfinite(person[NAMED["left_ankle"]]).all()
    with pytest.raises(DataError, match="nobody"):
        read_keypoints(tmp_path / "k.json", min_score=0.5)


@pytest.mark.parametrize("container", ["COCO JSON", "OpenPose folder", "MediaPipe JSON", "MediaPipe CSV"])
def test_every_reader_leaves_out_joints_below_the_score(joints: np.ndarray, tmp_path: Path, container: str) -> None:
    """Joint k of 17 has the score k / 20: with a least score of 0.5 those from number 10 on are found."""
    scores = {name: k / 20 for k, name in enumerate(clips.COCO)}

    def rescored(names: tuple[str, ...]) -> list[float]:
        flat = clips.triples(joints[0], names)
        flat[2::3] = [scores.get(name, 0.0) for name in names]
        return flat

    if container == "OpenPose folder":
        path = tmp_path / "k"
        path.mkdir()
        people = {"people": [{"pose_keypoints_2d": rescored(clips.OPENPOSE18)}]}
        (path / "clip_0_keypoints.json").write_text(json.dumps(people))
    elif container == "COCO JSON":
        path = tmp_path / "k.json"
        path.write_text(json.dumps([{"image_id": 0, "keypoints": rescored(clips.COCO)}]))
    else:
        path = tmp_path / ("m.json" if container == "MediaPipe JSON" else "m.csv")
        rows = np.array(rescored(clips.MEDIAPIPE)).reshape(-1, 3).tolist()
        if path.suffix == ".json":
            path.write_text(json.dumps([[[x, y, 0.0, v] for x, y, v in rows]]))
        else:
            head = ",".join(f"{axis}{k}" for k in range(33) for axis in "xyv")
            path.write_text(f"{head}\n{','.join(str(v) for row in rows for v in row)}\n")
    for least, expected in ((0.5, set(clips.COCO[10:])), (0.0, set(clips.COCO[1:])), (0.76, {clips.COCO[16]})):
        (person,) = read_keypoints(path, min_score=least).people[0]
        found = {JOINTS[row] for row in np.flatnonzero(np.isfinite(person[:, 0]))}
        assert found - {"neck", "mid_hip"} == expected, least
    with pytest.raises(DataError, match="nobody"):
        read_keypoints(path, min_score=0.9)


# --- what is wrong is named ------------------------------------------------------------------------

GOOD = {"image_id": 0, "keypoints": [1.0, 1.0, 1.0] * 17}
LANDMARK = {"x": 0.5, "y": 0.5}
WIDE = ["frame", *(f"{axis}{k}" for k in range(33) for axis in "xy")]
WRONG: dict[str, tuple[str, Any, str]] = {
    "no JSON": ("k.json", "{", "not readable JSON"),
    "bytes": ("k.json", b"\xff\xfe\x00", "not readable JSON"),
    "deep": ("k.json", "[" * 100_000, "nested too deeply"),
    "an empty file": ("k.json", "", "not readable JSON"),
    "an empty list": ("k.json", [], "describes no frame"),
    "another object": ("k.json", {"keys": 1}, "in an unknown format"),
    "one OpenPose file": ("k.json", {"people": []}, "OpenPose's file of one frame"),
    "no keypoints": ("k.json", [GOOD, {"image_id": 3}], "annotation 1 has no image_id or no keypoints"),
    "15 joints": ("k.json", [{"image_id": 0, "keypoints": [1.0] * 45}], "not 3 for each of 17, 18, 25, 26 or 133"),
    "points that are no list": ("k.json", [{**GOOD, "keypoints": {}}], "annotation 0 is not a list of numbers"),
    "a text": ("k.json", [{"image_id": 0, "keypoints": ["1"] * 51}], "annotation 0 has '1' instead of a coordinate"),
    "a boolean": ("k.json", [{"image_id": 0, "keypoints": [True] * 51}], "True instead of a coordinate"),
    "infinity": ("k.json", '[{"image_id": 0, "keypoints": [' + "1e999, " * 50 + "1]}]", "inf instead of a coordinate"),
    "far away": ("k.json", [{"image_id": 0, "keypoints": [1e7] * 51}], "10000000.0 instead"),
    "an endless number": ("k.json", '[{"image_id": ' + "9" * 5000 + ', "keypoints": []}]', "k.json"),
    "a negative frame": ("k.json", [{**GOOD, "image_id": -1}], "annotation 0 is -1, not the number of a frame"),
    "a frame too far": ("k.json", [{**GOOD, "image_id": 10_000_001}], "10000001, not the number of a frame"),
    "a far frame": ("k.json", [{**GOOD, "image_id": 10**9}], "not the number of a frame"),
    "an id that is a list": ("k.json", [{**GOOD, "image_id": []}], "not the number of a frame"),
    "no such image": ("k.json", {"images": [{"id": 1}], "annotations": [GOOD]}, "0, which is none of the images"),
    "images without ids": ("k.json", {"images": [{}], "annotations": [GOOD]}, "image 0 has no id"),
    "a width in fractions": (
        "k.json", {"images": [{"id": 1, "width": 640.0, "height": 480}], "annotations": []},
        r"width of image 0 is 640\.0, not a whole number of pixels",
    ),
    "no height": (
        "k.json", {"images": [{"id": 1, "width": 640}], "annotations": []},
        "height of image 0 is None, not a whole number of pixels",
    ),
    "ids twice": ("k.json", {"images": [{"id": 1}] * 2, "annotations": []}, "image 1 has no id, or that of another"),
    "annotations are no list": ("k.json", {"annotations": 3}, "annotations is not a list"),
    "a crowd": ("k.json", [GOOD] * 101, "101th person of frame 0"),
    "12 landmarks": ("k.json", [[], [LANDMARK] * 12], "frame 1 has 12 landmarks, not 33"),
    "no y": ("k.json", [[{"x": 1}] * 33], "landmark 0 of frame 0 is .*without x and y"),
    "landmarks elsewhere": ("k.json", {"frames": [{"points": []}]}, "frame 0 has none of landmarks"),
    "CSV of nothing": ("k.csv", "", "describes no frame"),
    "CSV in capitals": ("k.CSV", "", "describes no frame"),
    "CSV without columns": ("k.csv", "a,b\n1,2\n", "line 1 has no x and y of landmark 0, nose"),
    "CSV row too short": ("k.csv", ",".join(WIDE) + "\n0,1\n", "line 2 has 2 columns, and the first line 67"),
    "CSV with a word": ("k.csv", f"{','.join(WIDE)}\n0,{'0.5,' * 65}nose\n", "column y32 of line 2 has 'nose' instead"),
    "CSV with a wrong frame": ("k.csv", f"{','.join(WIDE)}\nx{',0.5' * 66}\n", "the frame in line 2 is 'x'"),
    "CSV with an odd landmark": ("k.csv", "frame,landmark,x,y\n0,tail,1,1\n", "line 2 has the landmark 'tail'"),
    "CSV with a landmark twice": ("k.csv", "frame,landmark,x,y\n" + "0,nose,1,1\n" * 2, "line 3 is the second one"),
    "CSV of bytes": ("k.csv", b"\xff\xfe\x00", "not readable as CSV"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, case: str) -> None:
    name, content, message = WRONG[case]
    content = content if isinstance(content, str | bytes) else json.dumps(content)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught:
        read_keypoints(tmp_path / name)
    assert str(tmp_path / name) in caught.value.message and caught.value.hint


def test_openpose_folders_that_are_wrong_are_named(tmp_path: Path) -> None:
    def folder(name: str, **files: str) -> Path:
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / f"{file}.json").write_text(text)
        return tmp_path / name

    body = json.dumps({"people": [{"pose_keypoints_2d": [1.0] * 75}]})
    mpi = json.dumps({"people": [{"pose_keypoints_2d": [1.0] * 45}]})
    unseen = json.dumps({"people": [{"pose_keypoints_2d": [0.0] * 75}]})
    for path, words in [
        (folder("empty"), "has no JSON files"),
        (folder("nameless", clip_keypoints=body), r"clip_keypoints.json has no frame number"),
        (folder("twice", a_1_keypoints=body, b_1_keypoints=body), "have the same frame number"),
        (folder("people", a_1_keypoints="{}"), r"a_1_keypoints.json: the file has no people"),
        (folder("mpi", a_1_keypoints=body, a_2_keypoints=mpi), r"a_2_keypoints.json: .* person 0 has 45 numbers"),
        (folder("cut", a_1_keypoints=body[:30]), r"a_1_keypoints.json is not readable JSON"),
        (folder("nobody", a_1_keypoints='{"people": []}'), "has nobody in it"),
        (folder("unseen", a_1_keypoints=unseen), "has nobody in it"),  # not: in an order that is not told
        (folder("crowd", a_1_keypoints=json.dumps({"people": [{}] * 101})), "people has 101 entries, more than 100"),
    ]:
        with pytest.raises(DataError, match=words):
            read_keypoints(path)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """512 MiB and a byte, which take no room on the disk."""
    with (tmp_path / "k.json").open("wb") as file:
        file.truncate(2**29 + 1)
    with pytest.raises(DataError, match=r"cannot read .*k\.json: it is too large"):
        read_keypoints(tmp_path / "k.json")


def test_a_format_that_is_forced_is_the_one_read(tmp_path: Path) -> None:
    (tmp_path / "k.json").write_text(json.dumps([GOOD]))
    assert read_keypoints(tmp_path / "k.json", "coco17").form == "COCO-17"
    with pytest.raises(DataError, match="frame 0 has none of landmarks"):
        read_keypoints(tmp_path / "k.json", "mediapipe33")
    with pytest.raises(DataError, match="annotation 0 has 51 numbers, not 3 for each of 26 joints"):
        read_keypoints(tmp_path / "k.json", "halpe26")
    (tmp_path / "k.csv").write_text("")
    with pytest.raises(DataError, match="is a CSV file, but coco17 keypoints are JSON"):
        read_keypoints(tmp_path / "k.csv", "coco17")
    with pytest.raises(DataError, match="is a folder, but mediapipe33"):
        read_keypoints(tmp_path, "mediapipe33")
    with pytest.raises(DataError, match="there are no keypoints"):
        read_keypoints(tmp_path / "nowhere.json")
    with pytest.raises(UsageError, match=r"'coco'\. Did you mean 'coco1[78]'"):
        read_keypoints(tmp_path / "k.json", "coco")


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["image_id", "keypoints", "annotations", "images", "frames", "landmarks", "x", "y", "id", "frame"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=JSONISH)
def test_any_json_is_read_or_refused(tmp_path: Path, value: Any) -> None:
    (tmp_path / "k.json").write_text(json.dumps(value))
    for form in ("auto", "coco17", "mediapipe33"):
        with pytest.raises(DataError):
            read_keypoints(tmp_path / "k.json", form)
