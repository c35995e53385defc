"""Activity, KL and likelihood bounds on posteriors and models whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vidcvae import config as settings
from vidcvae import rng
from vidcvae.config import Config
from vidcvae.data.clips import Sequence, condition_rows
from vidcvae.evaluation import latents
from vidcvae.evaluation.free_run import POSTERIOR_ROWS
from vidcvae.evaluation.latents import bounds, measure_bounds, measure_latents
from vidcvae.models import build_model

H, W, N = 8, 16, 3
CONFIG = settings.resolve({"data": {"size": [H, W]}})


class Coded(nn.Module):
    """z has three numbers; the posterior reads them off the frame's first pixels: mean = pixel - 0.5, times a gain."""

    device = torch.device("cpu")

    def __init__(self, gain: tuple[float, ...], logvar: tuple[float, ...]) -> None:
        super().__init__()
        self.gain, self.logvar = (nn.Parameter(torch.tensor(x)) for x in (gain, logvar))

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        return (N,)

    def encode_frames(self, frames: Tensor) -> Tensor:
        return frames

    def encode_condition(self, condition: Tensor, like: Tensor) -> Tensor:
        return condition

    def posterior(self, frames: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        mu = (frames[:, :, 0, 0, :N] - 0.5) * self.gain
        return mu, self.logvar.expand_as(mu)


def _sequence(length: int, seed: int = 0) -> Sequence:
    random = np.random.default_rng(seed)
    frames = random.integers(0, 256, (length, 3, H, W), dtype=np.uint8)
    return Sequence(f"val/{seed}", frames, {"pose": frames.copy()})


def test_kl_and_activity_of_a_constructed_posterior() -> None:
    """Longer than one chunk, and of two lengths, so that the parts' statistics are put together."""
    sequences, lengths = [_sequence(3 * latents.CHUNK + 5), _sequence(7, 1)], [3 * latents.CHUNK + 5, 7]
    gain, logvar = (2.0, 0.1, 0.0), (-1.0, 0.0, 0.0)
    found = measure_latents(Coded(gain, logvar), sequences, CONFIG, lengths)  # type: ignore[arg-type]
    pixels = np.concatenate([s.frames[1:, 0, 0, :N] for s in sequences]) / 255
    mu = (pixels - 0.5) * gain
    assert found.frames == len(mu)
    assert found.variance == pytest.approx(mu.var(axis=0), rel=1e-5)
    assert found.active_units == 1  # variances: 2^2 / 12, 0.1^2 / 12 < 0.01, and 0
    q = torch.distributions.Normal(torch.tensor(mu), torch.exp(torch.tensor(logvar) / 2).expand(len(mu), N))
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(0)
    assert found.kl_per_dimension == pytest.approx(kl.numpy(), rel=1e-5)
    assert found.kl == pytest.approx(kl.sum().item(), rel=1e-5)


def test_a_large_latent_is_told_thinned_and_by_channel() -> None:
    kl = np.random.default_rng(0).random((12, 32, 64))
    variance = np.zeros((12, 32, 64))
    variance[3, :2] = 0.02
    told = latents.Latents(kl, variance, 9).to_json()
    assert told["active_units"] == 128 == told["active_units_per_channel"][3]
    assert told["kl_per_channel"] == pytest.approx(kl.sum((1, 2)).tolist())
    assert len(told["kl_per_dimension"]) == latents.MOST_RANKS
    assert (told["kl_per_dimension"][0], told["kl_per_dimension"][-1]) == (kl.max(), kl.min())
    assert told["kl_per_dimension"] == sorted(told["kl_per_dimension"], reverse=True)
    assert told["kl_ranks"][-1] == kl.size - 1


def _linear_gaussian(samples: int, spread: float, frames: int = 400) -> tuple[latents.Bounds, float]:
    """Bounds of x = A z + e, z ~ N(0, I), e ~ N(0, s^2 I), and the exact bits per dimension.

    q is the true posterior with its standard deviation times ``spread``.
    """
    random = np.random.default_rng(0)
    dimensions, z_size, noise = 12, 2, 0.1
    a = random.normal(0, 0.1, (dimensions, z_size))
    x = random.normal(0, 1, (frames, z_size)) @ a.T + random.normal(0, noise, (frames, dimensions))
    cov = np.linalg.inv(np.eye(z_size) + a.T @ a / noise**2)
    mean = x @ a @ cov / noise**2
    factor = np.linalg.cholesky(cov) * spread
    eps = random.normal(0, 1, (frames, samples, z_size))
    z = mean[:, None] + eps @ factor.T
    log_q = -0.5 * (eps**2).sum(-1) - np.log(np.diag(factor)).sum()  # but for the constant
    ratios = -0.5 * (z**2).sum(-1) - log_q
    errors = ((x[:, None] - z @ a.T) ** 2).sum(-1)
    found = bounds([errors], [ratios], dimensions, remembers=False)
    total = a @ a.T + found.sigma**2 * np.eye(dimensions)
    exact = -0.5 * (
        np.einsum("td,de,te->t", x, np.linalg.inv(total), x)
        + np.linalg.slogdet(total)[1]
        + dimensions * math.log(2 * math.pi)
    )
    return found, -exact.mean() / (dimensions * math.log(2)) + math.log2(255)


def test_the_elbo_of_the_true_posterior_is_the_likelihood() -> None:
    found, exact = _linear_gaussian(samples=4, spread=1.0)
    # what is left is the dequantisation noise, (1/255)^2 / 12 on a variance of 0.01, and sigma's own estimate
    assert found.elbo == pytest.approx(exact, abs=5e-3)
    assert found.importance_weighted == pytest.approx(exact, abs=5e-3)
    assert found.sigma == pytest.approx(0.1, rel=0.05)


def test_more_samples_come_nearer_to_the_likelihood_and_never_pass_it() -> None:
    found = [_linear_gaussian(samples, spread=2.0) for samples in (1, 4, 32)]
    assert found[0][0].elbo == pytest.approx(found[0][0].importance_weighted)
    gaps = [bound.importance_weighted - exact for bound, exact in found]
    assert gaps[0] > gaps[1] > gaps[2] > -2e-3
    assert gaps[2] < 0.2 * gaps[0]
    assert all(bound.importance_weighted <= bound.elbo for bound, _ in found)


@pytest.mark.parametrize("name", ["pose-cvae", "anchor-cvae", "svg-lp"])
def test_the_bounds_of_a_model_are_those_of_a_loop_over_frames_and_samples(name: str) -> None:
    size = (64, 64) if name.startswith("svg") else (16, 16)
    config, sequence = _model_config(name, size), _model_sequence(name, size)
    torch.manual_seed(1)
    model = build_model(config).eval()
    samples, length = 3, len(sequence)
    seen: list[tuple[int, int]] = []
    found = measure_bounds(
        model, [sequence], config, [length], samples=samples, seed=5, progress=lambda *now: seen.append(now)
    )
    assert seen[-1] == (length - 1, length - 1)
    frames = torch.from_numpy(sequence.frames)[None].float() / 255
    rows = condition_rows(sequence, 0, length, config.model.condition_kind, "source")
    condition = torch.from_numpy(rows)[None].float() if rows is not None else None
    condition = condition / 255 if name != "svg-lp" and condition is not None else condition
    errors, ratios = np.zeros((length - 1, samples)), np.zeros((length - 1, samples))
    with torch.no_grad():
        codes, conditions = model.encode_frames(frames), model.encode_condition(condition, frames)
        later = lambda code, s: code[:, s] if isinstance(code, Tensor) else tuple(c[:, s] for c in code)  # noqa: E731
        mu, logvar = model.posterior(later(codes, slice(1, None)), later(conditions, slice(1, None)))
        for k in range(samples):
            state = model.initial_state(frames[:, 0], None if condition is None else condition[:, 0])
            for t in range(1, length):
                eps = rng.normal((samples, *mu.shape[2:]), 5, "bounds", 0, t)[k][None]
                q = torch.distributions.Normal(mu[:, t - 1], torch.exp(logvar[:, t - 1] / 2))
                z = q.loc + q.scale * eps
                (p_mu, p_logvar), state = model.prior(state, later(codes, t - 1), later(conditions, t))
                frame, state = model.step(state, later(codes, t - 1), later(conditions, t), z)
                p = torch.distributions.Normal(p_mu, torch.exp(p_logvar / 2))
                errors[t - 1, k] = (frame - frames[:, t]).double().square().sum()
                ratios[t - 1, k] = (p.log_prob(z) - q.log_prob(z)).double().sum()
    expected = bounds([errors], [ratios], 3 * size[0] * size[1], remembers=name == "svg-lp")
    assert found.per == ("sequence" if name == "svg-lp" else "frame")
    assert found.sigma == pytest.approx(expected.sigma, rel=1e-5)
    assert found.elbo == pytest.approx(expected.elbo, abs=1e-4)
    assert found.importance_weighted == pytest.approx(expected.importance_weighted, abs=1e-4)


@pytest.mark.parametrize("name", ["anchor-cvae", "svg-lp"])
def test_the_kl_to_a_learned_prior_is_that_of_the_forced_pass(name: str) -> None:
    size = (64, 64) if name == "svg-lp" else (16, 16)
    config, sequence = _model_config(name, size), _model_sequence(name, size)
    if name == "anchor-cvae":
        config = settings.with_values(config, {"model": {"prior": "learned"}})
    torch.manual_seed(2)
    model = build_model(config).eval()
    found = measure_latents(model, [sequence], config, [len(sequence)])
    frames = torch.from_numpy(sequence.frames)[None].float() / 255
    rows = condition_rows(sequence, 0, len(sequence), config.model.condition_kind, "source")
    condition = torch.from_numpy(rows)[None].float() / (255 if name == "anchor-cvae" else 1)  # type: ignore[arg-type]
    with torch.no_grad():
        codes, conditions = model.encode_frames(frames), model.encode_condition(condition, frames)
        later = lambda code, s: code[:, s] if isinstance(code, Tensor) else tuple(c[:, s] for c in code)  # noqa: E731
        q = model.posterior(later(codes, slice(1, None)), later(conditions, slice(1, None)))
        state = model.initial_state(frames[:, 0], condition[:, 0])
        p = model.forced(state, later(codes, slice(0, -1)), later(conditions, slice(1, None)), q[0])[1]
    normal = [torch.distributions.Normal(mu, torch.exp(logvar / 2)) for mu, logvar in (q, p)]
    expected = torch.distributions.kl_divergence(*normal)[0].flatten(1).sum(1).mean().item()
    assert p[0].abs().max() > 1e-3  # learned, not N(0, I)
    assert found.kl == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["svg-lp", "anchor-cvae"])
