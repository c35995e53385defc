"""What the latent carries: KL by dimension, active units, and bounds on the likelihood in bits per dimension.

Everything here is teacher-forced: step t sees the true frame t-1, and q(z_t | x_t, ...) the true frame t.

B sequences, T frames, K samples of z, S* the latent's shape; C H W a frame, D = C H W.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidcvae import rng
from vidcvae.config import Config
from vidcvae.data import clips
from vidcvae.data.clips import to_unit
from vidcvae.evaluation.free_run import POSTERIOR_ROWS, batches, learned_prior
from vidcvae.models.inference import prepare
from vidcvae.models.interface import Code, Gaussian, State, VideoModel, at, full, reparameterize
from vidcvae.models.objectives import kl_elements

ACTIVE = 0.01  # variance of the posterior's mean over the data (Burda et al. 2016, section 4.2)
CHUNK = 32  # frames encoded at once where the posterior looks at one frame at a time
MOST_RANKS = 1000  # of more dimensions so many are told, evenly spread from the largest KL to the least

Progress = Callable[[int, int], None]

LIKELIHOOD = (
    "Gaussian of one variance, the maximum-likelihood value on these frames, on 8-bit frames with uniform "
    "dequantisation noise (Theis et al. 2016); given the true frames before"
)


@dataclass(frozen=True)
class Latents:
    """kl_per_dimension: mean over frames of KL(q || p) of each element of z, in nats, S*; variance: of the posterior's
    mean over all frames, S*; frames: how many there were."""

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
        """Dimensions in order of falling KL, and sums over each channel of z, which has H x W of them."""
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
    """Lower bounds on the log-likelihood of 8-bit frames, told as upper bounds on bits per dimension.

    elbo: from single samples; importance_weighted: from ``samples`` of them (Burda et al. 2016, eq. 8), never worse;
    sigma: the likelihood's standard deviation, in parts of the range 0..1; per: "frame", or "sequence" where the state
    of the model remembers z, so that the weights of a whole sequence multiply.
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
    *,
    device: str | torch.device = "cpu",
) -> Latents:
    """KL and activity of every dimension over the frames 1.. of ``sequences``, the first ``lengths`` of each.

    Costs an encoding of every frame and no decoding. Memory does not grow with the length.
    """
    model = prepare(model, torch.float32)
    learned = learned_prior(config)
    kl = mean = spread = torch.zeros((), dtype=torch.float64)
    count, state = 0, None
    for chunk in _chunks(model, sequences, config, lengths, device):
        p = None
        if learned:
            state = chunk.start(model) if chunk.begin == 1 else state
            p, state = _priors(model, state, chunk)
        mu = full(chunk.q[0]).flatten(0, 1).double().cpu()  # (B T, S*)
        elements = kl_elements(chunk.q, p).flatten(0, 1).double().cpu()
        # Chan et al. 1983: means and squared deviations of two parts make those of both
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
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> Bounds:
    """ELBO and importance-weighted bound on log p(x_t | x_0 .. x_{t-1}, condition), over the frames 1.. of the data.

    K chains run side by side: z_t ~ q(z_t | x_t, ...), then one ``step`` from the true frame t-1. See ``bounds``.
    """
    model = prepare(model, torch.float32)
    total = sum(lengths[picks[0]] - 1 for picks in batches(lengths, POSTERIOR_ROWS))
    found: list[tuple[list[Tensor], list[Tensor]]] = []  # for each batch the (B, K) of every step
    for chunk in _chunks(model, sequences, config, lengths, device):
        if chunk.begin == 1:
            state = chunk.start(model, samples)
            found.append(([], []))
        for i in range(chunk.steps):
            t = chunk.begin + i
            eps = torch.stack([rng.normal((samples, *chunk.q[0].shape[2:]), seed, "bounds", n, t) for n in chunk.picks])
            error, ratio, state = _weigh(model, state, chunk, i, eps.to(device))
            found[-1][0].append(error)
            found[-1][1].append(ratio)
            if progress:
                progress(sum(len(errors) for errors, _ in found), total)
    errors, ratios = (
        [each for batch in found for each in torch.stack(batch[part], dim=1).cpu().numpy()]  # of (T-1, K)
        for part in (0, 1)
    )
    dimensions = int(np.prod(sequences[0].frames.shape[1:]))
    return bounds(errors, ratios, dimensions, remembers=config.model.recurrent)


