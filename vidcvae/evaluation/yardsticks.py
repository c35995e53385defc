"""What a free run is scored against besides the true frames, computed once before the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vidcvae.data import clips
from vidcvae.evaluation.nearest_pose import NearestPose

STILL = 8  # of 255
STILL_PIXELS = (
    f"where the truth's standard deviation over the predicted frames of its sequence is under {STILL} of 255 in every "
    "channel; the others move"
)
BLOCK = 64  # frames summed at once


@dataclass(frozen=True)
class Yardstick:
    """What the run of one sequence is scored against.

    still: the pixels that do not move in the truth, bool (H, W).
    nearest_pose: frame number -> the training frame with the nearest pose, uint8 (3, H, W).
    """

    still: np.ndarray
    nearest_pose: Callable[[int], np.ndarray] | None = None


def yardstick(sequence: clips.Sequence, first: int, length: int, search: NearestPose | None) -> Yardstick:
    """The yardstick for the predicted frames ``first .. length - 1``. Memory use does not grow with their number."""
    still = still_pixels(sequence.frames[first:length])
    if search is None:
        return Yardstick(still)
    numbers = search.find(sequence.tracks["pose"][first:length])
    return Yardstick(still, lambda t: search.frame(numbers[t - first]))


def still_pixels(frames: np.ndarray) -> np.ndarray:
    """The pixels of uint8 (T, 3, H, W) whose standard deviation over time is below ``STILL`` in every channel.

    Returns bool (H, W). The deviation is that of the population, and is exact: it is computed from sums of integers.
    """
    total, squares = (np.zeros(frames.shape[1:], np.int64) for _ in range(2))
    for begin in range(0, len(frames), BLOCK):
        block = frames[begin : begin + BLOCK].astype(np.int32)
        total += block.sum(axis=0)
        squares += np.square(block).sum(axis=0)
    still = len(frames) * squares - total**2 < (STILL * len(frames)) ** 2
    return np.asarray(still.all(axis=0))
