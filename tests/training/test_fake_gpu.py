"""What a GPU would be asked to do, on a machine without one: "meta" tensors stand for those in its memory.

A meta tensor has no numbers. Whoever reads one (``item``, ``bool``, ``nonzero``, ``cpu``) would wait for a GPU, and
fails here. And every operation is watched. In what becomes a CUDA graph it may see and make tensors of the GPU only: a
number from the CPU would stay what it was on the day of the capture. Outside of it, nothing may wait for a copy.
Of the GPU itself (kernels, streams, capture, autocast, pinned memory) nothing is tested here.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vidcvae import config as settings
from vidcvae import rng
from vidcvae.config import Config
from vidcvae.data.resident import Resident
from vidcvae.evaluation.free_run import sequence_noise
from vidcvae.models import build_model, graphs, objectives, rollout
from vidcvae.models.graphs import Graphed, map_tensors
from vidcvae.models.interface import at, reparameterize
from vidcvae.training.batches import Batches, run_length
from vidcvae.training.distributed import ALONE
from vidcvae.training.engine import Engine
from vidcvae.training.state import new_state

from .conftest import MASKS, data_of, loop_step, small_config


class Waits(AssertionError):
    """A GPU would be waited for, or a graph would keep a number of the CPU's."""


class Watch(TorchDispatchMode):
    """captured: nothing of the CPU at all; else copies from the CPU, counted where they are waited for."""

    def __init__(self, captured: bool) -> None:
        super().__init__()
        self.captured, self.waits = captured, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tensors_of((args, kwargs))
        if self.captured and not all(x.is_meta for x in given):
            raise Waits(f"{func} sees the CPU in what is to be a graph")
        mixed = any(x.is_meta for x in given) and any(not x.is_meta and x.dim() for x in given)
        if mixed and func.overloadpacket is not ATEN.copy_:
            raise Waits(f"{func} mixes GPU and CPU")
        if func.overloadpacket in FUSED:  # meta tensors have no such kernels
            return None
        result = func(*args, **kwargs)
        made = tensors_of(result)
        if self.captured and not all(x.is_meta for x in made):
            raise Waits(f"{func} makes something of the CPU in what is to be a graph")
        if func.overloadpacket in COPIES and any(x.is_meta for x in made) and not all(x.is_meta for x in given):
            self.waits += not (kwargs.get("non_blocking") or any(x is True for x in args))
        return result


ATEN = torch.ops.aten
FUSED = (ATEN._fused_adam_, ATEN._fused_adamw_)
COPIES = (ATEN.copy_, ATEN._to_copy, ATEN.to)


def tensors_of(values: Any) -> list[Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, Tensor)]


