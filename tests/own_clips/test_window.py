"""Which part of a clip becomes the frames: worked out by hand on figures whose place is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from vidcvae.own_clips import window

PICTURE = (1280, 720)


def person(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """25 joints in the corners of a box."""
    corners = [(x, y) for x in (left, right) for y in (top, bottom)]
    return np.array(list(itertools.islice(itertools.cycle(corners), 25)))


def walk(step: float = 1.0) -> np.ndarray:
    """A figure 100 wide and 400 high that goes from column 300 to column 599."""
    return np.stack([person(300 + step * t, 200, 400 + step * t, 600) for t in range(200)])


def test_the_window_is_everywhere_the_person_goes_and_a_margin() -> None:
    """Columns 300 to 599, rows 200 to 600, and 0.12 of 400 around them; then grown to the frames' shape."""
    fit, cropped = window.choose(walk(), PICTURE, window.BUDGETS["medium"], None, None)
    left, top, right, bottom = fit.box
    assert cropped
    assert left <= 300 - 46 and right >= 599 + 46 and top == pytest.approx(151, abs=2) and bottom <= 651
    assert (right - left) / (bottom - top) == pytest.approx(fit.size[1] / fit.size[0])
    assert (left + right) / 2 == pytest.approx(449.5, abs=1)  # what is added is added on both sides
    assert right - left < 1.1 * (299 + 96)


def test_one_slip_of_the_estimator_makes_no_window() -> None:
    joints = walk()
    joints[77] = person(1100, 10, 1200, 700)
    assert window.choose(joints, PICTURE, 9216, None, None)[0].box[2] < 700


def test_missing_joints_are_nowhere() -> None:
    joints = walk()
    joints[:, 4:] = np.nan
    assert window.choose(joints, PICTURE, 9216, None, None) == window.choose(walk(), PICTURE, 9216, None, None)


@pytest.mark.parametrize(
    ("picture", "sizes"),
    [
        ((1280, 720), [(32, 56), (72, 128), (128, 224)]),
        ((720, 1280), [(56, 32), (128, 72), (224, 128)]),
        ((500, 500), [(48, 48), (96, 96), (168, 168)]),
        ((340, 256), [(40, 56), (80, 112), (144, 192)]),
    ],
)
def test_frames_keep_the_shape_of_the_clip(picture: tuple[int, int], sizes: list[tuple[int, int]]) -> None:
    """Multiples of 8 whose sides have the picture's ratio to 5%, and whose product is the budget to 15%."""
    for (high, wide), pixels in zip(sizes, window.BUDGETS.values(), strict=True):
        fit, cropped = window.choose(walk(), picture, pixels, None, "none")
        assert (fit.size, cropped) == ((high, wide), False)
        assert wide / high == pytest.approx(picture[0] / picture[1], rel=0.06)
        assert high * wide == pytest.approx(pixels, rel=0.15)
        across, down = fit.box[2] - fit.box[0], fit.box[3] - fit.box[1]
        assert across * down > 0.94 * picture[0] * picture[1]  # what the multiples of 8 leave over is cut
        assert across / down == pytest.approx(wide / high) and fit.place == (0, 0, wide, high)


@pytest.mark.parametrize("shape", [(1000.0, 10.0), (10.0, 1000.0), (1.0, 1.0)])
def test_any_shape_has_a_size(shape: tuple[float, float]) -> None:
    high, wide = window._shape((0, 0, *shape), 2048)
    assert high % 8 == wide % 8 == 0 and min(high, wide) >= 16


def test_who_fills_the_picture_gets_all_of_it() -> None:
    filling = np.stack([person(100 + t, 20, 1000 + t, 700) for t in range(100)])
    assert not window.choose(filling, PICTURE, 9216, None, None)[1]
    fit, cropped = window.choose(filling, PICTURE, 9216, None, "person")
    assert cropped and fit.box[2] - fit.box[0] < 1280
    assert window.choose(walk(), PICTURE, 9216, None, "none")[0].box == (0, 0, 1280, 720)


def test_a_size_that_was_asked_for_is_kept_and_fit_decides_about_the_rest() -> None:
    """A tall window in wide frames: it grows sideways as far as the picture goes; in a narrow one, bars are left."""
    fit, _ = window.choose(walk(), PICTURE, (32, 64), None, None)
    assert fit.size == (32, 64) and (fit.box[2] - fit.box[0]) == pytest.approx(2 * (fit.box[3] - fit.box[1]))
    narrow = (500, 1280)
    places = {how: window.choose(walk(0.2), narrow, (32, 64), how, "person")[0] for how in window.FITS}
    assert [places[how].place for how in ("crop", "stretch")] == [(0, 0, 64, 32)] * 2
    assert places["pad"].place[0] > 0 and places["pad"].box[0] == 0 and places["pad"].box[2] == 500
    assert places["pad"] == window.choose(walk(0.2), narrow, (32, 64), None, "person")[0]


def test_the_preview_is_dark_outside_and_as_it_is_inside() -> None:
    image = Image.new("RGB", PICTURE, (200, 100, 50))
    fit, _ = window.choose(walk(), PICTURE, 9216, None, None)
    shown = np.asarray(window.preview(image, fit, walk()[0], walk()[::50], rows=360))
    assert shown.shape == (360, 640, 3)
    left, top, right, bottom = (round(side / 2) for side in fit.box)
    inside = np.zeros((360, 640), bool)
    inside[top:bottom, left:right] = True
    assert (shown[~inside] == [70, 35, 17]).all(1).mean() > 0.99
    assert (shown[inside] == [200, 100, 50]).all(1).mean() > 0.8
    assert (shown[top, left:right] == [255, 220, 0]).all()
