"""Free runs measured against the truth, frame by frame: many sequences, and many ways to run them, side by side.

W ways to run, S sequences rolled out together, T frames of a sequence, P given ones; C H W a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidcvae import rng
from vidcvae.config import Config
from vidcvae.config.schema import Latent
from vidcvae.data import clips
from vidcvae.data.clips import to_unit
from vidcvae.errors import DataError, UsageError
from vidcvae.evaluation import metrics
from vidcvae.evaluation.yardsticks import Yardstick
from vidcvae.models.interface import VideoModel
from vidcvae.models.rollout import Noise, rollout, zero_noise

ROWS = 32  # sequences x ways in one batch: what fits a small machine at full resolution
POSTERIOR_ROWS = 4  # fewer where all frames of a sequence are encoded at once

Progress = Callable[[int, int], None]

# What is measured of each predicted frame; the baselines need no model and see the same frames
MEASURES = ("psnr", "psnr_per_channel", "ssim", "mse", "temporal_difference_error")
BASELINES = ("copy_first", "copy_last_past", "copy_previous_truth")
KINDS = ("psnr", "psnr_per_channel")
COLUMNS = (*MEASURES, *(f"baseline_{name}_{kind}" for name in BASELINES for kind in KINDS))

# What a score record has more; the validations of a training do without. NaN where there is nothing to measure
NEAREST_POSE = "baseline_nearest_pose"
COMPARED = ("", *(f"baseline_{name}_" for name in BASELINES), f"{NEAREST_POSE}_")
MORE_COLUMNS = (
    *(f"{NEAREST_POSE}_{kind}" for kind in KINDS),
    *(f"{name}psnr_{part}" for name in COMPARED for part in ("still", "moving")),
    "share_still",
)


@dataclass(frozen=True)
class RunVariant:
    """How z is chosen, which of several samples this is, and whether the conditions are those of another clip."""

    latent: Latent
    sample: int = 0
    others: bool = False

    @property
    def draws(self) -> bool:
        return self.latent in ("prior", "posterior")


def measure(
    model: VideoModel,
    sequences: Sequence[clips.Sequence],
    config: Config,
    ways: Sequence[RunVariant],
    *,
    seed: int = 0,
    frames: int = 0,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
    only: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float32,
    yardsticks: Sequence[Yardstick] = (),
) -> dict[RunVariant, list[Tensor]]:
    """Roll out every sequence in each way, as few runs side by side as that takes.

    ``model`` must be in eval mode and on ``device``. Of the sequences only those numbered ``only`` are run, as they
    would be among the others. Sequences shorter than ``frames`` (0: any) are run whole. Returns
    for each way and sequence a table (T-P, COLUMNS) in float64, with MORE_COLUMNS behind them where there are
    ``yardsticks``, one a sequence; all of them know the nearest poses, or none does. Memory does not grow with the
    length of the sequences, but for these numbers. Raises ``DataError`` for a sequence with nothing to predict, and
    ``UsageError`` where a clip has no other of its length and a way asks for one.
    """
    past = config.training.past
    lengths = [run_length(s, past, frames) for s in sequences]
    partners = list(range(len(sequences)))
    if any(way.others for way in ways):
        partners = other_clips(lengths, seed, [s.name for s in sequences])
    numbers = range(len(sequences)) if only is None else only
    jobs = [
        ([numbers[i] for i in picks], group)
        for group, rows in _run_together(ways, config)
        for picks in batches([lengths[i] for i in numbers], rows // len(group))
    ]
    total = sum(lengths[picks[0]] - past for picks, _ in jobs)
    done = 0
    measured: dict[RunVariant, dict[int, Tensor]] = {way: {} for way in ways}
    for picks, group in jobs:
        table = []  # of (W, S, COLUMNS) for each predicted frame; read back at the end, so that nothing waits
        for scores in _measure_batch(
            model,
            sequences,
            picks,
            partners,
            config,
            group,
            length=lengths[picks[0]],
            seed=seed,
            device=device,
            dtype=dtype,
            yardsticks=[yardsticks[i] for i in picks] if yardsticks else (),
        ):
            table.append(scores)
            done += 1
            if progress:
                progress(done, total)
        values = torch.stack(table).double().cpu()  # (T-P, W, S, COLUMNS)
        for row, way in enumerate(group):
            measured[way] |= {i: values[:, row, column] for column, i in enumerate(picks)}
    return {way: [found[i] for i in numbers] for way, found in measured.items()}


def run_length(sequence: clips.Sequence, past: int, frames: int = 0) -> int:
    """The frames of a run: those whose truth and conditions are known, ``frames`` at most (0: all)."""
    known = min(len(sequence), sequence.condition_length)
    if known <= past:
        raise DataError(
            f"sequence {sequence.name} has {known} frame{'s' if known != 1 else ''} with truth, of which {past} "
            f"{'is' if past == 1 else 'are'} given: nothing is left to score.",
            "Score another split (--split val), or make its video: vidcvae export",
        )
    return min(known, frames or known)


def batches(lengths: Sequence[int], width: int = ROWS) -> Iterator[list[int]]:
    """Which sequences are rolled out together: those of one length, ``width`` of them at most."""
    for length in dict.fromkeys(lengths):
        alike = [i for i, other in enumerate(lengths) if other == length]
        for begin in range(0, len(alike), width):
            yield alike[begin : begin + width]


def other_clips(lengths: Sequence[int], seed: int, names: Sequence[str] = ()) -> list[int]:
    """For each clip the number of another of its length, no two the same: a derangement, fixed by ``seed``.

    The clips of a length stand in a circle of random order, and each looks at the next.
    """
    partners = [0] * len(lengths)
    for picks in batches(lengths, len(lengths)):
        if len(picks) == 1:
            name = names[picks[0]] if names else picks[0]
            raise UsageError(
                f"no other clip has the {lengths[picks[0]]} frames of {name}, so that there are no actions to give it.",
                "Score so many frames as all clips have (--future N), or another split.",
            )
        circle = [picks[i] for i in rng.permutation(len(picks), seed, "other-clips", lengths[picks[0]])]
        for position, clip in enumerate(circle):
            partners[clip] = circle[(position + 1) % len(circle)]
    return partners


def sequence_noise(shape: Sequence[int], seed: int, rows: Iterable[int], device: str | torch.device = "cpu") -> Noise:
    """Noise for a rollout of sequences (or samples) ``rows``: eps_t of each is a function of (seed, row, t) alone.

    So a sequence meets the same noise in whatever company, and on whatever device, it is rolled out.
    """
    rows = list(rows)

    def noise(t: int) -> Tensor:
        return rng.to_device(torch.stack([rng.normal(shape, seed, "rollout", row, t) for row in rows]), device)

    return noise


def sample_seed(seed: int, sample: int) -> int:
    """The seed of one of several samples; the first one's is ``seed``, so that a single draw is sample 0."""
    return rng.seed_of(seed, "sample", sample) if sample else seed


