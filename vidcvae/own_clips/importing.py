"""Makes a dance dataset from a clip and its keypoints: frames with skeleton images, cut into unbroken sequences.

There are three steps: ``scan`` reads the clip once, ``plan`` chooses the frames to use and the window, and ``read``
reads the clip again and makes the frames.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from vidcvae.data import clips, room
from vidcvae.errors import DataError, counted
from vidcvae.own_clips import skeleton, steady, tracking, window
from vidcvae.own_clips.estimation import Estimator
from vidcvae.own_clips.footage import BrokenOff, Pictures
from vidcvae.own_clips.keypoint_checks import Keypoints, Person
from vidcvae.progress import Progress, unreported

GAP_SECONDS = 1.0  # skipped between training and validation, which would otherwise share nearly equal frames
LEAST_VAL_SECONDS, LEAST_VAL_FRAMES = 1.0, 10  # shorter validation says little about a model
_MOST_VAL = 1 / 3  # of the frames, for short clips
MOST_REPEATS = 100  # of each frame on average; more means that the time stamps are wrong
_WASTED = 0.25  # a larger share of black bars is reported
_SHOWN = 24  # positions of the dancer in the preview


@dataclass(frozen=True)
class Settings:
    """size: height and width of the frames, or their number of pixels. fit: one of ``window.FITS``. crop: one of
    ``window.CROPS``. For None, see ``window.choose``. fps: frames per second; None keeps the clip's.

    val_fraction: share of the frames for validation, taken from the end, at least a second; 0 for no validation.
    max_gap: the longest gap to fill, in frames. smooth: width of the smoothing window in frames; 0 for none.
    steady: cancel the small motion of a hand-held camera.
    """

    size: tuple[int, int] | int = window.BUDGETS["medium"]
    fit: str | None = None
    crop: str | None = None
    fps: float | None = None
    val_fraction: float = 0.1
    max_gap: int = 5
    smooth: int = 0
    steady: bool = True


@dataclass(frozen=True)
class Scan:
    """A clip read once. times: (N,) in seconds. picture: width and height. broken: why it ends early, if it does.

    landmarks: the estimator's results, one entry per frame, as ``landmarks.read_json`` reads them; None without one.
    """

    pictures: Pictures
    times: np.ndarray
    picture: tuple[int, int]
    broken: str = ""
    landmarks: list[Any] | None = None


@dataclass(frozen=True)
class Plan:
    """How to make the dataset. joints: (N, 25, 2) in pixels of the pictures. notes: remarks for the user.

    runs: for each split, the name and the clip's frame numbers of each sequence.
    most: the largest number of people in one frame.
    """

    scan: Scan
    joints: np.ndarray
    runs: Mapping[str, Sequence[tuple[str, np.ndarray]]]
    fps: float
    fit: window.Fit
    notes: list[str]
    most: int


# --- going through the clip ------------------------------------------------------------------------


def scan(pictures: Pictures, estimate: Estimator | None = None, progress: Progress = unreported) -> Scan:
    """Find the times of all frames and, with ``estimate``, the people; raises ``DataError`` if there is no frame."""
    times: list[float] = []
    found: list[Any] | None = [] if estimate else None
    broken, picture = "", None
    sizes: Iterable[Any] = pictures.sizes if pictures.sizes is not None and not estimate else pictures.images
    try:
        for time, image in sizes:
            size = image.size if isinstance(image, Image.Image) else image
            picture = picture or size
            if size != picture:
                raise BrokenOff(f"frames of {_by(picture)} are followed by one of {_by(size)}")
            if estimate and found is not None:
                found.append({"pose_landmarks": estimate(image, time)})
            times.append(time)
            progress(len(times), max(pictures.total, len(times)))
    except BrokenOff as error:
        broken = f"{pictures.path} breaks off after {times[-1] if times else 0:.2f} seconds: {error}."
    if picture is None:
        raise DataError(broken or f"{pictures.path} has no frames.", "Record or convert it again.")
    return Scan(pictures, np.array(times), picture, broken, found)


def read(plan: Plan, progress: Progress = unreported) -> tuple[clips.VideoData, Image.Image]:
    """The dataset with the splits train, val and test, and a picture of the clip that shows the window.

    Test is the longest sequence of val: its first frame and all its poses. Raises ``VidcvaeError``, before the clip is
    read, if the images do not fit into memory, and ``DataError`` if the clip has changed since ``scan``.
    """
    pictures, size = plan.scan.pictures, plan.fit.size
    each = [rows for runs in plan.runs.values() for _, rows in runs]
    wanted = np.unique(np.concatenate(each))
    slots = {int(number): slot for slot, number in enumerate(wanted)}
    middle, shown, made = int(wanted[len(wanted) // 2]), None, 0
    count = len(wanted) + 2 * sum(map(len, each))  # the clip's frames, and the frames and poses of each sequence
    what = f"{pictures.path}: {count:,} images of {size[0]}x{size[1]} at once"
    room.check_bytes(what, count * 3 * size[0] * size[1], room.SMALLER)
    frames = np.empty((len(wanted), 3, *size), np.uint8)
    try:
        for number, (_, image) in zip(range(int(wanted[-1]) + 1), pictures.images, strict=False):
            if number in slots:
                frames[slots[number]] = plan.fit.frame(image)
                made += 1
            if number == middle:
                some = plan.joints[wanted[:: -(-len(wanted) // _SHOWN)]]
                shown = window.preview(image, plan.fit, plan.joints[number], some)
            progress(number + 1, int(wanted[-1]) + 1)
        if shown is None or made < len(wanted):
            raise BrokenOff("it has fewer frames")
    except BrokenOff as error:  # it did not on the first reading
        raise DataError(f"{pictures.path} has changed while it was read: {error}.", "Import it again.") from None
    splits = {
        split: tuple(_sequence(plan, frames[[slots[int(row)] for row in rows]], name, rows) for name, rows in runs)
        for split, runs in plan.runs.items()
    }
    if val := splits.get("val"):
        longest = max(val, key=len)
        splits["test"] = (clips.Sequence("0", longest.frames[:1], longest.tracks),)
    name = pictures.path.stem or "video"
    return clips.VideoData(name, "dance", plan.fps, pictures.path, splits), shown


def _sequence(plan: Plan, frames: np.ndarray, name: str, rows: np.ndarray) -> clips.Sequence:
    drawn = np.stack([skeleton.draw(points, plan.fit.size) for points in plan.fit.points(plan.joints[rows])])
    return clips.Sequence(name, frames, {"pose": drawn})


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]} (width x height)"


# --- keypoints to frames ---------------------------------------------------------------------------


_SAME_CLIP = "Run the pose estimator over every frame of this very clip, turned upright, at its own size and rate."


def _people(keypoints: Keypoints, clip: Scan) -> list[list[Person]]:
    """The people in each frame, in pixels; raises ``DataError`` if keypoints and clip do not match."""
    path, count, numbers = keypoints.path, len(clip.times), clip.pictures.numbers
    if keypoints.size and keypoints.size != clip.picture:
        raise DataError(
            f"{path} is for pictures of {_by(keypoints.size)}, but the frames have {_by(clip.picture)}.", _SAME_CLIP
        )
    last = max(keypoints.people)
    index = {number: row for row, number in enumerate(numbers or ())}
    if not keypoints.people.keys() <= index.keys():  # the images are numbered differently, or it is a video
        start = int(keypoints.first == 1) if keypoints.frames is None else keypoints.first
        index = {start + row: row for row in range(count)}
    frames, least = keypoints.frames, ""
    if frames is None:
        frames, least = (count, "") if last in index else (last - min(index) + 1, "at least ")
    if frames != count and not (clip.broken and frames > count):
        raise DataError(f"{path} describes {least}{frames} frames, but the clip has {count}.", _SAME_CLIP)
    scale = np.array(clip.picture, float) if keypoints.fractions else np.ones(2)
    people: list[list[Person]] = [[] for _ in range(count)]
    for number, persons in keypoints.people.items():
        if number in index:
            people[index[number]] = [person * scale for person in persons]
    return people


def _check_place(people: Sequence[Sequence[Person]], clip: Scan, path: object) -> None:
    """Raise ``DataError`` if most joints lie outside the picture: the keypoints are for another picture size."""
    joints = [person[np.isfinite(person[:, 0])] for persons in people for person in persons]
    points = np.concatenate(joints) if joints else np.zeros((0, 2))
    outside = ((points < -1) | (points > np.array(clip.picture) + 1)).any(1)
    if len(points) and outside.mean() > 0.5:
        right, bottom = points.max(0)
        raise DataError(
            f"{path} has joints as far as x = {right:.0f}, y = {bottom:.0f}, but the frames have {_by(clip.picture)}.",
            _SAME_CLIP,
        )


# --- hand-held cameras -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _SteadyImages:
    """A clip's pictures with the camera held still. matrices: (N, 2, 3), from steady pixels to the clip's."""

    images: Iterable[tuple[float, Image.Image]]
    matrices: np.ndarray
    size: tuple[int, int]  # width, height

    def __iter__(self) -> Iterator[tuple[float, Image.Image]]:
        for (time, image), matrix in zip(self.images, self.matrices, strict=False):
            how = Image.Transform.AFFINE, tuple(matrix.ravel()), Image.Resampling.BICUBIC
            yield time, image.transform(self.size, *how)


def _steadied(scan: Scan, people: list[list[Person]], progress: Progress) -> tuple[Scan, list[list[Person]], str]:
    """The clip and its people with the camera's motion cancelled, if possible, and a note about it."""
    camera, matrices = steady.Camera(), []
    with contextlib.suppress(BrokenOff):  # already reported by ``scan``
        for number, ((_, image), persons) in enumerate(zip(scan.pictures.images, people, strict=False), 1):
            matrices.append(camera.follow(image, persons))
            progress(number, len(people))
    hold, note = camera.motion()
    if not hold:
        return scan, people, note
    left, top, right, bottom = camera.window(np.array(matrices))
    moved = np.array(matrices)
    moved[:, :, 2] += moved[:, :, :2] @ [left, top]  # the window's corner is the first pixel
    size = right - left, bottom - top
    pictures = replace(scan.pictures, images=_SteadyImages(scan.pictures.images, moved, size), sizes=None)
    found = [
        [steady.points(matrix, person) for person in persons] for matrix, persons in zip(moved, people, strict=True)
    ]
    return replace(scan, pictures=pictures, picture=size), found, note


