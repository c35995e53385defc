"""From a clip and its keypoints to a dataset: joints, people, gaps, sequences, splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from vidcvae.data import room
from vidcvae.data.clips import VideoData
from vidcvae.errors import DataError, VidcvaeError
from vidcvae.own_clips import footage, importing, skeleton, tracking
from vidcvae.own_clips.keypoint_checks import Keypoints
from vidcvae.own_clips.skeleton import JOINTS
from vidcvae.own_clips.window import fit

SIZE = (32, 64)
Settings = partial(importing.Settings, crop="none", steady=False)


class Made(NamedTuple):
    data: VideoData
    notes: list[str]
    broken: str


def import_clip(clip: footage.Pictures, found: Keypoints, settings: importing.Settings) -> Made:
    plan = importing.plan(importing.scan(clip), found, settings)
    return Made(importing.read(plan)[0], plan.notes, plan.scan.broken)


def figure(x: float, y: float = 20.0, height: float = 40.0) -> np.ndarray:
    """A standing figure of 25 joints with its nose at (x, y)."""
    rows = np.random.default_rng(5).uniform(-0.15, 0.15, 25)
    return np.stack([x + rows * height, y + np.linspace(0, 1, 25) * height], axis=1)


def pictures(count: int, size: tuple[int, int] = (64, 128), rate: float = 10, broken: str = "") -> footage.Pictures:
    """``count`` pictures of height and width ``size``, picture t of grey level t."""

    def each() -> Iterator[tuple[float, Image.Image]]:
        for t in range(count):
            yield t / rate, Image.new("RGB", (size[1], size[0]), (t, t, t))
        if broken:
            raise footage.BrokenOff(broken)

    return footage.Pictures(Path("clip.mp4"), footage.Again(each), count, rate)


def keypoints(people: dict[int, list[np.ndarray]], **told: object) -> Keypoints:
    return Keypoints(Path("k.json"), "COCO-17", people, **{"first": min(people)} | told)  # type: ignore[arg-type]


def levels(sequence: object) -> list[int]:
    """The grey levels of a sequence's frames: which pictures they are."""
    return [int(frame[0, 16, 32]) for frame in sequence.frames]  # type: ignore[attr-defined]


# --- where joints are drawn ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("size", [(64, 128), (97, 60), (50, 301)])
def test_joints_go_where_the_picture_goes(how: str, size: tuple[int, int]) -> None:
    """A spot of light in the picture is found where the same point is mapped to."""
    point = np.array([size[1] * 0.55, size[0] * 0.45])
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]] + 0.5
    spot = 255 * np.exp(-((columns - point[0]) ** 2 + (rows - point[1]) ** 2) / (max(size) / 25) ** 2)
    image = Image.fromarray(spot.astype(np.uint8)).convert("RGB")
    how_it_goes = fit((0, 0, size[1], size[0]), SIZE, how)
    frame = how_it_goes.frame(image)[0].astype(float)
    y, x = np.mgrid[0:32, 0:64] + 0.5
    centre = [(frame * x).sum() / frame.sum(), (frame * y).sum() / frame.sum()]
    np.testing.assert_allclose(how_it_goes.points(point), centre, atol=0.15)


def test_what_is_seen_of_a_portrait_picture() -> None:
    image = Image.new("RGB", (90, 160), "white")
    padded = fit((0, 0, *image.size), SIZE, "pad").frame(image)
    assert (padded[:, :, 23:41] == 255).all() and (padded[:, :, :23] == 0).all() and (padded[:, :, 41:] == 0).all()
    assert (fit((0, 0, *image.size), SIZE, "crop").frame(image) == 255).all()
    assert fit((0, 0, *image.size), SIZE, "crop").box == pytest.approx((0, 57.5, 90, 102.5))


