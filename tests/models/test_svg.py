"""SVG: golden values of the lab's VGG-64 model, the step against the whole clip, and the original code's traps."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vidcvae.config import SvgConfig
from vidcvae.models.interface import at, reparameterize
from vidcvae.models.rollout import rollout
from vidcvae.models.svg import Svg

TINY = SvgConfig(backbone="dcgan64", frame_dim=8, latent_dim=4, hidden_dim=12)
OURS = {"encoder": "encoder", "decoder": "decoder", "frame_predictor": "frame_predictor", "posterior": "posterior_lstm"}
# The course's parameter names and ours.
RENAMES = (
    (r"^c5\.", "head."),
    (r"^upc1\.", "head."),
    (r"^c([1-4])\.", lambda m: f"stages.{int(m[1]) - 1}."),
    (r"^upc([2-5])\.", lambda m: f"stages.{int(m[1]) - 2}."),
    (r"\.main\.", "."),
    (r"^lstm\.(\d)\.(\w+)$", r"lstm.\2_l\1"),
    (r"^output\.0\.", "output."),
    (r"^output\.1\.", "normalize.0."),
    (r"^(mu|logvar)_net\.", r"\1."),
)


def our_name(module: str, name: str) -> str:
    for pattern, new in RENAMES:
        name = re.sub(pattern, new, name)
    return f"{OURS[module]}.{name}"


def golden_weights(names: dict[str, list[tuple[str, list[int]]]]) -> dict[str, Tensor]:
    """The weights that the reference data's README prescribes, under our names."""
    weights = {}
    for module, tensors in names.items():
        shapes = dict(tensors)
        for j, (name, shape) in enumerate(tensors):
            n = math.prod(shape)
            x = torch.sin(0.1 * (1 + 0.01 * j) * torch.arange(n, dtype=torch.float64) + j).reshape(shape)
            stem, _, kind = name.rpartition(".")
            if f"{stem}.running_mean" in shapes:  # BatchNorm
                x = {
                    "weight": 1 + 0.1 * x,
                    "bias": 0.01 * x,
                    "running_mean": 0.05 * x,
                    "running_var": 1 + 0.3 * x.abs(),
                }[kind]
            else:
                x = 0.01 * x if len(shape) == 1 else 1.5 * x / math.sqrt(n / shape[0])
            weights[our_name(module, name)] = x.float()
    return weights


@pytest.fixture(scope="module")
def golden(shared: Path) -> tuple[Svg, dict[str, Tensor]]:
    model = Svg(SvgConfig(), past=2).eval()
    weights = golden_weights(json.loads((shared / "golden" / "svg_names.json").read_text()))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    values = load_file(shared / "golden" / "svg_rollout.safetensors")
    return model, {name: tensor[None] for name, tensor in values.items()}  # B = 1


def posterior_z(model: Svg, clip: dict[str, Tensor]) -> Tensor:
    codes = model.encode_frames(clip["frames"][:, 1:])
    mu, logvar = model.posterior(codes, model.encode_condition(clip["conditions"], clip["frames"][:, 1:]))
    return reparameterize(mu, logvar, clip["eps"])


@pytest.mark.golden
@torch.no_grad()
def test_codes_and_posterior_equal_the_course(golden: tuple[Svg, dict[str, Tensor]]) -> None:
    model, clip = golden
    codes = model.encode_frames(clip["frames"])
    mu, logvar = model.posterior(at(codes, slice(1, None)), model.encode_condition(clip["conditions"], clip["frames"]))
    torch.testing.assert_close(codes[0][:, :1], clip["encoded"], atol=1e-4, rtol=0)
    torch.testing.assert_close(mu, clip["mu"], atol=1e-4, rtol=0)
    torch.testing.assert_close(logvar, clip["logvar"], atol=1e-4, rtol=0)


