"""The empty scene behind a dancer, from the frames of a camera that does not move."""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from vidcvae.data.clips import Sequence
from vidcvae.errors import DataError

MOST_FRAMES = 256  # looked at, evenly spread over all sequences
AROUND = 0.09  # of the frame's height: how far a body extends beyond the lines of its skeleton
LEAST = 3  # frames in which nobody must cover a pixel
ALIKE = 16  # of 255: the most that a static pixel changes with the light
_PAPER = 240  # a pose image is darker where a limb is


class Scene(NamedTuple):
    """picture: uint8 (3, H, W). still: the share of its visible pixels, over all frames, within ``ALIKE`` of it."""

    picture: np.ndarray
    still: float


def behind(sequences: Items[Sequence], in_use: Items[int]) -> Scene:
    """The empty scene: each pixel is its median over the frames whose skeleton is not near it.

    in_use: the number of frames to use of each sequence. A pixel that is never free gets the median of all frames.
    Raises ``DataError`` if no frame has a known pose.
    """
    known = [(s, row) for s, end in zip(sequences, in_use, strict=True)
             for row in range(min(end, s.known)) if row not in s.unknown_poses]  # fmt: skip
    if not known:
        raise DataError("no training frame has a known pose.", "Train without the scene: --set model.scene=false")
    picked = [known[i] for i in np.unique(np.linspace(0, len(known) - 1, MOST_FRAMES).round().astype(int))]
    frames = np.stack([s.frames[row] for s, row in picked])  # (N, 3, H, W)
    free = ~np.stack([_near_a_limb(s.tracks["pose"][row]) for s, row in picked])  # (N, H, W)
    scene, alike = np.empty(frames.shape[1:], np.uint8), 0
    for y in range(frames.shape[2]):  # a row at a time: floats of all frames would take four times their memory
        shown = frames[:, :, y].astype(np.float32)  # (N, 3, W)
        enough = free[:, y].sum(0) >= LEAST
        shown[:, :, enough] = np.where(free[:, None, y, enough], shown[:, :, enough], np.nan)
        scene[:, y] = np.nanmedian(shown, axis=0).round()
        alike += ((np.abs(frames[:, :, y] - scene[:, y].astype(int)) <= ALIKE).all(1) & free[:, y]).sum()
    return Scene(scene, float(alike / max(1, free.sum())))


def _near_a_limb(pose: np.ndarray) -> np.ndarray:
    """(3, H, W) -> (H, W): within ``AROUND`` of a drawn line."""
    ink = torch.from_numpy((np.asarray(pose) < _PAPER).any(0)).float()[None]
    reach = max(2, round(AROUND * pose.shape[-2]))
    side = 2 * reach + 1  # one axis after the other: the maximum is the same, and takes an eighth of the time
    return np.asarray(F.max_pool2d(F.max_pool2d(ink, (side, 1), 1, (reach, 0)), (1, side), 1, (0, reach))[0].bool())
