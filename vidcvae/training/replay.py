"""Clips that continue from the model's own earlier frames, so that it learns from its accumulated errors.

In a clip of T frames a model sees its own predictions up to T - 2 steps deep. A clip that begins with the last
prediction of an earlier clip, at its place in the video, goes deeper; and because the ends of such clips are remembered
too, the depth grows to hundreds of steps, as in a free run, at the cost of short clips. (The idea is error recycling
in Stable Video Infinity, 2025; here for a recurrent model.)
"""

from __future__ import annotations

from collections.abc import Sequence as Items

import torch
from torch import Tensor

from vidcvae import rng
from vidcvae.data.clips import Place

CAPACITY = 256  # frames: many batches, so that clips of one batch rarely return together


class Replay:
    """A ring of the last predicted frames, uint8 (K, 3, H, W), with their places in the data."""

    def __init__(self, size: tuple[int, int], device: str) -> None:
        self.frames = torch.zeros(CAPACITY, 3, *size, dtype=torch.uint8, device=device)
        self.places: list[Place | None] = [None] * CAPACITY
        self.written = 0

    def choose(
        self, places: list[Place], ends: Items[int], length: int, share: float, seed: int, step: int
    ) -> tuple[list[Place], list[int]]:
        """Replace a share of the places by remembered ones that ``length`` frames still follow.

        ends: the number of usable frames in each sequence. Also returns the row of each remembered frame, -1 for the
        other places.
        """
        coins = rng.uniform((len(places), 2), seed, "replay", step).tolist()
        known = min(self.written, CAPACITY)
        chosen, rows = list(places), [-1] * len(places)
        for i, (coin, position) in enumerate(coins):
            row = int(position * known)
            place = self.places[row] if known else None
            if coin < share and place is not None and place.first + length <= ends[place.sequence]:
                chosen[i], rows[i] = place, row
        return chosen, rows

    def starts(self, truth: Tensor, rows: list[int]) -> Tensor:
        """The model's input for frame 0 (B, 3, H, W): the truth, or the remembered frame in ``rows``."""
        device = self.frames.device
        index = rng.to_device(torch.tensor(rows), device)
        remembered = self.frames[index.clamp(min=0)]
        return torch.where(index.view(-1, 1, 1, 1) >= 0, remembered, rng.to_device(truth, device))

    def add(self, ends: Tensor, places: list[Place], length: int) -> None:
        """Remember the last frames (B, 3, H, W), 0..1, of clips of ``length`` frames that began at ``places``."""
        rows = [(self.written + i) % CAPACITY for i in range(len(places))]
        index = rng.to_device(torch.tensor(rows), self.frames.device)
        self.frames[index] = (ends.clamp(0, 1) * 255).round().to(torch.uint8)
        for row, place in zip(rows, places, strict=True):
            self.places[row] = place._replace(first=place.first + length - 1)
        self.written += len(places)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors for a checkpoint."""
        places = [place or (-1,) * len(Place._fields) for place in self.places]
        return {
            "replay.frames": self.frames,
            "replay.places": torch.tensor(places),
            "replay.written": torch.tensor(self.written),
        }

    def restore(self, saved: dict[str, Tensor]) -> None:
        self.frames.copy_(saved["frames"])
        self.places = [Place(*row) if row[0] >= 0 else None for row in saved["places"].tolist()]
        self.written = int(saved["written"])
