"""Why a training could not go on: numbers that are not finite, and memory that is not enough."""

from __future__ import annotations

import math
import os
import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vidcvae.config import Config, Svg
from vidcvae.data.clips import ClipBatch
from vidcvae.errors import VidcvaeError
from vidcvae.storage import checkpoint
from vidcvae.storage.run import RunFolder
from vidcvae.training.state import TrainingState
from vidcvae.training.step import Draws, Weights, gradients

# --- not finite ------------------------------------------------------------------------------------


def losses_of(
    state: TrainingState, batch: ClipBatch, draws: Draws, config: Config, weights: Weights, dtype: torch.dtype
) -> dict[str, Any]:
    """This rank's losses and gradient norm, those of all its clips and of each one alone, as JSON can hold them.

    They are computed anew, so that an ordinary step keeps nothing for this day. A clip alone stands twice in its
    batch, because BatchNorm cannot normalise a single vector. The gradients are spoilt by it, the weights are not.
    """
    whole = replace(config, training=replace(config.training, accumulate=1))

    def found(batch: ClipBatch, draws: Draws, config: Config) -> dict[str, float | str]:
        terms, _ = gradients(state, batch, draws, config, weights, dtype)
        values = {name: float(value) for name, value in terms.items()}
        return {name: value if math.isfinite(value) else str(value) for name, value in values.items()}

    together = found(batch, draws, config)
    alone = [found(_rows(batch, [i, i]), draws[[i, i]], whole) for i in range(len(batch.frames))]
    return {"losses": together, "alone": alone}


def _rows(batch: ClipBatch, rows: list[int]) -> ClipBatch:
    def take(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[rows]

    anchor = None if batch.anchor is None else (batch.anchor[0][rows], batch.anchor[1][rows])
    return ClipBatch(batch.frames[rows], take(batch.condition), anchor, take(batch.start))


# --- out of memory ---------------------------------------------------------------------------------


def ran_out_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU's allocator says so, or that of the CPU, which has no exception of its own."""
    words = ("can't allocate memory", "not enough memory", "Cannot allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in words)


def out_of_memory(error: RuntimeError, config: Config, world: int, run: RunFolder) -> VidcvaeError:
    """What was asked for, what was free, and what takes less."""
    text = str(error)
    asked = re.search(r"[Tt]ried to allocate ([\d.]+ ?\w+)", text)
    free = re.search(r"of which ([\d.]+ ?\w+) is free", text)
    there = free[1] if free else _free_memory()
    where = "the GPU" if isinstance(error, torch.OutOfMemoryError) else "this machine"
    last = run.checkpoints / checkpoint.LAST
    return VidcvaeError(
        f"{where} is out of memory: {_readable(asked[1]) if asked else 'more'} was asked for"
        f"{f' where {there} is free' if there else ''}, with {_batch(config, world)}; "
        f"{f'{last} is intact' if last.exists() else 'no checkpoint was saved yet'}.",
        smaller(config, world),
    )


def smaller(config: Config, world: int) -> str:
    """The settings that take about half the memory, those first that change the training least."""
    train, ways = config.training, []
    each = train.batch_size // (world * train.accumulate)  # clips that go through the networks at once
    least = 2 if isinstance(config.model, Svg) else 1
    fewer = next((n for n in range(each // 2, least - 1, -1) if each % n == 0), 0)
    if fewer:
        parts = train.batch_size // (world * fewer)
        ways.append(f"--set training.accumulate={parts} (the same batch, {fewer} at a time)")
    if not train.checkpoint_activations and not isinstance(config.model, Svg):
        ways.append("--set training.checkpoint_activations=true (slower)")
    if fewer:
        ways.append(f"--batch-size {fewer * world * train.accumulate}")
    if train.clip_length > train.past + 1:
        ways.append(f"--clip-length {max(train.past + 1, train.clip_length // 2)}")
    return f"Use {', or '.join(ways)}." if ways else "Use smaller frames (--size) or a smaller model."


def _batch(config: Config, world: int) -> str:
    train = config.training
    each = train.batch_size // (world * train.accumulate)
    height, width = config.data.size
    return f"{each} clip{'s' if each > 1 else ''} of {train.clip_length} frames of {height}x{width} at a time"


def _readable(size: str) -> str:
    """Bytes, as the CPU's allocator counts them ("1234 bytes", or a bare number), in GiB."""
    number = re.match(r"(\d+)(?: ?bytes)?$", size)
    return f"{int(number[1]) / 2**30:.2f} GiB" if number else size


def _free_memory() -> str:
    try:
        return f"{os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.2f} GiB"
    except (ValueError, OSError, AttributeError):  # not on this system
        return ""
