"""The clips of an epoch and their order: a function of (seed, epoch) alone.

No state is kept between epochs, so a resumed run sees the same clips as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Items

from vidcvae import config, rng
from vidcvae.data.clips import Sequence
from vidcvae.errors import DataError

Pick = tuple[int, int]  # (sequence, first frame)


def clip_starts(sequences: Items[Sequence], length: int, sampling: str, partial: float = 1.0) -> list[Pick]:
    """Every clip of ``length`` frames that may be drawn, in file order.

    sampling: "windows" for the course's non-overlapping windows, "random" for every start position. No clip crosses
        the end of a sequence; sequences that are too short have none.
    partial: the share of the clips to keep, from the first one on (at least one clip).
    Raises ``DataError`` if no sequence is long enough.
    """
    stride = _stride(length, sampling)
    starts = [(i, s) for i, sequence in enumerate(sequences) for s in range(0, sequence.known - length + 1, stride)]
    if not starts:
        longest = max((sequence.known for sequence in sequences), default=0)
        raise DataError(
            f"no sequence has the {length} frames of a clip; the longest has {longest}.",
            f"Choose shorter clips: --clip-length {longest}" if longest >= 2 else "Add longer videos to the data.",
        )
    return starts[: _share(len(starts), partial)]


def frames_in_use(sequences: Items[Sequence], length: int, sampling: str, partial: float) -> list[int]:
    """The number of frames of each sequence that the clips of ``clip_starts`` may show.

    That is all frames, those up to the end of the last clip, or none. Extended clips and anchors keep to them too.
    """
    last, first = clip_starts(sequences, length, sampling, partial)[-1]
    cut = first + _stride(length, sampling) + length <= sequences[last].known  # there would be one more clip
    each = [sequence.known if i <= last else 0 for i, sequence in enumerate(sequences)]
    each[last] = first + length if cut else each[last]
    return each


def epoch_clips(starts: list[Pick], windows_per_epoch: int, seed: int, epoch: int, shuffle: bool) -> list[Pick]:
    """Draw ``windows_per_epoch`` of the starts without replacement, differently in each epoch.

    With as many clips as there are windows, an epoch costs the same in both kinds of sampling.
    shuffle: return the clips in the order drawn; otherwise in file order.
    """
    if not shuffle and windows_per_epoch >= len(starts):
        return list(starts)
    drawn = rng.permutation(len(starts), seed, "clips", epoch)[:windows_per_epoch]
    return [starts[i] for i in (drawn if shuffle else sorted(drawn))]


def epoch_order(
    sequences: Items[Sequence],
    data: config.DataConfig,
    training: config.TrainingConfig,
    epoch: int,
    fast: bool | None = None,
) -> list[Pick]:
    """The clips of ``epoch`` (counted from 0) in training order.

    With ``fast_train``, the first epochs use only the first share of the clips (the course's --fast_train).
    fast: whether this is such an epoch; None derives it from ``epoch``.
    """
    if fast is None:
        fast = data.fast_train and epoch < data.fast_train_epochs
    share = data.partial * (data.fast_train_fraction if fast else 1)
    windows = clip_starts(sequences, training.clip_length, "windows", share)
    starts = windows
    if data.sampling == "random":
        starts = clip_starts(sequences, training.clip_length, "random", share)
    return epoch_clips(starts, len(windows), training.seed, epoch, data.shuffle)


def _stride(length: int, sampling: str) -> int:
    return {"windows": length, "random": 1}[sampling]


def _share(total: int, fraction: float) -> int:
    """floor(total x fraction), at least 1, robust to rounding error (0.29 x 100 gives 29)."""
    return max(1, math.floor(total * fraction + 1e-9))
