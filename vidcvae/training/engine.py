"""Run a training step fast: directly on a CPU, as one CUDA graph without synchronization on a GPU.

On a GPU the loop reads nothing back between two log lines, so the check for NaN runs there too. From the first step
whose loss or gradient is not finite, no step changes anything, and ``Engine.check`` raises at the next log line.
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
from vidcvae.models.graphs import Graphed, map_tensors
from vidcvae.rng import to_device
from vidcvae.training.distributed import ALONE, Ranks
from vidcvae.training.state import TrainingState, ema_memory
from vidcvae.training.step import Draws, Scheduled, Terms, must_be_finite, training_step


class Engine:
    """``step`` is ``training.step.training_step``, several times faster on a GPU.

    deferred: report non-finite values in ``check`` only, not in ``step``; None: on a GPU.
    late: after ``check`` has raised, how many steps ago the first non-finite step was.
    """

    late = 0

    def __init__(
        self,
        state: TrainingState,
        config: Config,
        dtype: torch.dtype,
        ranks: Ranks = ALONE,
        deferred: bool | None = None,
    ) -> None:
        self.state, self.config, self.dtype, self.ranks = state, config, dtype, ranks
        self.device = state.model.device
        self.deferred = self.device.type == "cuda" if deferred is None else deferred
        if config.training.compile:
            for network in state.model.children():
                network.compile()
        self.names: tuple[str, ...] = ()
        self.steps = 0  # since the last check
        if self.deferred:
            # fused optimizers read their rate on the GPU, and change nothing while found_inf is 1
            self.broken = torch.zeros((), device=self.device)
            self.finite_steps = torch.zeros((), device=self.device)
            self.first_broken: Tensor | None = None
            for group in state.optimizer.param_groups:
                group["lr"] = torch.tensor(float(group["lr"]), device=self.device)
            state.optimizer.found_inf = self.broken  # type: ignore[attr-defined]
        graphed = self.device.type == "cuda" and config.training.cuda_graph != "off" and not unfit_for_graphs(config)
        self.run: Callable[..., Any] = Graphed(self._step) if graphed else self._step

    def step(self, batch: ClipBatch, draws: Draws, scheduled: Scheduled) -> tuple[Terms, Tensor]:
        """The terms and last frames that ``training_step`` returns.

        Raises ``NonFiniteError``, unless deferred to ``check``.
        """
        if not self.deferred:
            return training_step(self.state, batch, draws, self.config, scheduled, self.dtype, self.ranks)
        numbers = torch.tensor([scheduled.beta, scheduled.lr, 1 - ema_memory(self.state, self.config.training.ema)])
        inputs = map_tensors((_parts(batch), _parts(draws), numbers), lambda x: to_device(x, self.device))
        values, ends = self.run(*inputs)
        self.steps += 1
        return dict(zip(self.names, values.clone().unbind(), strict=True)), ends.clone()

    def close(self) -> None:
        """Free the graphs after the last step. NCCL cannot shut down while a graph holds its collectives
        (pytorch/pytorch 115388), and ``run`` and the engine refer to each other until a garbage collection."""
        del self.run

    def check(self) -> None:
        """Raise ``NonFiniteError`` if a step since the last check was not finite, and set ``late``."""
        if not self.deferred:
            return
        self.late = self.steps - int(self.finite_steps)
        if self.late:
            assert self.first_broken is not None
            must_be_finite(dict(zip(self.names, self.first_broken.unbind(), strict=True)))
        self.steps = 0
        self.finite_steps.zero_()

    def _step(self, batch: Any, draws: Any, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """A whole step on tensors, none of which is read on the CPU: the values of the terms, and the last frames."""
        beta, lr, ema = numbers.unbind()
        for group in self.state.optimizer.param_groups:
            # PyTorch requires it in a capture, and warns about it elsewhere
            group["capturable"] = _capturing(self.device)
        terms, ends = training_step(
            self.state,
            ClipBatch(*batch),
            Draws(*draws),
            self.config,
            Scheduled(beta, lr, ema),
            self.dtype,
            self.ranks,
            check=self._guard,
        )
        return torch.stack([value.float() for value in terms.values()]), ends

    @torch.no_grad()
    def _guard(self, terms: Terms) -> Tensor:
        """1, or 0 from the first non-finite step on; found_inf makes the optimizer skip those steps as well."""
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
    """The fields of a dataclass as a tuple, the form that a graph takes."""
    return tuple(getattr(inputs, field.name) for field in fields(inputs))


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """If ``wanted``, allow only reproducible operations in this block; on a GPU they are slower.

    Other operations raise a ``RuntimeError``. cuBLAS reads its variable once, when a process first multiplies on a GPU.
    (https://pytorch.org/docs/stable/notes/randomness.html)
    """
    if not wanted:
        yield
        return
    # Of the two allowed values, the one that also suits LSTMs
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
