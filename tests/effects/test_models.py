"""[model]: what each size and choice makes of the networks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vidcvae.config import AnchorCvaeConfig as AnchorConfig
from vidcvae.config import PoseCvaeConfig as PoseConfig
from vidcvae.config import SvgConfig
from vidcvae.models import build_model
from vidcvae.models.anchor_cvae import AnchorCvae
from vidcvae.models.interface import at
from vidcvae.models.pose_cvae import PoseCvae
from vidcvae.models.svg import Svg
from vidcvae.scenes import pushing

from .conftest import Known, Train, config


@pytest.mark.setting("pose-cvae.name", "anchor-cvae.name", "svg.name")
def test_the_name_is_the_model_and_whether_svg_learns_its_prior() -> None:
    made = {name: build_model(config(model={"name": name}, data={"size": [64, 64]})) for name in (
        "pose-cvae", "anchor-cvae", "svg-fp", "svg-lp")}  # fmt: skip
    assert [type(model) for model in made.values()] == [PoseCvae, AnchorCvae, Svg, Svg]
    first, condition = torch.rand(2, 1, 3, 64, 64), torch.rand(2, 7)
    for name, learned in (("svg-fp", False), ("svg-lp", True)):
        model = made[name].eval()
        (mu, logvar), _ = model.prior(
            model.initial_state(first[:, 0], None), at(model.encode_frames(first), 0), condition
        )
        assert mu.shape == logvar.shape == (2, 64)
        assert bool(mu.any()) == bool(logvar.any()) == learned


# --- pose-cvae -----------------------------------------------------------------------------------------


@pytest.mark.setting(
    "pose-cvae.frame_channels", "pose-cvae.pose_channels", "pose-cvae.latent_channels", "pose-cvae.decoder_channels"
)
def test_channels_of_each_code() -> None:
    model = PoseCvae(PoseConfig(frame_channels=16, pose_channels=6, latent_channels=8, decoder_channels=24)).eval()
    frames, poses = torch.rand(2, 2, 3, 3, 8, 16)
    codes, conditions = model.encode_frames(frames), model.encode_condition(poses, frames)
    assert codes.shape == (2, 3, 16, 8, 16) and conditions.shape == (2, 3, 6, 8, 16)
    assert model.latent_shape(8, 16) == (8, 8, 16)
    assert [x.shape for x in model.posterior(codes, conditions)] == [(2, 3, 8, 8, 16)] * 2
    seen: list[Tensor] = []
    model.generator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.step((), codes[:, 0], conditions[:, 0], torch.zeros(2, 8, 8, 16))
    assert seen[0].shape == (2, 24, 8, 16)


@pytest.mark.setting("pose-cvae.batch_norm")
@pytest.mark.parametrize(("over", "axes"), [("clip", (0, 1, 3, 4)), ("frame", (0, 3, 4))])
def test_poses_are_normalised_over_the_clip_or_over_each_time_step(over: str, axes: tuple[int, ...]) -> None:
    model = PoseCvae(PoseConfig(frame_channels=8, pose_channels=4, latent_channels=4, batch_norm=over)).train()
    poses = torch.rand(3, 4, 3, 8, 16) * torch.arange(1, 5)[:, None, None, None] / 4
    with torch.no_grad():
        before = model.pose_encoder[:2](poses.flatten(0, 1)).unflatten(0, (3, 4)).numpy()
        mean, var = before.mean(axes, keepdims=True), before.var(axes, keepdims=True)
        normalised = torch.from_numpy((before - mean) / np.sqrt(var + 1e-5))
        want = model.pose_encoder[4](normalised.flatten(0, 1)).unflatten(0, (3, 4))
        torch.testing.assert_close(model.encode_condition(poses, poses), want, atol=1e-4, rtol=1e-4)


# --- anchor-cvae ---------------------------------------------------------------------------------------


@pytest.mark.setting("anchor-cvae.channels", "anchor-cvae.latent_channels")
def test_channels_at_half_resolution_and_of_z_at_an_eighth() -> None:
    model = AnchorCvae(AnchorConfig(channels=16, latent_channels=5))
    widths: dict[str, torch.Size] = {}
    for name in ("stem", "shrink1", "shrink2"):
        getattr(model, name).register_forward_hook(lambda m, i, output, name=name: widths.update({name: output.shape}))
    frames, poses = torch.rand(2, 2, 2, 3, 16, 24)
    codes, conditions = model.encode_frames(frames), model.encode_condition(poses, frames)
    model.step(model.initial_state(frames[:, 0], poses[:, 0]), codes[:, 0], conditions[:, 1], torch.zeros(2, 5, 2, 3))
    assert widths == {"stem": (2, 16, 8, 12), "shrink1": (2, 32, 4, 6), "shrink2": (2, 48, 2, 3)}
    assert model.latent_shape(16, 24) == (5, 2, 3)
    assert [x.shape for x in model.posterior(codes, conditions)] == [(2, 2, 5, 2, 3)] * 2


def anchored(**settings: Any) -> AnchorCvae:
    """With random weights everywhere, also where training starts from zeros."""
    torch.manual_seed(0)
    model = AnchorCvae(AnchorConfig(channels=8, latent_channels=2, **settings)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.15)
    return model


@torch.no_grad()
@pytest.mark.setting("anchor-cvae.prior")
def test_the_prior_is_standard_or_depends_on_the_frame_before_and_the_pose() -> None:
    frames, poses = torch.rand(2, 2, 1, 3, 16, 24)

    def prior(model: AnchorCvae, frame: Tensor, pose: Tensor) -> Tensor:
        code, condition = model.encode_frames(frame[:, None])[:, 0], model.encode_condition(pose[:, None], frame)[:, 0]
        (mu, logvar), _ = model.prior(model.initial_state(frame, pose), code, condition)
        return torch.stack([mu, logvar])

    fixed, learned = anchored(prior="fixed"), anchored(prior="learned")
    assert not prior(fixed, frames[0], poses[0]).any()
    found = [prior(learned, f, p) for f, p in ((frames[0], poses[0]), (frames[1], poses[0]), (frames[0], poses[1]))]
    assert (found[0] - found[1]).abs().max() > 1e-3 and (found[0] - found[2]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.setting("anchor-cvae.anchor")
@pytest.mark.parametrize("anchor", [True, False])
def test_the_anchor_and_its_pose_are_in_sight_or_hidden(anchor: bool) -> None:
    model = anchored(anchor=anchor)
    frames, poses = torch.rand(2, 3, 1, 3, 16, 24)
    code, condition = model.encode_frames(frames[0][:, None])[:, 0], 1 - poses[0]

    def frame(image: Tensor, pose: Tensor) -> Tensor:
        return model.step(
            model.initial_state(frames[0], poses[0], (image, pose)), code, condition, torch.zeros(1, 2, 2, 3)
        )[0]

    own = frame(frames[1], poses[1])
    for other in (frame(frames[2], poses[1]), frame(frames[1], poses[2])):
        assert bool((own - other).abs().max() > 1e-4) == anchor


@torch.no_grad()
@pytest.mark.setting("anchor-cvae.scene")
def test_frames_are_mixed_of_the_scene_and_of_what_is_drawn() -> None:
    """By the share that the fourth channel says: 0 shows the scene, whatever is drawn; 1 what is drawn alone."""
    model = anchored(scene=True)
    model.scene = torch.rand(3, 16, 24)
    frames, poses = torch.rand(2, 2, 1, 3, 16, 24)
    code, condition = model.encode_frames(frames[0][:, None])[:, 0], 1 - poses[1]

    def frame(share: float) -> Tensor:
        model.image.bias[3], model.image.weight[3] = math.log(share / (1 - share)), 0
        return model.step(model.initial_state(frames[0], poses[0]), code, condition, torch.zeros(1, 2, 2, 3))[0]

    torch.testing.assert_close(frame(1e-7)[0], model.scene, rtol=0, atol=1e-6)
    drawn = frame(1 - 1e-7)
    assert (drawn[0] - model.scene).abs().max() > 0.1
    torch.testing.assert_close(frame(0.25), 0.25 * drawn + 0.75 * model.scene, rtol=0, atol=1e-5)


@pytest.mark.setting("anchor-cvae.patch")
@pytest.mark.parametrize(("patch", "latent", "made_of"), [(2, (2, 2, 3), 4), (4, (2, 1, 2), 16), (3, (2, 2, 2), 9)])
def test_a_patch_is_one_pixel_of_the_finest_level(patch: int, latent: tuple[int, ...], made_of: int) -> None:
    """And the coarsest level is four times coarser, rounded up: 16x24 in patches of 4 is 4x6, then 1x2."""
    model = anchored(patch=patch)
    seen: list[torch.Size] = []
    model.down1.register_forward_hook(lambda module, given, made: seen.append(made.shape))
    frame, pose = torch.rand(2, 1, 3, 16, 24)
    code, condition = model.encode_frames(frame[:, None])[:, 0], 1 - pose
    made, _ = model.step(model.initial_state(frame, pose), code, condition, torch.zeros(1, *latent))
    assert model.latent_shape(16, 24) == latent and made.shape == frame.shape
    assert seen[0][2:] == (4 * latent[1], 4 * latent[2]) and model.stem.weight.shape[1] == made_of * 18


# --- svg -------------------------------------------------------------------------------------------------

TINY: dict[str, Any] = {"backbone": "dcgan64", "frame_dim": 6, "latent_dim": 3, "hidden_dim": 10}


@pytest.mark.setting("svg.backbone")
def test_backbones_by_their_skips() -> None:
    """VGG's four stages have full, half, ... resolution, DCGAN's half, a quarter, ..."""
    frames = torch.rand(2, 1, 3, 64, 64)
    for backbone, sides in (("vgg64", (64, 32, 16, 8)), ("dcgan64", (32, 16, 8, 4))):
        _, *skips = Svg(SvgConfig(**TINY | {"backbone": backbone}), 2).eval().encode_frames(frames)
        want = [(2, 1, c, side, side) for c, side in zip((64, 128, 256, 512), sides, strict=True)]
        assert [skip.shape for skip in skips] == want


@pytest.mark.setting(
    "svg.frame_dim",
    "svg.latent_dim",
    "svg.hidden_dim",
    "svg.predictor_layers",
    "svg.posterior_layers",
    "svg.prior_layers",
)
def test_sizes_of_codes_latents_and_lstms() -> None:
    layers = {"predictor_layers": 3, "posterior_layers": 2, "prior_layers": 4}
    model = Svg(SvgConfig(name="svg-lp", **TINY, **layers), 2).eval()
    frames, condition = torch.rand(2, 4, 3, 64, 64), torch.rand(2, 4, 7)
    codes = model.encode_frames(frames)
    assert codes[0].shape == (2, 4, 6)
    assert model.latent_shape(64, 64) == (3,)
    assert [x.shape for x in model.posterior(codes, condition)] == [(2, 4, 3)] * 2
    predictor, prior, _, _ = model.initial_state(frames[:, 0], None)
    assert prior is not None
    assert predictor[0].shape == predictor[1].shape == (3, 2, 10)
    assert prior[0].shape == prior[1].shape == (4, 2, 10)
    lstm = model.posterior_lstm.lstm
    assert (lstm.num_layers, lstm.hidden_size) == (2, 10)


@pytest.mark.setting("svg.conditions", "svg.condition_embedding")
@pytest.mark.parametrize("embedding", [0, 5])
@pytest.mark.parametrize(("conditions", "size"), [("none", 0), ("actions", 4), ("actions+positions", 7)])
def test_what_stands_beside_code_and_latent(train: Train, conditions: str, size: int, embedding: int) -> None:
    """Of a training on data that have both; the embedding is linear, and there is none of nothing."""
    data = pushing.push(1, 0, 0, 4, 0)
    model = {"name": "svg-fp", **TINY, "conditions": conditions, "condition_embedding": embedding}
    chosen = config(model=model, data={"size": [64, 64]}, training={"past": 2, "epochs": 1})
    (step,) = train(chosen, data, Known()).steps
    made = build_model(chosen)
    assert isinstance(made, Svg)
    if size:
        tracks = data.split("train")[0].tracks
        rows = np.concatenate([tracks["action"], tracks["position"]], 1)[0:3, :size]
        assert step.batch.condition is not None and np.array_equal(step.batch.condition[0, 1:], rows)
        given = step.batch.condition[:, 1:]
        code = made.encode_condition(given, given)
        if embedding:
            weight, bias = (p.detach().numpy() for p in made.condition_embedding.parameters())
            assert np.allclose(code.detach(), given.numpy() @ weight.T + bias, atol=1e-6)
        else:
            assert torch.equal(code, given)
    else:
        assert step.batch.condition is None
    assert made.frame_predictor.embed.in_features == 6 + 3 + (embedding if embedding and size else size)


@torch.no_grad()
@pytest.mark.setting("svg.last_frame_skip")
@pytest.mark.parametrize(("last", "sources"), [(False, [0, 1, 1, 1]), (True, [0, 1, 2, 3])])
def test_skips_come_from_every_previous_frame_or_from_given_ones(last: bool, sources: list[int]) -> None:
    """With 3 given frames the original rule renews them while t < 3."""
    torch.manual_seed(0)
    model = Svg(SvgConfig(**TINY, last_frame_skip=last), 3).eval()
    codes = model.encode_frames(torch.rand(1, 4, 3, 64, 64))
    state = model.initial_state(torch.rand(1, 3, 64, 64), None)
    seen: list[tuple[Tensor, ...]] = []
    model.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1:]))
    for t in range(4):
        _, state = model.step(state, at(codes, t), torch.rand(1, 7), torch.rand(1, 3))
    for skips, source in zip(seen, sources, strict=True):
        assert all(torch.equal(skip, given[:, source]) for skip, given in zip(skips, codes[1:], strict=True))


@pytest.mark.setting("svg.batch_norm")
@pytest.mark.parametrize(("over", "axes"), [("clip", (0, 1, 3, 4)), ("frame", (0, 3, 4))])
def test_frames_are_normalised_over_the_clip_or_over_each_time_step(over: str, axes: tuple[int, ...]) -> None:
    """DCGAN's first skip is LeakyReLU(BatchNorm(convolution))."""
    torch.manual_seed(0)
    model = Svg(SvgConfig(**TINY, batch_norm=over), 2).train()
    frames = torch.rand(3, 4, 3, 64, 64) * torch.arange(1, 5)[:, None, None, None] / 4
    convolution, norm, _ = model.encoder.stages[0]
    with torch.no_grad():
        before = convolution(frames.flatten(0, 1)).unflatten(0, (3, 4)).numpy()
        scaled = (before - before.mean(axes, keepdims=True)) / np.sqrt(before.var(axes, keepdims=True) + 1e-5)
        y = scaled * norm.weight.numpy()[:, None, None] + norm.bias.numpy()[:, None, None]
        want = torch.from_numpy(np.where(y > 0, y, 0.2 * y))
        torch.testing.assert_close(model.encode_frames(frames)[1], want, atol=1e-3, rtol=1e-3)
