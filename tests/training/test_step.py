"""The batched step against the loop everyone writes, and what teacher forcing does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vidcvae import config as settings
from vidcvae.config import TeacherForcing
from vidcvae.data.clips import ClipBatch
from vidcvae.errors import NonFiniteError
from vidcvae.models import build_model, objectives
from vidcvae.models.pose_cvae import PoseCvae
from vidcvae.training.state import new_state
from vidcvae.training.step import Weights, clip_terms, draw, forcing_mask, training_step

from .conftest import tiny_config


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
        forcing = TeacherForcing(ratio=ratio, draw=draw, reference=reference)
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
    args = (draw(eps, mask), config, Weights(1.0, 0.3, 1e-3), torch.float32)
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
    training_step(state, batch, draw(torch.randn(2, 3, 4, 8, 16), mask), config, Weights(0.1, 0, 1e-3), torch.float32)
    decay = min(0.99, 1 / 10)
    assert torch.allclose(state.ema[name], decay * start + (1 - decay) * parameter.detach(), atol=1e-7)
    assert settings.to_table(config)["training"]["ema"] == 0.99
