"""The form that every dataset is read into: named splits of unbroken sequences, and batches of clips cut from them.

Axes are B, T, C, H, W throughout; frames are uint8 0..255 until a model sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, assert_never

import numpy as np
import torch
from torch import Tensor

from vidcvae.config.schema import ConditionKind, ConditionRow
from vidcvae.data import room
from vidcvae.errors import DataError, did_you_mean, typed


@dataclass(frozen=True)
class Sequence:
    """One unbroken run of frames with its poses, actions or positions.

    frames: uint8 (N, 3, H, W); N is 1 if a test sequence has only its first frame.
    tracks: "pose" uint8 (T, 3, H, W), "action" float32 (T, A), "position" float32 (T, 3); row t belongs
        to frame t, and there may be more rows than frames.
    unknown_poses: rows of "pose" that are placeholders, not measurements.
    """

    name: str
    frames: np.ndarray
    tracks: Mapping[str, np.ndarray] = field(default_factory=dict)
    unknown_poses: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def condition_length(self) -> int:
        """The number of frames with conditions; the number of frames if the sequence has no tracks."""
        return min((len(track) for track in self.tracks.values()), default=len(self.frames))

    @property
    def known(self) -> int:
        """The number of frames that have conditions too; no clip extends beyond them."""
        return min(len(self.frames), self.condition_length)


@dataclass(frozen=True)
class VideoData:
    """A dataset: ``kind`` is "dance" (pose images) or "push" (actions), ``splits`` map names to sequences."""

    name: str
    kind: str
    fps: float
    source: Path
    splits: Mapping[str, tuple[Sequence, ...]]
    files_size: tuple[int, int] | None = None  # height and width of the image files

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every frame."""
        first = next(s for split in self.splits.values() for s in split)
        return first.frames.shape[-2], first.frames.shape[-1]

    def split_name(self, name: str) -> str:
        """This dataset's name for the split ``name``: "val" and "validate" are synonyms."""
        alias = {"val": "validate", "validate": "val"}.get(name, name)
        return alias if alias in self.splits and name not in self.splits else name

    def has_split(self, name: str) -> bool:
        return bool(self.splits.get(self.split_name(name)))

    def split(self, name: str) -> tuple[Sequence, ...]:
        """The sequences of a split; raises ``DataError`` if it is missing or empty."""
        sequences = self.splits.get(self.split_name(name), ())
        if not sequences:
            present = [s for s, found in self.splits.items() if found]
            other = f" (--split {present[0]}, or other data: --data DATASET)" if present and name != "train" else ""
            inspect = typed("dataset", "inspect", self.source)
            raise DataError(
                f"{self.source} has no {name!r} split.{did_you_mean(name, present)}",
                f"It has {', '.join(present) or 'none at all'}{other}. See what is there: {inspect}",
            )
        return sequences


@dataclass(frozen=True)
class Stream:
    """A dataset that is read one sequence at a time, in file order, so that packing holds only one in memory.

    counts: the number of images in each sequence, poses included. size: (height, width) of the frames.
    files_size: (height, width) of the image files.
    """

    name: str
    kind: str
    fps: float
    source: Path
    sequences: Iterable[tuple[str, Sequence]]  # (split, sequence)
    counts: tuple[int, ...] = ()
    size: tuple[int, int] = (0, 0)
    files_size: tuple[int, int] | None = None

    def collect(self) -> VideoData:
        """Read all of it into memory. Raises ``VidcvaeError``, before anything is read, if it does not fit."""
        room.check(self, sum(self.counts))
        found: dict[str, list[Sequence]] = {}
        for split, sequence in self.sequences:
            found.setdefault(split, []).append(sequence)
        splits = {split: tuple(sequences) for split, sequences in found.items()}
        return VideoData(self.name, self.kind, self.fps, self.source, splits, self.files_size)


@dataclass(frozen=True)
class ClipBatch:
    """Clips of equal length.

    frames: uint8 (B, T, 3, H, W).
    condition: entry t belongs to the transition into frame t. Pose images uint8 (B, T, 3, H, W), or
        actions float32 (B, T, A), or nothing. Entry 0 is never used to predict a frame of the clip.
    anchor: another frame of each clip's sequence with its pose, uint8 (B, 3, H, W) each, if the model uses one.
    start: uint8 (B, 3, H, W), the model's input for frame 0, if it is not the true frame.
    """

    frames: Tensor
    condition: Tensor | None
    anchor: tuple[Tensor, Tensor] | None = None
    start: Tensor | None = None

    def map(self, f: Callable[[Tensor], Tensor]) -> ClipBatch:
        """Apply ``f`` to every tensor."""
        anchor = None if self.anchor is None else (f(self.anchor[0]), f(self.anchor[1]))
        condition, start = (None if x is None else f(x) for x in (self.condition, self.start))
        return ClipBatch(f(self.frames), condition, anchor, start)

    def __getitem__(self, clips: slice | list[int]) -> ClipBatch:
        return self.map(lambda x: x[clips])

    def to(self, device: torch.device) -> ClipBatch:
        return self.map(lambda x: x.to(device))

    def unit(self) -> ClipBatch:
        """Images in 0..1 and conditions as float32, as models take them."""
        return self.map(to_unit)