def captured(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` in place of its graph."""

    def refuse(*_: Any, **__: Any) -> Tensor:
        raise Waits("numbers of the CPU become a tensor in what is to be a graph")

    def run(*arguments: Any) -> Any:
        with Watch(captured=True), pytest.MonkeyPatch.context() as patch:
            for maker in ("tensor", "as_tensor", "from_numpy"):  # of meta tensors, they make no copy to watch
                patch.setattr(torch, maker, refuse)
            return function(*arguments)

    return run


@pytest.fixture(autouse=True)
def meta_as_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the meta device has not: generators, autocast, fused optimizers."""
    real = rng.generator

    def generator(*key: Any, device: Any = "cpu") -> torch.Generator | None:
        return None if torch.device(device).type == "meta" else real(*key)

    monkeypatch.setattr(rng, "generator", generator)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    adam = importlib.import_module("torch.optim.adam")
    monkeypatch.setattr(adam, "_device_dtype_check_for_fused", lambda parameter: None)


MODELS = ["pose-cvae", "anchor-cvae", "anchor-cvae with a scene", "svg-fp", "svg-lp"]


def model_config(name: str) -> Config:
    name, _, scene = name.partition(" with ")
    config = small_config(name)
    return settings.with_values(config, {"model": {"scene": True, "patch": 4}}) if scene else config


def train(config: Config) -> Engine:
    """A step for each mask, with all that the loop does around it; the engine as it is then."""
    with torch.device("meta"):
        state = new_state(build_model(config).train(), config)
    engine = Engine(state, config, torch.float32, deferred=True)
    engine.run = captured(engine.run)
    data = data_of(config)
    if state.model.scene is not None:  # read once, before the first step
        state.model.scene = torch.rand(state.model.scene.shape)
    batches = Batches(config, data.split("train"), run_length(config, data), state, ALONE)
    state.model.to("meta")
    batches.cut_clips = Resident(batches.sequences, config.model.condition_kind, config.data.condition, "meta").cut
    with Watch(captured=False) as watch:
        for step, mask in enumerate(MASKS):
            loop_step(engine, batches, step, mask)
    assert watch.waits == 0
    return engine


@pytest.mark.parametrize("name", MODELS)
def test_training_never_waits_for_a_gpu(name: str) -> None:
    engine = train(model_config(name))
    assert {"kl", "kl_charged", "reconstruction", "smoothing", "total", "grad_norm"} == set(engine.names)
    tensors = engine.state.tensors()
    assert any(name.startswith("optimizer.step") for name in tensors)
    assert all(x.is_meta for name, x in tensors.items() if name.startswith(("model", "ema", "optimizer")))
    with pytest.raises(RuntimeError, match="meta"):
        engine.check()  # the one that looks


PLANTS: dict[str, Callable[[Tensor], Tensor]] = {
    "a number read": lambda total: total * total.detach().item(),
    "a choice": lambda total: total if total > 0 else -total,
    "rows that are chosen by their values": lambda total: total * len(total[None].nonzero()),
    "a number of the CPU": lambda total: total * torch.ones(()),
    "a number sent there": lambda total: total * torch.tensor(1.0, device=total.device),
    "numbers sent there": lambda total: total * torch.ones(3).to(total.device, non_blocking=True).sum(),
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS.keys())
def test_who_waits_in_a_step_is_found(plant: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    real = objectives.total
    monkeypatch.setattr(objectives, "total", lambda *terms: plant(real(*terms)))
    with pytest.raises((Waits, RuntimeError, NotImplementedError), match=r"CPU|[mM]eta"):
        train(small_config("pose-cvae"))


@pytest.mark.parametrize("latent", ["prior", "posterior"])
@pytest.mark.parametrize("name", MODELS)
def test_a_step_of_a_free_run_never_waits_for_a_gpu(name: str, latent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = model_config(name)
    with torch.device("meta"):
        model = build_model(config).eval()
    for function in ("prior", "step"):
        monkeypatch.setattr(model, function, captured(getattr(model, function)))
    monkeypatch.setattr(rollout, "prepare", lambda model, dtype: model)  # what it does to weights needs weights
    past = torch.zeros(2, config.training.past, 3, *config.data.size, dtype=torch.uint8)
    truth = past[:, :1].expand(-1, 12, -1, -1, -1)
    condition = truth if config.model.condition_kind == "pose" else torch.zeros(2, 12, 7)
    noise = sequence_noise(model.latent_shape(*config.data.size), 0, range(2), "meta")
    with Watch(captured=False) as watch:
        made = rollout.rollout(
            model, past, condition, noise, latent=latent, truth=truth if latent == "posterior" else None
        )
        assert len(list(made)) == 12 - config.training.past
    assert watch.waits <= 6, "for what is given, not for every frame"


def test_who_waits_between_steps_is_found() -> None:
    gpu, cpu = torch.zeros(3, device="meta"), torch.ones(3)
    with Watch(captured=False) as watch:
        gpu.copy_(cpu)
        cpu.to("meta")
        gpu.copy_(cpu, non_blocking=True)
        rng.to_device(cpu, "meta")
        assert watch.waits == 2
        with pytest.raises(Waits):
            gpu + cpu


class Pretended(Graphed):
    """A graph without a GPU, for functions that change nothing: a replay computes from the memory of the inputs that
    are held into the memory of the first results."""

    def _eagerly(self, arguments: Any) -> Any:
        return self.function(*arguments)

    def _capture(self, arguments: Any) -> Any:
        held = map_tensors(arguments, torch.clone)
        result = self.function(*held)

        def replay() -> None:
            for old, new in zip(tensors_of(result), tensors_of(self.function(*held)), strict=True):
                old.copy_(new)

        return SimpleNamespace(replay=replay), tensors_of(held), result


@pytest.mark.parametrize("name", MODELS)
def test_a_graph_hands_its_state_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", tuple)
    monkeypatch.setattr(graphs, "_side_stream", lambda device: None)
    config = model_config(name)
    torch.manual_seed(0)
    model = build_model(config).eval()
    frame = torch.rand(2, 3, *config.data.size)
    condition = (
        torch.rand(2, 9, 3, *config.data.size) if config.model.condition_kind == "pose" else torch.randn(2, 9, 7)
    )
    codes = model.encode_condition(condition, condition)
    eps = torch.randn(9, 2, *model.latent_shape(*config.data.size))

    def advance(state: Any, frame: Tensor, code: Any, eps: Tensor) -> tuple[Tensor, Any]:
        previous = at(model.encode_frames(frame[:, None]), 0)
        (mu, logvar), state = model.prior(state, previous, code)
        return model.step(state, previous, code, reparameterize(mu, logvar, eps))

    @torch.no_grad()
    def run(function: Callable[..., Any]) -> Tensor:
        state, last, made = model.initial_state(frame, condition[:, 0]), frame, []
        for t in range(1, 9):
            last, state = function(state, last, at(codes, t), eps[t])
            made.append(last.clone())
        return torch.stack(made)

    graphed = Pretended(advance)
    assert torch.equal(run(graphed), run(advance))
    assert len(graphed.captured) == 1
