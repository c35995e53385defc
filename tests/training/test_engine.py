"""The engine's steps against the plain ``training_step``; as CUDA graphs where there is a GPU."""

from __future__ import annotations

import contextlib
import gc
import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from vidcvae import config as settings
from vidcvae.config import Config
from vidcvae.data.clips import ClipBatch, VideoData
from vidcvae.errors import NonFiniteError, Stopped, UsageError
from vidcvae.models import build_model, graphs
from vidcvae.models.arithmetic import PRECISIONS
from vidcvae.models.graphs import EAGER_CALLS, Graphed
from vidcvae.models.rollout import rollout
from vidcvae.training import engine as engine_module
from vidcvae.training import loop
from vidcvae.training.batches import Batches, run_length
from vidcvae.training.distributed import ALONE
from vidcvae.training.engine import Engine
from vidcvae.training.loop import train
from vidcvae.training.state import TrainingState, new_state
from vidcvae.training.step import Draws, Scheduled, draw, forcing_mask, training_step

from .conftest import MASKS, data_of, loop_step, small_config, tiny_config
from .test_loop import KillAt, fingerprint, last, new_run

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
ON_GPU = pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])
WEIGHTS = Scheduled(0.1, 1e-3)


def gpu(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.gpu(NO_GPU(test))


@pytest.fixture(autouse=True)
def the_same_arithmetic_on_every_device() -> Iterator[None]:
    """float32 that is float32, and the same kernels each time."""
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.deterministic
    cudnn.allow_tf32, cudnn.deterministic = False, True
    yield
    cudnn.allow_tf32, cudnn.deterministic = before


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
    condition = images[1] if config.model.condition_kind == "pose" else torch.randn(*images.shape[1:3], 7)
    return ClipBatch(images[0], condition), draw(eps, mask)


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


@pytest.mark.parametrize("device", ["cpu", ON_GPU])
def test_from_the_first_broken_step_on_nothing_changes_and_the_next_check_tells(device: str) -> None:
    config = tiny_config(training={"ema": 0.9})
    state = make(config, device)
    engine = Engine(state, config, torch.float32, deferred=True)
    for _ in range(EAGER_CALLS + 2):  # on a GPU it is a graph then
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
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["pose-cvae", "anchor-cvae", "svg-fp", "svg-lp"])
def test_graphs_replay_what_eager_steps_do(name: str, precision: torch.dtype) -> None:
    config = settings.with_values(small_config(name), {"teacher_forcing": {"draw": "batch"}})
    eager, graphed = make(config, "cuda"), make(config, "cuda")
    plain = Engine(eager, settings.with_values(config, {"training": {"cuda_graph": "off"}}), precision)
    engine = Engine(graphed, config, precision)
    assert isinstance(engine.run, Graphed)
    for step in range(50):
        inputs = step_inputs(config, step, ratio=0.5)
        want, _ = plain.step(*inputs, WEIGHTS)
        got, _ = engine.step(*inputs, WEIGHTS)
        rtol = 1e-4 if precision == torch.float32 else 3e-2
        assert all(torch.allclose(got[key], want[key], rtol=rtol) for key in want), step
        eager.progress.step = graphed.progress.step = step + 1
    assert len(engine.run.captured) == 2, "own frames and true frames"
    # in bfloat16 Adam turns the rounding of tiny gradients into steps of up to lr
    assert apart(eager, graphed) < (1e-3 if precision == torch.float32 else 0.02)


@gpu
@pytest.mark.parametrize("name", ["pose-cvae", "anchor-cvae", "svg-fp", "svg-lp"])
def test_nothing_waits_for_the_gpu_between_two_log_lines(name: str) -> None:
    config = settings.with_values(small_config(name), {"training": {"latent_dropout": 0.0, "cuda_graph": "on"}})
    data, state = data_of(config), make(config, "cuda")
    engine = Engine(state, config, torch.float32)
    batches = Batches(config, data.split("train"), run_length(config, data), state, ALONE)
    captured = 3 * (EAGER_CALLS + 1)  # each mask has its graph then
    for step in range(captured):
        loop_step(engine, batches, step, MASKS[step % 3])
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(captured, captured + 6):
            loop_step(engine, batches, step, MASKS[step % 3])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    engine.check()
    assert isinstance(engine.run, Graphed) and len(engine.run.captured) == 3