def _measure_batch(
    model: VideoModel,
    sequences: Sequence[clips.Sequence],
    picks: Sequence[int],
    partners: Sequence[int],
    config: Config,
    ways: Sequence[RunVariant],
    *,
    length: int,
    seed: int,
    device: str | torch.device,
    dtype: torch.dtype,
    yardsticks: Sequence[Yardstick],
) -> Iterator[Tensor]:
    """Yield (W, S, COLUMNS or more) for each predicted frame; the sequences' numbers ``picks`` choose their noise."""
    chosen = [sequences[i] for i in picks]
    past, copies = config.training.past, len(ways)

    def on_device(images: Sequence[np.ndarray]) -> Tensor:
        return to_unit(rng.to_device(torch.from_numpy(np.stack(images)), device))  # (S, ...)

    def frames_at(t: int) -> Tensor:
        return on_device([s.frames[t] for s in chosen])  # (S, 3, H, W)

    def conditions(numbers: Sequence[int]) -> Tensor | None:
        kind, pairing = config.model.condition, config.data.condition
        return _stack([clips.condition_rows(sequences[i], 0, length, kind, pairing) for i in numbers])

    given = torch.from_numpy(np.stack([s.frames[:past] for s in chosen]))
    condition = conditions(picks)
    if condition is not None:
        others = conditions([partners[i] for i in picks]) if any(way.others for way in ways) else None
        condition = (
            _repeat(condition, copies)
            if others is None
            else torch.cat([others if way.others else condition for way in ways])
        )
    truth = _stack([s.frames[:length] for s in chosen]) if any(way.latent == "posterior" for way in ways) else None
    predictions = rollout(
        model,
        _repeat(given, copies),
        condition,
        _noise_for(ways, model.latent_shape(*given.shape[-2:]), seed, picks, device),
        # eps = 0 makes the other latents of a draw from the prior
        latent=ways[0].latent if len({way.latent for way in ways}) == 1 else "prior",
        length=length,
        truth=None if truth is None else _repeat(truth, copies),
        dtype=dtype,
    )
    first, last_past = frames_at(0), frames_at(past - 1)
    before, guess_before = last_past, last_past.expand(copies, *last_past.shape)
    still = on_device([y.still for y in yardsticks]) if yardsticks else None  # (S, H, W)
    for t, prediction in enumerate(predictions, start=past):
        target = frames_at(t)
        guess = prediction.unflatten(0, (copies, len(chosen)))  # (W, S, 3, H, W)
        values = [
            *metrics.psnrs(guess, target),
            metrics.ssim(guess, target),
            metrics.mse(guess, target),
            metrics.temporal_difference_error(guess, guess_before, target, before),
        ]
        baselines = [first, last_past, before]
        if still is not None:
            nearest = [y.nearest_pose(t) for y in yardsticks if y.nearest_pose]
            baselines.append(on_device(nearest) if nearest else torch.full_like(first, torch.nan))
        for copy in baselines:
            values += metrics.psnrs(copy, target)
        if still is not None:
            for images in (guess, *baselines):
                values += metrics.psnrs_apart(images, target, still)
            values.append(still.mean(dim=(-2, -1)))
        yield torch.stack([value.expand(copies, -1) for value in values], dim=-1)
        before, guess_before = target, guess


