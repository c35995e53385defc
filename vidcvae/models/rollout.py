"""The free run: a video made one frame at a time from its own frames, in constant memory.

B batch, T frames, P given ones; C H W a frame, S* the latent's shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import assert_never

import torch
from torch import Tensor

from vidcvae.config.schema import Latent
from vidcvae.models.graphs import Graphed
from vidcvae.models.inference import prepare
from vidcvae.models.interface import Code, State, VideoModel, at, full, reparameterize
from vidcvae.rng import to_device

Noise = Callable[[int], Tensor]  # t -> eps (B, S*) for the step into frame t

CHUNK = 64  # conditions encoded ahead at once: enough to fill the machine, little enough to forget


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
    condition: (B, T, ...), entry t for the step into frame t; uint8 images or float rows. ``length`` is T where
        there is no condition.
    noise: gives eps for each step that draws; without it eps = 0, so that every z is a mean.
    latent: z_t is "zero", "prior-mean", drawn from the "prior", or drawn from the "posterior" of ``truth``.
    truth: all true frames (B, T, 3, H, W), for latent "posterior" only.
    dtype: arithmetic of the networks. bfloat16 is several times faster where the hardware has it, and makes slightly
        different frames.

    The steps into given frames run on the posterior's z, which warms recurrent state; their output is not shown
    (Denton & Fergus 2018, as in their code).
    """
    noise = noise or zero_noise
    model = prepare(model, dtype)
    device = next(iter(model.parameters())).device
    arithmetic = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    steps = condition.shape[1] if condition is not None else length
    given = past.shape[1]
    known = truth if truth is not None else past
    if latent == "posterior" or given > 1:
        frames = _unit(known, device)
        with arithmetic:
            known_codes = model.encode_frames(frames)
            codes = model.encode_condition(_chunk(condition, 0, frames.shape[1], device), frames)
            mu, logvar = model.posterior(at(known_codes, slice(1, None)), at(codes, slice(1, None)))

    def advance(state: State, frame: Tensor, code: Code, z: Tensor | None, eps: Tensor) -> tuple[Tensor, State]:
        with arithmetic:
            previous = at(model.encode_frames(frame[:, None]), 0)
            (p_mu, p_logvar), state = model.prior(state, previous, code)
        if z is None:
            z = _z(latent, p_mu, p_logvar, eps)
        with arithmetic:
            return model.step(state, previous, code, z)

    run = Graphed(advance) if device.type == "cuda" else advance
    frame = _unit(past[:, 0], device)
    state = model.initial_state(frame, None if condition is None else _unit(condition[:, 0], device))
    for begin in range(1, steps, CHUNK):
        end = min(begin + CHUNK, steps)
        like = frame[:, None].expand(-1, end - begin, -1, -1, -1)
        with arithmetic:
            condition_codes = model.encode_condition(_chunk(condition, begin, end, device), like)
        for t in range(begin, end):
            eps, z = to_device(noise(t), device), None
            if t < given or latent == "posterior":
                z = reparameterize(mu[:, t - 1], logvar[:, t - 1], eps)
            frame, state = run(state, frame, at(condition_codes, t - begin), z, eps)
            if t < given:
                frame = _unit(past[:, t], device)
            else:
                yield frame.clone() if device.type == "cuda" else frame  # the next replay writes over it


def _z(latent: Latent, p_mu: Tensor, p_logvar: Tensor, eps: Tensor) -> Tensor:
    """z as ``latent`` says, of the prior's mean and log-variance."""
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
    """For rollouts that draw nothing: eps = 0, so that z is the mean."""
    return torch.zeros(())


def _unit(values: Tensor, device: torch.device) -> Tensor:
    values = values.to(device)
    return values.float() / 255 if values.dtype == torch.uint8 else values.float()


def _chunk(condition: Tensor | None, begin: int, end: int, device: torch.device) -> Tensor | None:
    return None if condition is None else _unit(condition[:, begin:end], device)
