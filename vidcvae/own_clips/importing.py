"""A clip and its keypoints, made into a dance dataset: frames beside skeleton images, cut into unbroken sequences."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from vidcvae.data import clips
from vidcvae.errors import DataError
from vidcvae.own_clips import skeleton, tracking
from vidcvae.own_clips.estimation import Estimator
from vidcvae.own_clips.footage import BrokenOff, Pictures
from vidcvae.own_clips.keypoint_checks import Keypoints, Person

FITS = ("pad", "crop", "stretch")
GAP_SECONDS = 1.0  # left out between training and validation, whose frames would be near copies otherwise
MOST_REPEATS = 100  # of each frame on average: more comes of broken time stamps
_WASTED = 0.25  # a larger share of bars is worth a word

Progress = Callable[[int, int], None] | None


@dataclass(frozen=True)
class Settings:
    """size: height and width of the frames made. fit: one of ``FITS``. fps: frames a second; None keeps the clip's.

    val_fraction: share of the frames that validation gets, from the end. max_gap: how many missing frames are filled.
    smooth: frames of the bell that smooths the joints; 0 leaves them.
    """

    size: tuple[int, int]
    fit: str = "pad"
    fps: float | None = None
    val_fraction: float = 0.1
    max_gap: int = 5
    smooth: int = 0


@dataclass(frozen=True)
class Imported:
    """The dataset, what is worth knowing about it, and where the clip broke off, if it did.

    most: how many people are seen at once at the most.
    """

    data: clips.VideoData
    notes: list[str]
    broken: str
    most: int


@dataclass(frozen=True)
class Fit:
    """How pictures of one size become frames: what is in ``box`` (left, top, right, bottom) goes to ``place``."""

    box: tuple[float, float, float, float]
    place: tuple[int, int, int, int]  # left, top, right, bottom
    size: tuple[int, int]  # height, width

    def frame(self, image: Image.Image) -> np.ndarray:
        """uint8 (3, H, W); black where the picture does not reach."""
        left, top, right, bottom = self.place
        part = image.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=self.box)
        frame = np.zeros((3, *self.size), np.uint8)
        frame[:, top:bottom, left:right] = np.asarray(part).transpose(2, 0, 1)
        return frame

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Points of a picture (..., 2) as points of the frame."""
        box, place = np.array(self.box), np.array(self.place, float)
        scale = (place[2:] - place[:2]) / (box[2:] - box[:2])
        return np.asarray((xy - box[:2]) * scale + place[:2])


def fit(picture: tuple[int, int], size: tuple[int, int], how: str) -> Fit:
    """How a picture (width, height) goes into a frame ``size`` (height, width).

    "pad" shows all of it between black bars, "crop" cuts its longer side evenly, "stretch" distorts it.
    """
    width, height = picture
    wide, high = size[1], size[0]
    whole = (0.0, 0.0, float(width), float(height))
    if how == "stretch":
        return Fit(whole, (0, 0, wide, high), size)
    scale = (max if how == "crop" else min)(wide / width, high / height)
    if how == "crop":
        left, top = (width - wide / scale) / 2, (height - high / scale) / 2
        return Fit((max(0.0, left), max(0.0, top), min(width, width - left), min(height, height - top)),
                   (0, 0, wide, high), size)  # fmt: skip
    across, down = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (wide - across) // 2, (high - down) // 2
    return Fit(whole, (left, top, left + across, top + down), size)


# --- from the clip to frames -----------------------------------------------------------------------


@dataclass
class _Clip:
    """Every frame of a clip, at its final size: frames (N, 3, H, W), times (N,) in seconds, and why it ends early."""

    frames: np.ndarray
    times: np.ndarray
    picture: tuple[int, int]  # width, height
    fit: Fit
    broken: str = ""
    estimated: list[list[Person]] = field(default_factory=list)


