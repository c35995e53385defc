"""Somebody's motion on a figure of other proportions: by hand, and on a dancer whose limbs are known."""

from __future__ import annotations

import numpy as np
import pytest

from vidcvae.errors import DataError
from vidcvae.own_clips import limbs
from vidcvae.own_clips.skeleton import JOINTS, LIMBS

from .. import video_clips as clips

AT = {name: row for row, name in enumerate(JOINTS)}
SIZE = (100, 200)


@pytest.fixture(scope="module")
def dancer() -> np.ndarray:
    """(80, 25, 2) in a picture of 100x200, turning and waving."""
    return clips.make_clip(80, SIZE, seed=3).joints


def grown(joints: np.ndarray, factors: dict[str, float]) -> np.ndarray:
    """The same motion by somebody whose limbs are so much longer, by the name of their outer end; hips stay."""
    made = np.full_like(joints, np.nan)
    made[:, AT["neck"]] = joints[:, AT["mid_hip"]] + factors.get("mid_hip", 1.0) * (
        joints[:, AT["neck"]] - joints[:, AT["mid_hip"]]
    )
    for start, end in LIMBS:
        factor = factors.get(end.partition("_")[2] if end.startswith(("right", "left")) else end, 1.0)
        made[:, AT[end]] = made[:, AT[start]] + factor * (joints[:, AT[end]] - joints[:, AT[start]])
    return made


LONG_LEGS = {"knee": 1.3, "ankle": 1.3, "elbow": 0.7, "wrist": 0.7, "mid_hip": 0.9, "shoulder": 1.2}


def test_limbs_take_the_targets_lengths_and_keep_their_directions(dancer: np.ndarray) -> None:
    target = grown(dancer, LONG_LEGS)
    moved = limbs.move(dancer, limbs.build(target), (400, 400))
    assert moved.scale == pytest.approx(1.3)
    for start, end in LIMBS:
        if end.endswith(("eye", "ear")):
            continue
        own, theirs, made = (j[:, AT[end]] - j[:, AT[start]] for j in (dancer, target, moved.joints))
        np.testing.assert_allclose(made, theirs, atol=1e-9, err_msg=end)
        np.testing.assert_allclose(np.arctan2(*made.T), np.arctan2(*own.T), atol=1e-9)


def test_hips_go_as_far_as_legs_are_long_and_feet_stay_on_the_floor(dancer: np.ndarray) -> None:
    """She also jumps, by 10 pixels in frames 20 to 29: 13 for legs of 1.3 times the length."""
    target = limbs.build(grown(dancer + np.array([70, 60]), LONG_LEGS))
    dancer = dancer.copy()
    dancer[20:30, :, 1] -= 10
    moved = limbs.move(dancer, target, (400, 400)).joints
    feet = [AT[name] for name in JOINTS if name.endswith(("ankle", "heel", "toe"))]
    own, made = (np.nanmax(j[:, feet, 1], axis=1) for j in (dancer, moved))
    np.testing.assert_allclose(made - target.floor, 1.3 * (own - np.median(own)), atol=0.05)
    own, made = (j[:, AT["mid_hip"], 0] for j in (dancer, moved))
    np.testing.assert_allclose(made - np.median(made), 1.3 * (own - np.median(own)), atol=0.05)
    assert np.median(made) == pytest.approx(target.middle, abs=0.05)


def test_it_begins_where_the_first_frame_is_but_stays_in_the_picture(dancer: np.ndarray) -> None:
    target = limbs.build(dancer)
    assert limbs.move(dancer, target, SIZE, 100.0).joints[0, AT["mid_hip"], 0] == pytest.approx(100)
    moved = limbs.move(dancer, target, SIZE, 5.0)
    assert moved.joints[0, AT["mid_hip"], 0] > 5
    columns = moved.joints[..., 0]
    assert np.nanmin(columns) > -4 and moved.outside <= 4  # a fiftieth of the frames, and a pixel, may be out
    assert limbs.move(dancer * 10, target, (8, 8)).outside == 80


def test_what_the_figure_never_shows_is_not_drawn_and_what_is_missing_is_missing(dancer: np.ndarray) -> None:
    toeless, one_armed = dancer.copy(), dancer.copy()
    toes = [AT[name] for name in JOINTS if name.endswith("toe")]
    toeless[:, toes] = np.nan
    toeless[3, toes] = dancer[3, toes]  # a slip of the estimator
    one_armed[10, [AT["left_elbow"], AT["neck"]]] = np.nan
    moved = limbs.move(one_armed, limbs.build(toeless), SIZE).joints
    assert np.isnan(moved[:, toes]).all()
    assert np.isnan(moved[10, AT["left_elbow"]]).all() and np.isfinite(moved[10, AT["right_wrist"]]).all()
    assert np.isfinite(moved[11, AT["left_elbow"]]).all()


def test_legs_out_of_sight_are_refused(dancer: np.ndarray) -> None:
    bust = dancer.copy()
    bust[:, [AT[name] for name in JOINTS if name.endswith(("hip", "knee", "ankle", "heel", "toe"))]] = np.nan
    with pytest.raises(DataError, match="hips and feet"):
        limbs.build(bust)
    with pytest.raises(DataError, match="hips and feet"):
        limbs.move(bust, limbs.build(dancer), SIZE)