def test_the_skeletons_are_the_joints_drawn(tmp_path: Path) -> None:
    """An independent drawing: each limb's middle is inked, in a picture of twice the frame's size."""
    made = import_clip(pictures(30), keypoints({t: [figure(40 + t)] for t in range(30)}), Settings(SIZE))
    (train,) = made.data.splits["train"]
    assert len(train) == len(train.tracks["pose"]) == 19  # 10 to validation, and one between them
    for t in (0, 10, 18):
        pose = train.tracks["pose"][t]
        for start, end in skeleton.LIMBS:
            middle = figure(40 + t)[[JOINTS.index(start), JOINTS.index(end)]].mean(0) / 2
            assert pose[:, int(middle[1]), int(middle[0])].min() < 200, (start, end)
        bounds = figure(40 + t) / 2
        inked = np.argwhere(pose.min(0) < 255)[:, ::-1]
        assert (inked >= bounds.min(0) - 2).all() and (inked <= bounds.max(0) + 1).all()


# --- who is meant ----------------------------------------------------------------------------------


def test_the_largest_and_longest_is_followed_through_a_crossing() -> None:
    """A child comes by twice, is listed first, and passes through the dancer."""
    people = {t: [figure(10 + 3 * t, 40, 20), figure(60 + t)] for t in range(30)}
    found = tracking.follow([people[t] for t in range(30)], max_gap=5)
    np.testing.assert_allclose(found.joints, [figure(60 + t) for t in range(30)])
    assert found.most == 2
    made = import_clip(pictures(30), keypoints(people), Settings(SIZE))
    assert any("up to 2 people" in note and "30 of 30" in note for note in made.notes)


def test_a_long_track_is_not_searched_for_its_last_frame() -> None:
    class Unsearched(dict[int, np.ndarray]):
        def __iter__(self) -> Iterator[int]:
            pytest.fail("with each frame this takes longer")

    assert tracking._Track(Unsearched({3: figure(20), 900: figure(21)})).last == 900


def test_a_dancer_who_comes_back_elsewhere_begins_a_new_sequence() -> None:
    people = {t: [figure(20)] for t in range(20)} | {t: [figure(100)] for t in range(20, 40)}
    made = import_clip(pictures(40), keypoints(people), Settings(SIZE, val_fraction=0))
    assert [levels(s) for s in made.data.splits["train"]] == [list(range(20)), list(range(20, 40))]


def test_a_short_gap_is_filled_on_a_straight_line_in_time() -> None:
    times = np.array([0, 1, 2, 4, 5, 6, 7, 8.0])
    joints = np.stack([figure(20 + 2 * time) for time in times])
    people = [[joints[t]] if t not in (2, 3) else [] for t in range(8)]
    people[6] = [joints[6].copy()]
    people[6][0][4] = np.nan
    filled = tracking.fill(tracking.follow(people, 2), times, 2)
    np.testing.assert_allclose(filled.joints, joints)
    assert (filled.take == 0).all()
    unfilled = tracking.fill(tracking.follow(people, 1), times, 1)
    assert (unfilled.take >= 0).tolist() == [True, True, False, False, True, True, True, True]
    np.testing.assert_allclose(unfilled.joints[6], joints[6])


def test_smoothing_is_a_weighted_mean_that_keeps_lines() -> None:
    rng = np.random.default_rng(0)
    joints = np.stack([figure(20 + t) for t in range(40)])
    poses = tracking.Poses(joints + rng.normal(0, 2, joints.shape), np.zeros(40, int), 1)
    poses.joints[:, 7] = np.nan
    smoothed = tracking.smooth(poses, 7)
    assert np.isnan(smoothed.joints[:, 7]).all()
    inner = slice(3, -3)
    before, after = (np.nanstd((p.joints - joints)[inner]) for p in (poses, smoothed))
    assert after < 0.6 * before
    line = tracking.smooth(tracking.Poses(joints, np.zeros(40, int), 1), 7)
    np.testing.assert_allclose(line.joints[inner], joints[inner])


# --- sequences and splits --------------------------------------------------------------------------