@pytest.mark.golden
@pytest.mark.parametrize("last_frame_skip", [False, True])
@torch.no_grad()
def test_teacher_forced_frames_equal_the_course(golden: tuple[Svg, dict[str, Tensor]], last_frame_skip: bool) -> None:
    model, clip = golden
    with_skip = Svg(SvgConfig(last_frame_skip=last_frame_skip), past=2).eval()
    with_skip.load_state_dict(model.state_dict())
    codes = with_skip.encode_frames(clip["frames"][:, :-1])
    conditions = with_skip.encode_condition(clip["conditions"], clip["frames"])
    state = with_skip.initial_state(clip["frames"][:, 0], None)
    frames, (mu, logvar) = with_skip.forced(state, codes, conditions, posterior_z(model, clip))
    expected = clip["teacher_forced_last_frame_skip" if last_frame_skip else "teacher_forced"]
    torch.testing.assert_close(frames, expected, atol=1e-4, rtol=0)
    assert not mu.any() and not logvar.any() and mu.shape == (1, 11, 64)


@pytest.mark.golden
@torch.no_grad()
def test_free_run_equals_the_course(golden: tuple[Svg, dict[str, Tensor]]) -> None:
    """The caller's loop in plain calls: the posterior's z and the true frame while t < past, then z = eps."""
    model, clip = golden
    past, truth = 2, clip["frames"]
    z_posterior = posterior_z(model, clip)
    conditions = model.encode_condition(clip["conditions"], truth)
    state = model.initial_state(truth[:, 0], None)
    frames = [truth[:, 0]]
    for t in range(1, truth.shape[1]):
        previous = at(model.encode_frames(frames[-1][:, None]), 0)
        _, state = model.prior(state, previous, conditions[:, t - 1])
        z = z_posterior[:, t - 1] if t < past else clip["eps"][:, t - 1]
        frame, state = model.step(state, previous, conditions[:, t - 1], z)
        frames.append(truth[:, t] if t < past else frame)
    torch.testing.assert_close(torch.stack(frames, 1), clip["generated"], atol=1e-4, rtol=0)


@pytest.mark.golden
def test_the_rollout_from_two_given_frames_equals_the_course(golden: tuple[Svg, dict[str, Tensor]]) -> None:
    """``rollout`` itself, which generation and every score are made by; condition t goes with the step into frame t.

    The reference weights make a model whose frames hardly depend on what it is given: see the next test for the order.
    """
    model, clip = golden
    condition = torch.cat([torch.full_like(clip["conditions"][:, :1], torch.nan), clip["conditions"]], dim=1)
    made = rollout(model, clip["frames"][:, :2], condition, lambda t: clip["eps"][:, t - 1], latent="prior")
    torch.testing.assert_close(torch.stack(list(made), 1), clip["generated"][:, 2:], atol=1e-4, rtol=0)


def loud(config: SvgConfig, past: int) -> Svg:
    """Random weights and statistics, large enough for every input to show in the frames."""
    torch.manual_seed(0)
    model = Svg(config, past).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_mean"):
                tensor.normal_(0, 0.02)
            elif tensor.ndim == 4:
                tensor.mul_(3)
            elif tensor.ndim == 2:
                tensor.normal_(0, 2 / tensor.shape[1] ** 0.5)
    return model


def original_free_run(model: Svg, frames: Tensor, conditions: Tensor, eps: Tensor, past: int) -> list[Tensor]:
    """``plot`` of Denton & Fergus' generate_svg_lp.py in its own order, with the condition beside h and z."""
    hidden: dict[str, tuple[Tensor, Tensor] | None] = {"predictor": None, "posterior": None, "prior": None}

    def gaussian(name: str, net: nn.Module, h: Tensor, noise: Tensor) -> Tensor:
        out, hidden[name] = net.lstm(net.embed(h)[:, None], hidden[name])
        mu, logvar = net.mu(out[:, 0]), net.logvar(out[:, 0])
        return mu + torch.exp(logvar / 2) * noise

    x_in, made = frames[:, 0], []
    for i in range(1, conditions.shape[1] + 1):
        noise, condition = eps[:, i - 1], conditions[:, i - 1]
        h, *maps = model.encoder(x_in)
        if model.last_frame_skip or i < past:
            skip = maps
        if i < past:
            z = gaussian("posterior", model.posterior_lstm, model.encoder(frames[:, i])[0], noise)
            if model.prior_lstm is not None:
                gaussian("prior", model.prior_lstm, h, noise)
        else:
            z = noise if model.prior_lstm is None else gaussian("prior", model.prior_lstm, h, noise)
        net = model.frame_predictor
        out, hidden["predictor"] = net.lstm(net.embed(torch.cat([h, z, condition], 1))[:, None], hidden["predictor"])
        frame = model.decoder(net.normalize(net.output(out[:, 0])), *skip)
        x_in = frames[:, i] if i < past else frame
        made += [] if i < past else [frame]
    return made