def learned_prior(config: Config) -> bool:
    """Whether the prior depends on the frames before; else it is N(0, I), whose mean is z = 0."""
    return config.model.learned_prior


def _run_together(ways: Sequence[RunVariant], config: Config) -> Iterator[tuple[list[RunVariant], int]]:
    """Group what one batch can roll out as draws from the prior (its mean is eps = 0, which is z = 0 unless learned);
    with each group the rows that its batches may have."""
    as_draws = {"prior", "prior-mean"} | (set() if learned_prior(config) else {"zero"})
    found: dict[str, list[RunVariant]] = {}
    for way in ways:
        found.setdefault("prior" if way.latent in as_draws else way.latent, []).append(way)
    for latent, group in found.items():
        rows = POSTERIOR_ROWS if latent == "posterior" else ROWS
        yield from ((group[begin : begin + rows], rows) for begin in range(0, len(group), rows))


def _noise_for(
    ways: Sequence[RunVariant], shape: Sequence[int], seed: int, picks: Sequence[int], device: str | torch.device
) -> Noise:
    """Rows way by way: eps of the sequences where z is drawn, 0 where it is a mean."""
    draw = {
        way.sample: sequence_noise(shape, sample_seed(seed, way.sample), picks, device) for way in ways if way.draws
    }
    if not draw:
        return zero_noise
    zeros = torch.zeros(len(picks), *shape, device=device)

    def noise(t: int) -> Tensor:
        eps = {sample: drawn(t) for sample, drawn in draw.items()}  # once for all ways that share it
        return torch.cat([eps[way.sample] if way.draws else zeros for way in ways])

    return noise


def _stack(arrays: Sequence[np.ndarray | None]) -> Tensor | None:
    """(B, T, ...); a single memory-mapped array stays on the disk."""
    known = [array for array in arrays if array is not None]
    if not known:
        return None
    if len(known) == 1 and known[0].flags.writeable:
        return torch.from_numpy(known[0])[None]
    return torch.from_numpy(np.stack(known))


def _repeat(batch: Tensor, copies: int) -> Tensor:
    """(S, ...) -> (W * S, ...), without a copy where S is 1."""
    if len(batch) == 1:
        return batch.expand(copies, *batch.shape[1:])
    return batch.repeat(copies, *[1] * (batch.dim() - 1))