def test_frames_without_anybody_are_left_out_and_cut_the_sequence() -> None:
    people = {t: [figure(40)] for t in range(100) if not 30 <= t < 42}
    made = import_clip(pictures(100), keypoints(people), Settings(SIZE, val_fraction=0, max_gap=5))
    assert [levels(s) for s in made.data.splits["train"]] == [list(range(30)), list(range(42, 100))]
    assert "12 of 100 frames show nobody" in made.notes[0]
    assert list(made.data.splits) == ["train"]


def test_the_splits_are_apart_in_time() -> None:
    made = import_clip(
        pictures(200), keypoints({t: [figure(40)] for t in range(200)}), Settings(SIZE, val_fraction=0.2)
    )
    (train,), (val,), (test,) = (made.data.splits[name] for name in ("train", "val", "test"))
    assert levels(train) == list(range(152)) and levels(val) == list(range(160, 200))  # 8 of at most 10 left out
    assert levels(test) == [160] and np.array_equal(test.tracks["pose"], val.tracks["pose"])
    assert made.data.fps == 10


@pytest.mark.parametrize(
    ("count", "rate", "fraction", "val"),
    [
        (200, 25, 0.1, 25),  # a second is more than the 20 frames of a tenth
        (200, 5, 0.02, 10),  # ten frames are two seconds at 5 a second
        (30, 25, 0.1, 10),  # of so few no more than a third
        (200, 10, 0.2, 40),  # what was asked for, where that is more
        (200, 10, 0.0, 0),
    ],
)
def test_validation_has_a_second_at_least(count: int, rate: float, fraction: float, val: int) -> None:
    people = {t: [figure(40)] for t in range(count)}
    made = import_clip(pictures(count, rate=rate), keypoints(people), Settings(SIZE, val_fraction=fraction))
    assert sum(map(len, made.data.splits.get("val", ()))) == val
    first, last = (levels(made.data.splits[name][0]) for name in ("val", "train")) if val else ([count], [-1])
    assert first[0] == count - val and first[0] - last[-1] >= 2


def test_another_rate_takes_the_nearest_frames_in_time() -> None:
    times = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.09, 90))
    clip = pictures(90)
    clip = footage.Pictures(clip.path, [(times[t], image) for t, (_, image) in enumerate(clip.images)], 90)
    moving = {t: [figure(20 + 10 * times[t])] for t in range(90)}
    made = import_clip(clip, keypoints(moving), Settings(SIZE, fps=12.5, val_fraction=0))
    (train,) = made.data.splits["train"]
    wanted = times[0] + np.arange(len(train)) / 12.5
    assert abs(wanted[-1] - times[-1]) <= 0.04
    assert levels(train) == [int(np.abs(times - w).argmin()) for w in wanted]
    assert made.data.fps == 12.5


def test_a_clip_that_breaks_off_is_kept_up_to_there() -> None:
    people = {t: [figure(40)] for t in range(100)}
    made = import_clip(
        pictures(60, broken="cut"), keypoints(people, first=0, frames=100), Settings(SIZE, val_fraction=0)
    )
    assert levels(made.data.splits["train"][0]) == list(range(60))
    assert made.broken == "clip.mp4 breaks off after 5.90 seconds: cut."
    with pytest.raises(DataError, match=r"breaks off after 0.00 seconds: cut"):
        import_clip(pictures(0, broken="cut"), keypoints(people), Settings(SIZE))


# --- keypoints that do not belong ------------------------------------------------------------------


def test_frames_are_numbered_from_0_from_1_or_as_their_images_are() -> None:
    for shift, told in ((0, {}), (1, {}), (7, {"first": 7, "frames": 20})):
        people = {t + shift: [figure(20 + 2 * t)] for t in range(20)}
        made = import_clip(pictures(20), keypoints(people, **told), Settings(SIZE, val_fraction=0))
        (train,) = made.data.splits["train"]
        expected = skeleton.draw(figure(20 + 2 * 5) / 2, SIZE)
        np.testing.assert_array_equal(train.tracks["pose"][5], expected)
    clip = pictures(20)
    numbers = tuple(range(0, 60, 3))
    people = {3 * t: [figure(20 + 2 * t)] for t in range(20)}
    made = import_clip(
        footage.Pictures(clip.path, clip.images, 20, 10, numbers), keypoints(people), Settings(SIZE, val_fraction=0)
    )
    np.testing.assert_array_equal(made.data.splits["train"][0].tracks["pose"][5], expected)