def bounds(errors: Sequence[np.ndarray], ratios: Sequence[np.ndarray], dimensions: int, remembers: bool) -> Bounds:
    """Bounds from what K samples z_k ~ q made of each frame.

    errors: of each sequence (T, K), |x - x_k|^2 summed over the ``dimensions`` D numbers of a frame, in 0..1.
    ratios: log p(z_k) - log q(z_k), the same shape.
    remembers: whether z_t has a say in later steps, so that a chain is one sample of the whole sequence.

    With u uniform over a step of 8 bits, log P(x) >= E_u log p(x + u) (Theis et al. 2016, eq. 2), and the Gaussian's
    E_u log p(x + u | z) = -D/2 log(2 pi sigma^2) - (|x - x_k|^2 + D / (12 * 255^2)) / (2 sigma^2) exactly. sigma^2 is
    the value that makes the ELBO largest. The weighted bound takes this mean over u inside its logarithm, which by
    Jensen's inequality only loosens it. The ELBO is the mean of the same log-weights, so it is never the better one.
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
    """Steps ``begin``, begin + 1, ... of the sequences ``picks``: q of their z (B, t, S*), their true frames
    (B, t, 3, H, W), codes of the frames before and of the conditions; and frame 0 with its condition."""

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
        frame, condition = self.first
        return model.initial_state(
            frame.repeat_interleave(copies, 0), None if condition is None else condition.repeat_interleave(copies, 0)
        )


@torch.inference_mode()
def _chunks(
    model: VideoModel,
    sequences: Sequence[clips.Sequence],
    config: Config,
    lengths: Sequence[int],
    device: str | torch.device,
) -> Iterator[_Chunk]:
    kind, pairing = config.model.condition, config.data.condition
    for picks in batches(lengths, POSTERIOR_ROWS):
        chosen, length = [sequences[i] for i in picks], lengths[picks[0]]
        width = length if config.model.recurrent else CHUNK  # a recurrent posterior sees the whole sequence
        for begin in range(1, length, width):
            size = min(width, length - begin) + 1
            frames = _unit([s.frames[begin - 1 : begin - 1 + size] for s in chosen], device)
            rows = _unit([clips.condition_rows(s, begin - 1, size, kind, pairing) for s in chosen], device)
            assert frames is not None
            codes, conditions = model.encode_frames(frames), model.encode_condition(rows, frames)
            later = at(conditions, slice(1, None))
            q = model.posterior(at(codes, slice(1, None)), later)
            if begin == 1:
                first = frames[:, 0], None if rows is None else rows[:, 0]
            yield _Chunk(picks, begin, q, frames[:, 1:], at(codes, slice(0, -1)), later, first)


@torch.inference_mode()
def _priors(model: VideoModel, state: State, chunk: _Chunk) -> tuple[Gaussian, State]:
    """The priors of a chunk's z (B, t, S*). They depend on the frames before, which are the true ones, and not on z."""
    found = []
    for i in range(chunk.steps):
        p, state = model.prior(state, at(chunk.previous, i), at(chunk.condition, i))
        found.append(p)
    mu, logvar = (torch.stack(parts, dim=1) for parts in zip(*found, strict=True))
    return (mu, logvar), state


@torch.inference_mode()
def _weigh(model: VideoModel, state: State, chunk: _Chunk, i: int, eps: Tensor) -> tuple[Tensor, Tensor, State]:
    """Squared error and log p(z) - log q(z) of K samples of step i, (B, K) each, from noise (B, K, S*)."""
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
    """(B, S*) -> (B): of a diagonal Gaussian, but for the constant that two of them share."""
    mu, logvar = (full(x).double() for x in gaussian)
    return (-0.5 * ((z.double() - mu).square() / logvar.exp() + logvar)).flatten(1).sum(1)


def _repeat(code: Code, copies: int) -> Code:
    """Rows (B, ...) -> (B copies, ...), each row beside its copies."""
    if isinstance(code, Tensor):
        return code.repeat_interleave(copies, 0)
    return tuple(_repeat(part, copies) for part in code)


def _unit(arrays: Sequence[np.ndarray | None], device: str | torch.device) -> Tensor | None:
    known = [a for a in arrays if a is not None]
    return to_unit(torch.from_numpy(np.stack(known)).to(device)) if known else None
