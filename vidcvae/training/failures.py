"""Why training cannot go on: values that are not finite, and too little memory."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import torch

from vidcvae.config import Config
from vidcvae.data.clips import ClipBatch
from vidcvae.device import available
from vidcvae.errors import NonFiniteError, UsageError, VidcvaeError, counted
from vidcvae.models.graphs import CAPTURING
from vidcvae.storage import checkpoint, durable
from vidcvae.storage.run import RunFolder
from vidcvae.training.distributed import Ranks
from vidcvae.training.state import TrainingState
from vidcvae.training.step import Draws, Scheduled, gradients

# --- not finite ------------------------------------------------------------------------------------


def losses_of(
    state: TrainingState, batch: ClipBatch, draws: Draws, config: Config, scheduled: Scheduled, dtype: torch.dtype
) -> dict[str, Any]:
    """This rank's losses and gradient norm, of all its clips together and of each one alone, ready for JSON.

    They are computed again, so an ordinary step need not keep them. A clip alone appears twice in its batch, because
    BatchNorm cannot normalise a single vector. This overwrites the gradients, but not the weights.
    """
    undivided = replace(config, training=replace(config.training, accumulate=1))

    def losses(batch: ClipBatch, draws: Draws, config: Config) -> dict[str, float | str]:
        terms, _ = gradients(state, batch, draws, config, scheduled, dtype)
        values = {name: float(value) for name, value in terms.items()}
        return {name: value if math.isfinite(value) else str(value) for name, value in values.items()}

    together = losses(batch, draws, config)
    alone = [losses(batch[[i, i]], draws[[i, i]], undivided) for i in range(len(batch.frames))]
    return {"losses": together, "alone": alone}


def non_finite(
    error: NonFiniteError,
    run: RunFolder,
    step: int,
    scheduled: Scheduled,
    clips: list[dict[str, Any]],
    losses: dict[str, Any],
    ranks: Ranks,
    config: Config,
    dtype: torch.dtype,
) -> NonFiniteError:
    """``error`` with a remedy. Writes the batch, with the ``losses_of`` every rank, to RUN/non-finite.json."""
    path = run.path / "non-finite.json"
    of_ranks = ranks.gather(losses)
    alone = [losses for rank in of_ranks for losses in rank["alone"]]
    if ranks.main:
        record = {
            "step": step,
            "problem": error.message,
            "beta": scheduled.beta,
            "lr": scheduled.lr,
            "ranks": [rank["losses"] for rank in of_ranks],
            "clips": [clip | {"losses": losses} for clip, losses in zip(clips, alone, strict=True)],
        }
        durable.write_json(path, record)
    remedies = [f"a lower learning rate (--lr {config.optimizer.lr / 3:.2g})"]
    if config.kl.type != "none" and scheduled.beta < 0.001 and config.kl.stop >= 0.01:
        remedies.append("a higher first beta (--set kl.start=0.01)")
    if dtype != torch.float32:
        remedies.append("--set training.precision=float32")
    return NonFiniteError(
        f"{error.message} at step {step}; no weight was updated, and {_kept(run)}. {path} describes the batch.",
        f"Try {', or '.join(remedies)}.",
    )


def _kept(run: RunFolder) -> str:
    last = run.checkpoints / checkpoint.LAST
    return f"{last} is intact" if last.exists() else "no checkpoint was saved yet"


# --- out of memory ---------------------------------------------------------------------------------


ON_CPU = "can't allocate memory", "not enough memory", "Cannot allocate memory", "bad_alloc"
ON_GPU = "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"


def explained(error: MemoryError | RuntimeError, config: Config, world: int, run: RunFolder) -> VidcvaeError | None:
    """A failure of PyTorch or numpy as a ``VidcvaeError``; None if it is a fault of this program."""
    if memory_error(error):
        return out_of_memory(error, config, world, run)
    name, separator, _ = str(error).partition(" does not have a deterministic implementation")
    if not separator:
        return None
    return UsageError(
        f"training.deterministic=true is impossible here: PyTorch's {name} has no deterministic implementation on "
        "this device.",
        "Train with --set training.deterministic=false.",
    )


def memory_error(error: BaseException | None) -> BaseException | None:
    """The error of a GPU's allocator or library, of numpy, or of PyTorch on a CPU, that memory ran out; else None.

    It may be an earlier one in a chain of errors: a failed capture of a graph raises another one after it.
    """
    while error is not None:
        matches = any(text in str(error) for text in (*ON_CPU, *ON_GPU))
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or (isinstance(error, RuntimeError) and matches):
            return error
        error = error.__context__
    return None


def out_of_memory(error: MemoryError | RuntimeError, config: Config, world: int, run: RunFolder) -> VidcvaeError:
    """How much was requested, how much was free, and which settings need less."""
    cause = memory_error(error) or error
    text = str(cause)
    requested = re.search(r"(?:[Tt]ried to|Unable to) allocate ([\d.]+ ?\w+)", text)
    free = re.search(r"of which ([\d.]+ ?\w+) is free", text)
    on_cpu = isinstance(cause, MemoryError) or any(words in text for words in ON_CPU)
    rest = free[1] if free else f"{available() / 2**30:.2f} GiB" if on_cpu else None
    return VidcvaeError(
        f"{'this machine' if on_cpu else 'the GPU'} is out of memory: "
        f"{_readable(requested[1]) if requested else 'more'} was requested"
        f"{f', but only {rest} is free' if rest else ''}, with {_batch(config, world)}; {_kept(run)}.",
        smaller(config, world, CAPTURING in getattr(error, "__notes__", ())),
    )


def smaller(config: Config, world: int, capturing: bool = False) -> str:
    """The settings that take about half the memory; those that change the training least come first."""
    train = config.training
    options = ["--set training.cuda_graph=off (slower; steps without a graph did fit)"] if capturing else []
    each = _clips_at_once(config, world)
    least = config.model.fewest_clips
    fewer = next((n for n in range(each // 2, least - 1, -1) if each % n == 0), 0)
    if fewer:
        parts = train.batch_size // (world * fewer)
        options.append(f"--set training.accumulate={parts} (the same batch, {fewer} at a time)")
    if not train.checkpoint_activations and not config.model.recurrent:
        options.append("--set training.checkpoint_activations=true (slower)")
    if fewer:
        options.append(f"--batch-size {fewer * world * train.accumulate}")
    if train.clip_length > train.past + 1:
        options.append(f"--clip-length {max(train.past + 1, train.clip_length // 2)}")
    return f"Use {', or '.join(options)}." if options else "Use smaller frames (--size) or a smaller model."


def _clips_at_once(config: Config, world: int) -> int:
    """The number of clips that go through the networks of one rank at once."""
    return config.training.batch_size // (world * config.training.accumulate)


def _batch(config: Config, world: int) -> str:
    height, width = config.data.frame_size
    clips = counted(_clips_at_once(config, world), "clip")
    return f"{clips} of {config.training.clip_length} frames of {height}x{width} at a time"


def _readable(size: str) -> str:
    """A size in bytes, as CPU allocators report it ("1234 bytes" or a bare number), in GiB."""
    number = re.match(r"(\d+)(?: ?bytes)?$", size)
    return f"{int(number[1]) / 2**30:.2f} GiB" if number else size