@pytest.mark.parametrize("past", [2, 3])
@pytest.mark.parametrize(("name", "last_frame_skip"), [("svg-fp", False), ("svg-lp", False), ("svg-lp", True)])
@torch.no_grad()
def test_the_rollout_is_the_original_loop(name: str, last_frame_skip: bool, past: int) -> None:
    model = loud(replace(TINY, name=name, last_frame_skip=last_frame_skip), past)
    frames, conditions, eps = random_clip(2, 7)
    assert conditions is not None

    def run(frames: Tensor = frames, conditions: Tensor = conditions, eps: Tensor = eps) -> Tensor:
        first = torch.full_like(conditions[:, :1], torch.nan)  # the row of frame 0 is not used
        made = rollout(model, frames, torch.cat([first, conditions], 1), lambda t: eps[:, t - 1], latent="prior")
        return torch.stack(list(made), 1)

    given = frames[:, :past]
    want = torch.stack(original_free_run(model, frames, conditions, eps, past), 1)
    torch.testing.assert_close(run(given), want, atol=1e-5, rtol=0)
    others = [run(given.flip(1)), run(given, conditions.roll(1, 1)), run(given, eps=eps.roll(1, 1))]
    last = given.clone()
    last[:, -1] = given[:, -2]
    assert min((other - want).abs().max() for other in (*others, run(last))) > 1e-3, "and each of these shows"


def test_parameter_counts_are_those_of_the_published_modules() -> None:
    """Counted by hand: a k x k convolution has i o k² + o, BatchNorm 2 c, an LSTM layer 4 H (i + H + 2)."""

    def conv(i: int, o: int, k: int = 3) -> int:
        return i * o * k * k + o

    def block(i: int, o: int, k: int = 3) -> int:
        return conv(i, o, k) + 2 * o

    g, z, h, c = 128, 64, 256, 7
    vgg_encoder = (
        block(3, 64) + block(64, 64) + block(64, 128) + block(128, 128) + block(128, 256) + 2 * block(256, 256)
    ) + (block(256, 512) + 2 * block(512, 512) + block(512, g, 4))
    vgg_decoder = (
        (block(g, 512, 4) + block(1024, 512) + block(512, 512) + block(512, 256))
        + (block(512, 256) + block(256, 256) + block(256, 128) + block(256, 128) + block(128, 64))
        + (block(128, 64) + conv(64, 3))
    )
    dcgan_encoder = block(3, 64, 4) + block(64, 128, 4) + block(128, 256, 4) + block(256, 512, 4) + block(512, g, 4)
    dcgan_decoder = block(g, 512, 4) + block(1024, 256, 4) + block(512, 128, 4) + block(256, 64, 4) + conv(128, 3, 4)
    lstm = 4 * h * (h + h + 2)
    predictor = (g + z + c) * h + h + 2 * lstm + h * g + g + 2 * g
    posterior = g * h + h + lstm + 2 * (h * z + z)

    def count(config: SvgConfig) -> int:
        return sum(p.numel() for p in Svg(config, past=2).parameters())

    assert count(SvgConfig()) == vgg_encoder + vgg_decoder + predictor + posterior
    assert (
        count(SvgConfig(name="svg-lp", backbone="dcgan64")) == dcgan_encoder + dcgan_decoder + predictor + 2 * posterior
    )
    assert count(SvgConfig(conditions="none")) == count(SvgConfig()) - c * h
    assert count(SvgConfig(conditions="actions", condition_embedding=5)) == count(SvgConfig()) - (c - 5) * h + 4 * 5 + 5


