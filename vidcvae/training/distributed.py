"""Train one model in several processes, which torchrun starts; each takes its slice of every batch.

Everything random is a function of (seed, stream, step), so all ranks draw what the whole batch needs and keep their
rows. Every loss is a mean over clips and the slices are equal, so the mean of the ranks' gradients is the gradient.

One plain all-reduce after the backward pass averages the gradients, not DistributedDataParallel. DDP wraps a module
with one ``forward``; these models have several functions that are called many times a step, with accumulation and
recomputed activations in between, and a CUDA graph around them all. DDP would only overlap the communication with the
backward pass, which saves little: docs/scaling.md has the numbers.

Signals, the clock and results travel through a separate group on the CPU, so that nothing waits for a GPU, and as
JSON, so that nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from vidcvae.config import Config
from vidcvae.errors import EXIT_USAGE, NonFiniteError, Stopped, UsageError, VidcvaeError
from vidcvae.models.interface import full
from vidcvae.models.loading import pick_device
from vidcvae.storage import durable

T = TypeVar("T")
PATIENCE = timedelta(days=1)  # rank 0 may decode a dataset or score a long video; a dead rank is noticed at once


class Ranks:
    """The processes that train together; this one is ``rank`` of ``world``."""

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank, self.world = rank, world
        self._control = dist.new_group(backend="gloo", timeout=PATIENCE) if world > 1 else None

    @property
    def main(self) -> bool:
        """Whether this is rank 0, the only one that writes files and reports."""
        return self.rank == 0

    def slice(self, rows: int) -> slice:
        """This rank's part of ``rows`` rows."""
        each = rows // self.world
        return slice(self.rank * each, (self.rank + 1) * each)

    # --- tensors -----------------------------------------------------------------------------------

    def average(self, parameters: Iterable[nn.Parameter], terms: dict[str, Tensor]) -> None:
        """Replace the gradients and the terms by their means over the ranks.

        A NaN or an infinity on one rank reaches all of them, so that they stop before the same update.
        """
        if self.world == 1:
            return
        tensors = [p.grad for p in parameters if p.grad is not None] + list(terms.values())
        sums = torch.cat([t.reshape(-1) for t in tensors])
        with _raising_peer_lost():
            dist.all_reduce(sums)
        sums /= self.world
        parts = sums.split([t.numel() for t in tensors])
        torch._foreach_copy_(tensors, [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)])

    def mean(self, x: Tensor) -> Tensor:
        """The mean over the ranks, without a gradient."""
        return x if self.world == 1 else _averaged(x.detach())

    def all_rows(self, rows: Tensor) -> Tensor:
        """The rows of all ranks in their order; each rank passes equally many."""
        if self.world == 1:
            return rows
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(self.world)]
        with _raising_peer_lost():
            dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def share_buffers(self, model: nn.Module) -> None:
        """Take over rank 0's buffers: the running statistics, which each rank has computed for itself."""
        if self.world > 1:
            with _raising_peer_lost():
                for buffer in model.buffers():
                    dist.broadcast(buffer, 0)

    # --- plain data --------------------------------------------------------------------------------

    def largest(self, *numbers: float) -> list[float]:
        """The maximum of each number over the ranks."""
        if self.world == 1:
            return list(numbers)
        maxima = torch.tensor(numbers, dtype=torch.float64)
        with _raising_peer_lost():
            dist.all_reduce(maxima, dist.ReduceOp.MAX, group=self._control)
        return maxima.tolist()

    def gather(self, value: Any) -> list[Any]:
        """The ``value`` of every rank (plain data), in their order."""
        if self.world == 1:
            return [value]
        text = json.dumps(value).encode()
        text = text.ljust(int(self.largest(len(text))[0]))  # JSON ignores trailing spaces
        parts = [torch.empty(len(text), dtype=torch.uint8) for _ in range(self.world)]
        with _raising_peer_lost():
            dist.all_gather(parts, torch.frombuffer(bytearray(text), dtype=torch.uint8), group=self._control)
        return [json.loads(part.numpy().tobytes()) for part in parts]

    def share(self, jobs: int) -> list[int]:
        """The numbers of this rank's jobs, out of ``jobs``."""
        return list(range(self.rank, jobs, self.world))

    def dealt(self, tables: list[Tensor]) -> list[Tensor]:
        """The float64 results of all jobs; each rank passes those of its ``share``."""
        if self.world == 1:
            return tables
        of_ranks = self.gather([table.tolist() for table in tables])
        jobs = sum(map(len, of_ranks))
        return [torch.tensor(of_ranks[i % self.world][i // self.world], dtype=torch.float64) for i in range(jobs)]

    def from_main(self, work: Callable[[], T]) -> T:
        """Run ``work`` on rank 0 and return its result (plain data) on all; if it fails, all exit with its code."""
        if self.world == 1:
            return work()
        if not self.main:
            code, value = self.gather(None)[0]
            if code:
                raise SystemExit(code)
            return value  # type: ignore[no-any-return]
        try:
            result = work()
        except VidcvaeError as error:
            self.gather((error.exit_code, None))
            raise
        self.gather((0, result))
        return result

    def main_first(self, work: Callable[[], T]) -> T:
        """Run ``work`` on rank 0, then on the others, which find the files that it wrote."""
        if not self.main:
            self.from_main(lambda: None)
            with self._own_failures():
                return work()
        results: list[T] = []
        self.from_main(lambda: results.append(work()))
        return results[0]

    def must_agree(self, **values: Any) -> None:
        """Exit on all ranks, with a ``UsageError`` on rank 0, unless every value (plain data) is the same on all."""
        of_ranks = self.gather({name: json.dumps(value) for name, value in values.items()})  # as text nan equals nan
        unequal = next((name for name in values if any(other[name] != of_ranks[0][name] for other in of_ranks)), None)
        if unequal and not self.main:
            raise SystemExit(EXIT_USAGE)
        if unequal:
            raise UsageError(
                f"the processes of this training do not have the same {unequal}.",
                "All machines must see the same dataset and run folder, and run the same command.",
            )

    @contextlib.contextmanager
    def parting(self) -> Iterator[None]:
        """Leave the group after the block. Rank 0 reports an error that all ranks share; the others exit after it."""
        try:
            with self._own_failures():
                yield
        except _SHARED as error:
            if self.main:
                raise
            if not isinstance(error, PeerLost):
                with contextlib.suppress(VidcvaeError):
                    self.gather(None)  # wait for rank 0 to exit: torchrun stops all ranks as soon as one exits
            raise SystemExit(error.exit_code) from None
        if self.world > 1:
            self._control = None  # a group that is still referenced may abort the process when it exits
            dist.destroy_process_group()

    @contextlib.contextmanager
    def _own_failures(self) -> Iterator[None]:
        """Name the rank in an error that rank 0 does not share."""
        try:
            yield
        except VidcvaeError as error:
            if not self.main and not isinstance(error, _SHARED):
                error.message = f"rank {self.rank}: {error.message}"
            raise


class PeerLost(VidcvaeError):
    """Another rank has ended."""


_SHARED = (Stopped, NonFiniteError, PeerLost)  # errors that end all ranks in the same way
ALONE = Ranks()


@contextlib.contextmanager
def _raising_peer_lost() -> Iterator[None]:
    """Raise ``PeerLost`` if a collective operation fails because another rank has ended."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(
            "another process of this training has ended; the checkpoints saved before are intact.",
            "Its message or exit code says why. With torchrun --max-restarts N, all restart from the last checkpoint.",
        ) from error


# --- joining ---------------------------------------------------------------------------------------


def started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_main() -> bool:
    """Whether this process is rank 0 or alone; usable before the ranks have joined."""
    return not started_by_torchrun() or os.environ["RANK"] == "0"


def job() -> dict[str, str]:
    """The identity of the torchrun that started this process; empty if there is none."""
    if not started_by_torchrun():
        return {}
    starter = os.getppid()
    process = f"{socket.gethostname()}/{starter}/{durable._started(starter)}"
    return {"id": os.environ["TORCHELASTIC_RUN_ID"], "process": process}


def is_of_this_job(other: dict[str, str]) -> bool:
    """Whether ``other`` is the ``job`` of an earlier start of these processes.

    torchrun itself survives when it restarts its processes. If rank 0 has moved to another machine, only the name of
    the job (--rdzv-id) can be compared.
    """
    this = job()
    may_have_moved = _restarts() > 0 and this["id"] != "none"
    return other["process"] == this["process"] or (may_have_moved and other["id"] == this["id"])


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def join(config: Config) -> Ranks:
    """The ranks that torchrun started, or this process alone.

    GPUs communicate through nccl, CPUs through gloo. Raises ``UsageError`` if the batch cannot be divided evenly, or
    if there are more ranks than GPUs.
    """
    device = pick_device(config.training.device)
    if not started_by_torchrun():
        return ALONE
    rank, local, world = (int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    check(config, world)
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"there is no GPU for local rank {local}: this machine has {torch.cuda.device_count()}.",
                f"Use torchrun --nproc-per-node {torch.cuda.device_count()}, or --device cpu.",
            )
        torch.cuda.set_device(local)
    if world == 1:
        return ALONE
    # Its functions default to the process group that exists when it is imported. PyTorch's optimizers import it later,
    # so import it now, while there is no group.
    importlib.import_module("torch.distributed.nn.functional")
    store, _, _ = next(rendezvous("env://", rank, world))
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        # torchrun's store survives a restart, with the addresses of dead processes in it (pytorch/pytorch 135712). The
        # machines of a larger job may count restarts differently; docs/scaling.md describes the remedy.
        store = PrefixStore(f"start-{_restarts()}", store)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", store=store, rank=rank, world_size=world)
    return Ranks(rank, world)


def check(config: Config, world: int) -> None:
    """Raise ``UsageError`` if ``world`` ranks cannot share the batch."""
    train = config.training
    parts = world * train.accumulate
    each, rest = divmod(train.batch_size, parts)
    if rest:
        accumulated = f" x training.accumulate {train.accumulate}" if train.accumulate > 1 else ""
        nearest = max(1, round(train.batch_size / parts)) * parts
        raise UsageError(
            f"training.batch_size ({train.batch_size}) is the batch of all ranks together, and cannot be divided "
            f"evenly by {world} ranks{accumulated}.",
            f"Use --batch-size {nearest}, or another --nproc-per-node.",
        )
    if train.batch_norm_ranks == "rank" and each < config.model.fewest_clips:
        raise UsageError(
            f"{config.model.name} needs two clips at a time on each rank for its BatchNorm; {world} ranks have {each}.",
            f"Use --batch-size {2 * parts}, or --set training.batch_norm_ranks=sync.",
        )


# --- BatchNorm over all ranks ----------------------------------------------------------------------


class _Mean(torch.autograd.Function):
    """The mean over the ranks. Each rank contributes to the losses of all, so the gradients are averaged too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _averaged(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _averaged(gradient)


def _averaged(x: Tensor) -> Tensor:
    sums = x.clone(memory_format=torch.contiguous_format)
    with _raising_peer_lost():
        dist.all_reduce(sums)
    return sums / dist.get_world_size()


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm in 1d or 2d with the statistics of all ranks' clips, on any device.

    Equal to one BatchNorm over the whole batch, because all ranks have equally many rows. (Ioffe & Szegedy 2015)
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = full(input)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(x.dim())]
        mean: Tensor = _Mean.apply(x.mean(axes))  # (C,)
        centred = x - mean.view(shape)
        variance: Tensor = _Mean.apply(centred.square().mean(axes))
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        with torch.no_grad():
            count = x.numel() // x.shape[1] * dist.get_world_size()
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum or 0.0)
        y = centred * (torch.rsqrt(variance + self.eps) * self.weight).view(shape) + self.bias.view(shape)
        return y.to(input.dtype)


def share_statistics(model: nn.Module, ranks: Ranks) -> None:
    """Make every BatchNorm use the statistics of all ranks. PyTorch's own SyncBatchNorm supports GPUs only."""
    if ranks.world == 1:
        return
    if next(model.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.__class__ = SharedBatchNorm  # type: ignore[assignment]  # the same parameters, buffers and names
