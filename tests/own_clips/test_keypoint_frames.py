"""Which frame each person of a keypoint file is in, and which files and entries are passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidcvae.errors import DataError
from vidcvae.own_clips.keypoints import read_keypoints
from vidcvae.own_clips.skeleton import JOINTS


def coco(image_id: object, x: float) -> dict[str, object]:
    return {"image_id": image_id, "keypoints": [x, 5.0, 1.0] * 17}


def frames(path: Path) -> dict[int, list[float]]:
    """For each frame where its people's noses are."""
    nose = JOINTS.index("nose")
    return {number: [person[nose, 0] for person in people] for number, people in read_keypoints(path).people.items()}


@pytest.mark.parametrize(
    ("images", "numbers"),
    [
        ([(30, "a7.jpg"), (10, "a3.jpg"), (20, "a5.jpg")], {30: 7, 10: 3, 20: 5}),
        ([(30, "a.jpg"), (10, "b.jpg"), (20, "c.jpg")], {30: 2, 10: 0, 20: 1}),  # their rank
        ([(30, "a7.jpg"), (10, "a3.jpg"), (20, "c.jpg")], {30: 2, 10: 0, 20: 1}),
        ([(30, "a7.jpg"), (10, "b7.jpg"), (20, "a5.jpg")], {30: 2, 10: 0, 20: 1}),
        ([("z", "a.jpg"), ("x", "b.jpg"), ("y", "c.jpg")], {"z": 0, "x": 1, "y": 2}),  # their order in the file
        ([(30, "a.jpg"), ("x", "b.jpg"), (20, "c.jpg")], {30: 0, "x": 1, 20: 2}),
    ],
)
def test_an_image_s_number_is_that_of_its_file_or_else_its_rank(
    tmp_path: Path, images: list[tuple[Any, str]], numbers: dict[Any, int]
) -> None:
    people = [coco(key, 10.0 * i) for i, (key, _) in enumerate(images)]
    listed = [{"id": key, "file_name": name} for key, name in images]
    (tmp_path / "k.json").write_text(json.dumps({"images": listed, "annotations": people}))
    assert frames(tmp_path / "k.json") == {numbers[key]: [10.0 * i] for i, (key, _) in enumerate(images)}
    assert read_keypoints(tmp_path / "k.json").first == min(numbers.values())


def test_results_are_of_the_frame_in_their_id(tmp_path: Path) -> None:
    results = [coco(9, 1.0), coco("clip_00004.png", 2.0), coco(9, 3.0)]
    (tmp_path / "k.json").write_text(json.dumps(results))
    assert frames(tmp_path / "k.json") == {9: [1.0, 3.0], 4: [2.0]}
    assert read_keypoints(tmp_path / "k.json").first == 4


def body(x: float) -> dict[str, object]:
    return {"pose_keypoints_2d": [x, 5.0, 1.0] * 18}


def test_a_folder_of_openpose_files_and_what_else_lies_in_it(tmp_path: Path) -> None:
    """Other files and hidden ones are passed over, and so is a face without a body; numbers need no zeros."""
    for name, people in {
        "video2_000000000010_keypoints.json": [{"pose_keypoints_2d": []}, body(1.0), body(2.0)],
        "video2_9_pose.JSON": [body(3.0)],
        "video2_11_keypoints.json": [],
    }.items():
        (tmp_path / name).write_text(json.dumps({"people": people}))
    for name in ("notes.txt", ".video2_9_keypoints.json", "readme.md"):
        (tmp_path / name).write_text("{")
    assert frames(tmp_path) == {10: [1.0, 2.0], 9: [3.0]}
    found = read_keypoints(tmp_path)
    assert (found.first, found.frames) == (9, 3)


@pytest.mark.parametrize("person", [{}, {"face_keypoints_2d": []}, [], 3])
def test_a_person_without_a_body_s_key_is_named(tmp_path: Path, person: object) -> None:
    (tmp_path / "a_1_keypoints.json").write_text(json.dumps({"people": [body(1.0), person]}))
    with pytest.raises(DataError, match=r"a_1_keypoints.json: person 1 has no pose_keypoints_2d"):
        read_keypoints(tmp_path)


def test_images_that_are_all_of_one_size_tell_it(tmp_path: Path) -> None:
    def sizes(*sides: tuple[object, object]) -> object:
        images = [{"id": i, "file_name": f"{i}.png", "width": w, "height": h} for i, (w, h) in enumerate(sides)]
        (tmp_path / "k.json").write_text(json.dumps({"images": images, "annotations": [coco(0, 1.0)]}))
        return read_keypoints(tmp_path / "k.json").size

    assert sizes((80, 60), (80, 60)) == (80, 60)
    assert sizes((80, 60), (80, 61)) is None
    with pytest.raises(DataError, match="width of image 1 is 'wide'"):
        sizes((80, 60), ("wide", 60))


def test_the_farthest_number_and_place_and_the_most_people_are_read(tmp_path: Path) -> None:
    """Ten million, a million pixels, and a hundred in a frame; and a name of 5000 digits has no number."""
    edge = [1e6, -1e6, 1.0] * 17
    (tmp_path / "k.json").write_text(json.dumps([{"image_id": 10_000_000, "keypoints": edge}]))
    (person,) = read_keypoints(tmp_path / "k.json").people[10_000_000]
    assert person[JOINTS.index("nose")].tolist() == [1e6, -1e6]
    for beyond in (1e6 + 0.5, -1e6 - 0.5):
        (tmp_path / "k.json").write_text(json.dumps([{"image_id": 0, "keypoints": [*edge[:49], beyond, 1.0]}]))
        with pytest.raises(DataError, match=r"keypoints of annotation 0 has -?1000000\.5 instead of a coordinate"):
            read_keypoints(tmp_path / "k.json")
    named = {"images": [{"id": 5, "file_name": "9" * 5000 + ".jpg"}], "annotations": [coco(5, 1.0)]}
    (tmp_path / "k.json").write_text(json.dumps(named))
    assert frames(tmp_path / "k.json") == {0: [1.0]}

    folder = tmp_path / "folder"
    folder.mkdir()
    people = json.dumps({"people": [{"pose_keypoints_2d": []}] * 99 + [body(1.0)]})
    (folder / "a_10000000_keypoints.json").write_text(people)
    assert frames(folder) == {10_000_000: [1.0]}
    (folder / "a_10000001_keypoints.json").write_text(people)
    with pytest.raises(DataError, match=r"a_10000001_keypoints\.json has no frame number"):
        read_keypoints(folder)


def test_a_joint_of_which_one_coordinate_is_no_number_is_missing(tmp_path: Path) -> None:
    for x, y in ((np.nan, 1.0), (1.0, np.nan)):
        points = [x, y, 1.0] + [1.0, 1.0, 1.0] * 16
        (tmp_path / "k.json").write_text(json.dumps([{"image_id": 0, "keypoints": points}]))
        (person,) = read_keypoints(tmp_path / "k.json").people[0]
        assert np.isnan(person[JOINTS.index("nose")]).all()
        assert np.isfinite(person).all(1).sum() == 16 + 2, "the others, neck and middle of the hips"


def test_joints_are_found_from_the_score_on(tmp_path: Path) -> None:
    points = [1.0, 1.0, 0.3] * 9 + [1.0, 1.0, 0.29] * 8
    (tmp_path / "k.json").write_text(json.dumps([{"image_id": 0, "keypoints": points}]))
    (person,) = read_keypoints(tmp_path / "k.json", min_score=0.3).people[0]
    assert np.isfinite(person).all(1).sum() == 9 + 1, "nine, and the neck between the shoulders"
