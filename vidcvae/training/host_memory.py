"""Check, before anything is written, that a training step on the CPU fits into this machine's memory.

Linux hands out more memory than it has, and kills a process that uses it without a message.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vidcvae.config import Config
from vidcvae.device import available
from vidcvae.errors import VidcvaeError
from vidcvae.models import build_model
from vidcvae.models.arithmetic import has_bf16
from vidcvae.training.step import clip_terms, draw

MEASURED = 2  # clips: the smallest batch that every model accepts


def must_suffice(config: Config, world: int, clips: int) -> None:
    """Raise ``VidcvaeError`` with a batch size that fits if a step certainly needs more memory than is free.

    clips: the number in an epoch; the proposed batch is not larger.
    """
    free, bound = available(), needed(config, world)
    if bound <= free:
        return
    train = config.training
    least = world * train.accumulate * config.model.fewest_clips
    fits = min(int(train.batch_size * free / bound), max(clips, least)) // least * least
    smaller = "smaller frames (--size), shorter clips (--clip-length) or a smaller model"
    height, width = config.data.frame_size
    raise VidcvaeError(
        f"training.batch_size ({train.batch_size}) needs about {bound / 2**30:.1f} GiB of memory for a step, with "
        f"clips of {train.clip_length} frames of {height}x{width}, but only {free / 2**30:.1f} GiB are free.",
        f"Use {f'--batch-size {fits}' if fits else smaller}.",
    )


def needed(config: Config, world: int = 1) -> int:
    """A lower bound of a step's memory in bytes: its clips, and what the forward pass keeps for the backward pass.

    Measured on meta tensors, which take no memory, with few clips of few frames.
    """
    train, size = config.training, config.data.frame_size
    length = min(train.clip_length, train.past + 3)
    kind = config.model.condition_kind
    with torch.device("meta"):
        model = build_model(config).train()
        frames = torch.empty(MEASURED, length, 3, *size)
        if kind == "pose":
            rows: Tensor | None = frames
        else:
            width = config.model.condition_size
            rows = torch.empty(MEASURED, length, width) if width else None
        eps = torch.empty(MEASURED, length - 1, *model.latent_shape(*size))
    mask = torch.zeros(MEASURED, length - 1)
    mask[:, : train.past] = 1
    weights = {_place(p) for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        if _place(x) not in weights:
            kept[_place(x)] = x.untyped_storage().nbytes()
        return x

    plain = replace(config, kl=replace(config.kl, free_bits=0.0))
    alive = []  # keeps the tensors, so that no address is used twice
    with torch.autograd.graph.saved_tensors_hooks(lambda x: alive.append(x) or keep(x), lambda x: x):  # type: ignore[func-returns-value]
        clip_terms(model, frames, rows, draw(eps, mask), plain)
    halved = train.precision == "bf16" or (train.precision == "auto" and has_bf16())
    share = 0.5 if halved else 1.0
    kept_per_step = share * sum(kept.values()) / MEASURED / (length - 1)
    images = train.clip_length * 3 * size[0] * size[1] * (2 if kind == "pose" else 1)
    clips = train.batch_size / world
    at_once = clips / train.accumulate
    return int(clips * images + at_once * (train.clip_length - 1) * kept_per_step)


def _place(x: Tensor) -> int:
    place: int = x.untyped_storage()._cdata
    return place