# --- the plan --------------------------------------------------------------------------------------


def plan(scan: Scan, keypoints: Keypoints, settings: Settings, progress: Progress = unreported) -> Plan:
    """Plan the dataset from a clip and its keypoints. Steadying reads the clip once more.

    Raises ``DataError`` if keypoints and clip do not match, or if nobody is in view.
    """
    pictures = scan.pictures
    people = _people(keypoints, scan)
    _check_place(people, scan, keypoints.path)
    notes = []
    if keypoints.frames is None and keypoints.first == 1 and not pictures.numbers:
        notes.append(f"{keypoints.path} begins with frame 1, which is taken for the first of the clip")
    if settings.steady:
        scan, people, note = _steadied(scan, people, progress)
        notes += [note] * bool(note)
    poses = tracking.fill(tracking.follow(people, settings.max_gap), scan.times, settings.max_gap)
    if settings.smooth:
        poses = tracking.smooth(poses, settings.smooth)
    notes += _about_people(poses, scan, people)

    fps = settings.fps or pictures.rate or _average_rate(scan.times)
    shown = _resample(scan.times, fps)
    take = poses.take[shown]
    if missing := int((take < 0).sum()):
        notes.append(f"{missing} of {len(shown)} frames show nobody and are left out; sequences are cut there")
    train, val, gap = _split(take, settings.val_fraction, fps)
    if not train:
        raise DataError(f"{pictures.path} has no two frames after one another with somebody in them to train on.",
                        "Look at the keypoints; a lower --min-score or a larger --max-gap finds more.")  # fmt: skip
    if settings.val_fraction and not val:
        notes.append("too little is left for validation: the dataset has none")
    if val:
        notes.append(f"validation begins at {val[0][0] / fps:.1f} s, {counted(gap, 'frame')} after the end of training")
    runs = {
        split: [(f"{run[0]}-{run[-1]}", shown[run]) for run in found]
        for split, found in (("train", train), ("val", val)) if found
    }  # fmt: skip
    used = np.unique(shown[take >= 0])
    fit, cropped = window.choose(poses.joints[used], scan.picture, settings.size, settings.fit, settings.crop)
    notes += _about_window(fit, scan, cropped)
    return Plan(scan, poses.joints, runs, fps, fit, notes, poses.most)


