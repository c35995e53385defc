"""The free run: generate a video one frame at a time from its own frames, in constant memory.

B batch, T frames, P given ones; C H W a frame, S* the latent's shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import assert_never

import torch
from torch import Tensor

from vidcvae.config.schema import Latent
from vidcvae.models.graphs import Graphed, map_tensors
from vidcvae.models.inference import prepare
from vidcvae.models.interface import Code, Gaussian, State, VideoModel, at, full, reparameterize
from vidcvae.rng import to_device

Noise = Callable[[int], Tensor]  # t -> eps (B, S*) for the step into frame t

CHUNK = 64  # conditions encoded ahead: enough to fill the machine, and little memory


@torch.inference_mode()
def rollout(
    model: VideoModel,
    past: Tensor,
    condition: Tensor | None,
    noise: Noise | None = None,
    *,
    latent: Latent = "zero",
    length: int = 0,
    truth: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Tensor]:
    """Yield frames P, P+1, ... T-1, each (B, 3, H, W) in 0..1.

    past: the given frames (B, P, 3, H, W), uint8 or float 0..1.
    condition: (B, T, ...), entry t for the step into frame t; uint8 images or float rows. ``length`` is T if
        there is no condition.
    noise: returns eps for each step that draws z; without it eps = 0, so that every z is a mean.
    latent: z_t is "zero", "prior-mean", drawn from the "prior", or drawn from the "posterior" of ``truth``.
    truth: all true frames (B, T, 3, H, W), for latent "posterior" only.
    dtype: arithmetic of the networks. bfloat16 is several times faster if the hardware supports it, and gives
        slightly different frames.

    The steps into given frames use the posterior's z, to warm up recurrent state; their output is discarded (as in the
    code of Denton & Fergus 2018).
    """
    run = FreeRun(model, dtype)
    steps = condition.shape[1] if condition is not None else length
    given = past.shape[1]
    noise = noise or zero_noise
    run.begin(past, None if condition is None else condition[:, :given], noise)
    if latent == "posterior":
        known = truth if truth is not None else past
        mu, logvar = run.posterior(known, None if condition is None else condition[:, : known.shape[1]])
    for begin in range(given, steps, CHUNK):
        end = min(begin + CHUNK, steps)
        codes = run.codes(None if condition is None else condition[:, begin:end], end - begin)
        for t in range(begin, end):
            eps, z = to_device(noise(t), run.device), None
            if latent == "posterior":
                z = reparameterize(mu[:, t - 1], logvar[:, t - 1], eps)
            frame = run.step(at(codes, t - begin), latent, eps, z)
            yield frame.clone() if run.device.type == "cuda" else frame  # the next replay overwrites it


class FreeRun:
    """A free run that the caller advances one step at a time: first ``begin``, then ``step`` for each frame.

    model: in eval mode; the run uses a prepared copy (``prepare``). dtype: arithmetic of the networks.
    frame (B, 3, H, W) in 0..1 and state are the run's current position.
    """

    frame: Tensor
    state: State

    def __init__(self, model: VideoModel, dtype: torch.dtype = torch.float32) -> None:
        self.model = prepare(model, dtype)
        self.device = next(iter(self.model.parameters())).device
        self._arithmetic = torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)
        advance = partial(_advance, self.model, self._arithmetic)  # without self: a cycle would keep a graph alive
        self._run = Graphed(advance) if self.device.type == "cuda" else advance

    @torch.inference_mode()
    def posterior(self, frames: Tensor, condition: Tensor | None) -> Gaussian:
        """Frames 0..T-1 (B, T, 3, H, W) and their conditions -> mu, logvar (B, T-1, S*) of the z of frames 1..T-1."""
        frames = _unit(frames, self.device)
        with self._arithmetic:
            known = self.model.encode_frames(frames)
            codes = self.model.encode_condition(self._unit(condition), frames)
            return self.model.posterior(at(known, slice(1, None)), at(codes, slice(1, None)))

    @torch.inference_mode()
    def begin(self, past: Tensor, condition: Tensor | None, noise: Noise | None = None) -> None:
        """Go to frame P-1. past (B, P, 3, H, W) and its conditions (B, P, ...): uint8 images or floats."""
        frames, given = _unit(past, self.device), past.shape[1]
        rows = self._unit(condition)
        self.frame = frames[:, 0]
        self.state = self.model.initial_state(self.frame, None if rows is None else rows[:, 0])
        if given > 1:
            mu, logvar = self.posterior(frames, rows)
            codes = self.codes(None if rows is None else rows[:, 1:], given - 1)
        for t in range(1, given):
            eps = to_device((noise or zero_noise)(t), self.device)
            self.step(at(codes, t - 1), "zero", eps, reparameterize(mu[:, t - 1], logvar[:, t - 1], eps))
            self.frame = frames[:, t]

    @torch.inference_mode()
    def follow(self, other: FreeRun) -> None:
        """Copy the position of another run of the same kind of model."""
        self.frame, self.state = map_tensors((other.frame, other.state), torch.clone)

    @torch.inference_mode()
    def codes(self, condition: Tensor | None, steps: int) -> Code:
        """Encode the conditions (B, T, ...), or None, of ``steps`` frames; ``step`` takes one entry (``at``)."""
        like = self.frame[:, None].expand(-1, steps, -1, -1, -1)
        with self._arithmetic:
            return self.model.encode_condition(self._unit(condition), like)

    @torch.inference_mode()
    def step(self, code: Code, latent: Latent, eps: Tensor, z: Tensor | None = None) -> Tensor:
        """The next frame; on a GPU the step after it overwrites it. z: replaces the one from ``latent`` and ``eps``."""
        self.frame, self.state = self._run(self.state, self.frame, code, z, eps, latent)
        return self.frame

    def _unit(self, condition: Tensor | None) -> Tensor | None:
        return None if condition is None else _unit(condition, self.device)


def _advance(
    model: VideoModel,
    arithmetic: torch.autocast,
    state: State,
    frame: Tensor,
    code: Code,
    z: Tensor | None,
    eps: Tensor,
    latent: Latent,
) -> tuple[Tensor, State]:
    with arithmetic:
        previous = at(model.encode_frames(frame[:, None]), 0)
        (p_mu, p_logvar), state = model.prior(state, previous, code)
    if z is None:
        z = _z(latent, p_mu, p_logvar, eps)
    with arithmetic:
        return model.step(state, previous, code, z)


def _z(latent: Latent, p_mu: Tensor, p_logvar: Tensor, eps: Tensor) -> Tensor:
    """z chosen as ``latent`` says, from the prior's mean and log-variance."""
    match latent:
        case "prior":
            return reparameterize(p_mu, p_logvar, eps)
        case "prior-mean":
            return full(p_mu)
        case "zero":
            return torch.zeros_like(p_mu, dtype=torch.float32)
        case "posterior":
            raise ValueError("the posterior's z comes from the truth, not from the prior")
        case _:
            assert_never(latent)


def zero_noise(t: int) -> Tensor:
    """Noise for rollouts that draw nothing: eps = 0, so z is the mean."""
    return torch.zeros(())


def _unit(values: Tensor, device: torch.device) -> Tensor:
    values = values.to(device)
    return values.float() / 255 if values.dtype == torch.uint8 else values.float()
