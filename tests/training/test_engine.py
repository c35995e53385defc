"""The engine's steps against the plain ``training_step``; as CUDA graphs where there is a GPU."""

from __future__ import annotations

import pytest
import torch

from vidcvae import config as settings
from vidcvae.config import Config
from vidcvae.data.clips import ClipBatch
from vidcvae.errors import NonFiniteError, UsageError
from vidcvae.models import build_model
from vidcvae.models.graphs import Graphed
from vidcvae.models.rollout import rollout
from vidcvae.training.engine import Engine
from vidcvae.training.state import TrainingState, new_state
from vidcvae.training.step import Draws, Weights, draw, forcing_mask, training_step

from .conftest import tiny_config

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
WEIGHTS = Weights(0.1, 0.3, 1e-3)


def make(config: Config, device: str = "cpu") -> TrainingState:
    torch.manual_seed(0)
    model = build_model(config).to(device, memory_format=torch.channels_last)
    return new_state(model.train(), config)


def step_inputs(config: Config, step: int, ratio: float = 0.0) -> tuple[ClipBatch, Draws]:
    torch.manual_seed(step)
    train, size = config.training, config.data.size
    images = torch.randint(0, 256, (2, train.batch_size, train.clip_length, 3, *size), dtype=torch.uint8)
    mask = forcing_mask(config.teacher_forcing, ratio, train.batch_size, train.clip_length - 1, 1, 0, step, step)
    eps = torch.randn(*mask.shape, *build_model(config).latent_shape(*size))
    return ClipBatch(*images), draw(eps, mask)


def apart(a: TrainingState, b: TrainingState) -> float:
    """The largest difference between two states' tensors."""
    mine, others = a.tensors(), b.tensors()
    assert mine.keys() == others.keys()
    return max(float((mine[k].cpu().double() - others[k].cpu().double()).abs().max()) for k in mine)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_step_that_looks_at_nothing_is_the_same_step(name: str) -> None:
    config = tiny_config(training={"ema": 0.9}, optimizer={"name": name, "weight_decay": 0.1, "gradient_clip": 0.1})
    plain, deferred = make(config), make(config)
    engine = Engine(deferred, config, torch.float32, deferred=True)
    for step in range(4):
        inputs = step_inputs(config, step)
        want, ends = training_step(plain, *inputs, config, WEIGHTS, torch.float32)
        got, others = engine.step(*inputs, WEIGHTS)
        assert got.keys() == want.keys()
        assert all(torch.allclose(got[key], want[key], rtol=1e-5) for key in want)
        assert torch.allclose(ends, others, atol=1e-5)
        plain.progress.step = deferred.progress.step = step + 1
    engine.check()
    assert apart(plain, deferred) < 2e-4, "Adam turns rounding of tiny gradients into steps of up to lr"


def test_from_the_first_broken_step_on_nothing_changes_and_the_next_check_tells() -> None:
    config = tiny_config(training={"ema": 0.9})
    state = make(config)
    engine = Engine(state, config, torch.float32, deferred=True)
    engine.step(*step_inputs(config, 0), WEIGHTS)
    before = {k: t.clone() for k, t in state.tensors().items() if "running" not in k and "batches" not in k}
    batch, draws = step_inputs(config, 1)
    draws.eps[0, 0, 0, 0, 0] = float("nan")
    engine.step(batch, draws, WEIGHTS)
    engine.step(*step_inputs(config, 2), WEIGHTS)
    with pytest.raises(NonFiniteError, match="reconstruction became nan"):
        engine.check()
    assert engine.late == 2, "the broken step and the one after it"
    assert all(torch.equal(state.tensors()[k], t) for k, t in before.items())


def test_settings_that_a_graph_cannot_carry_are_refused() -> None:
    each = {"teacher_forcing": {"ratio": 0.5, "draw": "frame"}}
    with pytest.raises(UsageError, match='set it to "clip"'):
        settings.resolve(each, {"training": {"cuda_graph": "on"}})
    assert settings.resolve(each).training.cuda_graph == "auto"


@pytest.mark.slow  # compiling takes a minute and more
def test_compiled_networks_train_the_same() -> None:
    config = tiny_config(training={"compile": True})
    plain, compiled = make(config), make(config)
    engine = Engine(compiled, config, torch.float32)
    inputs = step_inputs(config, 0)
    want, _ = training_step(plain, *inputs, config, WEIGHTS, torch.float32)
    try:
        got, _ = engine.step(*inputs, WEIGHTS)
    except torch._dynamo.exc.BackendCompilerFailed as error:
        pytest.skip(f"no compiler: {error}")
    assert all(torch.allclose(got[key], want[key], rtol=1e-4) for key in want)
    assert compiled.tensors().keys() == plain.tensors().keys(), "checkpoints do not see the compiler"


@gpu
@pytest.mark.parametrize("settings_of", [{}, {"accumulate": 2}, {"checkpoint_activations": True}])
def test_graphs_replay_what_eager_steps_do(settings_of: dict[str, object]) -> None:
    torch.backends.cudnn.allow_tf32 = False
    config = tiny_config(training={"batch_size": 4, "ema": 0.9, **settings_of}, teacher_forcing={"draw": "batch"})
    eager, graphed = make(config, "cuda"), make(config, "cuda")
    plain = Engine(eager, settings.with_values(config, {"training": {"cuda_graph": "off"}}), torch.float32)
    engine = Engine(graphed, config, torch.float32)
    assert isinstance(engine.run, Graphed)
    for step in range(50):
        inputs = step_inputs(config, step, ratio=0.5)
        want, _ = plain.step(*inputs, WEIGHTS)
        got, _ = engine.step(*inputs, WEIGHTS)
        assert all(torch.allclose(got[key], want[key], rtol=1e-4) for key in want), step
        eager.progress.step = graphed.progress.step = step + 1
    assert len(engine.run.captured) == 2, "own frames and true frames"
    assert apart(eager, graphed) < 1e-3


@gpu
@pytest.mark.parametrize("name", ["pose-cvae", "anchor-cvae", "svg-lp"])
def test_a_graphed_rollout_is_the_rollout_of_the_cpu(name: str) -> None:
    torch.backends.cudnn.allow_tf32 = False
    size = (64, 64) if name.startswith("svg") else (16, 32)
    model = {"name": name, "backbone": "dcgan64"} if name.startswith("svg") else {"name": name}
    config = settings.resolve({"model": model, "data": {"size": size}, "training": {"batch_size": 2}})
    torch.manual_seed(0)
    network = build_model(config).eval()
    past = torch.rand(2, 2 if name.startswith("svg") else 1, 3, *size)
    condition = torch.rand(2, 80, 7) if name.startswith("svg") else torch.rand(2, 80, 3, *size)
    eps = torch.randn(80, 2, *network.latent_shape(*size))
    want = list(rollout(network, past, condition, lambda t: eps[t], latent="prior"))
    got = list(rollout(network.cuda(), past, condition, lambda t: eps[t], latent="prior"))
    assert max(float((a - b.cpu()).abs().max()) for a, b in zip(want, got, strict=True)) < 1e-3
