"""Does quality fall with the age of a run? Compare free runs with fresh restarts, and run far beyond the truth.

A restart at frame s treats the sequence as if it began there: the run is given the true frames from s on, and a model
with an anchor uses frame s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from vidcvae.config.schema import Latent
from vidcvae.data import clips
from vidcvae.data.clips import VideoData
from vidcvae.errors import DataError, UsageError, an
from vidcvae.evaluation import metrics
from vidcvae.evaluation.free_run import RunVariant, diverged, measure, run_length, sequence_noise
from vidcvae.models.loading import Loaded
from vidcvae.models.rollout import rollout
from vidcvae.progress import Progress, unreported

# The age test of a whole dance: frames 580-629 of 630, from a run started at 0 against one started at 480
AGE_LENGTH, AGE_RESTART, AGE_TAIL = 630, 480, 50

Index = TypeVar("Index", int, np.ndarray)


@dataclass(frozen=True)
class AgeTest:
    """PSNR in dB of the frames ``tail`` (first, last), from a run started at frame 0 and from one at ``restart``.

    For sequences of other lengths than 630, both are scaled in proportion. Of several sequences, the PSNRs are means,
    and ``tail`` and ``restart`` are those of the longest.
    """

    tail: tuple[int, int]
    restart: int
    from_start: float
    from_restart: float

    @property
    def lost(self) -> float:
        """By how many dB the older run is worse."""
        return self.from_restart - self.from_start

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "lost": self.lost}

    def lines(self) -> list[str]:
        """The result in one line of text."""
        return [
            f"age test, frames {self.tail[0]}-{self.tail[1]}: {self.from_start:.2f} dB from frame 0, "
            f"{self.from_restart:.2f} dB from frame {self.restart}: {self.lost:.2f} dB lost"
        ]


@dataclass(frozen=True)
class Drift:
    """PSNR in dB of each of ``frames``, averaged over the sequences that have the frame.

    free: in the run from frame 0.
    restarted: in the most recent restart; None before the first one.
    every: frames from one restart to the next.
    """

    frames: list[int]
    free: list[float]
    restarted: list[float | None]
    every: int
    age_test: AgeTest

    @property
    def gap(self) -> list[float | None]:
        """By how many dB the fresh run is better at each frame: the cost of age alone."""
        return [None if new is None else new - old for old, new in zip(self.free, self.restarted, strict=True)]

    @property
    def slope_per_100(self) -> float:
        """Least-squares slope of the free run's PSNR, in dB per 100 frames. It includes changes of the content."""
        return _slope(self.frames, self.free)

    @property
    def gap_slope_per_100(self) -> float:
        """Least-squares slope of the gap, in dB per 100 frames of age. Changes of the content cancel."""
        known = [(t, g) for t, g in zip(self.frames, self.gap, strict=True) if g is not None]
        return _slope([t for t, _ in known], [g for _, g in known])

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "gap": self.gap,
            "slope_per_100": self.slope_per_100,
            "gap_slope_per_100": self.gap_slope_per_100,
            "age_test": self.age_test.to_json(),
        }

    def lines(self) -> list[str]:
        """The results as lines of text."""
        slope, behind = (round(x, 2) + 0.0 for x in (self.slope_per_100, self.gap_slope_per_100))  # -0.0 is 0.0
        slopes = (
            f"the free run changes by {slope:+.2f} dB per 100 frames; against fresh restarts it "
            f"{'loses' if behind >= 0 else 'gains'} {abs(behind):.2f} dB per 100 frames"
        )
        return [slopes, *self.age_test.lines()]

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Self:
        """Read what ``to_json`` returned."""
        own = {key: saved[key] for key in ("frames", "free", "restarted", "every")}
        age = {key: saved["age_test"][key] for key in ("tail", "restart", "from_start", "from_restart")}
        return cls(**own, age_test=AgeTest(**age))


@dataclass(frozen=True)
class LongRun:
    """A run of many times the length of the sequence, with the poses played forward and backward.

    passes: mean PSNR in dB of each complete pass. Each frame is compared with the truth at its own pose.
    """

    sequence: str
    frames: int
    passes: list[float]

    @property
    def lost(self) -> float:
        """By how many dB the last complete pass is worse than the first one."""
        return self.passes[0] - self.passes[-1]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "first": self.passes[0], "last": self.passes[-1], "lost": self.lost}


