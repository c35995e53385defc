"""One dancer's joints through a clip: who is meant where several are seen, short gaps filled, and smoothed on request.

N frames of a clip, 25 joints, x and y; NaN where a joint is not known.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vidcvae.own_clips.keypoint_checks import Person

MIN_JOINTS = 4  # fewer are no figure
_REACH = 0.6  # of the figure's size: how far somebody gets from one frame to the next
_ALIKE = 0.5  # of the dancer's size: what others must have to be the dancer, back after an absence


@dataclass
class _Track:
    """Somebody through the frames in which they were found."""

    seen: dict[int, Person] = field(default_factory=dict)

    @property
    def last(self) -> int:
        return max(self.seen)

    @property
    def weight(self) -> float:
        """Largest for who is seen large and for long."""
        return sum(_size(person) for person in self.seen.values())

    @property
    def size(self) -> float:
        return self.weight / len(self.seen)


@dataclass(frozen=True)
class Poses:
    """joints: (N, 25, 2). take: (N,), which unbroken appearance a frame belongs to; -1 where nobody is.

    most: how many people are seen at once at the most.
    """

    joints: np.ndarray
    take: np.ndarray
    most: int


def follow(people: Sequence[Sequence[Person]], max_gap: int) -> Poses:
    """The dancer among the people of each frame: who is seen largest for longest, and again after an absence.

    max_gap: after more frames than this somebody is no longer known by where they were.
    """
    crowd = [[person for person in there if np.isfinite(person[:, 0]).sum() >= MIN_JOINTS] for there in people]
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
    for frame, there in enumerate(crowd):
        current = [track for track in current if frame - track.last <= max_gap + 1]
        pairs = [
            (_distance(track.seen[track.last], person), t, p)
            for (t, track), (p, person) in itertools.product(enumerate(current), enumerate(there))
        ]
        matched: dict[int, int] = {}
        for distance, t, p in sorted(pairs):
            if distance <= _REACH and p not in matched and t not in matched.values():
                matched[p] = t
        for p, person in enumerate(there):
            if p in matched:
                current[matched[p]].seen[frame] = person
            else:
                tracks.append(_Track({frame: person}))
                current.append(tracks[-1])
    return tracks


def _size(person: Person) -> float:
    return float((np.nanmax(person, axis=0) - np.nanmin(person, axis=0)).max())


def _distance(a: Person, b: Person) -> float:
    """Between two figures, in their own size: the median over the joints that both have."""
    apart = np.hypot(*(a - b).T)
    apart = apart[np.isfinite(apart)]
    return float(np.median(apart)) / max(_size(a), _size(b), 1e-6) if len(apart) else np.inf


def fill(poses: Poses, times: np.ndarray, max_gap: int) -> Poses:
    """Joints that are missing for at most ``max_gap`` frames, on straight lines through time from before to after.

    Frames in which too little of a figure is left then belong to no take.
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
    """A weighted mean of each joint over ``frames`` frames under a bell, never from one take into another."""
    joints = poses.joints.copy()
    radius = frames // 2
    bell = np.hanning(2 * radius + 3)[1:-1]
    for run in unbroken(poses.take):
        track = joints[run].reshape(len(run), -1)
        known = np.isfinite(track)
        padded = [np.pad(values, ((radius, radius), (0, 0))) for values in (np.where(known, track, 0), known)]
        total, weight = (np.einsum("k,knv->nv", bell, _windows(values, len(bell))) for values in padded)
        joints[run] = np.where(known, total / np.maximum(weight, 1e-12), np.nan).reshape(-1, 25, 2)
    return Poses(joints, poses.take, poses.most)


def _windows(values: np.ndarray, length: int) -> np.ndarray:
    """(length, N - length + 1, V) of values (N, V): entry k is ``values`` from row k on."""
    rows = len(values) - length + 1
    return np.stack([values[k : k + rows] for k in range(length)])


def unbroken(take: np.ndarray) -> list[np.ndarray]:
    """The frames of each unbroken run of one take, in order."""
    cuts = np.flatnonzero(np.diff(take)) + 1
    return [run for run in np.split(np.arange(len(take)), cuts) if len(run) and take[run[0]] >= 0]