@pytest.mark.parametrize(
    ("people", "told", "words"),
    [
        (range(21), {}, r"k.json describes at least 21 frames, but the clip has 20"),
        (range(18), {"first": 0, "frames": 18}, "describes 18 frames, but the clip has 20"),
        (range(20), {"size": (1920, 1080)}, r"pictures of 1920x1080 .*, but the frames have 128x64"),
    ],
)
def test_keypoints_of_another_clip_are_refused(people: range, told: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        import_clip(pictures(20), keypoints({t: [figure(40)] for t in people}, **told), Settings(SIZE))
    assert "this very clip" in error.value.hint


def test_keypoints_of_a_larger_picture_are_refused() -> None:
    with pytest.raises(DataError, match=r"joints as far as x = \d+, y = 460, but the frames have 128x64"):
        import_clip(pictures(20), keypoints({t: [figure(500, 60, 400)] for t in range(20)}), Settings(SIZE))


def test_a_clip_with_nobody_to_train_on_is_refused() -> None:
    with pytest.raises(DataError, match="no two frames after one another"):
        import_clip(pictures(20), keypoints({5: [figure(40)]}), Settings(SIZE, max_gap=0))


def test_broken_time_stamps_do_not_fill_the_memory() -> None:
    clip = pictures(3)
    clip = footage.Pictures(clip.path, [(t * 1e9, image) for t, image in clip.images], 3, 25)
    with pytest.raises(DataError, match="time stamps of its 3 frames span"):
        import_clip(clip, keypoints({t: [figure(40)] for t in range(3)}), Settings(SIZE))


def test_a_clip_that_does_not_fit_into_memory_is_refused_before_it_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """100 pictures, and as many frames and poses of 32x64: 300 images of 6 KiB."""
    plan = importing.plan(
        importing.scan(pictures(100)), keypoints({t: [figure(40)] for t in range(100)}), Settings(SIZE, val_fraction=0)
    )
    monkeypatch.setattr(room, "available", lambda: 300 * 3 * 32 * 64)
    assert levels(importing.read(plan)[0].splits["train"][0]) == list(range(100))
    monkeypatch.setattr(room, "available", lambda: 300 * 3 * 32 * 64 - 1)
    monkeypatch.setattr(footage.Again, "__iter__", lambda self: pytest.fail("it was read"))
    with pytest.raises(VidcvaeError, match=r"clip\.mp4: 300 images of 32x64 at once need 0\.0 GiB of memory"):
        importing.read(plan)


def test_a_clip_that_has_fewer_frames_when_it_is_read_again_is_told() -> None:
    plan = importing.plan(
        importing.scan(pictures(40)), keypoints({t: [figure(40)] for t in range(40)}), Settings(SIZE, val_fraction=0)
    )
    shorter = replace(plan, scan=replace(plan.scan, pictures=pictures(39)))
    with pytest.raises(DataError, match=r"clip\.mp4 has changed while it was read: it has fewer frames"):
        importing.read(shorter)


def test_pictures_that_change_their_size_end_the_clip() -> None:
    clip = pictures(20)
    images = [(t, image if t < 1 else image.resize((60, 40))) for t, image in clip.images]
    people = keypoints({t: [figure(40)] for t in range(20)}, first=0, frames=20)
    made = import_clip(footage.Pictures(clip.path, images, 20, 10), people, Settings(SIZE, val_fraction=0))
    assert len(made.data.splits["train"][0]) == 10
    assert "128x64 (width x height) are followed by one of 60x40" in made.broken


def test_much_black_is_worth_a_word() -> None:
    made = import_clip(
        pictures(20, (160, 90)), keypoints({t: [figure(40)] for t in range(20)}), Settings(SIZE, val_fraction=0)
    )
    assert any("72% of each frame is black" in note and "--size small" in note for note in made.notes)