def drift(
    loaded: Loaded,
    data: VideoData,
    split: str = "val",
    *,
    every: int = 0,
    latent: Latent = "zero",
    seed: int = 0,
    progress: Progress = unreported,
) -> Drift:
    """Compare the free run of a split with restarts.

    every: frames from one restart to the next; 0 means 30, or a tenth of the sequence if it is shorter than 300 frames.

    All restarts of one length run in one batch. Raises ``DataError`` for sequences too short to restart in.
    """
    sequences, past = data.split(split), loaded.config.training.past
    lengths, points, old, young = _old_and_young(sequences, past)
    every = every or max(1, min(30, max(lengths) // 10))
    starts = [(s, start) for s, n in enumerate(lengths) for start in range(every, n - past, every)]
    restarts = [_part(sequences[s], start, min(past + every, lengths[s] - start)) for s, start in starts]
    curves = _psnr_curves(loaded, [*old, *restarts, *young], latent, seed, progress)
    count, longest = len(sequences), max(lengths)
    free = _by_frame(longest, ((past, curve) for curve in curves[:count]))
    restarted = _by_frame(
        longest, ((start + past, curve) for (_, start), curve in zip(starts, curves[count:-count], strict=True))
    )
    return Drift(
        frames=list(range(past, longest)),
        free=[float(value) for value in free[past:]],
        restarted=[None if np.isnan(value) else float(value) for value in restarted[past:]],
        every=every,
        age_test=_age_test(lengths, points, curves[:count], curves[-count:]),
    )


def age_test(
    loaded: Loaded,
    data: VideoData,
    split: str = "val",
    *,
    latent: Latent = "zero",
    seed: int = 0,
    progress: Progress = unreported,
) -> AgeTest:
    """The age test alone, which costs a quarter more than one free run."""
    lengths, points, old, young = _old_and_young(data.split(split), loaded.config.training.past)
    curves = _psnr_curves(loaded, [*old, *young], latent, seed, progress)
    return _age_test(lengths, points, curves[: len(old)], curves[len(old) :])


def age_points(length: int, past: int, name: str) -> tuple[int, int]:
    """The frame at which the younger run starts, and the number of frames at the end that are compared."""
    restart, tail = round(length * AGE_RESTART / AGE_LENGTH), max(1, round(length * AGE_TAIL / AGE_LENGTH))
    if restart + past > length - tail:
        raise DataError(
            f"sequence {name} has {length} frames, too few to restart a run in.",
            "Choose another split, or longer data.",
        )
    return restart, tail


def long_run_of(loaded: Loaded, data: VideoData, split: str, frames: int, latent: Latent) -> tuple[clips.Sequence, int]:
    """The sequence for a long run of ``frames`` frames, and the frame at which the run turns back.

    Raises ``UsageError`` for a model that is not conditioned on poses, for z from the posterior, and for fewer frames
    than two passes.
    """
    config = loaded.config
    if config.model.condition_kind != "pose":
        raise UsageError(
            f"{loaded.path} is {an(config.model.name)}: actions cannot be played backward.", "Leave out --long."
        )
    if latent == "posterior":
        raise UsageError("--latent posterior needs the truth, and --long runs beyond it.", "Use --latent zero.")
    sequence = data.split(split)[0]
    turn = run_length(sequence, config.training.past) - 1
    if frames < 1 + 2 * turn:
        raise UsageError(
            f"--long {frames} is less than two passes over the {turn + 1} frames of {sequence.name}.",
            f"Choose --long {1 + 2 * turn} or more.",
        )
    return sequence, turn


def long_run(
    loaded: Loaded,
    data: VideoData,
    split: str = "val",
    *,
    frames: int = 5000,
    latent: Latent = "zero",
    seed: int = 0,
    progress: Progress = unreported,
) -> LongRun:
    """Run the first sequence of a split for ``frames`` frames: its poses forward, backward, forward ...

    Memory use does not grow with ``frames``. Raises ``UsageError`` as ``long_run_of`` does.
    """
    sequence, turn = long_run_of(loaded, data, split, frames, latent)
    run = rollout(
        loaded.model,
        torch.from_numpy(np.array(sequence.frames[None, :1])),
        # a tensor of all poses would grow with the run
        cast(Tensor, _ThereAndBack(sequence.tracks["pose"], turn, frames)),
        sequence_noise(loaded.model.latent_shape(*sequence.frames.shape[-2:]), seed, [0], loaded.device),
        latent=latent,
        dtype=loaded.dtype,
    )
    scores: list[float] = []
    for t, frame in enumerate(run, start=1):
        truth = torch.from_numpy(np.array(sequence.frames[there_and_back(t, turn)])).to(frame.device) / 255
        scores.append(metrics.psnr(frame[0].float(), truth).item())
        progress(t, frames - 1)
    passes = [float(np.mean(scores[k : k + turn])) for k in range(0, len(scores) - turn + 1, turn)]
    finite = np.isfinite(passes)
    if not finite.all():
        raise diverged(loaded.path, f"frames that are not finite numbers in pass {finite.argmin() + 1}")
    return LongRun(sequence.name, frames, passes)


def there_and_back(t: Index, turn: int) -> Index:
    """Entry t (or entries t) of 0, 1, ... turn, turn-1, ... 1, 0, 1, ..."""
    return turn - abs(turn - t % (2 * turn))


class _ThereAndBack:
    """Stands in for a tensor of poses (1, frames, 3, H, W), of which ``rollout`` reads a few at a time."""

    def __init__(self, poses: np.ndarray, turn: int, frames: int) -> None:
        self.poses, self.turn = poses, turn
        self.shape = (1, frames, *poses.shape[1:])

    def __getitem__(self, index: tuple[slice, int | slice]) -> Tensor:
        steps = np.arange(self.shape[1])[index[1]]
        return torch.from_numpy(np.array(self.poses[there_and_back(steps, self.turn)]))[None]


def _old_and_young(
    sequences: Sequence[clips.Sequence], past: int
) -> tuple[list[int], list[tuple[int, int]], list[clips.Sequence], list[clips.Sequence]]:
    """For each sequence: its length, its ``age_points``, the whole of it, and its part from the restart on."""
    lengths = [run_length(s, past) for s in sequences]
    points = [age_points(n, past, s.name) for s, n in zip(sequences, lengths, strict=True)]
    old = [_part(s, 0, n) for s, n in zip(sequences, lengths, strict=True)]
    young = [_part(s, restart, n - restart) for s, n, (restart, _) in zip(sequences, lengths, points, strict=True)]
    return lengths, points, old, young


def _part(sequence: clips.Sequence, start: int, length: int) -> clips.Sequence:
    """The part of a sequence that begins at frame ``start``; row ``start`` of the actions becomes its row 0."""
    tracks = {name: track[start : start + length] for name, track in sequence.tracks.items()}
    return clips.Sequence(f"{sequence.name} from {start}", sequence.frames[start : start + length], tracks)


def _psnr_curves(
    loaded: Loaded,
    parts: Sequence[clips.Sequence],
    latent: Latent,
    seed: int,
    progress: Progress,
) -> list[np.ndarray]:
    variant = RunVariant(latent)
    tables = measure(loaded.model, parts, loaded.config, [variant], seed=seed, progress=progress, dtype=loaded.dtype)
    curves = [table[:, 0].numpy() for table in tables[variant]]
    if not all(np.isfinite(curve).all() for curve in curves):
        raise diverged(loaded.path)
    return curves


def _by_frame(length: int, curves: Iterable[tuple[int, np.ndarray]]) -> np.ndarray:
    """The mean at each frame over curves (first frame, values); NaN for a frame that no curve has."""
    total, count = np.zeros(length), np.zeros(length)
    for first, values in curves:
        total[first : first + len(values)] += values
        count[first : first + len(values)] += 1
    means: np.ndarray = np.divide(total, count, out=np.full(length, np.nan), where=count > 0)
    return means


def _age_test(
    lengths: Sequence[int], points: Sequence[tuple[int, int]], old: Sequence[np.ndarray], young: Sequence[np.ndarray]
) -> AgeTest:
    longest = int(np.argmax(lengths))
    restart, tail = points[longest]
    means = [
        float(np.mean(np.concatenate([curve[-n:] for curve, (_, n) in zip(curves, points, strict=True)])))
        for curves in (old, young)
    ]
    return AgeTest((lengths[longest] - tail, lengths[longest] - 1), restart, *means)


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Least-squares slope per 100 of ``x``; 0 for a single point."""
    return 100 * float(np.polyfit(x, y, 1)[0]) if len(x) > 1 else 0.0
