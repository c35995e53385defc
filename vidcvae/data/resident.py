"""The training split in GPU memory: batches are gathered there, and no step waits for a transfer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vidcvae.config.schema import ConditionKind, ConditionRow
from vidcvae.data.clips import ClipBatch, Place, Sequence, condition_rows
from vidcvae.rng import to_device

SHARE_OF_FREE_MEMORY = 0.25


class Resident:
    """Frames and conditions of all sequences, concatenated on ``device``: frames uint8 (N, 3, H, W)."""

    def __init__(
        self, sequences: tuple[Sequence, ...], kind: ConditionKind, pairing: ConditionRow, device: str
    ) -> None:
        self.kind, self.device = kind, device
        self.frames = torch.cat([torch.from_numpy(np.array(s.frames[: s.known])).to(device) for s in sequences])
        rows = [condition_rows(s, 0, s.known, kind, pairing) for s in sequences]
        given = [torch.from_numpy(np.array(r)).to(device) for r in rows if r is not None]
        self.condition = torch.cat(given) if given else None
        self.begins = np.cumsum([0, *(s.known for s in sequences)]).tolist()

    def cut(self, places: list[Place], length: int) -> ClipBatch:
        """The same as ``clips.cut``."""
        table = to_device(torch.tensor([(self.begins[p.sequence], *p[1:]) for p in places]), self.device)
        begin, first, anchor, mirrored, down, right = table.unbind(1)
        rows = (begin + first)[:, None] + torch.arange(length, device=self.device)  # (B, T)
        height, width = self.frames.shape[-2:]
        x = torch.arange(width, device=self.device) - right[:, None]  # (B, W)
        y = torch.arange(height, device=self.device) - down[:, None]
        outside = ((y < 0) | (y >= height))[:, :, None] | ((x < 0) | (x >= width))[:, None, :]  # (B, H, W)
        x = x.clamp(0, width - 1)
        x = torch.where(mirrored[:, None] == 1, width - 1 - x, x)
        y = y.clamp(0, height - 1)
        unmoved = not any(p.mirrored or p.down or p.right for p in places)

        def images(source: Tensor, rows: Tensor, blank: bool) -> Tensor:
            """(., 3, H, W) at rows (B, T) -> (B, T, 3, H, W), moved."""
            if unmoved:  # indexing by four tensors writes 32 bytes of indices per byte
                return source[rows]
            channels = torch.arange(3, device=self.device)[:, None, None]
            found = source[rows[:, :, None, None, None], channels, y[:, None, None, :, None], x[:, None, None, None, :]]
            return found.masked_fill_(outside[:, None, None], 255) if blank else found

        pose = self.kind == "pose"
        condition = self.condition
        if condition is not None:
            condition = images(condition, rows, True) if pose else condition[rows]
        anchors = None
        if all(p.anchor >= 0 for p in places) and self.condition is not None and pose:
            row = (begin + anchor)[:, None]
            anchors = images(self.frames, row, False)[:, 0], images(self.condition, row, True)[:, 0]
        return ClipBatch(images(self.frames, rows, False), condition, anchors)


def fits(sequences: tuple[Sequence, ...], kind: ConditionKind) -> bool:
    """Whether the sequences take less than ``SHARE_OF_FREE_MEMORY`` of the GPU's free memory."""
    wanted = sum(s.frames.nbytes * (2 if kind == "pose" else 1) for s in sequences)
    free: int = torch.cuda.mem_get_info()[0]
    return wanted < SHARE_OF_FREE_MEMORY * free