def _read(pictures: Pictures, settings: Settings, estimate: Estimator | None, progress: Progress) -> _Clip:
    times: list[float] = []
    estimated: list[list[Person]] = []
    broken, picture, how = "", None, None
    try:
        # frames wait on the disk: a clip of minutes does not fit into memory at every size
        with tempfile.TemporaryFile() as file:
            try:
                for time, image in pictures.images:
                    if how is None or picture is None:
                        picture, how = image.size, fit(image.size, settings.size, settings.fit)
                    if image.size != picture:
                        raise BrokenOff(f"frames of {_by(picture)} are followed by one of {_by(image.size)}")
                    file.write(how.frame(image).data)
                    times.append(time)
                    if estimate:
                        estimated.append(estimate(image, time))
                    if progress:
                        progress(len(times), max(pictures.total, len(times)))
            except BrokenOff as error:
                broken = f"{pictures.path} breaks off after {times[-1] if times else 0:.2f} seconds: {error}."
            if how is None or picture is None:
                raise DataError(broken or f"{pictures.path} has no frames.", "Record or convert it again.")
            file.flush()
            frames = np.memmap(file, np.uint8, "r", shape=(len(times), 3, *settings.size))
    except OSError as error:
        raise DataError(
            f"cannot keep the frames of {pictures.path} in {tempfile.gettempdir()}: {error.strerror}.",
            "Free some space, or name another folder in the environment variable TMPDIR.",
        ) from None
    return _Clip(frames, np.array(times), picture, how, broken, estimated)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]} (width x height)"


# --- keypoints to frames ---------------------------------------------------------------------------


_SAME_CLIP = "Run the pose estimator over every frame of this very clip, turned upright, at its own size and rate."


def _people(keypoints: Keypoints, clip: _Clip, numbers: Sequence[int] | None) -> list[list[Person]]:
    """The people of each frame of the clip, in pixels of its pictures; raises ``DataError`` where they do not fit."""
    path, count = keypoints.path, len(clip.times)
    if keypoints.size and keypoints.size != clip.picture:
        raise DataError(
            f"{path} tells of pictures of {_by(keypoints.size)}, but the frames have {_by(clip.picture)}.", _SAME_CLIP
        )
    last = max(keypoints.people)
    index = {number: row for row, number in enumerate(numbers or ())}
    if not keypoints.people.keys() <= index.keys():  # the images are called otherwise, or there are none
        start = int(keypoints.first == 1) if keypoints.frames is None else keypoints.first
        index = {start + row: row for row in range(count)}
    told, least = keypoints.frames, ""
    if told is None:
        told, least = (count, "") if last in index else (last - min(index) + 1, "at least ")
    if told != count and not (clip.broken and told > count):
        raise DataError(f"{path} tells of {least}{told} frames, but the clip has {count}.", _SAME_CLIP)
    scale = np.array(clip.picture, float) if keypoints.fractions else np.ones(2)
    people: list[list[Person]] = [[] for _ in range(count)]
    for number, there in keypoints.people.items():
        if number in index:
            people[index[number]] = [person * scale for person in there]
    return people


def _check_place(people: Sequence[Sequence[Person]], clip: _Clip, path: object) -> None:
    """Keypoints of another picture size mostly lie outside."""
    joints = [person[np.isfinite(person[:, 0])] for there in people for person in there]
    points = np.concatenate(joints) if joints else np.zeros((0, 2))
    outside = ((points < -1) | (points > np.array(clip.picture) + 1)).any(1)
    if len(points) and outside.mean() > 0.5:
        right, bottom = points.max(0)
        raise DataError(
            f"{path} has joints as far as x = {right:.0f}, y = {bottom:.0f}, but the frames have {_by(clip.picture)}.",
            _SAME_CLIP,
        )


# --- the dataset -----------------------------------------------------------------------------------


