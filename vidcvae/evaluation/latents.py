"""What the latent carries: KL by dimension, active units, and bounds on the likelihood in bits per dimension.

Everything here is teacher-forced: step t sees the true frame t-1, and q(z_t | x_t, ...) the true frame t.

B sequences, T frames, K samples of z, S* the latent's shape; C H W a frame, D = C H W.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidcvae import rng
from vidcvae.config import Config
from vidcvae.data import clips
from vidcvae.data.clips import to_unit
from vidcvae.evaluation.free_run import POSTERIOR_ROWS, batches, stacked
from vidcvae.models.graphs import map_tensors
from vidcvae.models.inference import prepare
from vidcvae.models.interface import Code, Gaussian, State, VideoModel, at, full, reparameterize
from vidcvae.models.objectives import kl_elements
from vidcvae.progress import Progress, unreported

ACTIVE = 0.01  # variance of the posterior's mean over the data (Burda et al. 2016, section 4.2)
CHUNK = 32  # frames encoded at once if the posterior sees one frame at a time
MOST_RANKS = 1000  # dimensions listed, evenly spaced from the largest KL to the smallest

LIKELIHOOD = (
    "Gaussian of one variance, the maximum-likelihood value on these frames, on 8-bit frames with uniform "
    "dequantisation noise (Theis et al. 2016); given the true frames before"
)


@dataclass(frozen=True)
class Latents:
    """How much each element of z carries.

    kl_per_dimension: KL(q || p) in nats, mean over frames, S*.
    variance: variance of the posterior's mean over all frames, S*.
    frames: number of frames.
    """

    kl_per_dimension: np.ndarray
    variance: np.ndarray
    frames: int

    @property
    def kl(self) -> float:
        """KL(q || p) of a frame's whole z, in nats."""
        return float(self.kl_per_dimension.sum())

    @property
    def dimensions(self) -> int:
        return self.kl_per_dimension.size

    @property
    def active_units(self) -> int:
        """Dimensions whose posterior mean varies with the data by more than 0.01."""
        return int((self.variance > ACTIVE).sum())

    def to_json(self) -> dict[str, Any]:
        """Dimensions in order of decreasing KL, and sums over the H x W dimensions of each channel of z."""
        order = np.argsort(-self.kl_per_dimension, axis=None, kind="stable")
        ranks = np.unique(np.linspace(0, len(order) - 1, min(len(order), MOST_RANKS)).round().astype(int))
        kl, variance = self.kl_per_dimension.reshape(-1)[order], self.variance.reshape(-1)[order]
        channels = self.kl_per_dimension.reshape(len(self.kl_per_dimension), -1)
        active = (self.variance > ACTIVE).reshape(channels.shape)
        return {
            "kl": self.kl,
            "active_units": self.active_units,
            "dimensions": self.dimensions,
            "shape": list(self.kl_per_dimension.shape),
            "frames": self.frames,
            "kl_ranks": ranks.tolist(),
            "kl_per_dimension": kl[ranks].tolist(),
            "variance_per_dimension": variance[ranks].tolist(),
            "kl_per_channel": channels.sum(1).tolist(),
            "active_units_per_channel": active.sum(1).tolist(),
        }


@dataclass(frozen=True)
class Bounds:
    """Lower bounds on the log-likelihood of 8-bit frames, given as upper bounds in bits per dimension.

    elbo: from single samples.
    importance_weighted: from ``samples`` samples (Burda et al. 2016, eq. 8); never worse than ``elbo``.
    sigma: standard deviation of the likelihood, for values in 0..1.
    per: "frame", or "sequence" if the model's state depends on z, so that the weights of a sequence multiply.
    """

    elbo: float
    importance_weighted: float
    samples: int
    sigma: float
    frames: int
    per: str

    def to_json(self) -> dict[str, Any]:
        return {
            "elbo_bits_per_dimension": self.elbo,
            "importance_weighted_bits_per_dimension": self.importance_weighted,
            "importance_samples": self.samples,
            "weights_per": self.per,
            "sigma": self.sigma,
            "frames": self.frames,
            "likelihood": LIKELIHOOD,
        }


