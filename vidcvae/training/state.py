"""Everything that training changes, and its bit-exact conversion to and from checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, assert_never

import torch
from torch import Tensor

from vidcvae import reading
from vidcvae.config import Config
from vidcvae.errors import DataError, typed
from vidcvae.models.interface import VideoModel
from vidcvae.models.loading import load_weights
from vidcvae.storage.checkpoint import Checkpoint
from vidcvae.training.replay import Replay


class Meter:
    """Running means of named numbers, summed in float64 on their device and read only on request.

    ``count``: the number of calls of ``add``. The mean of a number that some calls lack is over the calls that have it.
    """

    def __init__(
        self, sums: dict[str, float] | None = None, count: int = 0, counts: dict[str, int] | None = None
    ) -> None:
        self.sums: dict[str, Tensor | float] = dict(sums or {})
        self.count = count
        self.counts = dict.fromkeys(self.sums, count) | (counts or {})

    def add(self, values: dict[str, Tensor | float]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + (
                value.detach().double() if isinstance(value, Tensor) else value
            )
            self.counts[name] = self.counts.get(name, 0) + 1
        self.count += 1

    def read(self) -> dict[str, float]:
        """The sums as plain numbers; this waits for a GPU."""
        return {name: float(value) for name, value in self.sums.items()}

    def means(self) -> dict[str, float]:
        return {name: value / self.counts[name] for name, value in self.read().items()}

    def saved(self) -> dict[str, Any]:
        fewer = {name: count for name, count in self.counts.items() if count != self.count}
        return {"sums": self.read(), "count": self.count} | ({"counts": fewer} if fewer else {})


@dataclass
class Position:
    """The position of a training.

    step, epochs: how many are finished (an epoch only after its validation). saved_step: that of the newest checkpoint.
    minutes: training time over all resumes. best: the best score so far. scores: the newest ones.
    window, epoch: the means for the next "step" and the next "epoch" line of the history.
    """

    step: int = 0
    epochs: int = 0
    saved_step: int = -1
    minutes: float = 0.0
    best: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    window: Meter = field(default_factory=Meter)
    epoch: Meter = field(default_factory=Meter)

    def to_json(self) -> dict[str, Any]:
        plain = {k: v for k, v in self.__dict__.items() if not isinstance(v, Meter)}
        return plain | {"window": self.window.saved(), "epoch": self.epoch.saved()}

    @staticmethod
    def from_json(saved: dict[str, Any]) -> Position:
        return Position(**saved | {name: Meter(**saved[name]) for name in ("window", "epoch")})


@dataclass
class TrainingState:
    """The model, its optimizer, the moving average of its weights (or none), the replayed frames (or none), and the
    position."""

    model: VideoModel
    optimizer: torch.optim.Optimizer
    ema: dict[str, Tensor]
    progress: Position
    replay: Replay | None = None

    def tensors(self) -> dict[str, Tensor]:
        """``model.*``, ``ema.*``, ``optimizer.KEY.PARAMETER`` and ``replay.*``."""
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"ema.{name}": t for name, t in self.ema.items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        return tensors | (self.replay.tensors() if self.replay else {})

    def restore(self, saved: Checkpoint) -> None:
        """Take over the tensors and the position of a checkpoint; raises ``DataError`` if it is of another model."""
        load_weights(self.model, saved.part("model"), saved.path)
        hint = f"Start a new run from its weights: {typed('train', '--init', saved.path)}"
        if saved.meta.progress is None:
            raise DataError(
                f"{saved.path} has only weights, no optimizer state and no position, so it cannot be resumed.", hint
            )
        try:
            self._take_over(saved)
            self.progress = Position.from_json(saved.meta.progress)
        except torch.OutOfMemoryError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = reading.label((str(error).splitlines() or [""])[0][:200])
            raise DataError(f"{saved.path} does not fit this run ({type(error).__name__}: {reason}).", hint) from None

    def _take_over(self, saved: Checkpoint) -> None:
        for name, average in saved.part("ema").items():
            self.ema[name].copy_(average)
        optimizer = saved.part("optimizer")
        for name, parameter in self.model.named_parameters():
            state = {key.partition(".")[0]: t for key, t in optimizer.items() if key.partition(".")[2] == name}
            if state:
                # Adam keeps its moments in the memory format of the parameter
                self.optimizer.state[parameter] = {
                    key: t.to(parameter.device) if t.dim() == 0 else torch.empty_like(parameter).copy_(t)
                    for key, t in state.items()
                }
        if self.replay and (frames := saved.part("replay")):
            self.replay.restore(frames)


def new_state(model: VideoModel, config: Config) -> TrainingState:
    """A fresh optimizer and moving average around ``model``."""
    settings = config.optimizer
    match settings.name:
        case "adam":
            cls: type[torch.optim.Adam] = torch.optim.Adam
        case "adamw":
            cls = torch.optim.AdamW
        case _:
            assert_never(settings.name)
    optimizer = cls(
        model.parameters(),
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
        fused=True,  # one pass over all weights, without synchronization on a GPU
    )
    ema = {name: p.detach().clone() for name, p in model.named_parameters()} if config.training.ema else {}
    replay = Replay(config.data.frame_size, str(model.device)) if config.training.replay else None
    return TrainingState(model, optimizer, ema, Position(), replay)


def ema_memory(state: TrainingState, decay: float) -> float:
    """The decay of the moving average at this step; it is lower in the first steps, when the average is young."""
    return min(decay, (1 + state.progress.step) / (10 + state.progress.step))
