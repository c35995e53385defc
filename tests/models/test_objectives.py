"""The objective's terms against ``torch.distributions`` and loops over clips, frames and pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from vidcvae.models import objectives


def gaussian(seed: int) -> tuple[Tensor, Tensor]:
    """(B, T, S*) of 2 clips, 3 steps, and 4 x 5 numbers."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 4, 5, generator=random), torch.randn(2, 3, 4, 5, generator=random)


def as_normal(mu: Tensor, logvar: Tensor) -> Normal:
    return Normal(mu, torch.exp(logvar / 2))


def test_kl_to_any_prior_is_torch_s() -> None:
    q, p = gaussian(0), gaussian(1)
    torch.testing.assert_close(objectives.kl_elements(q, p), kl_divergence(as_normal(*q), as_normal(*p)))
    torch.testing.assert_close(objectives.kl_elements(q), kl_divergence(as_normal(*q), Normal(0.0, 1.0)))
    half = tuple(x.bfloat16() for x in q)
    assert objectives.kl_elements(half).dtype == torch.float32


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_kl_of_each_step_is_averaged_over_clips_of_a_weight(reduction: str) -> None:
    q, p = gaussian(0), gaussian(1)
    each = kl_divergence(as_normal(*q), as_normal(*p)).flatten(2)
    each = each.sum(2) if reduction == "sum" else each.mean(2)
    torch.testing.assert_close(objectives.kl_per_frame(q, p, reduction), each.mean(0))
    keep = torch.tensor([0.5, 1.5])
    want = (0.5 * each[0] + 1.5 * each[1]) / 2
    torch.testing.assert_close(objectives.kl_per_frame(q, p, reduction, keep), want)


FRAMES = np.random.default_rng(0).random((3, 2, 6, 3, 4, 5))  # prediction, truth, and the frames before; B 2, T 6
FRAMES[2] = FRAMES[1]
FRAMES[2, :, :, 1, :2] += 0.051  # moves, in one channel alone
FRAMES[2, :, :, 2, 2] -= 0.049  # hardly moves
MOVES = np.zeros((2, 6, 1, 4, 5))
MOVES[..., :2, :] = 1


@pytest.mark.parametrize("motion", [0.0, 2.0])
@pytest.mark.parametrize("kind", ["mse", "l1+mse", "log-mse"])
def test_reconstruction_is_that_of_loops(kind: str, motion: float) -> None:
    prediction, truth, _ = FRAMES
    apart = prediction - truth
    errors = (np.abs(apart) + apart**2) / 2 if kind == "l1+mse" else apart**2
    errors = errors * (1 + motion * MOVES)
    means = [[errors[b, t].mean() for t in range(6)] for b in range(2)]
    each = [[math.log(mean + 1e-4) if kind == "log-mse" else mean for mean in clip] for clip in means]
    tensors = [torch.from_numpy(x) for x in FRAMES]
    found = objectives.reconstruction(tensors[0], tensors[1], kind, tensors[2], motion)
    assert found.item() == pytest.approx(np.mean([sum(clip) for clip in each]), rel=1e-9)
    if not motion:
        assert objectives.reconstruction(tensors[0], tensors[1], kind).item() == found.item()
    without = objectives.reconstruction(tensors[0], tensors[1], kind, None, motion)
    assert without.item() == objectives.reconstruction(tensors[0], tensors[1], kind).item()


def test_smoothing_is_that_of_loops() -> None:
    prediction, truth, before = FRAMES
    reference = FRAMES[0, ::-1].copy()
    want = sum((((prediction - reference) - (truth - before))[:, t] ** 2).mean() for t in range(6))
    found = objectives.smoothing(*(torch.from_numpy(x) for x in (prediction, reference, truth, before)))
    assert found.item() == pytest.approx(want, rel=1e-9)


def test_the_total_charges_what_there_is() -> None:
    terms = {"kl": torch.tensor(5.0), "reconstruction": torch.tensor(1.0)}
    assert objectives.total(terms, 0.5, 0.3).item() == 3.5
    terms["smoothing"] = torch.tensor(10.0)
    assert objectives.total(terms, 0.5, 0.3).item() == pytest.approx(6.5)
    assert objectives.total(terms | {"kl_charged": torch.tensor(7.0)}, 0.5, 0.3).item() == pytest.approx(7.5)


def test_the_first_term_that_is_not_finite_is_named() -> None:
    nan, good = torch.tensor(math.nan), torch.tensor(1.0)
    assert objectives.first_non_finite({"a": good, "b": good}) is None
    assert objectives.first_non_finite({"a": good, "b": nan, "c": nan / 0}) == "b"
    assert objectives.first_non_finite({"a": torch.tensor(-math.inf), "b": nan}) == "a"