@gpu
def test_longer_clips_put_an_end_to_the_graphs_of_shorter_ones() -> None:
    config = tiny_config(training={"clip_length": 6})
    state = make(config, "cuda")
    engine = Engine(state, config, torch.float32)
    assert isinstance(engine.run, Graphed)
    for length in (3, 4, 6):
        for step in range(EAGER_CALLS + 2):
            batch, draws = step_inputs(settings.with_values(config, {"training": {"clip_length": length}}), step)
            engine.step(batch, draws, WEIGHTS)
        assert len(engine.run.captured) == 1
    engine.check()


@pytest.mark.parametrize("device", ["cpu", ON_GPU])
def test_a_whole_training_goes_on_after_a_signal(tmp_path: Path, squares: VideoData, device: str) -> None:
    """On a GPU: resident data, longer and longer clips, replay, validation between the steps, resuming."""
    times = {"epochs": 6, "steps_per_epoch": 12, "clip_length": 4, "clip_length_start": 2, "device": device}
    forcing = {"ratio": 0.5, "draw": "batch"}
    config = settings.with_values(small_config("anchor-cvae"), {"training": times, "teacher_forcing": forcing})
    run = new_run(tmp_path / "run", config)
    with pytest.raises(Stopped):
        train(run, config, squares, report=KillAt("validation", 2))
    outcome = train(run, config, squares, resume=last(run))
    assert last(run).tensors["optimizer.step.image.bias"] == outcome.steps == 72, "no step was lost to the guard"


@gpu
@pytest.mark.parametrize("name", ["pose-cvae", "anchor-cvae", "svg-lp"])
def test_a_graphed_rollout_is_the_rollout_of_the_cpu(name: str) -> None:
    config = small_config(name)
    size, past = config.data.size, config.training.past
    torch.manual_seed(0)
    network = build_model(config).eval()
    given = torch.rand(2, past, 3, *size)
    condition = torch.rand(2, 80, 7) if name.startswith("svg") else torch.rand(2, 80, 3, *size)
    eps = torch.randn(80, 2, *network.latent_shape(*size))
    want = list(rollout(network, given, condition, lambda t: eps[t], latent="prior"))
    network = network.cuda()
    got = list(rollout(network, given, condition, lambda t: eps[t], latent="prior"))
    assert max(float((a - b.cpu()).abs().max()) for a, b in zip(want, got, strict=True)) < 1e-3
    half = list(rollout(network, given, condition, lambda t: eps[t], latent="prior", dtype=torch.bfloat16))
    assert max(float((a - b.cpu()).abs().max()) for a, b in zip(want, half, strict=True)) < 0.1


class Watched(Engine):
    """Tells what becomes of the engines, their batches and their models."""

    made: ClassVar[list[weakref.ref[Any]]] = []

    def __init__(self, state: TrainingState, *others: Any) -> None:
        super().__init__(state, *others)
        self.made += [weakref.ref(self), weakref.ref(state), weakref.ref(state.model)]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[weakref.ref[Any]]]:
    """No help from the garbage collector: what is not in a cycle goes at once."""
    monkeypatch.setattr(loop, "Engine", Watched)
    Watched.made.clear()
    gc.disable()
    yield Watched.made
    gc.enable()


def test_nothing_of_a_training_outlives_it(tmp_path: Path, squares: VideoData, watched: list[weakref.ref[Any]]) -> None:
    """NCCL waits for graphs that captured its collectives (pytorch/pytorch 115388), and a GPU's memory is wanted."""
    train(new_run(tmp_path / "run", tiny_config(training={"epochs": 1, "replay": 0.5})), tiny_config(), squares)
    assert len(watched) == 3
    assert [ref() for ref in watched] == [None, None, None]


