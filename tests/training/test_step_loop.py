"""A step with all that it can have against the loop that everyone would write, frame after frame."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from vidcvae import config as settings
from vidcvae.config import Config
from vidcvae.data.clips import ClipBatch
from vidcvae.errors import NonFiniteError
from vidcvae.models import build_model
from vidcvae.models.interface import Anchor
from vidcvae.training.state import TrainingState, new_state
from vidcvae.training.step import Draws, Scheduled, clip_terms, draw, gradients, training_step

B, T = 4, 5
MASKS = {
    "truth": torch.ones(B, T - 1),
    "own": torch.tensor([[1.0, 0, 0, 0]] * B),
    "mixed": torch.tensor([[1.0, 1, 0, 1], [1, 0, 0, 1], [1, 0.25, 0, 1], [1, 1, 0, 1]]),
}


def config(**training: object) -> Config:
    return settings.resolve(
        {
            "model": {"name": "anchor-cvae", "channels": 8, "latent_channels": 2, "prior": "learned"},
            "data": {"size": [8, 16]},
            "training": {"batch_size": B, "clip_length": T, "noise": 0.5, **training},
            "optimizer": {"gradient_clip": 0},
            "loss": {"smoothing": 0.7},
        }
    )


def state_of(chosen: Config) -> TrainingState:
    torch.manual_seed(0)
    model = build_model(chosen)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)  # everywhere, also where training starts from zeros
    return new_state(model.double(), chosen)


def given() -> tuple[Tensor, Tensor, Anchor, Tensor]:
    """Frames, poses, anchors with their poses, and other first frames; whole numbers of 255."""
    random = torch.Generator().manual_seed(1)
    frames, poses = torch.randint(0, 256, (2, B, T, 3, 8, 16), generator=random).double() / 255
    a, b, c = torch.randint(0, 256, (3, B, 3, 8, 16), generator=random).double() / 255
    return frames, poses, (a, b), c


def drawn(mask: Tensor, noisy: bool, kept: bool) -> Draws:
    random = torch.Generator().manual_seed(2)
    eps = torch.randn(B, T - 1, 2, 1, 2, generator=random).double()
    level = torch.rand(B, 1, generator=random).double().expand(B, T - 1)
    noise = torch.randn(B, T - 1, 3, 8, 16, generator=random).double() * level[..., None, None, None]
    keep = torch.tensor([2.0, 0, 1.5, 0.5], dtype=torch.float64)
    return draw(eps, mask, noise=noise if noisy else None, level=level if noisy else None, keep=keep if kept else None)


def plain_loop(
    state: TrainingState, draws: Draws, frames: Tensor, poses: Tensor, anchor: Anchor | None, start: Tensor | None
) -> tuple[dict[str, Tensor], Tensor]:
    model, last = state.model, frames[:, 0] if start is None else start
    terms = dict.fromkeys(("reconstruction", "kl", "smoothing"), torch.zeros((), dtype=torch.float64))
    inner = model.initial_state(last, poses[:, 0], anchor)
    truth_before = last
    for t in range(1, T):
        share = draws.mask[:, t - 1, None, None, None].double()
        reference = share * truth_before + (1 - share) * last
        seen = reference if draws.noise is None else reference + draws.noise[:, t - 1]
        level = None if draws.level is None else draws.level[:, t - 1 : t]
        before = model.encode_frames(seen[:, None], level)[:, 0]  # type: ignore[call-arg]
        condition = model.encode_condition(poses[:, t : t + 1], frames)[:, 0]
        code = model.encode_frames(frames[:, t : t + 1])
        mu, logvar = (x[:, 0] for x in model.posterior(code, condition[:, None]))
        (p_mu, p_logvar), inner = model.prior(inner, before, condition)
        z = mu + draws.eps[:, t - 1] * torch.exp(logvar / 2)
        q, p = Normal(mu, torch.exp(logvar / 2)), Normal(p_mu, torch.exp(p_logvar / 2))
        kl = kl_divergence(q, p).flatten(1).sum(1)
        if draws.keep is not None:
            z = torch.stack([z[i] if draws.keep[i] > 0 else p_mu[i] for i in range(B)])
            kl = kl * draws.keep
        last, inner = model.step(inner, before, condition, z)
        terms["reconstruction"] = terms["reconstruction"] + ((last - frames[:, t]) ** 2).mean()
        terms["kl"] = terms["kl"] + kl.mean()
        change = frames[:, t] - frames[:, t - 1]
        terms["smoothing"] = terms["smoothing"] + ((last - reference - change) ** 2).mean()
        truth_before = frames[:, t]
    return terms, last


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a.double(), b, rtol=2e-5, atol=2e-6)  # losses are summed in float32 or better


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("noisy", "kept", "begun"), list(itertools.product((False, True), repeat=3)))
def test_terms_and_last_frames_are_those_of_the_loop(mask: str, noisy: bool, kept: bool, begun: bool) -> None:
    chosen = config()
    state = state_of(chosen)
    frames, poses, anchor, other = given()
    anchor, start = (anchor, other) if begun else (None, None)  # type: ignore[assignment]
    draws = drawn(MASKS[mask], noisy, kept)
    found, ends = clip_terms(state.model, frames, poses, draws, chosen, anchor, start)
    want, last = plain_loop(state, draws, frames, poses, anchor, start)
    for name, value in want.items():
        same(found[name], value)
    same(ends, last)
    assert not ends.requires_grad


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_gradients_are_those_of_the_loop_over_the_whole_batch(parts: int) -> None:
    chosen = config(accumulate=parts)
    state = state_of(chosen)
    frames, poses, anchor, start = given()
    batch = ClipBatch(*((x * 255).round().to(torch.uint8) for x in (frames, poses)))
    batch = ClipBatch(
        batch.frames,
        batch.condition,
        ((anchor[0] * 255).round().to(torch.uint8), (anchor[1] * 255).round().to(torch.uint8)),
        (start * 255).round().to(torch.uint8),
    )
    state.model.float()
    draws = drawn(MASKS["mixed"], True, True).map(lambda x: x.float())
    for _ in range(2):  # a second time nothing is left of the first
        found, ends = gradients(state, batch, draws, chosen, Scheduled(0.1, 1e-3), torch.float32)
    twin = state_of(chosen)
    want, last = plain_loop(twin, drawn(MASKS["mixed"], True, True), frames, poses, anchor, start)
    total = want["reconstruction"] + 0.1 * want["kl"] + 0.7 * want["smoothing"]
    total.backward()
    squares = torch.stack([p.grad.square().sum() for p in twin.model.parameters() if p.grad is not None])
    for name, value in {**want, "total": total, "grad_norm": squares.sum().sqrt()}.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ends.double(), last, rtol=1e-3, atol=1e-4)
    for (name, mine), theirs in zip(state.model.named_parameters(), twin.model.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-2, atol=1e-3, msg=name)


def test_activations_are_computed_again_without_the_random_state_and_for_any_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reading the random state forbids a captured graph, and nothing in a step draws; re-entrant checkpoints would lose
    what hangs on the weights alone, and refuse ``autograd.grad``."""
    chosen = config(checkpoint_activations=True)
    state, twin = state_of(chosen), state_of(chosen)
    frames, poses, anchor, start = given()
    draws = drawn(MASKS["mixed"], True, True)

    def read() -> Tensor:
        raise AssertionError("the random state was read")

    monkeypatch.setattr(torch, "get_rng_state", read)
    found, _ = clip_terms(state.model, frames, poses, draws, chosen, anchor, start)
    want, _ = plain_loop(twin, draws, frames, poses, anchor, start)
    gradients_of = [
        torch.autograd.grad(terms["reconstruction"] + terms["kl"], list(model.parameters()), allow_unused=True)
        for terms, model in ((found, state.model), (want, twin.model))
    ]
    for mine, theirs in zip(*gradients_of, strict=True):
        if theirs is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_a_step_takes_the_rate_that_it_is_given_and_nothing_after_a_loss_that_is_not_finite() -> None:
    chosen = config()
    state = state_of(chosen)
    state.model.float()
    frames, poses, _, _ = given()
    batch = ClipBatch(*((x * 255).round().to(torch.uint8) for x in (frames, poses)))
    draws = drawn(MASKS["own"], False, False).map(lambda x: x.float())
    before = [p.detach().clone() for p in state.model.parameters()]
    training_step(state, batch, draws, chosen, Scheduled(0.1, 0.03125), torch.float32)
    moved = [(a - b.detach()).abs().max().item() for a, b in zip(before, state.model.parameters(), strict=True)]
    assert max(moved) == pytest.approx(0.03125, rel=1e-3), "Adam's first step is the rate"
    after = [p.detach().clone() for p in state.model.parameters()]
    with pytest.raises(NonFiniteError, match="the total became nan"):
        training_step(state, batch, draws, chosen, Scheduled(float("nan"), 1.0), torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(after, state.model.parameters(), strict=True))


def test_what_a_mask_says_of_all_clips() -> None:
    mask = torch.tensor([[1.0, 1, 0, 0, 0.5, 1], [1, 0, 0, 1, 0.5, 0.5]])
    draws = draw(torch.zeros(2, 6), mask, keep=torch.ones(2), level=mask)
    assert draws.pattern == ("truth", "mixed", "own", "mixed", "mixed", "mixed")
    assert draws.keep is not None and draws.keep.tolist() == [1, 1] and draws.level is mask and draws.noise is None
