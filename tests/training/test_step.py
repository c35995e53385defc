"""The batched step against the loop everyone writes, and what teacher forcing does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vidcvae import config as settings
from vidcvae.config import TeacherForcingConfig
from vidcvae.data import clips as clips_module
from vidcvae.data.clips import ClipBatch
from vidcvae.errors import NonFiniteError
from vidcvae.models import build_model, objectives
from vidcvae.models.pose_cvae import PoseCvae
from vidcvae.training.state import new_state
from vidcvae.training.step import Scheduled, clip_terms, draw, forcing_mask, gradients, training_step

from .conftest import small_config, tiny_config


def plain_loop(model: PoseCvae, frames: Tensor, poses: Tensor, eps: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Frame after frame, everything encoded when it is needed, as the lab's report describes its loop."""
    last, terms = frames[:, 0], {"reconstruction": 0.0, "kl": 0.0, "smoothing": 0.0}
    for t in range(1, frames.shape[1]):
        share = mask[:, t - 1, None, None, None]
        reference = share * frames[:, t - 1] + (1 - share) * last
        before = model.frame_encoder(reference)
        pose = model.pose_encoder(poses[:, t])
        mu, logvar = model.gaussian_predictor(torch.cat([model.frame_encoder(frames[:, t]), pose], 1)).chunk(2, 1)
        z = mu + eps[:, t - 1] * torch.exp(logvar / 2)
        last = torch.sigmoid(model.generator(model.fusion(torch.cat([before, pose, z], 1))))
        terms["reconstruction"] += torch.nn.functional.mse_loss(last, frames[:, t])
        terms["kl"] += -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum() / len(frames)
        terms["smoothing"] += torch.nn.functional.mse_loss(last - reference, frames[:, t] - frames[:, t - 1])
    return terms


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0, "frames"])
def test_batched_step_equals_the_plain_loop(share: float | str) -> None:
    """Losses, gradients and BatchNorm's buffers, with statistics taken per frame as the loop does."""
    config = tiny_config(model={"batch_norm": "frame"})
    torch.manual_seed(0)
    model, twin = build_model(config).double(), build_model(config).double()
    twin.load_state_dict(model.state_dict())
    frames, poses = torch.rand(2, 2, 5, 3, 8, 16, dtype=torch.float64)
    eps = torch.randn(2, 4, 4, 8, 16, dtype=torch.float64)
    mask = torch.tensor([[1.0, 0, 1, 0], [1, 1, 0, 0]]) if share == "frames" else torch.full((2, 4), float(share))
    got = clip_terms(model.train(), frames, poses, draw(eps, mask), config)[0]
    want = plain_loop(twin.train(), frames, poses, eps, mask.double())  # type: ignore[arg-type]
    for name, value in want.items():
        assert got[name].item() == pytest.approx(value.item(), rel=1e-5)
    objectives.total(got, 0.01, 0.3).backward()
    objectives.total(want, 0.01, 0.3).backward()
    for (name, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-8), name
    for (name, a), b in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=1e-6), name


def test_clip_statistics_are_those_of_all_poses_of_the_batch() -> None:
    config = tiny_config(model={"batch_norm": "clip"})
    model = build_model(config).train()
    poses = torch.rand(2, 4, 3, 8, 16)
    model.encode_condition(poses, poses)
    norm, conv = model.pose_encoder[2], model.pose_encoder[:2]
    seen = conv(poses.flatten(0, 1))
    assert torch.allclose(norm.running_mean, 0.1 * seen.mean((0, 2, 3)), atol=1e-6)