def test_batches_of_sequences_know_nothing_of_each_other(name: str) -> None:
    """Two full batches of one length: the KL of all is the mean of that of each sequence in a model of its own."""
    size, length = ((64, 64), 4) if name == "svg-lp" else ((16, 16), 4)
    config = _model_config(name, size)
    if name == "anchor-cvae":
        config = settings.with_values(config, {"model": {"prior": "learned"}})
    torch.manual_seed(2)
    model = build_model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # so that what an LSTM remembers weighs
    sequences = [_model_sequence(name, size, length, seed=seed) for seed in range(2 * POSTERIOR_ROWS)]
    together = measure_latents(model, sequences, config, [length] * len(sequences))
    alone = [measure_latents(model, [s], config, [length]).kl_per_dimension for s in sequences]
    assert np.std(alone, axis=0).min() > 1e-5
    assert together.kl_per_dimension == pytest.approx(np.mean(alone, axis=0), rel=1e-4)
    assert together.frames == len(sequences) * (length - 1)


def _model_config(name: str, size: tuple[int, int]) -> Config:
    model: dict[str, object] = {"name": name}
    if name == "pose-cvae":
        model |= {"frame_channels": 8, "pose_channels": 4, "latent_channels": 4, "decoder_channels": 8}
    elif name == "anchor-cvae":
        model |= {"channels": 8, "latent_channels": 2}
    else:
        model |= {"backbone": "dcgan64", "frame_dim": 4, "latent_dim": 2, "hidden_dim": 8}
    training = {"past": 2} if name == "svg-lp" else {}
    return settings.resolve({"model": model, "data": {"size": list(size)}, "training": training})


def _model_sequence(name: str, size: tuple[int, int], length: int = 5, seed: int = 3) -> Sequence:
    random = np.random.default_rng(seed)
    frames = random.integers(0, 256, (length, 3, *size), dtype=np.uint8)
    if name != "svg-lp":
        return Sequence("a", frames, {"pose": random.integers(0, 256, (length, 3, *size), dtype=np.uint8)})
    tracks = {"action": random.normal(0, 1, (length, 4)), "position": random.normal(0, 1, (length, 3))}
    return Sequence("a", frames, {key: value.astype(np.float32) for key, value in tracks.items()})
