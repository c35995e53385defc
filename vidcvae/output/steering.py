"""Actions that a person gives to a model of robot pushing: their range, and the arm's resulting position."""

from __future__ import annotations

import numpy as np

from vidcvae.config import Config
from vidcvae.data.clips import VideoData, condition_tracks
from vidcvae.errors import DataError

MEASURED = 64  # sequences of each split


class Steering:
    """The range of the dataset's actions (A), and the position (3) of an arm that a person moves.

    A model that is conditioned on positions needs one at each step. The effect of an action on the position is fitted
    to the dataset by least squares. Clips without tables are left out; ``DataError`` if no clip has them.
    """

    def __init__(self, data: VideoData, config: Config) -> None:
        self.source = config.data.condition == "source"
        self.tracks = condition_tracks(config.model.condition_kind)
        whole = ([s for s in sequences if s.tracks.keys() >= {*self.tracks}] for sequences in data.splits.values())
        measured = [s for sequences in whole for s in sequences[:MEASURED]]
        self.limits: list[list[float]] = []
        self.position = np.zeros(0, np.float32)
        if not self.tracks:
            return
        if not measured:
            wanted = " and ".join(self.tracks)
            raise DataError(f"{data.source} has no clip with {wanted}.", "Name data that have them: --data DATASET")
        actions = np.concatenate([s.tracks["action"][:-1] for s in measured]).astype(float)
        reach = np.quantile(actions, (0.02, 0.98), axis=0)
        self.limits = [[round(float(low), 4), round(float(high), 4)] for low, high in reach.T]
        if "position" in self.tracks:
            moves = np.concatenate([np.diff(s.tracks["position"], axis=0) for s in measured])
            places = np.concatenate([s.tracks["position"] for s in measured])
            self.effect = np.linalg.lstsq(actions, moves, rcond=None)[0]  # (A, 3)
            self.bounds = places.min(0), places.max(0)
            self.position = np.median(places, axis=0).astype(np.float32)

    def condition_at_rest(self) -> np.ndarray:
        """The condition of an arm at rest in the middle of its range."""
        return np.concatenate([np.zeros(len(self.limits), np.float32), self.position]).astype(np.float32)

    def continue_from(self, row: np.ndarray) -> None:
        """Continue from a row of the dataset's conditions; the next one may come from a person's action."""
        if len(self.position):
            action, self.position = row[: len(self.limits)], row[len(self.limits) :].astype(np.float32)
            if self.source:  # the row belongs to the previous frame, and its action leads to this one
                self._move(action)

    def next_condition(self, action: np.ndarray) -> np.ndarray:
        """The condition of the next step, given this action."""
        if len(self.position) and not self.source:
            self._move(action)
        row = np.concatenate([action, self.position]).astype(np.float32)
        if len(self.position) and self.source:
            self._move(action)
        return row

    def _move(self, action: np.ndarray) -> None:
        self.position = np.clip(self.position + action @ self.effect, *self.bounds).astype(np.float32)