def test_coins_fall_once_for_each_epoch_batch_clip_or_frame() -> None:
    def masks(draw: str, reference: str = "truth", ratio: float = 0.5) -> list[Tensor]:
        forcing = TeacherForcingConfig(ratio=ratio, draw=draw, reference=reference)
        return [forcing_mask(forcing, ratio, 8, 15, 1, 0, step // 10, step) for step in range(40)]

    for mask in masks("epoch"):
        assert mask[:, 0].eq(1).all(), "the given frame is always the truth"
        assert len(mask[:, 1:].unique()) == 1
    assert all(torch.equal(a, b) for a, b in zip(masks("epoch")[:9], masks("epoch")[1:10], strict=True))
    batches = masks("batch")
    assert all(len(m[:, 1:].unique()) == 1 for m in batches)
    assert len({float(m[0, 1]) for m in batches}) == 2
    assert any(len(m[:, 1].unique()) == 2 for m in masks("clip"))
    assert all((m[:, 1:] == m[:, 1:2]).all() for m in masks("clip"))
    share = torch.stack(masks("frame"))[:, :, 1:].mean()
    assert 0.45 < share < 0.55
    mixed = torch.stack(masks("frame", "mix", 0.6))[:, :, 1:].unique()
    assert mixed.tolist() == pytest.approx([0.0, 0.6])
    assert all(m[:, 1:].eq(0).all() for m in masks("frame", ratio=0.0))
    assert all(m.eq(1).all() for m in masks("epoch", ratio=1.0))


def test_a_non_finite_loss_changes_nothing() -> None:
    config = tiny_config()
    state = new_state(build_model(config), config)
    batch = ClipBatch(*torch.randint(0, 256, (2, 2, 4, 3, 8, 16), dtype=torch.uint8))
    eps = torch.randn(2, 3, 4, 8, 16)
    mask = forcing_mask(config.teacher_forcing, 0, 2, 3, 1, 0, 0, 0)
    args = (draw(eps, mask), config, Scheduled(1.0, 1e-3), torch.float32)
    training_step(state, batch, *args)
    before = {name: t.clone() for name, t in state.tensors().items() if "running" not in name and "batches" not in name}
    with pytest.raises(NonFiniteError, match="the kl became"):
        with torch.no_grad():
            state.model.gaussian_predictor[-1].bias[4:] = 200.0  # logvar whose exp overflows
        training_step(state, batch, *args)
    state.model.gaussian_predictor[-1].bias.data.copy_(before["model.gaussian_predictor.6.bias"])
    for name, tensor in before.items():
        assert torch.equal(state.tensors()[name], tensor), name


def test_moving_average_follows_the_weights() -> None:
    config = tiny_config(training={"ema": 0.99})
    state = new_state(build_model(config), config)
    name, parameter = next(iter(state.model.named_parameters()))
    start = parameter.detach().clone()
    batch = ClipBatch(*torch.randint(0, 256, (2, 2, 4, 3, 8, 16), dtype=torch.uint8))
    mask = forcing_mask(config.teacher_forcing, 0, 2, 3, 1, 0, 0, 0)
    training_step(state, batch, draw(torch.randn(2, 3, 4, 8, 16), mask), config, Scheduled(0.1, 1e-3), torch.float32)
    decay = min(0.99, 1 / 10)
    assert torch.allclose(state.ema[name], decay * start + (1 - decay) * parameter.detach(), atol=1e-7)
    assert settings.to_table(config)["training"]["ema"] == 0.99


@pytest.mark.parametrize("name", ["pose-cvae", "anchor-cvae"])
def test_a_divided_batch_has_the_free_bits_of_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64. The floor lies under the mean over the batch: one half of it is above the floor, the other below."""
    monkeypatch.setattr(clips_module, "to_unit", lambda x: x.double() / 255)
    config = settings.with_values(small_config(name), {"training": {"accumulate": 1}})
    torch.manual_seed(1)
    model = build_model(config).double().eval()  # BatchNorm would see one part at a time
    frames, poses = torch.randint(0, 256, (2, 4, 5, 3, *config.data.size), dtype=torch.uint8)
    frames[:2] //= 64  # dark clips have another KL than bright ones
    anchor = (frames[:, 1], poses[:, 2]) if model.uses_anchor else None
    eps = torch.randn(4, 4, *model.latent_shape(*config.data.size), dtype=torch.float64)
    drawn = draw(eps, torch.tensor([[1.0, 1, 0, 0]] * 4))

    def step_of(clips: slice, free_bits: float, parts: int = 1) -> tuple[dict[str, Tensor], list[Tensor]]:
        values = {
            "kl": {"free_bits": free_bits},
            "optimizer": {"gradient_clip": 0.0},
            "training": {"accumulate": parts},
        }
        state = new_state(model, own := settings.with_values(config, values))
        batch = ClipBatch(frames[clips], poses[clips], None if anchor is None else (anchor[0][clips], anchor[1][clips]))
        terms, _ = gradients(state, batch, drawn[clips], own, Scheduled(1.0, 1e-3), torch.float32)
        return terms, [p.grad.clone() for p in model.parameters() if p.grad is not None]

    halves = [float(step_of(slice(first, first + 2), 0.0)[0]["kl"]) / 4 for first in (0, 2)]
    for share in (0.25, 0.75):  # the mean is above the floor, and below it
        floor = min(halves) + share * abs(halves[0] - halves[1])
        (whole, want), (divided, got) = step_of(slice(4), floor), step_of(slice(4), floor, parts=2)
        assert whole["kl_charged"] >= 4 * floor * (1 - 1e-12)
        for key, value in whole.items():
            assert float(divided[key]) == pytest.approx(float(value), rel=1e-12), key
        apart = sum(float((a - b).square().sum()) for a, b in zip(got, want, strict=True)) ** 0.5
        assert apart < 1e-6 * float(whole["grad_norm"])


def test_a_divided_batch_counts_once_in_batch_norm() -> None:
    """The pass that finds the KL of the whole batch leaves no trace in the running statistics."""
    plain = tiny_config(training={"batch_size": 4, "accumulate": 2})
    found = []
    for free_bits in (0.0, 1.0):
        config = settings.with_values(plain, {"kl": {"free_bits": free_bits}})
        torch.manual_seed(0)
        state = new_state(build_model(config).train(), config)
        torch.manual_seed(1)
        batch = ClipBatch(*torch.randint(0, 256, (2, 4, 4, 3, 8, 16), dtype=torch.uint8))
        drawn = draw(torch.randn(4, 3, 4, 8, 16), torch.tensor([[1.0, 0, 0]] * 4))
        training_step(state, batch, drawn, config, Scheduled(0.1, 1e-3), torch.float32)
        found.append({key: x.clone() for key, x in state.model.named_buffers()})
    assert all(torch.equal(x, found[1][key]) for key, x in found[0].items())


@pytest.mark.parametrize(("name", "moved"), [("adamw", lambda w: 0.95 * w), ("adam", lambda w: w - 0.1 * w.sign())])
def test_weight_decay_reaches_the_optimizer(name: str, moved: Callable[[Tensor], Tensor]) -> None:
    """Without a gradient, AdamW multiplies with 1 - lr x decay; Adam's first step is lr against the sign of it."""
    config = tiny_config(optimizer={"name": name, "weight_decay": 0.5, "lr": 0.1})
    state = new_state(build_model(config), config)
    weight = next(p for p in state.model.parameters() if p.dim() == 4)
    before = weight.detach().clone()
    for parameter in state.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    large = before.abs() > 1e-3
    assert torch.allclose(weight.detach()[large], moved(before)[large], atol=1e-5)