def import_clip(
    pictures: Pictures,
    keypoints: Keypoints | None,
    settings: Settings,
    estimate: Estimator | None = None,
    progress: Progress = None,
) -> Imported:
    """Frames and skeleton images of a clip as a dataset with the splits train, val and test.

    keypoints: of every frame; None lets ``estimate`` find them. Test is the longest sequence of val: its first frame
    and all its poses. Raises ``DataError`` if keypoints and clip do not belong together, or nobody is there.
    """
    clip = _read(pictures, settings, estimate, progress)
    people = clip.estimated if keypoints is None else _people(keypoints, clip, pictures.numbers)
    _check_place(people, clip, keypoints.path if keypoints else "the estimate")
    notes = []
    if keypoints and keypoints.frames is None and keypoints.first == 1 and not pictures.numbers:
        notes.append(f"{keypoints.path} begins with frame 1, which is taken for the first of the clip")
    poses = tracking.fill(tracking.follow(people, settings.max_gap), clip.times, settings.max_gap)
    if settings.smooth:
        poses = tracking.smooth(poses, settings.smooth)
    notes += _about_people(poses, clip, people)

    fps = settings.fps or pictures.rate or _average_rate(clip.times)
    shown = _resample(clip.times, fps)
    take = poses.take[shown]
    if missing := int((take < 0).sum()):
        notes.append(f"{missing} of {len(shown)} frames show nobody and are left out; sequences are cut there")
    train, val, gap = _split(take, settings.val_fraction, fps)
    sequences = {"train": train, "val": val}
    splits = {
        name: tuple(_sequence(clip, poses.joints, shown[run], f"{run[0]}-{run[-1]}") for run in runs)
        for name, runs in sequences.items() if runs
    }  # fmt: skip
    if not train:
        raise DataError(f"{pictures.path} has no two frames after one another with somebody in them to train on.",
                        "Look at the keypoints; a lower --min-score or a larger --max-gap finds more.")  # fmt: skip
    if settings.val_fraction and not val:
        notes.append("too little is left for validation: the dataset has none")
    if val:
        longest = max(splits["val"], key=len)
        splits["test"] = (clips.Sequence("0", longest.frames[:1], longest.tracks),)
        notes.append(f"validation begins at {val[0][0] / fps:.1f} s, {gap} frames after the end of training")
    data = clips.VideoData(pictures.path.stem or "video", "dance", fps, pictures.path, splits)
    return Imported(data, [*notes, *_about_fit(clip, settings)], clip.broken, poses.most)


def _average_rate(times: np.ndarray) -> float:
    return float((len(times) - 1) / (times[-1] - times[0])) if len(times) > 1 and times[-1] > times[0] else 25.0


def _resample(times: np.ndarray, fps: float) -> np.ndarray:
    """For every frame made, the frame of the clip that is nearest in time."""
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
    """Unbroken runs of two frames and more for training and for validation, and the frames left out between them."""
    used = np.flatnonzero(take >= 0)
    cut = len(take)
    if val_fraction and len(used):
        cut = int(used[min(len(used) - 1, round(len(used) * (1 - val_fraction)))])
    gap = min(round(GAP_SECONDS * fps), max(1, cut // 20)) if cut < len(take) else 0
    early, late = take.copy(), take.copy()
    early[max(0, cut - gap) :] = -1
    late[:cut] = -1
    train, val = ([run for run in tracking.unbroken(part) if len(run) > 1] for part in (early, late))
    return train, val, gap


def _sequence(clip: _Clip, joints: np.ndarray, rows: np.ndarray, name: str) -> clips.Sequence:
    drawn = np.stack([skeleton.draw(points, clip.fit.size) for points in clip.fit.points(joints[rows])])
    return clips.Sequence(name, np.asarray(clip.frames[rows]), {"pose": drawn})


def _about_people(poses: tracking.Poses, clip: _Clip, people: Sequence[Sequence[Person]]) -> list[str]:
    if poses.most < 2:
        return []
    seen = sum(bool(there) and take >= 0 for there, take in zip(people, poses.take, strict=True))
    return [f"up to {poses.most} people are seen at once; the one seen largest for longest was taken, "
            f"who is there in {seen} of {len(clip.times)} frames"]  # fmt: skip


def _about_fit(clip: _Clip, settings: Settings) -> list[str]:
    left, top, right, bottom = clip.fit.place
    bars = 1 - (right - left) * (bottom - top) / (settings.size[0] * settings.size[1])
    if bars <= _WASTED:
        return []
    high, wide = settings.size
    width, height = clip.picture
    better = (high, max(8, round(high * width / height / 8) * 8)) if width / height < wide / high else (
        max(8, round(wide * height / width / 8) * 8), wide)  # fmt: skip
    return [f"{bars:.0%} of each frame is black bars around {_by(clip.picture)}: "
            f"--size {better[0]}x{better[1]} suits the clip, --fit crop cuts it"]  # fmt: skip
