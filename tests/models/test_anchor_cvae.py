"""``anchor-cvae``: its contract, its cost, and that it sees what it is given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vidcvae.config import AnchorCvaeConfig
from vidcvae.models.anchor_cvae import AnchorCvae
from vidcvae.models.interface import Anchor, at
from vidcvae.models.rollout import rollout


def shaken(channels: int = 8) -> AnchorCvae:
    """A model with random weights everywhere, also where training starts from zeros."""
    torch.manual_seed(0)
    model = AnchorCvae(AnchorCvaeConfig(channels=channels, latent_channels=2))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.15)
    return model.eval()


def clip(height: int = 16, width: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    """frames (2, 5, 3, H, W), poses the same, z (2, 4, 2, H/8, W/8)"""
    frames, poses = torch.rand(2, 2, 5, 3, height, width)
    return frames, poses, torch.randn(2, 4, 2, height // 8, width // 8)


def run_loop(model: AnchorCvae, frames: Tensor, poses: Tensor, z: Tensor, anchor: Anchor | None = None) -> Tensor:
    codes, conditions = model.encode_frames(frames), model.encode_condition(poses[:, 1:], frames)
    state = model.initial_state(frames[:, 0], poses[:, 0], anchor)
    made = []
    for t in range(z.shape[1]):
        _, state = model.prior(state, at(codes, t), at(conditions, t))
        frame, state = model.step(state, at(codes, t), at(conditions, t), z[:, t])
        made.append(frame)
    return torch.stack(made, 1)


def test_forced_equals_the_loop_over_steps() -> None:
    model = shaken()
    frames, poses, z = clip()
    anchor = torch.rand_like(frames[:, 0]), torch.rand_like(poses[:, 0])
    codes, conditions = model.encode_frames(frames), model.encode_condition(poses[:, 1:], frames)
    state = model.initial_state(frames[:, 0], poses[:, 0], anchor)
    together, (mu, logvar) = model.forced(state, at(codes, slice(0, -1)), conditions, z)
    assert (together - run_loop(model, frames, poses, z, anchor)).abs().max() < 1e-5
    assert mu.shape == logvar.shape == z.shape


@pytest.mark.parametrize("what", ["frame before", "anchor", "anchor pose", "pose before", "pose", "z"])
def test_every_input_is_seen(what: str) -> None:
    model = shaken()
    frames, poses, z = clip()
    frames, poses, z = frames[:, :2], poses[:, :2], z[:, :1]
    anchor = {"anchor": frames[:, 0].clone(), "anchor pose": poses[:, 0].clone()}
    before = run_loop(model, frames, poses, z, (anchor["anchor"], anchor["anchor pose"]))
    inputs = {"frame before": frames[:, 0], "pose before": poses[:, 0], "pose": poses[:, 1], "z": z, **anchor}
    inputs[what].copy_(torch.rand_like(inputs[what]))
    after = run_loop(model, frames, poses, z, (anchor["anchor"], anchor["anchor pose"]))
    assert (after - before).abs().max() > 1e-3


def test_where_in_the_frame_is_seen() -> None:
    """On a frame of one colour everywhere, a model that knows where it is can still draw a room."""
    model = shaken()
    flat = torch.full((1, 2, 3, 32, 32), 0.5)
    made = run_loop(model, flat, flat, torch.zeros(1, 1, 2, 4, 4))[0, 0, :, 12:20, 12:20]
    assert made.std(dim=(1, 2)).max() > 1e-3


@pytest.mark.parametrize(("height", "width"), [(32, 64), (64, 128), (128, 256)])
def test_cost_of_a_frame_is_under_a_gigaflop_and_linear_in_pixels(height: int, width: int) -> None:
    model = AnchorCvae(AnchorCvaeConfig()).eval()
    frame = torch.rand(1, 3, height, width)
    state = model.initial_state(frame, frame)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        previous = model.encode_frames(frame[:, None])[:, 0]
        made, _ = model.step(state, previous, frame, torch.zeros(1, *model.latent_shape(height, width)))
    assert made.shape == frame.shape
    pixels = height * width / (32 * 64)
    assert 0.1e9 < counter.get_total_flops() / pixels < 1.0e9


def test_the_rollout_takes_its_first_frame_as_the_anchor() -> None:
    model = shaken()
    frames, poses, _ = clip()
    z = torch.zeros(2, 1, 2, 2, 3)
    (first, *_) = rollout(model, frames[:, :1], poses)
    assert (first - run_loop(model, frames[:, :2], poses[:, :2], z)[:, 0]).abs().max() < 1e-5
