"""Why a training could not go on: numbers that are not finite, and memory that is not enough."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import torch

from vidcvae.config import Config
from vidcvae.data.clips import ClipBatch
from vidcvae.errors import NonFiniteError, UsageError, VidcvaeError
from vidcvae.models.graphs import CAPTURING
from vidcvae.storage import checkpoint, durable
from vidcvae.storage.run import RunFolder
from vidcvae.training.distributed import Ranks
from vidcvae.training.state import TrainingState
from vidcvae.training.step import Draws, Scheduled, gradients

# --- not finite ------------------------------------------------------------------------------------


def losses_of(
    state: TrainingState, batch: ClipBatch, draws: Draws, config: Config, weights: Scheduled, dtype: torch.dtype
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
    alone = [found(batch[[i, i]], draws[[i, i]], whole) for i in range(len(batch.frames))]
    return {"losses": together, "alone": alone}


def non_finite(
    error: NonFiniteError,
    run: RunFolder,
    step: int,
    weights: Scheduled,
    clips: list[dict[str, Any]],
    losses: dict[str, Any],
    ranks: Ranks,
) -> NonFiniteError:
    """``error`` with what to do about it. The batch, with every rank's ``losses_of`` it, is put down in the run."""
    where = run.path / "non-finite.json"
    found = ranks.gather(losses)
    alone = [losses for rank in found for losses in rank["alone"]]
    if ranks.main:
        about = {
            "step": step,
            "problem": error.message,
            "beta": weights.beta,
            "lr": weights.lr,
            "ranks": [rank["losses"] for rank in found],
            "clips": [clip | {"losses": losses} for clip, losses in zip(clips, alone, strict=True)],
        }
        durable.write_json(where, about)
    return NonFiniteError(
        f"{error.message} at step {step}; nothing was updated with it, and {_kept(run)}. "
        f"The batch is described in {where}.",
        f"Try a lower learning rate (--lr {weights.lr / 3:.2g})"
        + (", a higher first beta (--set kl.start=0.01)" if weights.beta < 0.001 else "")
        + ", or --set training.precision=float32.",
    )


def _kept(run: RunFolder) -> str:
    last = run.checkpoints / checkpoint.LAST
    return f"{last} is intact" if last.exists() else "no checkpoint was saved yet"


# --- out of memory ---------------------------------------------------------------------------------


ON_CPU = "can't allocate memory", "not enough memory", "Cannot allocate memory", "bad_alloc"
ON_GPU = "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"


def explained(error: MemoryError | RuntimeError, config: Config, world: int, run: RunFolder) -> VidcvaeError | None:
    """What PyTorch and numpy cannot do, in words of ours; None where it is a fault of this program."""
    if ran_out_of_memory(error):
        return out_of_memory(error, config, world, run)
    name, found, _ = str(error).partition(" does not have a deterministic implementation")
    if not found:
        return None
    return UsageError(
        f"training.deterministic cannot be kept: PyTorch's {name} has no deterministic implementation on this device.",
        "Train with --set training.deterministic=false.",
    )


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's allocator says so, a GPU's library, numpy, or PyTorch on a CPU, which has no exception for it."""
    return _memory_error(error) is not None


def _memory_error(error: BaseException | None) -> BaseException | None:
    """The error that tells of the memory: a capture that fails ends with another one, which covers it."""
    while error is not None:
        told = any(text in str(error) for text in (*ON_CPU, *ON_GPU))
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or (isinstance(error, RuntimeError) and told):
            return error
        error = error.__context__
    return None


def out_of_memory(error: MemoryError | RuntimeError, config: Config, world: int, run: RunFolder) -> VidcvaeError:
    """What was asked for, what was free, and what takes less."""
    cause = _memory_error(error) or error
    text = str(cause)
    asked = re.search(r"(?:[Tt]ried to|Unable to) allocate ([\d.]+ ?\w+)", text)
    free = re.search(r"of which ([\d.]+ ?\w+) is free", text)
    on_cpu = isinstance(cause, MemoryError) or any(words in text for words in ON_CPU)
    there = free[1] if free else _free_memory() if on_cpu else None
    where = "this machine" if on_cpu else "the GPU"
    return VidcvaeError(
        f"{where} is out of memory: {_readable(asked[1]) if asked else 'more'} was asked for"
        f"{f' where {there} is free' if there else ''}, with {_batch(config, world)}; {_kept(run)}.",
        smaller(config, world, CAPTURING in getattr(error, "__notes__", ())),
    )


def smaller(config: Config, world: int, capturing: bool = False) -> str:
    """The settings that take about half the memory, those first that change the training least."""
    train = config.training
    ways = ["--set training.cuda_graph=off (slower; ordinary steps had fitted)"] if capturing else []
    each = train.batch_size // (world * train.accumulate)  # clips that go through the networks at once
    least = config.model.fewest_clips
    fewer = next((n for n in range(each // 2, least - 1, -1) if each % n == 0), 0)
    if fewer:
        parts = train.batch_size // (world * fewer)
        ways.append(f"--set training.accumulate={parts} (the same batch, {fewer} at a time)")
    if not train.checkpoint_activations and not config.model.recurrent:
        ways.append("--set training.checkpoint_activations=true (slower)")
    if fewer:
        ways.append(f"--batch-size {fewer * world * train.accumulate}")
    if train.clip_length > train.past + 1:
        ways.append(f"--clip-length {max(train.past + 1, train.clip_length // 2)}")
    return f"Use {', or '.join(ways)}." if ways else "Use smaller frames (--size) or a smaller model."


def _batch(config: Config, world: int) -> str:
    train = config.training
    each = train.batch_size // (world * train.accumulate)
    height, width = config.data.frame_size
    return f"{each} clip{'s' if each > 1 else ''} of {train.clip_length} frames of {height}x{width} at a time"


def _readable(size: str) -> str:
    """Bytes, as the CPU's allocator counts them ("1234 bytes", or a bare number), in GiB."""
    number = re.match(r"(\d+)(?: ?bytes)?$", size)
    return f"{int(number[1]) / 2**30:.2f} GiB" if number else size


def _free_memory() -> str:
    import psutil

    return f"{psutil.virtual_memory().available / 2**30:.2f} GiB"