@torch.inference_mode()
def measure_latents(
    model: VideoModel,
    sequences: Sequence[clips.Sequence],
    config: Config,
    lengths: Sequence[int],
) -> Latents:
    """KL and activity of every dimension, over frames 1 to ``lengths`` - 1 of each sequence.

    Every frame is encoded and none decoded. Memory use does not grow with the length.
    """
    model = prepare(model, torch.float32)
    kl = mean = spread = torch.zeros((), dtype=torch.float64)
    count, state = 0, None
    for chunk in _chunks(model, sequences, config, lengths):
        p = None
        if config.model.learned_prior:
            state = chunk.start(model) if chunk.begin == 1 else state
            p, state = _priors(model, state, chunk)
        mu = full(chunk.q[0]).flatten(0, 1).double().cpu()  # (B T, S*)
        elements = kl_elements(chunk.q, p).flatten(0, 1).double().cpu()
        # Chan et al. 1983: combine the means and squared deviations of two parts
        shift, new = mu.mean(0) - mean, len(mu)
        spread = spread + (mu - mu.mean(0)).square().sum(0) + shift.square() * (count * new / (count + new))
        mean = mean + shift * (new / (count + new))
        kl = kl + elements.sum(0)
        count += new
    return Latents((kl / count).numpy(), (spread / count).numpy(), count)


def measure_bounds(
    model: VideoModel,
    sequences: Sequence[clips.Sequence],
    config: Config,
    lengths: Sequence[int],
    *,
    samples: int = 8,
    seed: int = 0,
    progress: Progress = unreported,
) -> Bounds:
    """ELBO and importance-weighted bound on log p(x_t | x_0 .. x_{t-1}, condition), over all frames from 1 on.

    K chains run side by side: z_t ~ q(z_t | x_t, ...), then one ``step`` from the true frame t-1. See ``bounds``.
    """
    model = prepare(model, torch.float32)
    total = sum(lengths[picks[0]] - 1 for picks in batches(lengths, POSTERIOR_ROWS))
    weighed: list[tuple[list[Tensor], list[Tensor]]] = []  # for each batch, the errors and ratios (B, K) of every step
    for chunk in _chunks(model, sequences, config, lengths):
        if chunk.begin == 1:
            state = chunk.start(model, samples)
            weighed.append(([], []))
        for i in range(chunk.steps):
            t = chunk.begin + i
            eps = torch.stack([rng.normal((samples, *chunk.q[0].shape[2:]), seed, "bounds", n, t) for n in chunk.picks])
            error, ratio, state = _weigh(model, state, chunk, i, eps.to(model.device))
            weighed[-1][0].append(error)
            weighed[-1][1].append(ratio)
            progress(sum(len(errors) for errors, _ in weighed), total)
    errors, ratios = (
        [each for steps in batch for each in torch.stack(steps, dim=1).cpu().numpy()]  # (T-1, K) for each sequence
        for batch in zip(*weighed, strict=True)
    )
    dimensions = int(np.prod(sequences[0].frames.shape[1:]))
    return bounds(errors, ratios, dimensions, remembers=config.model.recurrent)


def bounds(errors: Sequence[np.ndarray], ratios: Sequence[np.ndarray], dimensions: int, remembers: bool) -> Bounds:
    """Bounds from the predictions x_k that K samples z_k ~ q give for each frame.

    errors: for each sequence (T, K): |x - x_k|^2 summed over the D = ``dimensions`` values of a frame, in 0..1.
    ratios: log p(z_k) - log q(z_k), of the same shape.
    remembers: whether z_t affects later steps, so that a chain is one sample of the whole sequence.

    With u uniform over a step of 8 bits, log P(x) >= E_u log p(x + u) (Theis et al. 2016, eq. 2), and the Gaussian's
    E_u log p(x + u | z) = -D/2 log(2 pi sigma^2) - (|x - x_k|^2 + D / (12 * 255^2)) / (2 sigma^2) exactly. sigma^2 is
    the value that maximises the ELBO. The weighted bound takes this mean over u inside its logarithm, which by Jensen's
    inequality only loosens it. The ELBO is the mean of the same log-weights, so it is never the tighter bound.
    """
    step = 1 / (12 * 255**2)  # variance of u
    count = sum(len(e) for e in errors)
    variance = sum(float(e.sum()) for e in errors) / (count * errors[0].shape[1] * dimensions) + step
    constant = -dimensions / 2 * math.log(2 * math.pi * variance) - dimensions * math.log(255)
    weights = [
        constant - (e + dimensions * step) / (2 * variance) + r for e, r in zip(errors, ratios, strict=True)
    ]  # log, (T, K)
    chains = [w.sum(axis=0, keepdims=True) if remembers else w for w in weights]
    bits = -1 / (count * dimensions * math.log(2))
    return Bounds(
        elbo=bits * sum(float(w.mean(axis=1).sum()) for w in weights),
        importance_weighted=bits * sum(float(_log_mean_exp(c).sum()) for c in chains),
        samples=errors[0].shape[1],
        sigma=math.sqrt(variance),
        frames=count,
        per="sequence" if remembers else "frame",
    )


