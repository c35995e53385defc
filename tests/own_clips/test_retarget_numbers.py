"""What ``retarget`` measures and makes, on black boxes whose every number is known."""

from __future__ import annotations

import numpy as np
import pytest

from vidcvae.data.clips import Sequence
from vidcvae.errors import DataError
from vidcvae.own_clips.retarget import Figures, figures, fit_poses, likely_pose, paper_share

SIZE = (96, 64)


def box(feet: int, height: int, middle: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A pose image with a black box 8 wide, down to the row before ``feet``."""
    image = np.full((3, *size), 255, np.uint8)
    image[:, max(feet - height, 0) : feet, middle - 4 : middle + 4] = 0
    return image


def track(feet: object, height: object = 20.0, middle: object = 32.0) -> Figures:
    arrays = [np.array(values, float) for values in np.broadcast_arrays(feet, height, middle)]
    return Figures(*arrays)


# --- measuring -------------------------------------------------------------------------------------


def test_a_figure_is_the_box_around_its_ink() -> None:
    """Rows 10..29, columns 5..13; ink is what is 40 below white, over the colours together."""
    image = np.full((3, *SIZE), 255, np.uint8)
    image[:, 10, 9] = image[0, 20, 5] = image[1, 20, 13] = image[2, 29, 9] = 0
    image[:2, 10, 9] = 235  # 40 below with the third
    image[2, 10, 9] = 255
    image[:2, 3, 3] = (236, 235)  # 39: paper
    found = figures([image, np.full_like(image, 255)])
    assert (found.feet[0], found.height[0], found.middle[0]) == (30, 20, 9.5)
    assert np.isnan([found.feet[1], found.height[1], found.middle[1]]).all()


def test_paper_is_what_is_less_than_40_below_white() -> None:
    """Of two pictures of four pixels: three are white, two 39 below it over the colours, and three are ink."""
    pictures = np.full((2, 3, 2, 2), 255, np.uint8)
    pictures[0, :, 0, 0] = pictures[1, :, 1, 1] = 242
    pictures[0, :, 0, 1] = (242, 242, 241)
    pictures[1, :, 0] = 0
    assert paper_share(pictures) == 5 / 8
    assert paper_share(pictures[:1]) == 3 / 4


def test_near_is_the_twentieth_lowest_and_far_as_far_above_the_median_at_most() -> None:
    """Of feet on rows 0..100: near 95, median 50, so far is what lies no higher than 2 x 50 - 95, and half a row."""
    feet = np.arange(101.0)
    feet[5] = 4.5
    found = track(feet)
    assert (found.near, found.far) == (95, 4.5)
    feet[5] = 4.4
    assert track(feet).far == 6


@pytest.mark.parametrize(("height", "deep"), [(603, True), (604, False)])
def test_who_walks_deep_moves_by_more_than_15_percent_of_the_height(height: float, deep: bool) -> None:
    """90.5 rows between near and far are 15% of 603.3."""
    feet = np.arange(101.0)
    feet[5] = 4.5
    assert track(feet, height).deep is deep


def test_the_height_at_a_row_is_the_median_within_a_quarter_of_the_way_and_one_row_at_least() -> None:
    feet = np.arange(101.0)
    assert track(feet, feet).height_at(0) == 11  # 90 rows from far to near: rows 0..22
    assert track([10, 11, 11.5], [20, 40, 90]).height_at(10) == 30  # rows 10 and 11


# --- what is most like the first frame -------------------------------------------------------------


def test_the_frame_most_like_the_first_is_found_wherever_it_is() -> None:
    """In a second chunk, at the very beginning, and the earlier one of two alike."""
    frames = np.random.default_rng(0).integers(0, 200, (300, 3, 8, 8), dtype=np.uint8)
    poses = np.zeros((300, 3, 8, 8), np.uint8)
    poses[:, 0] = np.minimum(np.arange(300), 255)[:, None, None]
    poses[:, 1] = (np.arange(300) // 256)[:, None, None]
    frames[100] = frames[270] = frames[30]
    for number in (0, 30, 255, 256, 280, 299):
        pose = likely_pose(frames[number] + np.uint8(1), [Sequence("s", frames, {"pose": poses})])
        assert np.array_equal(pose, poses[number])
    with pytest.raises(DataError, match="no frames to look for it"):
        likely_pose(frames[0], [])


# --- fitting ---------------------------------------------------------------------------------------


def bounds(pose: np.ndarray) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what is more dark than light."""
    y, x = np.nonzero(pose[0] < 128)
    return y.min(), y.max() + 1, x.min(), x.max() + 1


def test_who_stays_is_scaled_by_the_heights_and_moved_by_the_medians() -> None:
    """Feet 40, 41, 42 go to about 52 and middles about 12 to about 30, both one and a half times as far apart."""
    poses = np.stack([box(feet, 20, middle) for feet, middle in ((40, 10), (41, 12), (42, 20))])
    fitted = fit_poses(poses, track([51, 52, 90], 30, [29, 30, 60]))
    assert fitted.scale.tolist() == [1.5] * 3
    assert fitted.outside == 0
    for pose, feet, middle in zip(fitted.poses, (50.5, 52, 53.5), (27, 30, 42), strict=True):
        assert bounds(pose) == pytest.approx((feet - 30, feet, middle - 6, middle + 6), abs=0.5)


@pytest.mark.parametrize(
    ("tall", "feet", "height", "scale"),
    [
        *((60, 70, 63, 1), (60, 70, 57, 1), (60, 70, 64, 64 / 60), (60, 70, 56, 56 / 60)),  # a twentieth
        *((10, 70, 11, 1), (10, 70, 9, 1), (10, 70, 11.5, 1.15)),  # or a row
        *((60, 70.5, 63, 1), (60, 69.5, 63, 1), (60, 71, 63, 1.05), (60, 69, 63, 1.05)),  # half a row farther off
    ],
)
def test_who_is_as_tall_as_those_wanted_on_the_spot_is_not_scaled(
    tall: int, feet: float, height: float, scale: float
) -> None:
    fitted = fit_poses(np.stack([box(70, tall, 32)] * 3), track([feet] * 3, height))
    assert fitted.scale == pytest.approx([scale] * 3)


WALK = list(range(40, 81))  # near is row 78 and far row 42: two frames lie beyond either


def test_who_walks_deep_is_scaled_along_the_way_and_no_further_than_its_ends() -> None:
    """Feet 42..78 go to 62..98, the height from 20 to 40, and what lies beyond has the scale of the end."""
    poses = np.stack([box(feet, 20, 32, (128, 64)) for feet in WALK])
    wanted = track(np.array(WALK) + 20, np.where(np.array(WALK) < 60, 20, 40))
    fitted = fit_poses(poses, wanted)
    way = np.array([(feet - 42) / 36 for feet in WALK])
    assert way[0] < 0 and way[-1] > 1
    assert fitted.scale == pytest.approx(1 + np.clip(way, 0, 1))
    for i in (0, 2, 20, 38, 40):
        feet, scale = WALK[i] + 20, fitted.scale[i]
        assert bounds(fitted.poses[i]) == pytest.approx(
            (feet - 20 * scale, feet, 32 - 4 * scale, 32 + 4 * scale), abs=1
        )


@pytest.mark.parametrize(
    ("down", "right", "outside"),
    [
        *((54, 0, 0), (55, 0, 1), (56, 0, 2)),  # feet from row 95, 96 or 97 on, of 96 rows
        *((-22, 0, 0), (-23, 0, 1), (-24, 0, 2)),  # heads from row -1, -2 or -3 on
        *((0, -10, 0), (0, -11, 1)),  # middles from column 0 or -1 on
        *((0, 52, 0), (0, 53, 1), (0, 55, 3)),  # middles up to column 64, 65 or 67, of 64 columns
    ],
)
def test_figures_that_leave_the_picture_are_counted(down: int, right: int, outside: int) -> None:
    """By more than a row over or under it, or by their middle to a side."""
    poses = np.stack([box(41 + i, 20, 10 + i) for i in range(3)])
    own = figures(poses)
    assert fit_poses(poses, Figures(own.feet + down, own.height, own.middle + right)).outside == outside


@pytest.mark.parametrize(("count", "there"), [(1, True), (2, True), (3, False)])
def test_a_dance_begins_in_the_column_of_the_first_frame_s_figure_unless_much_would_leave(
    count: int, there: bool
) -> None:
    """Of 40 frames two, a twentieth, may leave the picture for it."""
    middles = np.full(40, 20)
    middles[0] = 18
    middles[-count:] = 40
    poses = np.stack([box(41, 20, middle) for middle in middles])
    own = figures(poses)
    wanted = Figures(own.feet, own.height, own.middle)
    fitted = fit_poses(poses, wanted, track([41], 20, [50]))
    shift = 50 - 18 if there else 0  # to 52, and 72 of 64 columns
    left = [bounds(pose)[2] for pose in fitted.poses[: 40 - count]]
    assert left == [middle - 4 + shift for middle in middles[: 40 - count]]
    assert fitted.outside == (count if there else 0)


def test_nobody_in_the_first_pose_or_in_the_first_frame_is_no_beginning() -> None:
    poses = np.stack([np.full((3, *SIZE), 255, np.uint8), box(41, 20, 20), box(41, 20, 24)])
    wanted = track([41, 41, 41], 20, [22, 22, 22])
    plain = fit_poses(poses, wanted)
    assert [bounds(pose)[2] for pose in plain.poses[1:]] == [16, 20]
    nobody = track(np.nan, np.nan, [np.nan])
    for found in (fit_poses(poses, wanted, track([41], 20, [50])), fit_poses(poses[1:], wanted, nobody)):
        assert [bounds(pose)[2] for pose in found.poses[-2:]] == [16, 20]


def test_the_mean_over_a_pixel_is_what_a_moved_pose_shows() -> None:
    """By half a pixel to the right: a black column becomes two grey ones; Figures' middles may lie between pixels."""
    image = np.full((3, 16, 16), 255, np.uint8)
    image[:, 4:12, 6] = 0
    own = figures([image])
    moved = fit_poses(image[None], Figures(own.feet, own.height, own.middle + 0.5)).poses[0]
    assert moved[0, 6, 5:9].tolist() == pytest.approx([255, 127.5, 127.5, 255], abs=1)
    assert (moved[:, :4] == 255).all() and (moved[:, 12:] == 255).all()