def _average_rate(times: np.ndarray) -> float:
    return float((len(times) - 1) / (times[-1] - times[0])) if len(times) > 1 and times[-1] > times[0] else 25.0


def _resample(times: np.ndarray, fps: float) -> np.ndarray:
    """For each output frame, the number of the clip's frame nearest in time."""
    span = float(times[-1] - times[0])
    if span * fps > MOST_REPEATS * len(times):
        raise DataError(
            f"the time stamps of its {len(times)} frames span {span:.0f} seconds, {span * fps:.0f} frames at {fps:g}.",
            "Choose a lower --fps, or mend the time stamps: ffmpeg -i CLIP -r 25 NEW.mp4",
        )
    wanted = np.arange(int(np.floor(span * fps + 0.5)) + 1) / fps + times[0]
    after = np.clip(np.searchsorted(times, wanted), 1, max(1, len(times) - 1))
    before = after - 1
    later = wanted - times[before] > times[np.minimum(after, len(times) - 1)] - wanted
    return np.asarray(np.where(later, after, before))


def _split(take: np.ndarray, val_fraction: float, fps: float) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """Unbroken runs of at least two frames for training and validation, and the number of frames between them."""
    used = np.flatnonzero(take >= 0)
    cut = len(take)
    if val_fraction and len(used):
        least = min(max(round(LEAST_VAL_SECONDS * fps), LEAST_VAL_FRAMES), int(_MOST_VAL * len(used)))
        wanted = max(round(len(used) * val_fraction), least)
        cut = int(used[min(len(used) - 1, len(used) - wanted)])
    gap = min(round(GAP_SECONDS * fps), max(1, cut // 20)) if cut < len(take) else 0
    early, late = take.copy(), take.copy()
    early[max(0, cut - gap) :] = -1
    late[:cut] = -1
    train, val = ([run for run in tracking.unbroken(part) if len(run) > 1] for part in (early, late))
    return train, val, gap


def _about_people(poses: tracking.Poses, clip: Scan, people: Sequence[Sequence[Person]]) -> list[str]:
    if poses.most < 2:
        return []
    count = sum(bool(persons) and take >= 0 for persons, take in zip(people, poses.take, strict=True))
    return [f"up to {poses.most} people are in view at once; the one who is largest for longest was taken, "
            f"who is in view in {count} of {len(clip.times)} frames"]  # fmt: skip


def _about_window(fit: window.Fit, clip: Scan, cropped: bool) -> list[str]:
    left, top, right, bottom = (round(side) for side in fit.box)
    high, wide = fit.size
    if cropped:
        part = _by((right - left, bottom - top))
        return [f"frames of {high}x{wide} show the part {part} of the pictures, from column {left} and row {top} on, "
                f"where the dancer goes; --crop none keeps all"]  # fmt: skip
    left, top, right, bottom = fit.place
    bars = 1 - (right - left) * (bottom - top) / (high * wide)
    if bars <= _WASTED:
        return []
    return [f"{bars:.0%} of each frame is black bars around {_by(clip.picture)}: leave --size out, or choose --size "
            f"small, medium or large, which follow the clip's shape; --fit crop cuts it"]  # fmt: skip