def _log_mean_exp(values: np.ndarray) -> np.ndarray:
    """(T, K) -> (T)"""
    most = values.max(axis=1)
    result: np.ndarray = most + np.log(np.exp(values - most[:, None]).mean(axis=1))
    return result


@dataclass(frozen=True)
class _Chunk:
    """Steps ``begin``, begin + 1, ... of the sequences ``picks``.

    q: posterior of z (B, t, S*). frames: true frames (B, t, 3, H, W). previous, condition: codes of the frames before
    and of the conditions. first: frame 0 and its condition.
    """

    picks: list[int]
    begin: int
    q: Gaussian
    frames: Tensor
    previous: Code
    condition: Code
    first: tuple[Tensor, Tensor | None]

    @property
    def steps(self) -> int:
        return self.frames.shape[1]

    def start(self, model: VideoModel, copies: int = 1) -> State:
        return model.initial_state(*_repeat(self.first, copies))


@torch.inference_mode()
def _chunks(
    model: VideoModel,
    sequences: Sequence[clips.Sequence],
    config: Config,
    lengths: Sequence[int],
) -> Iterator[_Chunk]:
    for picks in batches(lengths, POSTERIOR_ROWS):
        chosen, length = [sequences[i] for i in picks], lengths[picks[0]]
        width = length if config.model.recurrent else CHUNK  # a recurrent posterior sees the whole sequence
        for begin in range(1, length, width):
            size = min(width, length - begin) + 1
            frames = _unit([s.frames[begin - 1 : begin - 1 + size] for s in chosen], model.device)
            rows = _unit([clips.condition_rows(s, begin - 1, size, *config.conditioning) for s in chosen], model.device)
            assert frames is not None
            codes, conditions = model.encode_frames(frames), model.encode_condition(rows, frames)
            later = at(conditions, slice(1, None))
            q = model.posterior(at(codes, slice(1, None)), later)
            if begin == 1:
                first = frames[:, 0], None if rows is None else rows[:, 0]
            yield _Chunk(picks, begin, q, frames[:, 1:], at(codes, slice(0, -1)), later, first)


@torch.inference_mode()
def _priors(model: VideoModel, state: State, chunk: _Chunk) -> tuple[Gaussian, State]:
    """The priors of a chunk's z (B, t, S*). They depend on the true frames before, and not on z."""
    priors = []
    for i in range(chunk.steps):
        p, state = model.prior(state, at(chunk.previous, i), at(chunk.condition, i))
        priors.append(p)
    mu, logvar = (torch.stack(parts, dim=1) for parts in zip(*priors, strict=True))
    return (mu, logvar), state


@torch.inference_mode()
def _weigh(model: VideoModel, state: State, chunk: _Chunk, i: int, eps: Tensor) -> tuple[Tensor, Tensor, State]:
    """Squared error and log p(z) - log q(z) of K samples in step i, (B, K) each, from noise (B, K, S*)."""
    samples = eps.shape[1]
    previous, condition = (_repeat(at(code, i), samples) for code in (chunk.previous, chunk.condition))
    mu, logvar = (full(x[:, i]).repeat_interleave(samples, 0) for x in chunk.q)  # (B K, S*)
    z = reparameterize(mu, logvar, eps.flatten(0, 1))
    p, state = model.prior(state, previous, condition)
    frame, state = model.step(state, previous, condition, z)
    truth = chunk.frames[:, i].repeat_interleave(samples, 0)
    error = (full(frame) - truth).double().square().flatten(1).sum(1)
    ratio = _log_density(z, p) - _log_density(z, (mu, logvar))
    return error.unflatten(0, eps.shape[:2]), ratio.unflatten(0, eps.shape[:2]), state


def _log_density(z: Tensor, gaussian: Gaussian) -> Tensor:
    """Log-density of a diagonal Gaussian, without the constant that is equal for all: (B, S*) -> (B)."""
    mu, logvar = (full(x).double() for x in gaussian)
    return (-0.5 * ((z.double() - mu).square() / logvar.exp() + logvar)).flatten(1).sum(1)


def _repeat(code: Code, copies: int) -> Code:
    """(B, ...) -> (B * copies, ...), each row followed by its copies."""
    return map_tensors(code, lambda x: x.repeat_interleave(copies, 0))


def _unit(arrays: Sequence[np.ndarray | None], device: torch.device) -> Tensor | None:
    batch = stacked(arrays)
    return None if batch is None else to_unit(batch.to(device))
