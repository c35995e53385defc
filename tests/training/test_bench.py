"""The engine against the plain loop: the same losses, gradients, buffers and frames; and the measuring itself."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from vidcvae import config as settings
from vidcvae.cli.app import app
from vidcvae.config import Config
from vidcvae.data.clips import ClipBatch
from vidcvae.errors import UsageError, VidcvaeError
from vidcvae.models import build_model, objectives
from vidcvae.models.graphs import EAGER_CALLS
from vidcvae.models.inference import prepare
from vidcvae.models.rollout import rollout
from vidcvae.training import bench
from vidcvae.training.state import TrainingState, new_state
from vidcvae.training.step import Scheduled, clip_terms, draw, training_step

from .conftest import tiny_config


def config_of(name: str, **training: object) -> Config:
    if name == "pose-cvae":
        return tiny_config(model={"batch_norm": "frame"}, training=training)
    if name == "anchor-cvae":
        model = {"name": name, "channels": 8, "latent_channels": 2, "prior": "learned"}
        sizes = {"clip_length": 4, "batch_size": 2, "device": "cpu", **training}
        return settings.resolve({"model": model, "data": {"size": [8, 16]}, "training": sizes})
    return svg_config(name)


def svg_config(name: str, past: int = 2) -> Config:
    model = {"name": name, "backbone": "dcgan64", "frame_dim": 6, "latent_dim": 3, "hidden_dim": 8}
    return settings.resolve(
        {
            "model": {**model, "batch_norm": "frame"},
            "data": {"size": [64, 64]},
            "loss": {"smoothing": 0.0},
            "training": {"clip_length": 5, "past": past, "batch_size": 2, "device": "cpu"},
        }
    )


def clip(config: Config, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """frames, condition, eps, mask, float64."""
    torch.manual_seed(seed)
    b, t, size = config.training.batch_size, config.training.clip_length, config.data.size
    frames = torch.rand(b, t, 3, *size, dtype=torch.float64)
    pose = config.model.condition_kind == "pose"
    condition = torch.rand_like(frames) if pose else torch.randn(b, t, 7, dtype=torch.float64)
    eps = torch.randn(b, t - 1, *build_model(config).latent_shape(*size), dtype=torch.float64)
    mask = torch.full((b, t - 1), 0.0 if pose else 1.0)
    mask[:, 0] = 1
    return frames, condition, eps, mask


@pytest.mark.parametrize("name", ["pose-cvae", "anchor-cvae", "svg-fp", "svg-lp"])
def test_engine_and_plain_loop_have_the_same_losses_and_gradients(name: str) -> None:
    config = config_of(name)
    torch.manual_seed(0)
    model, twin = build_model(config).double(), build_model(config).double()
    twin.load_state_dict(model.state_dict())
    model.to(memory_format=torch.channels_last)
    frames, condition, eps, mask = clip(config)
    got = clip_terms(model.train(), frames, condition, draw(eps, mask), config)[0]
    want = bench.plain_terms(twin.train(), frames, condition, eps, mask)
    for term, value in got.items():
        assert value.item() == pytest.approx(want[term].item(), rel=1e-5), term
    rate = config.loss.smoothing
    objectives.total(got, 0.01, rate).backward()
    (want["reconstruction"] + 0.01 * want["kl"] + rate * want["smoothing"]).backward()
    for (key, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-5, atol=1e-9), key
    if name == "pose-cvae":  # SVG's plain loop encodes every frame twice, and so counts it twice
        for (key, a), b in zip(model.named_buffers(), twin.buffers(), strict=True):
            assert torch.allclose(a.double(), b.double(), rtol=1e-6), key


@pytest.mark.parametrize("name", ["pose-cvae", "anchor-cvae", "svg-fp", "svg-lp"])
def test_rollout_and_plain_loop_make_the_same_video(name: str) -> None:
    config = config_of(name, clip_length=8) if not name.startswith("svg") else svg_config(name)
    torch.manual_seed(1)
    model = build_model(config)
    for module in model.modules():  # statistics that a folding could get wrong
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    frames, condition, eps, _ = (x.float() for x in clip(config))
    past, before = frames[:, : config.training.past], {k: v.clone() for k, v in model.state_dict().items()}
    options = {"latent": "prior", "length": frames.shape[1]}
    made = torch.stack(list(rollout(model.eval(), past, condition, lambda t: eps[:, t - 1], **options)), dim=1)
    with torch.no_grad():
        each = [bench.plain_video(model, past[i : i + 1], condition[i : i + 1], eps=eps[i : i + 1]) for i in range(2)]
    assert made.shape == torch.cat(each).shape
    assert (made - torch.cat(each)).abs().max() < 1e-5
    half = rollout(model, past, condition, lambda t: eps[:, t - 1], **options, dtype=torch.bfloat16)
    difference = (torch.stack(list(half), dim=1) - made).abs().max()
    assert 0 < difference < 0.05, "bfloat16 makes nearly the same frames"
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()), "the model itself is left alone"


def test_preparing_folds_batch_norm_and_leaves_a_model_in_training_alone() -> None:
    model = build_model(tiny_config())
    assert prepare(model.train(), torch.float32) is model
    ready = prepare(model.eval(), torch.float32)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in ready.modules())


def _one_step(config: Config, **training: object) -> tuple[TrainingState, dict[str, Tensor]]:
    config = settings.with_values(config, {"training": training})
    torch.manual_seed(2)
    state = new_state(build_model(config), config)
    frames, poses, eps, mask = (x.float() for x in clip(config))
    batch = ClipBatch(*((x * 255).to(torch.uint8) for x in (frames, poses)))
    state.model.eval()  # BatchNorm's statistics are the one thing that parts of a batch do not share
    return state, training_step(state, batch, draw(eps, mask), config, Scheduled(0.01, 1e-3), torch.float32)[0]


@pytest.mark.parametrize("setting", [{"accumulate": 2}, {"accumulate": 4}, {"checkpoint_activations": True}])
def test_saving_memory_does_not_change_the_step(setting: dict[str, object]) -> None:
    config = tiny_config(training={"batch_size": 4}, optimizer={"gradient_clip": 0.5})
    state, terms = _one_step(config)
    other, others = _one_step(config, **setting)
    assert terms.keys() == others.keys()
    for name, value in terms.items():
        assert others[name].item() == pytest.approx(value.item(), rel=1e-6), name
    for (name, a), b in zip(state.model.named_parameters(), other.model.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-5, atol=1e-7), name


@pytest.mark.parametrize(
    ("model", "training", "message"),
    [
        ("pose-cvae", {"accumulate": 3}, "training.accumulate \\(3\\) must divide training.batch_size \\(4\\)"),
        ("svg-fp", {"accumulate": 4}, "at least two clips at a time"),
        ("svg-fp", {"checkpoint_activations": True}, "checkpoint_activations does not work with svg-fp"),
    ],
)
def test_what_cannot_save_memory_is_refused(model: str, training: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        settings.resolve_with_preset(None, [{"model": {"name": model}, "training": {"batch_size": 4, **training}}])


def test_pose_cvae_costs_what_the_count_by_hand_says() -> None:
    """787 + 68 + 33 + 2516 + 3055 MFLOP: frame encoder, pose encoder, Gaussian predictor, fusion, generator."""
    config = settings.resolve({})
    frames = torch.rand(2, 3, 3, 32, 64)
    flop = bench.frame_flop(build_model(config), frames, frames)
    assert flop == pytest.approx(6.459e9, rel=1e-3)


def test_lstm_costs_8h_times_inputs_and_h() -> None:
    lstm = nn.LSTM(5, 7, num_layers=2, batch_first=True)
    x, vectors = torch.rand(3, 4, 5), 3 * 4
    by_hand = vectors * (4 * 7 * 2 * (5 + 7) + 4 * 7 * 2 * (7 + 7))  # four gates of two products each
    assert bench.count_flop(lambda: lstm(x)) == by_hand
    linear = nn.Linear(7, 2)
    assert bench.count_flop(lambda: linear(lstm(x)[0])) == by_hand + vectors * 2 * 7 * 2


def test_matrix_peak_is_no_less_than_a_product_reaches() -> None:
    peak = bench.matrix_peak(torch.float32, "cpu", 256)
    assert 1e8 < peak < 1e15


KEYS = ["plain", "engine", "ratio", "unit", "flop_per_frame", "peak_share", "peak_memory_bytes", "max_difference"]


@pytest.mark.parametrize(("what", "unit"), [("train", "clips/s"), ("generate", "frames/s")])
def test_bench_command(what: str, unit: str) -> None:
    command = ["bench", what, "--batch", "2", "--frames", "3", "--size", "8x16", "--repeats", "1", "--device", "cpu"]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found) == [*KEYS, "machine"]
    assert found["unit"] == unit
    assert found["ratio"] == pytest.approx(found["engine"] / found["plain"])
    assert found["max_difference"] < 1e-5
    assert found["flop_per_frame"] == pytest.approx(6.459e9 / 16, rel=0.01)
    assert 0 < found["peak_share"] < 1.2
    assert asdict(bench.Comparison(*found.values())) == found
    shown = CliRunner().invoke(app, command)
    assert "ratio" in shown.stdout
    assert unit in shown.stdout


@pytest.mark.parametrize(("model", "size"), [("anchor-cvae", "16x16"), ("svg-lp", "64x64")])
def test_latency_of_single_steps(model: str, size: str) -> None:
    """svg too, which is trained with two clips at least."""
    command = ["bench", "generate", "--batch", "1", "--latency", "--model", model, "--size", size, "--frames", "12"]
    done = CliRunner().invoke(app, [*command, "--repeats", "2", "--device", "cpu", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["steps"] == 2 * (
        12 - (1 if model == "anchor-cvae" else 2) - 3
    )  # the given and the first are not counted
    assert 0 < found["median_ms"] <= found["p95_ms"] <= found["worst_ms"]
    assert found["frames_per_second"] == pytest.approx(1000 / found["median_ms"], rel=0.9)
    assert found["precision"] == "float32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--latency"], "--latency times generate, not train"),
        (["generate", "--latency", "--frames", "4"], "too few steps"),
        (["trian"], "WHAT is 'trian'. Did you mean 'train'?"),
        (["train", "--model", "anchor"], "--model is 'anchor'"),
        (["train", "--precision", "fp16"], "--precision is 'fp16'"),
        (["train", "--against", "nothing"], "--against is 'nothing'"),
        (["train", "--size", "30x30"], "data.size 30x30 must be multiples of 8"),
        (["train", "--model", "svg-fp", "--batch", "1"], "at least two clips"),
    ],
)
def test_wrong_input_is_named(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["bench", *arguments])
    assert isinstance(done.exception, VidcvaeError)
    assert done.exception.exit_code == 2
    assert message in done.exception.message


def test_peak_memory_is_that_of_the_first_and_of_the_graphed_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted, in which order; no GPU was asked."""
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: order.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: order.append("peak") or 7)  # type: ignore[func-returns-value]
    calls = iter(range(9))

    def run() -> int:
        order.append("run")
        return next(calls)

    assert bench._with_memory(run, "cuda", calls=EAGER_CALLS + 1) == (0, 7), "the first result"
    assert order == ["reset", *["run"] * (EAGER_CALLS + 1), "peak"]