def condition_tracks(kind: ConditionKind) -> tuple[str, ...]:
    """The tracks whose concatenation is the condition of a model with this ``condition_kind``."""
    match kind:
        case "none":
            return ()
        case "pose":
            return ("pose",)
        case "actions":
            return ("action",)
        case "actions+positions":
            return ("action", "position")
        case _:
            assert_never(kind)


_FILES = {"action": "actions.csv", "position": "endeffector_positions.csv", "pose": "poses"}


def condition_rows(
    sequence: Sequence, start: int, length: int, kind: ConditionKind, pairing: ConditionRow
) -> np.ndarray | None:
    """The conditions of frames ``start .. start + length - 1``, one row for the step into each.

    kind: "pose", "none", "actions" or "actions+positions" (a model's ``condition_kind``).
    pairing: "source" takes row t-1 of the actions, which causes frame t; "target" takes row t.
    """
    if kind == "none":
        return None
    wanted = condition_tracks(kind)
    for name in wanted:
        if name not in sequence.tracks:
            raise DataError(
                f"sequence {sequence.name} has no {_FILES.get(name, name)}, but the model is conditioned on {kind}.",
                "Choose data that has them, or train without: --set model.conditions=none"
                if name != "pose"
                else "Use a dataset in the course's dance layout; for robot pushing: --preset svg-bair",
            )
    if kind == "pose":
        return np.asarray(sequence.tracks["pose"][start : start + length])
    match pairing:
        case "source":
            shift = -1
        case "target":
            shift = 0
        case _:
            assert_never(pairing)
    rows = np.clip(np.arange(start, start + length) + shift, 0, None)
    return np.concatenate([np.asarray(sequence.tracks[name][rows]) for name in wanted], axis=-1)


class Place(NamedTuple):
    """A clip's sequence, first frame and anchor frame (-1: none), and how its images are mirrored and shifted."""

    sequence: int
    first: int
    anchor: int = -1
    mirrored: int = 0
    down: int = 0
    right: int = 0


def cut(
    sequences: tuple[Sequence, ...],
    places: Items[tuple[int, ...]],
    length: int,
    kind: ConditionKind,
    pairing: ConditionRow,
) -> ClipBatch:
    """The clips of ``length`` frames that begin at ``places``, with anchors if all places have one."""
    at = [Place(*place) for place in places]
    frames = np.stack([mirrored_and_shifted(sequences[p.sequence].frames[p.first : p.first + length], p) for p in at])
    condition = anchor = None
    if kind != "none":
        rows = [condition_rows(sequences[p.sequence], p.first, length, kind, pairing) for p in at]
        given = [row for row in rows if row is not None]
        if kind == "pose":
            given = [mirrored_and_shifted(row, p, 255) for row, p in zip(given, at, strict=True)]
        condition = torch.from_numpy(np.stack(given))
    if all(p.anchor >= 0 for p in at):
        each = [(sequences[p.sequence], p) for p in at]
        images = np.stack([mirrored_and_shifted(q.frames[p.anchor], p) for q, p in each])
        poses = np.stack([mirrored_and_shifted(q.tracks["pose"][p.anchor], p, 255) for q, p in each])
        anchor = torch.from_numpy(images), torch.from_numpy(poses)
    return ClipBatch(torch.from_numpy(frames), condition, anchor)


def mirrored_and_shifted(images: np.ndarray, place: Place, fill: int | None = None) -> np.ndarray:
    """(..., H, W) mirrored and shifted by ``place``; uncovered pixels are ``fill``, or repeat the edge."""
    _, _, _, mirrored, down, right = place
    if mirrored:
        images = images[..., ::-1]
    if not down and not right:
        return images
    height, width = images.shape[-2:]
    y, x = np.arange(height) - down, np.arange(width) - right
    shifted = images[..., y.clip(0, height - 1), :][..., x.clip(0, width - 1)]
    if fill is not None:
        shifted[..., (y < 0) | (y >= height), :] = fill
        shifted[..., (x < 0) | (x >= width)] = fill
    return shifted


def to_unit(values: Tensor) -> Tensor:
    """uint8 0..255 to float 0..1; other dtypes (actions) pass through as float32."""
    return values.float() / 255 if values.dtype == torch.uint8 else values.float()
