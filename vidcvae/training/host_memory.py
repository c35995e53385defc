"""Whether a training step on the CPU has room in this machine's memory, asked before anything is made.

Linux gives out more memory than there is, and ends a process that uses it without a word.
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

MEASURED = 2  # clips, the fewest that every model takes


def must_suffice(config: Config, world: int, clips: int) -> None:
    """Raise ``VidcvaeError`` with what fits, where a step surely needs more memory than this machine has left.

    clips: of an epoch; a batch of more is not proposed.
    """
    free, wanted = available(), needed(config, world)
    if wanted <= free:
        return
    train = config.training
    least = world * train.accumulate * config.model.fewest_clips
    fits = min(int(train.batch_size * free / wanted), max(clips, least)) // least * least
    each = (
        f"--batch-size {fits}" if fits else "smaller frames (--size), shorter clips (--clip-length) or a smaller model"
    )
    raise VidcvaeError(
        f"training.batch_size ({train.batch_size}) needs about {wanted / 2**30:.1f} GiB of memory for a step, with "
        f"clips of {train.clip_length} frames of {config.data.frame_size[0]}x{config.data.frame_size[1]}, where "
        f"{free / 2**30:.1f} GiB are free.",
        f"Use {each}.",
    )


def needed(config: Config, world: int = 1) -> int:
    """Bytes of a step's clips and of what its forward pass keeps for the backward pass: a bound from below.

    Measured on tensors without memory, for few clips of few frames.
    """
    train, size = config.training, config.data.frame_size
    length = min(train.clip_length, train.past + 3)
    kind = config.model.condition
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
    alive = []  # or another tensor would be taken for one that is gone
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