def random_clip(batch: int, frames: int, width: int = 7) -> tuple[Tensor, Tensor | None, Tensor]:
    g = torch.Generator().manual_seed(batch * 100 + frames)
    condition = torch.randn(batch, frames - 1, width, generator=g) if width else None
    return (
        torch.rand(batch, frames, 3, 64, 64, generator=g),
        condition,
        torch.randn(batch, frames - 1, 4, generator=g),
    )


def loop(model: Svg, frames: Tensor, condition: Tensor | None, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Teacher-forced frames and priors one step at a time, each frame encoded in a pass of the whole clip."""
    codes = model.encode_frames(frames[:, :-1])
    conditions = model.encode_condition(condition, frames[:, 1:])
    state = model.initial_state(frames[:, 0], None)
    made, mus, logvars = [], [], []
    for t in range(z.shape[1]):
        (mu, logvar), state = model.prior(state, at(codes, t), conditions[:, t])
        frame, state = model.step(state, at(codes, t), conditions[:, t], z[:, t])
        made.append(frame)
        mus.append(mu)
        logvars.append(logvar)
    return torch.stack(made, 1), torch.stack(mus, 1), torch.stack(logvars, 1)


def at_once(model: Svg, frames: Tensor, condition: Tensor | None, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    codes = model.encode_frames(frames[:, :-1])
    conditions = model.encode_condition(condition, frames[:, 1:])
    made, (mu, logvar) = model.forced(model.initial_state(frames[:, 0], None), codes, conditions, z)
    return made, mu, logvar


@pytest.mark.parametrize(
    ("config", "past", "width"),
    [
        (TINY, 2, 7),
        (replace(TINY, name="svg-lp", prior_layers=2, last_frame_skip=True, conditions="actions"), 2, 4),
        (replace(TINY, name="svg-lp", condition_embedding=5), 3, 7),
        (replace(TINY, conditions="none", predictor_layers=1), 1, 0),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_forced_equals_the_loop_over_steps(config: SvgConfig, past: int, width: int, training: bool) -> None:
    """In training mode too, with gradients and running averages, where statistics are taken frame by frame.

    Gradients are compared in float64: BatchNorm over three vectors magnifies rounding, but nothing else.
    """
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-7)):
        clip = tuple(part if part is None else part.to(dtype) for part in random_clip(3, 4, width))
        results = []
        for run in (loop, at_once):
            torch.manual_seed(0)
            model = Svg(replace(config, batch_norm="frame" if training else "clip"), past).train(training).to(dtype)
            for weight in model.parameters():
                weight.data *= 2 if weight.ndim == 4 else 1  # away from the even grey that a fresh model makes
            with torch.set_grad_enabled(dtype == torch.float64):
                made, mu, logvar = run(model, *clip)
            if dtype == torch.float64:
                (made.square().mean() + mu.square().mean() + logvar.exp().mean()).backward()
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            results.append([made, mu, logvar, *(b.to(dtype) for b in model.buffers()), *gradients])
        for stepped, forced in zip(*results, strict=True):
            torch.testing.assert_close(stepped, forced, atol=tolerance, rtol=tolerance)
        assert 0.003 < results[0][0].std() < 0.4


def test_frame_statistics_are_those_of_each_time_step() -> None:
    """One BatchNorm update a frame with "frame", one for the whole clip with "clip"."""
    frames, condition, z = random_clip(3, 5)
    for batch_norm, updates in (("frame", 4), ("clip", 1)):
        model = Svg(replace(TINY, batch_norm=batch_norm), past=2)
        at_once(model, frames, condition, z)
        counts = {int(b) for name, b in model.named_buffers() if name.endswith("num_batches_tracked")}
        assert counts == {updates}
    first = model.encoder.stages[0][1]
    seen = model.encoder.stages[0][0](frames[:, :-1].flatten(0, 1))
    torch.testing.assert_close(first.running_mean, 0.1 * seen.mean((0, 2, 3)), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("past", "source"), [(1, 0), (2, 0), (3, 1), (5, 3)])
@torch.no_grad()
def test_skips_are_taken_while_t_is_below_past(past: int, source: int) -> None:
    """The original code's rule: with 2 given frames the last skips come from frame 0, not from frame 1."""
    torch.manual_seed(0)
    model = Svg(TINY, past).eval()
    frames, condition, z = random_clip(1, 7)
    codes = model.encode_frames(frames[:, :-1])
    conditions = model.encode_condition(condition, frames)
    state = model.initial_state(frames[:, 0], None)
    for t in range(1, 7):
        _, state = model.step(state, at(codes, t - 1), conditions[:, t - 1], z[:, t - 1])
        torch.testing.assert_close(state[2][0], codes[1][:, min(t - 1, source)])
    # a clip may also be continued at once, from a state that keeps its skips
    frame, _ = model.step(state, at(codes, 2), conditions[:, 2], z[:, 2])
    continued, _ = model.forced(state, at(codes, slice(2, 4)), conditions[:, 2:4], z[:, 2:4])
    torch.testing.assert_close(continued[:, 0], frame, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_state_is_passed_and_never_kept() -> None:
    """Another batch in between, of another size, changes nothing."""
    torch.manual_seed(0)
    model = Svg(replace(TINY, name="svg-lp"), past=2).eval()
    clip, other = random_clip(2, 4), random_clip(5, 4)
    before = at_once(model, *clip)
    at_once(model, *other)
    loop(model, *other)
    after = loop(model, *clip)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_learned_prior_sees_the_past_only() -> None:
    torch.manual_seed(0)
    model = Svg(replace(TINY, name="svg-lp"), past=2).eval()
    frames, condition, z = random_clip(1, 5)
    changed = frames.clone()
    changed[:, 2] = 1 - changed[:, 2]
    _, mu, logvar = at_once(model, frames, condition, z)
    _, mu_changed, _ = at_once(model, changed, condition, z)
    assert torch.equal(mu[:, :2], mu_changed[:, :2])  # the priors of z_1 and z_2
    assert not torch.allclose(mu[:, 2], mu_changed[:, 2], atol=1e-6)
    assert logvar.shape == (1, 4, 4)


def test_weights_start_as_published() -> None:
    torch.manual_seed(0)
    model = Svg(SvgConfig(), past=2)
    weights = dict(model.named_parameters())
    assert weights["encoder.stages.3.1.0.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert not weights["encoder.stages.3.1.0.bias"].any()
    norm = weights["encoder.stages.3.1.1.weight"]
    assert norm.mean().item() == pytest.approx(1, abs=0.005) and norm.std().item() == pytest.approx(0.02, rel=0.15)
    assert weights["frame_predictor.lstm.weight_hh_l1"].abs().max().item() == pytest.approx(1 / 16, rel=0.01)


@torch.no_grad()
def test_cost_of_a_step_is_countable() -> None:
    """PyTorch's counter sees the convolutions: 2 x 9 x in x out x size² each, most of the work."""
    model = Svg(SvgConfig(), past=2).eval()
    with FlopCounterMode(display=False) as counter:
        model.encode_frames(torch.zeros(1, 1, 3, 64, 64))
    convolutions = (3 * 64 + 64 * 64) * 64**2 + (64 * 128 + 128**2) * 32**2 + (128 * 256 + 2 * 256**2) * 16**2
    convolutions += (256 * 512 + 2 * 512**2) * 8**2
    assert counter.get_total_flops() == 2 * (9 * convolutions + 16 * 512 * 128)
