"""Follows one dancer's joints through a clip: chooses among several people, fills short gaps, and can smooth.

Arrays are (N frames, 25 joints, x and y); NaN marks an unknown joint.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vidcvae.own_clips.keypoint_checks import Person

MIN_JOINTS = 4  # fewer are no figure
_REACH = 0.6  # of the figure's size: the farthest that somebody moves between two frames
_ALIKE = 0.5  # of the dancer's size: the least size of a track that can be the dancer returning


@dataclass
class _Track:
    """One person in the frames where they were found, in order."""

    seen: dict[int, Person] = field(default_factory=dict)

    @property
    def last(self) -> int:
        frame: int = next(reversed(self.seen))
        return frame

    @property
    def weight(self) -> float:
        """The sum of sizes: largest for the person who is large and visible for long."""
        return sum(_size(person) for person in self.seen.values())

    @property
    def size(self) -> float:
        return self.weight / len(self.seen)


@dataclass(frozen=True)
class Poses:
    """joints: (N, 25, 2). take: (N,), the number of the unbroken appearance that a frame belongs to; -1 for nobody.

    most: the largest number of people in one frame.
    """

    joints: np.ndarray
    take: np.ndarray
    most: int


def follow(people: Sequence[Sequence[Person]], max_gap: int) -> Poses:
    """Choose the dancer among the people of each frame: the one who is largest for longest, also after an absence.

    max_gap: after an absence of more frames than this, a person is no longer matched by position.
    """
    crowd = [[person for person in persons if np.isfinite(person[:, 0]).sum() >= MIN_JOINTS] for persons in people]
    tracks = sorted(_tracks(crowd, max_gap), key=lambda track: track.weight, reverse=True)
    joints = np.full((len(people), 25, 2), np.nan)
    take = np.full(len(people), -1)
    for number, track in enumerate(tracks):
        first, last = min(track.seen), track.last
        if track.size < _ALIKE * tracks[0].size or (take[first : last + 1] >= 0).any():
            continue
        take[first : last + 1] = number
        for frame, person in track.seen.items():
            joints[frame] = person
    return Poses(joints, take, max(map(len, crowd), default=0))


def _tracks(crowd: Sequence[Sequence[Person]], max_gap: int) -> list[_Track]:
    tracks: list[_Track] = []
    current: list[_Track] = []
    for frame, persons in enumerate(crowd):
        current = [track for track in current if frame - track.last <= max_gap + 1]
        pairs = [
            (_distance(track.seen[track.last], person), t, p)
            for (t, track), (p, person) in itertools.product(enumerate(current), enumerate(persons))
        ]
        matched: dict[int, int] = {}
        for distance, t, p in sorted(pairs):
            if distance <= _REACH and p not in matched and t not in matched.values():
                matched[p] = t
        for p, person in enumerate(persons):
            if p in matched:
                current[matched[p]].seen[frame] = person
            else:
                tracks.append(_Track({frame: person}))
                current.append(tracks[-1])
    return tracks


def _size(person: Person) -> float:
    return float((np.nanmax(person, axis=0) - np.nanmin(person, axis=0)).max())


def _distance(a: Person, b: Person) -> float:
    """The median distance between the joints that both figures have, in units of their size."""
    apart = np.hypot(*(a - b).T)
    apart = apart[np.isfinite(apart)]
    return float(np.median(apart)) / max(_size(a), _size(b), 1e-6) if len(apart) else np.inf


def fill(poses: Poses, times: np.ndarray, max_gap: int) -> Poses:
    """Fill joints that are missing for at most ``max_gap`` frames by linear interpolation in time.

    Frames with too few joints after that belong to no take.
    """
    joints, take = poses.joints.copy(), poses.take.copy()
    for number in set(take[take >= 0].tolist()):
        span = np.flatnonzero(take == number)
        for joint in range(joints.shape[1]):
            track = joints[span, joint]
            known = np.flatnonzero(np.isfinite(track[:, 0]))
            for before, after in itertools.pairwise(known):
                if 1 < after - before <= max_gap + 1:
                    gap = span[before + 1 : after]
                    ends = span[[before, after]]
                    for axis in range(2):
                        joints[gap, joint, axis] = np.interp(times[gap], times[ends], joints[ends, joint, axis])
    take[np.isfinite(joints[..., 0]).sum(1) < MIN_JOINTS] = -1
    return Poses(joints, take, poses.most)


def smooth(poses: Poses, frames: int) -> Poses:
    """Smooth each joint by a Hann-weighted mean over ``frames`` frames, within each take."""
    joints = poses.joints.copy()
    radius = frames // 2
    bell = np.hanning(2 * radius + 3)[1:-1]
    for run in unbroken(poses.take):
        track = joints[run].reshape(len(run), -1)
        known = np.isfinite(track)
        padded = [np.pad(values, ((radius, radius), (0, 0))) for values in (np.where(known, track, 0), known)]
        windows = (np.lib.stride_tricks.sliding_window_view(values, len(bell), axis=0) for values in padded)
        total, weight = (np.einsum("k,nvk->nv", bell, values) for values in windows)
        joints[run] = np.where(known, total / np.maximum(weight, 1e-12), np.nan).reshape(-1, 25, 2)
    return Poses(joints, poses.take, poses.most)


def unbroken(take: np.ndarray) -> list[np.ndarray]:
    """The frames of each unbroken run of one take, in order."""
    cuts = np.flatnonzero(np.diff(take)) + 1
    return [run for run in np.split(np.arange(len(take)), cuts) if len(run) and take[run[0]] >= 0]
