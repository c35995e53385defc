"""What every model offers to training, generation and the benchmark.

B batch, T frames, C H W a frame, S* the latent's own shape.

Two functions do the work: ``posterior`` for a whole clip at once, and ``step`` from one frame to the next. Both work
on *codes*: each frame or condition is encoded once, any number of them in one pass, however often the code is used.
Noise is an input, recurrent state is passed in and returned, and nothing is kept on the module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

Gaussian = tuple[Tensor, Tensor]  # mu, logvar
State = Any  # a tuple of tensors and numbers; only the model reads it
Anchor = tuple[Tensor, Tensor]  # a frame (B, 3, H, W) in 0..1 and its pose (B, 3, H, W)
Code = Any  # a tensor (B, T, ...) or a tuple of such tensors: all that later steps need to know about a frame


class VideoModel(nn.Module, ABC):
    """The contract that training, rollout and scoring are written against."""

    uses_anchor = False
    scene: Tensor | None  # (3, H, W) in 0..1: the picture without the dancer, if the model uses one

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scene", None)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @abstractmethod
    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """S* for frames of H x W."""

    @abstractmethod
    def encode_frames(self, frames: Tensor, level: Tensor | None = None) -> Code:
        """frames (B, T, 3, H, W) in 0..1 -> codes, first axes B, T.

        level (B, T): of the noise on the frames, for models that are told it.
        """

    @abstractmethod
    def encode_condition(self, condition: Tensor | None, like: Tensor) -> Code:
        """condition (B, T, ...) -> codes, first axes B, T; ``like`` gives B, T and the device if there is none."""

    @abstractmethod
    def posterior(self, frames: Code, condition: Code) -> Gaussian:
        """Codes of the true frames 1..T-1 and of the conditions into them -> mu, logvar (B, T-1, S*)."""

    @abstractmethod
    def initial_state(self, first_frame: Tensor, first_condition: Tensor | None, anchor: Anchor | None = None) -> State:
        """The state before the step into frame 1, from frame 0 (B, 3, H, W) and its raw condition.

        A model with an anchor (``uses_anchor``) uses frame 0 unless ``anchor`` is given.
        """

    @abstractmethod
    def prior(self, state: State, previous: Code, condition: Code) -> tuple[Gaussian, State]:
        """The prior of z_t. Codes have no T axis here. Call it once before each ``step``."""

    @abstractmethod
    def step(self, state: State, previous: Code, condition: Code, z: Tensor) -> tuple[Tensor, State]:
        """Code of frame t-1, code of the condition into t, z_t (B, S*) -> frame t (B, 3, H, W) in 0..1, state."""

    @abstractmethod
    def forced(self, state: State, previous: Code, condition: Code, z: Tensor) -> tuple[Tensor, Gaussian]:
        """All steps at once, each from the true previous frame: codes and z (B, T-1, ...) -> frames (B, T-1, 3, H, W)
        and priors (B, T-1, S*). Equals a loop over ``prior`` and ``step``."""


def at(code: Code, t: int | slice) -> Code:
    """Entry (or entries) ``t`` along the time axis of a code."""
    if isinstance(code, Tensor):
        return code[:, t]
    return tuple(at(part, t) for part in code)


def reparameterize(mu: Tensor, logvar: Tensor, eps: Tensor) -> Tensor:
    """z = mu + sigma * eps (Kingma & Welling 2014, eq. 10), in full precision."""
    return full(mu) + torch.exp(full(logvar) / 2) * eps


def full(x: Tensor) -> Tensor:
    """Convert half precision to float32; leave float32 and float64 as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
