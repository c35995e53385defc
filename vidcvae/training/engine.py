"""A training step as the machine likes it: on a CPU at once, on a GPU as one CUDA graph that nobody waits for.

On a GPU the loop reads nothing back between two log lines. So the check for NaN is on the GPU as well: from the first
step on whose loss or gradient is not finite, no step changes anything, and ``Engine.check`` tells on the next log line.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from vidcvae.config import Config, unfit_for_graphs
from vidcvae.data.clips import ClipBatch
from vidcvae.models.graphs import Graphed
from vidcvae.rng import to_device
from vidcvae.training.distributed import ALONE, Ranks
from vidcvae.training.state import TrainingState, ema_memory
from vidcvae.training.step import Draws, Scheduled, Terms, must_be_finite, training_step


class Engine:
    """``step`` is ``training.step.training_step``, several times faster on a GPU.

    deferred: look for what is not finite in ``check`` only; None: on a GPU.
    """

    def __init__(
        self,
        state: TrainingState,
        config: Config,
        dtype: torch.dtype,
        ranks: Ranks = ALONE,
        deferred: bool | None = None,
    ) -> None:
        self.state, self.config, self.dtype, self.ranks = state, config, dtype, ranks
        self.device = next(state.model.parameters()).device
        self.deferred = self.device.type == "cuda" if deferred is None else deferred
        if config.training.compile:
            for network in state.model.children():
                network.compile()
        self.names: tuple[str, ...] = ()
        self.steps = 0  # since the last check
        if self.deferred:
            # fused optimizers take their rate from the GPU, and change nothing where found_inf is 1
            self.broken = torch.zeros((), device=self.device)
            self.finite_steps = torch.zeros((), device=self.device)
            self.first_broken: Tensor | None = None
            for group in state.optimizer.param_groups:
                group["lr"] = torch.tensor(float(group["lr"]), device=self.device)
            state.optimizer.found_inf = self.broken  # type: ignore[attr-defined]
        graphed = self.device.type == "cuda" and config.training.cuda_graph != "off" and not unfit_for_graphs(config)
        self.run: Callable[..., Any] = Graphed(self._step) if graphed else self._step

    def step(self, batch: ClipBatch, draws: Draws, weights: Scheduled) -> tuple[Terms, Tensor]:
        """Terms and last frames, as ``training_step`` gives them.

        Raises ``NonFiniteError`` at once on a CPU; on a GPU ``check`` does.
        """
        if not self.deferred:
            return training_step(self.state, batch, draws, self.config, weights, self.dtype, self.ranks)
        numbers = torch.tensor([weights.beta, weights.lr, 1 - ema_memory(self.state, self.config.training.ema)])
        values, ends = self.run(*(self._there(parts) for parts in (_parts(batch), _parts(draws), numbers)))
        self.steps += 1
        return dict(zip(self.names, values.clone().unbind(), strict=True)), ends.clone()

    def close(self) -> None:
        """Let go of the graphs, after the last step: NCCL waits for those that captured its collectives before it ends
        (pytorch/pytorch 115388), and ``run`` holds the engine that holds it, until some garbage collection."""
        del self.run

    def check(self) -> None:
        """Raise ``NonFiniteError`` if one of the last steps was not finite; ``late`` says how many steps ago."""
        if not self.deferred:
            return
        self.late = self.steps - int(self.finite_steps)
        if self.late:
            assert self.first_broken is not None
            must_be_finite(dict(zip(self.names, self.first_broken.unbind(), strict=True)))
        self.steps = 0
        self.finite_steps.zero_()

    late = 0

    def _there(self, value: Any) -> Any:
        """Tensors on the GPU, without waiting for those that are not."""
        if isinstance(value, tuple):
            return tuple(self._there(part) for part in value)
        return to_device(value, self.device) if isinstance(value, Tensor) else value

    def _step(self, batch: Any, draws: Any, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """A whole step of tensors alone, without a look at any of them: the terms' values, and the last frames."""
        beta, lr, ema = numbers.unbind()
        for group in self.state.optimizer.param_groups:
            group["capturable"] = _capturing(self.device)  # PyTorch asks for it in a capture, and warns of it outside
        terms, ends = training_step(
            self.state,
            ClipBatch(*batch),
            Draws(*draws),
            self.config,
            Scheduled(beta, self.config.loss.smoothing, lr, ema),
            self.dtype,
            self.ranks,
            check=self._guard,
        )
        return torch.stack([value.float() for value in terms.values()]), ends

    @torch.no_grad()
    def _guard(self, terms: Terms) -> Tensor:
        """1, and 0 from the first step on that is not finite: then the optimizer, told by found_inf, skips as well."""
        self.names = tuple(terms)
        values = torch.stack([value.float() for value in terms.values()])
        if self.first_broken is None:
            self.first_broken = torch.zeros_like(values)
        bad = 1 - torch.isfinite(values).all().float()
        self.first_broken.copy_(torch.where((bad == 1) & (self.broken == 0), values, self.first_broken))
        self.broken.copy_(torch.maximum(self.broken, bad))
        self.finite_steps += 1 - self.broken
        return 1 - self.broken


def _parts(inputs: ClipBatch | Draws) -> tuple[Any, ...]:
    """The fields of a dataclass, as inputs of a graph."""
    return tuple(getattr(inputs, field.name) for field in fields(inputs))


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """For a block, only operations that give the same numbers each time; on a GPU those are not the fastest.

    Others raise a ``RuntimeError``. cuBLAS reads its variable once, when a process first multiplies on a GPU.
    (https://pytorch.org/docs/stable/notes/randomness.html)
    """
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # of the two that are allowed, the one for LSTMs too
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
