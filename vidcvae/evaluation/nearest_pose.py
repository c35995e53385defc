"""The training frame whose pose is nearest: what somebody makes of a pose who has only remembered, without a network.

Poses are nearest by the L2 distance, over all pixels and channels, of their images blurred by a Gaussian. It is taken
from their cosine coefficients, of which the blur is a factor and which keep distances (Ahmed, Natarajan and Rao 1974).
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
ASKED = 512  # poses looked up at once
KEPT = 256 << 20  # bytes of coefficients that are kept for the next search; of more data they are made anew


class NearestPose:
    """Training frames, found by their pose images; those whose poses are stand-ins are left out.

    Its length is the number of frames that are searched. Beside the frames themselves, which may lie on the disk, it
    takes ``KEPT`` bytes of memory at most.
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
        """The training frame ``number``, uint8 (3, H, W)."""
        sequence, row = self._places[number]
        return np.asarray(sequence.frames[row])

    def find(self, poses: np.ndarray) -> list[int]:
        """The number of the training frame of the nearest pose, for each of the ``poses``, uint8 (T, 3, H, W)."""
        found: list[int] = []
        for begin in range(0, len(poses), ASKED):
            asked = torch.cat([self._coefficients(block) for block in _blocks(poses[begin : begin + ASKED])])
            nearest, numbers = torch.full((len(asked),), torch.inf), torch.zeros(len(asked), dtype=torch.long)
            for first, known in self._searched():
                # |a - b|^2 but for |a|^2, which is the same for every b
                distances, rows = (known.square().sum(dim=1) - 2 * asked @ known.T).min(dim=1)
                numbers = torch.where(distances < nearest, rows + first, numbers)
                nearest = torch.minimum(distances, nearest)
            found += numbers.tolist()
        return found

    def _searched(self) -> Iterator[tuple[int, Tensor]]:
        """The coefficients of the training poses block by block, each with the number of its first frame."""
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
        """Of the blurred poses, uint8 (N, 3, H, W), whose distances they keep: (N, 3 * H/2 * W/2)."""
        # The background falls out: differences of large, near-equal numbers would not be exact in float32
        x = torch.from_numpy((poses.astype(np.float32) - self._pose(0)) / 255)
        down, across = (_blurred_cosines(side) for side in x.shape[-2:])
        return (down @ (x @ across.T)).flatten(1)


def search(data: VideoData, split: str, trained_on: VideoData | str) -> NearestPose | str:
    """Through the training frames of ``trained_on``, for a score of ``data``; or why there is none."""
    if isinstance(trained_on, str):
        return trained_on.rstrip(".")
    if not trained_on.has_split("train"):
        return f"{trained_on.name} has no train split"
    if data is trained_on and split == "train":
        return "the scored frames are the training frames"
    found = NearestPose(trained_on.split("train"))
    return found if len(found) else f"the train split of {trained_on.name} has no frames with poses"


def told(search: NearestPose | str, trained_on: VideoData | str) -> dict[str, Any]:
    """What a score record says of a search, or of why there was none."""
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


def _blocks(poses: np.ndarray) -> Iterator[np.ndarray]:
    return (poses[begin : begin + BLOCK] for begin in range(0, len(poses), BLOCK))


def _half(side: int) -> int:
    return (side + 1) // 2


def _blurred_cosines(side: int) -> Tensor:
    """(side / 2, side): the lower half of the cosine coefficients (orthonormal DCT-II) of a blurred line of pixels.

    The line goes on beyond its ends as its mirror image. Of the other half the blur leaves less than 1%.
    """
    k = np.arange(_half(side))[:, None]
    cosines = np.sqrt((2 - (k == 0)) / side) * np.cos(np.pi * k * (np.arange(side) + 0.5) / side)
    offsets = np.arange(-math.ceil(4 * BLUR), math.ceil(4 * BLUR) + 1)
    weights = np.exp(-0.5 * (offsets / BLUR) ** 2)
    factors = (weights * np.cos(np.pi * k * offsets / side)).sum(axis=1, keepdims=True) / weights.sum()
    return torch.from_numpy((factors * cosines).astype(np.float32))
