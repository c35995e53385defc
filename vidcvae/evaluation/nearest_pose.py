"""The training frame whose pose is nearest: a baseline that repeats training frames and needs no network.

The distance of two poses is the L2 distance, over all pixels and channels, of their images blurred by a Gaussian. It
is computed from their cosine coefficients: the cosine transform preserves distances (Ahmed, Natarajan and Rao 1974),
and the blur multiplies each coefficient by a factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidcvae.data import clips
from vidcvae.data.clips import VideoData

BLUR = 2.0  # the Gaussian's standard deviation in pixels of the data
BLOCK = 128  # poses transformed at once
QUERIES = 512  # poses looked up at once
KEPT = 256 << 20  # bytes of coefficients that are kept for the next search; larger ones are computed again


class NearestPose:
    """Training frames that are found by their pose images. Frames whose poses are stand-ins are left out.

    Its length is the number of frames that are searched. Apart from the frames, which may be on disk, it takes at most
    ``KEPT`` bytes of memory.
    """

    def __init__(self, sequences: Iterable[clips.Sequence]) -> None:
        self._places = [
            (sequence, row)
            for sequence in sequences
            if "pose" in sequence.tracks
            for row in range(sequence.known)
            if row not in sequence.unknown_poses
        ]
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._places)

    def frame(self, number: int) -> np.ndarray:
        """Training frame ``number``, uint8 (3, H, W)."""
        sequence, row = self._places[number]
        return np.asarray(sequence.frames[row])

    def find(self, poses: np.ndarray) -> list[int]:
        """For each of ``poses``, uint8 (T, 3, H, W), the number of the training frame with the nearest pose."""
        result: list[int] = []
        for begin in range(0, len(poses), QUERIES):
            batch = poses[begin : begin + QUERIES]
            queries = torch.cat([self._coefficients(batch[i : i + BLOCK]) for i in range(0, len(batch), BLOCK)])
            nearest, numbers = torch.full((len(queries),), torch.inf), torch.zeros(len(queries), dtype=torch.long)
            for first, known in self._searched():
                # |a - b|^2 without |a|^2, which is the same for every b
                distances, rows = (known.square().sum(dim=1) - 2 * queries @ known.T).min(dim=1)
                numbers = torch.where(distances < nearest, rows + first, numbers)
                nearest = torch.minimum(distances, nearest)
            result += numbers.tolist()
        return result

    def _searched(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the coefficients of the training poses in blocks, each with the number of its first frame."""
        height, width = self._pose(0).shape[-2:]
        keep = len(self) * 3 * _half(height) * _half(width) * 4 <= KEPT
        for first in range(0, len(self), BLOCK):
            block = self._kept.get(first)
            if block is None:
                numbers = range(first, min(first + BLOCK, len(self)))
                block = self._coefficients(np.stack([self._pose(number) for number in numbers]))
            if keep:
                self._kept[first] = block
            yield first, block

    def _pose(self, number: int) -> np.ndarray:
        sequence, row = self._places[number]
        return np.asarray(sequence.tracks["pose"][row])

    def _coefficients(self, poses: np.ndarray) -> Tensor:
        """Blurred poses as vectors of the same distances: uint8 (N, 3, H, W) -> (N, 3 * H/2 * W/2)."""
        # One pose is subtracted to cancel the background: differences of large, near-equal numbers lose precision
        x = torch.from_numpy((poses.astype(np.float32) - self._pose(0)) / 255)
        down, across = (_blurred_cosines(side) for side in x.shape[-2:])
        return (down @ (x @ across.T)).flatten(1)


def search(data: VideoData, split: str, trained_on: VideoData | str) -> NearestPose | str:
    """A search of the training frames of ``trained_on``, for scoring ``data``; or the reason why there is none."""
    if isinstance(trained_on, str):
        return trained_on.rstrip(".")
    if not trained_on.has_split("train"):
        return f"{trained_on.name} has no train split"
    if data is trained_on and split == "train":
        return "the scored frames are the training frames"
    frames = NearestPose(trained_on.split("train"))
    return frames if len(frames) else f"the train split of {trained_on.name} has no frames with poses"


def describe(search: NearestPose | str, trained_on: VideoData | str) -> dict[str, Any]:
    """The entry of a score record about a search, or about the reason why there was none."""
    if isinstance(search, str) or isinstance(trained_on, str):
        return {"searched": None, "reason": f"none was searched: {search}"}
    return {
        "searched": f"{len(search)} frames of train",
        "dataset": trained_on.name,
        "data": str(trained_on.source),
        "frames": len(search),
        "blur": BLUR,
        "distance": "L2 over all pixels and channels of the pose images, blurred by a Gaussian of so many pixels",
    }


def _half(side: int) -> int:
    return (side + 1) // 2


def _blurred_cosines(side: int) -> Tensor:
    """The matrix that gives the lower half of the DCT-II (orthonormal) of a blurred line of pixels, (side / 2, side).

    The line continues beyond its ends as its mirror image. The blur reduces the other half to less than 1%.
    """
    k = np.arange(_half(side))[:, None]
    cosines = np.sqrt((2 - (k == 0)) / side) * np.cos(np.pi * k * (np.arange(side) + 0.5) / side)
    offsets = np.arange(-math.ceil(4 * BLUR), math.ceil(4 * BLUR) + 1)
    weights = np.exp(-0.5 * (offsets / BLUR) ** 2)
    factors = (weights * np.cos(np.pi * k * offsets / side)).sum(axis=1, keepdims=True) / weights.sum()
    return torch.from_numpy((factors * cosines).astype(np.float32))