def test_a_training_that_is_stopped_has_let_go_of_its_graphs(
    tmp_path: Path, squares: VideoData, watched: list[weakref.ref[Any]]
) -> None:
    """Its exception may hold the engine for long, and is passed on to where the ranks part."""
    config = tiny_config()
    with pytest.raises(Stopped) as stopped:
        train(new_run(tmp_path / "run", config), config, squares, report=KillAt("step", 1))
    engine = watched[0]()
    assert engine is None or not hasattr(engine, "run")
    assert stopped.value.exit_code == 143


def test_a_closed_engine_frees_what_its_graphs_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph holds the engine by its step, and the engine the graph."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", tuple)
    monkeypatch.setattr(graphs, "_side_stream", lambda device: None)
    engine = Engine(make(tiny_config()), tiny_config(), torch.float32, deferred=True)
    engine.run = Graphed(engine._step)
    refs = weakref.ref(engine), weakref.ref(engine.run)
    gc.disable()
    try:
        engine.close()
        assert refs[1]() is None
        del engine
        assert refs[0]() is None
    finally:
        gc.enable()


def test_an_optimizer_is_capturable_in_a_capture_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch warns of it outside of one, and refuses to be captured without it."""
    state = make(tiny_config())
    engine = Engine(state, tiny_config(), torch.float32, deferred=True)
    seen: list[list[bool]] = []
    real = state.optimizer.step
    monkeypatch.setattr(state.optimizer, "step", lambda: (seen.append([g["capturable"] for g in groups]), real()))
    groups = state.optimizer.param_groups
    for capturing in (False, True, False):
        monkeypatch.setattr(engine_module, "_capturing", lambda device, now=capturing: now)
        with contextlib.suppress(AssertionError):  # on a CPU the optimizer refuses
            engine.step(*step_inputs(tiny_config(), 0), WEIGHTS)
    assert seen == [[False], [True], [False]]


def test_deterministic_is_on_for_the_training_alone(tmp_path: Path, squares: VideoData) -> None:
    config = tiny_config(training={"epochs": 1, "deterministic": True})

    def now() -> tuple[bool, ...]:
        cudnn = torch.backends.cudnn
        return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark

    seen: list[tuple[bool, ...]] = []
    before = now()
    run = new_run(tmp_path / "run", config)
    train(run, config, squares, report=lambda event: seen.append(now()))
    assert set(seen) == {(True, True, False)}
    assert now() == before
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":16:8", ":4096:8")
    plain = new_run(tmp_path / "plain", tiny_config(training={"epochs": 1}))
    train(plain, tiny_config(training={"epochs": 1}), squares)
    assert fingerprint(plain) == fingerprint(run), "a CPU is so by itself"


@gpu
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", ["pose-cvae", "anchor-cvae", "svg-fp", "svg-lp"])
def test_a_deterministic_graph_replays_eager_steps_bit_for_bit(name: str, precision: str) -> None:
    config = settings.with_values(small_config(name), {"teacher_forcing": {"draw": "batch"}})
    off, dtype = settings.with_values(config, {"training": {"cuda_graph": "off"}}), PRECISIONS[precision]
    with engine_module.deterministic(True):
        eager, graphed = make(config, "cuda"), make(config, "cuda")
        plain, engine = Engine(eager, off, dtype), Engine(graphed, config, dtype)
        for step in range(20):
            inputs = step_inputs(config, step, ratio=0.5)
            plain.step(*inputs, WEIGHTS)
            engine.step(*inputs, WEIGHTS)
            eager.progress.step = graphed.progress.step = step + 1
    assert apart(eager, graphed) == 0


@gpu
def test_a_deterministic_training_resumes_bit_for_bit_on_a_gpu(tmp_path: Path, squares: VideoData) -> None:
    times = {"epochs": 6, "steps_per_epoch": 12, "clip_length": 4, "device": "cuda", "deterministic": True}
    config = settings.with_values(small_config("anchor-cvae"), {"training": times})
    whole, broken = new_run(tmp_path / "whole", config), new_run(tmp_path / "broken", config)
    train(whole, config, squares)
    with pytest.raises(Stopped):
        train(broken, config, squares, report=KillAt("validation", 2))
    train(broken, config, squares, resume=last(broken))
    assert fingerprint(broken) == fingerprint(whole)
