"""A hand-held camera's motion: against motions made by scipy, and on real clips."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from vidcvae.own_clips import footage, keypoints, steady

WIDTH, HEIGHT = 640, 360  # reduced by 2
MARGIN = 100  # of the wall around what is seen


def texture(seed: int, size: tuple[int, int], contrast: float = 45) -> np.ndarray:
    """Grey values (h, w) with detail at every scale from 3 pixels up."""
    noise = np.random.default_rng(seed).normal(size=(4, *size))
    layers = [ndimage.gaussian_filter(layer, sigma) * sigma for layer, sigma in zip(noise, (3, 6, 12, 30), strict=True)]
    total = np.sum(layers, 0)
    return np.asarray(128 + contrast * total / total.std())


WALL = texture(1, (HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN))
SPLINES = ndimage.spline_filter(WALL)
SHIRT = texture(2, (200, 80))


def similarity(zoom: float, degrees: float, across: float, down: float) -> np.ndarray:
    """(3, 3), from points (x, y, 1) of the first picture to those of another, about the middle of the picture."""
    turn = np.radians(degrees)
    middle = np.array([[1, 0, WIDTH / 2], [0, 1, HEIGHT / 2], [0, 0, 1]])
    there = np.array([[zoom * np.cos(turn), -zoom * np.sin(turn), across],
                      [zoom * np.sin(turn), zoom * np.cos(turn), down], [0, 0, 1]])  # fmt: skip
    return np.asarray(middle @ there @ np.linalg.inv(middle))


def filmed(motion: np.ndarray, contrast: float = 1) -> np.ndarray:
    """The wall as a camera sees it, (HEIGHT, WIDTH): cubic splines, where the module has Pillow's bilinear ones."""
    back = np.linalg.inv(motion)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    at = np.tensordot(back, np.stack([x, y, np.ones_like(x)]), 1)
    places = [at[1] - 0.5 + MARGIN, at[0] - 0.5 + MARGIN]
    return 128 + contrast * (ndimage.map_coordinates(SPLINES, places, order=3, mode="nearest", prefilter=False) - 128)


def picture(grey: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(grey + 0.5, 0, 255).astype(np.uint8)).convert("RGB")


def with_person(grey: np.ndarray, left: int, top: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """Somebody in a textured shirt before the wall, and five joints of 25, well inside of the shirt."""
    grey = grey.copy()
    grey[top : top + 200, left : left + 80] = SHIRT
    joints = np.full((25, 2), np.nan)
    joints[:5] = [[left + 40, top + 15], [left + 8, top + 60], [left + 72, top + 60],
                  [left + 15, top + 185], [left + 65, top + 185]]  # fmt: skip
    return grey, joints


def walk(count: int, reach: float = 1) -> list[np.ndarray]:
    """Motions of a hand: slow swings and a tremor; the first is none."""
    t = np.arange(count)
    across, down = 12 * np.sin(t / 17) + 1.5 * np.sin(t * 1.3), 7 * np.sin(t / 11) + np.sin(t * 1.7)
    zoom, degrees = 1 + 0.02 * np.sin(t / 40), 0.8 * np.sin(t / 23) + 0.1 * np.sin(t * 1.1)
    return [similarity(1 + reach * (z - 1), reach * g, reach * a, reach * d)
            for z, g, a, d in zip(zoom, degrees, across, down, strict=True)]  # fmt: skip


def error(matrix: np.ndarray, motion: np.ndarray) -> float:
    """Reduced pixels by which the corner that is worst off goes astray."""
    corners = np.array([[x, y, 1] for x in (0, WIDTH) for y in (0, HEIGHT)])
    return float(np.linalg.norm(corners @ (matrix - motion[:2]).T, axis=1).max() / (WIDTH / 320))


def followed(greys: list[np.ndarray]) -> tuple[steady.Camera, np.ndarray]:
    camera = steady.Camera()
    return camera, np.stack([camera.follow(picture(grey), []) for grey in greys])


def noisy(grey: np.ndarray, sigma: float, count: int) -> list[np.ndarray]:
    return [grey + sigma * noise for noise in np.random.default_rng(3).normal(size=(count, *grey.shape))]


# --- motions made by scipy -------------------------------------------------------------------------


def test_a_hand_s_motion_is_recovered_behind_somebody_who_walks_while_the_light_changes() -> None:
    """Every one of 120 pictures is right within a tenth of a reduced pixel, the last as well as the first."""
    camera, errors, motions = steady.Camera(), [], walk(120)
    for k, motion in enumerate(motions):
        grey, joints = with_person(filmed(motion, 0.6), 40 + 4 * k)
        grey = grey * (1 - 0.2 * np.sin(k / 30)) + 40 * np.sin(k / 12)
        errors.append(error(camera.follow(picture(grey), [joints]), motion))
    assert max(errors) < 0.1
    corners = np.array([[x, y, 1] for x in (0, WIDTH) for y in (0, HEIGHT)])
    moved = max(np.linalg.norm(corners @ (motion[:2] - np.eye(2, 3)).T, axis=1).max() for motion in motions)
    assert camera.motion() == (True, f"the camera moved by up to {moved:.0f} pixels; this motion is removed")


def test_a_size_that_is_no_multiple_of_the_reduced_one_makes_no_drift_of_its_own() -> None:
    """Of 501x201 pixels each reduced one is 1.566 wide and high; squeezed into whole rows, it would be off by 0.024."""
    camera, size = steady.Camera(), (501, 201)
    for k in range(6):
        motion = similarity(1 + 0.002 * k, k / 10, 4 * k, 2 * k)
        matrix = camera.follow(picture(filmed(motion)).crop((0, 0, *size)), [])
        corners = np.array([[x, y, 1] for x in (0, size[0]) for y in (0, size[1])])
        assert np.linalg.norm(corners @ (matrix - motion[:2]).T, axis=1).max() / 1.566 < 0.012


def test_somebody_before_a_plain_wall_is_not_taken_for_the_room() -> None:
    """The shirt has the steepest edges of the picture and dances; the wall, faint beside it, tells of the camera."""
    camera, errors = steady.Camera(), []
    for k, motion in enumerate(walk(30, 0.3)):
        grey, joints = with_person(filmed(motion, 1 / 6), 280 + round(30 * np.sin(k / 4)))
        errors.append(error(camera.follow(picture(grey), [joints]), motion))
    assert max(errors) < 0.1
    assert camera.motion().hold


@pytest.mark.parametrize("sigma", [0, 4])
def test_a_camera_on_a_tripod_stands_still(sigma: float) -> None:
    camera = steady.Camera()
    for k, grey in enumerate(noisy(WALL[:HEIGHT, :WIDTH], sigma, 60)):
        shown, joints = with_person(grey, 40 + 8 * k)
        assert error(camera.follow(picture(shown), [joints]), np.eye(3)) < 0.05
    assert camera.motion() == (False, "")


def test_a_single_jolt_and_a_flash_are_bridged() -> None:
    """A jolt of 20 pixels is followed; pictures that show nothing keep what was there before."""
    motions = [similarity(1, 0, *shift) for shift in [(0, 0)] * 3 + [(18, 9)] * 12]
    greys = [filmed(motion) for motion in motions]
    greys[7], greys[8] = np.full_like(greys[0], 255), np.full_like(greys[0], 250)
    camera, matrices = followed(greys)
    assert max(map(error, matrices, motions)) < 0.1
    assert camera.motion() == (True, "the camera moved by up to 20 pixels; this motion is removed")


# --- what cannot be held still ---------------------------------------------------------------------


def test_a_pan_is_refused() -> None:
    camera, _ = followed([filmed(similarity(1, 0, -2.5 * k, 0)) for k in range(30)])
    assert camera.motion() == (False, "the camera moves too much to be held still")


def test_less_than_a_tenth_of_the_picture_is_no_pan() -> None:
    camera, _ = followed([filmed(similarity(1, 0, -2.4 * k, 0)) for k in range(26)])
    assert camera.motion() == (True, "the camera moved by up to 60 pixels; this motion is removed")


@pytest.mark.parametrize("seed", range(4))
def test_a_cut_is_refused(seed: int) -> None:
    other = texture(10 + seed, (HEIGHT, WIDTH))
    camera, matrices = followed([WALL[:HEIGHT, :WIDTH]] * 3 + [other] * 8)
    assert camera.motion() == (False, "the background changes too much for the camera to be held still")
    assert np.isfinite(matrices).all()


@pytest.mark.parametrize("sigma", [0, 3, 10, 30])
@pytest.mark.parametrize("size", [1, 2])
def test_a_blank_wall_is_refused_however_much_the_camera_s_noise(sigma: float, size: int) -> None:
    blank = np.full((HEIGHT * size // 2, WIDTH * size // 2), 120.0)
    camera, _ = followed(noisy(blank, sigma, 12))
    assert camera.motion().note in (steady.FLAT, steady.LOST)
    assert sigma > 3 or camera.motion() == (False, "too little of the background is visible to hold the camera still")


def test_stripes_do_not_tell_how_far_the_camera_moves_along_them() -> None:
    stripes = np.broadcast_to(128 + 60 * np.sin(np.arange(WIDTH) / 6), (HEIGHT, WIDTH))
    camera, _ = followed(noisy(stripes, 1, 3))
    assert camera.motion() == (False, steady.FLAT)


def test_a_person_who_fills_the_picture_is_refused_and_stays_where_they_were_while_not_found() -> None:
    far, near = np.full((2, 25, 2), np.nan)
    far[:2], near[:2] = [[300, 100], [340, 200]], [[20, 10], [620, 350]]
    camera = steady.Camera()
    for k, motion in enumerate(walk(9, 0.3)):
        camera.follow(picture(filmed(motion)), [[far], [near], []][min(k, 2)])
    assert camera.motion() == (False, steady.FLAT)


def test_noise_that_looks_like_motion_is_not_taken_out() -> None:
    """A poster on a blank wall and much noise: the estimates tremble, but make nothing stiller."""
    grey = np.full((HEIGHT, WIDTH), 128.0)
    grey[110:250, 250:390] = WALL[230:370, 330:470]
    camera, matrices = followed(noisy(grey, 14, 60))
    assert max(error(matrix, np.eye(3)) for matrix in matrices) > 0.2
    assert camera.motion() == (False, steady.IN_VAIN)


def test_no_pictures_are_still() -> None:
    assert steady.Camera().motion() == (False, "")


# --- the window, joints and bars -------------------------------------------------------------------


def test_the_window_shows_only_what_all_pictures_filmed_and_no_larger_one_would() -> None:
    camera, _ = followed([WALL[:HEIGHT, :WIDTH]])
    matrices = np.stack(
        [similarity(*args)[:2] for args in [(1, 0, 0, 0), (1, 6, 9, 0), (1.02, -2, -4, 6), (0.99, 1, 0, -8)]]
    )
    white = Image.new("L", (WIDTH, HEIGHT), 255)
    shown = [
        np.asarray(white.transform(white.size, Image.Transform.AFFINE, m.ravel(), Image.Resampling.NEAREST))
        for m in matrices
    ]
    all_filmed = np.min(shown, 0) == 255
    left, top, right, bottom = camera.window(matrices)
    assert all_filmed[top:bottom, left:right].all()
    assert left > 5 and top > 5 and right < WIDTH - 5 and bottom < HEIGHT - 5
    for larger in ((left - 2, top, right, bottom), (left, top - 2, right, bottom),
                   (left, top, right + 2, bottom), (left, top, right, bottom + 2)):  # fmt: skip
        assert not all_filmed[larger[1] : larger[3], larger[0] : larger[2]].all()


def test_joints_go_where_the_picture_goes() -> None:
    """A dot in a picture is found again in the steady one where its joint says."""
    motion = similarity(1.03, 4, 12, -7)
    dot = np.zeros((HEIGHT, WIDTH), np.uint8)
    dot[100:104, 500:504] = 255
    steadied = Image.fromarray(dot).transform(
        (WIDTH, HEIGHT), Image.Transform.AFFINE, motion[:2].ravel(), Image.Resampling.BILINEAR
    )
    down, across = ndimage.center_of_mass(np.asarray(steadied, float))
    joints = np.array([[502.0, 102.0], [np.nan, np.nan]])
    there = steady.points(motion[:2], joints)
    assert there[0] == pytest.approx([across + 0.5, down + 0.5], abs=0.1)
    assert np.isnan(there[1]).all()


def barred(grey: np.ndarray) -> np.ndarray:
    """As shown on a screen of another shape: 41 black rows above and 47 below, which never move."""
    grey = grey.copy()
    grey[:41], grey[-47:] = 2, 2
    return grey


def test_black_bars_neither_hold_the_camera_nor_are_in_the_window() -> None:
    motions = walk(40, 0.5)
    camera, matrices = followed([barred(filmed(motion, 1 / 4)) for motion in motions])
    assert max(map(error, matrices, motions)) < 0.1
    _, top, _, bottom = camera.window(matrices)
    assert 41 + 3 < top < 41 + 20 and HEIGHT - 47 - 20 < bottom < HEIGHT - 47 - 3


def test_a_dark_place_that_somebody_walks_into_is_no_bar() -> None:
    greys = [barred(filmed(motion)) for motion in walk(10, 0.1)]
    greys[6][:30, 200:220] = 200
    camera, matrices = followed(greys)
    _, top, _, bottom = camera.window(matrices)
    assert top < 5 and bottom < HEIGHT - 47 - 3


# --- real clips ------------------------------------------------------------------------------------


def test_the_room_of_a_real_clip_stands_still(shared: Path) -> None:
    """Shifted and zoomed back by scipy, its walls differ three times less from the first picture's, in 412 pictures."""
    clips = shared / "data" / "clips"
    found = keypoints.read_keypoints(clips / "taiji_mediapipe.json", "auto", 0.3)
    camera, spent, greys, matrices, boxes = steady.Camera(), 0.0, [], [], []
    for k, (_, image) in enumerate(footage.open_clip("video", clips / "taiji.mp4", 25).images):
        people = [person * image.size for person in found.people.get(k, [])]
        begin = time.process_time()
        matrices.append(camera.follow(image, people))
        spent += time.process_time() - begin
        if k % 80 == 0:
            greys.append(np.asarray(image.convert("L"), float))
            joints = people[0][np.isfinite(people[0][:, 0])]
            boxes.append((joints.min(0) - 70, joints.max(0) + 70))
    assert spent / len(matrices) < 0.015
    assert camera.motion().hold
    left, top, right, bottom = camera.window(np.stack(matrices))
    assert (right - left) * (bottom - top) > 0.9 * 1280 * 720
    y, x = np.mgrid[:720, :1280] + 0.5
    room = (x > left) & (x < right) & (y > top) & (y < bottom)
    away = []
    for grey, matrix, box in zip(greys[1:], matrices[80::80], boxes[1:], strict=True):
        wall = room.copy()
        wall[1::2] = False  # half of it tells enough
        for low, high in (boxes[0], box):
            wall &= (x < low[0]) | (x > high[0]) | (y < low[1]) | (y > high[1])
        flipped = matrix[:, [1, 0, 2]][::-1]  # scipy's rows come before its columns, and a pixel's middle is whole
        offset = flipped[:, :2] @ [0.5, 0.5] + flipped[:, 2] - 0.5
        still = ndimage.affine_transform(grey, flipped[:, :2], offset, order=1)
        for image in (grey, still):
            line = np.polyfit(greys[0][wall], image[wall], 1)  # the light
            away.append(np.sqrt(np.mean((image[wall] - np.polyval(line, greys[0][wall])) ** 2)))
    before, after = np.array(away).reshape(-1, 2).T
    assert before.mean() > 3 * after.mean()
