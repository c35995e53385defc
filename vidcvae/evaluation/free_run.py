"""Measure free runs against the truth, frame by frame. Many sequences and run variants share a batch.

W run variants, S sequences rolled out together, T frames in a sequence, P given frames; C H W a frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidcvae import rng
from vidcvae.config import Config
from vidcvae.config.schema import Latent
from vidcvae.data import clips
from vidcvae.data.clips import to_unit
from vidcvae.errors import DataError, UsageError, typed
from vidcvae.evaluation import metrics
from vidcvae.evaluation.yardsticks import Yardstick
from vidcvae.models.interface import VideoModel
from vidcvae.models.rollout import Noise, rollout, zero_noise
from vidcvae.progress import Progress, unreported

ROWS = 32  # sequences x variants in one batch, which fit a small machine at full resolution
POSTERIOR_ROWS = 4  # fewer, because the posterior encodes all frames of a sequence at once


# Measured for each predicted frame. The baselines need no model and are scored on the same frames
MEASURES = ("psnr", "psnr_per_channel", "ssim", "mse", "temporal_difference_error")
BASELINES = ("copy_first", "copy_last_past", "copy_previous_truth")
KINDS = ("psnr", "psnr_per_channel")
COLUMNS = (*MEASURES, *(f"baseline_{name}_{kind}" for name in BASELINES for kind in KINDS))

# Only score records have these; validations during training do not. NaN if there is nothing to measure
NEAREST_POSE = "baseline_nearest_pose"
COMPARED = ("", *(f"baseline_{name}_" for name in BASELINES), f"{NEAREST_POSE}_")
MORE_COLUMNS = (
    *(f"{NEAREST_POSE}_{kind}" for kind in KINDS),
    *(f"{name}psnr_{part}" for name in COMPARED for part in ("still", "moving")),
    "share_still",
)


@dataclass(frozen=True)
class RunVariant:
    """How z is chosen, the number of the sample, and whether the conditions come from another clip."""

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
    variants: Sequence[RunVariant],
    *,
    seed: int = 0,
    frames: int = 0,
    progress: Progress = unreported,
    only: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float32,
    yardsticks: Sequence[Yardstick] = (),
) -> dict[RunVariant, list[Tensor]]:
    """Roll out every sequence in each variant, in as few batches as possible.

    ``model`` must be in eval mode. ``only`` selects sequences by number; their results do not depend
    on the selection. Sequences shorter than ``frames`` (0: no limit) are run whole. ``yardsticks`` has one entry per
    sequence; either all of them have nearest poses, or none.

    Returns for each variant and sequence a float64 table (T-P, COLUMNS), followed by MORE_COLUMNS if there are
    ``yardsticks``. Apart from these tables, memory use does not grow with the length of the sequences.
    Raises ``DataError`` for a sequence with nothing to predict, and ``UsageError`` if a variant needs the conditions of
    another clip and no other clip has the same length.
    """
    past = config.training.past
    lengths = [run_length(s, past, frames) for s in sequences]
    partners = list(range(len(sequences)))
    if any(variant.others for variant in variants):
        partners = other_clips(lengths, seed, [s.name for s in sequences])
    numbers = range(len(sequences)) if only is None else only
    jobs = [
        ([numbers[i] for i in picks], group)
        for group, rows in _run_together(variants, config)
        for picks in batches([lengths[i] for i in numbers], rows // len(group))
    ]
    total = sum(lengths[picks[0]] - past for picks, _ in jobs)
    done = 0
    measured: dict[RunVariant, dict[int, Tensor]] = {variant: {} for variant in variants}
    for picks, group in jobs:
        table = []  # (W, S, COLUMNS) for each predicted frame; read at the end, so that no step waits for the GPU
        for scores in _measure_batch(
            model,
            sequences,
            picks,
            partners,
            config,
            group,
            length=lengths[picks[0]],
            seed=seed,
            dtype=dtype,
            yardsticks=[yardsticks[i] for i in picks] if yardsticks else (),
        ):
            table.append(scores)
            done += 1
            progress(done, total)
        values = torch.stack(table).double().cpu()  # (T-P, W, S, COLUMNS)
        for row, variant in enumerate(group):
            measured[variant] |= {i: values[:, row, column] for column, i in enumerate(picks)}
    return {variant: [tables[i] for i in numbers] for variant, tables in measured.items()}


def run_length(sequence: clips.Sequence, past: int, frames: int = 0) -> int:
    """The number of frames in a run: those with truth and conditions, at most ``frames`` (0: no limit)."""
    known = min(len(sequence), sequence.condition_length)
    if known <= past:
        raise DataError(
            f"sequence {sequence.name} has {known} frame{'s' if known != 1 else ''} with truth, of which {past} "
            f"{'is' if past == 1 else 'are'} given: nothing is left to score.",
            "Score another split (--split val), or make its video: vidcvae export",
        )
    return min(known, frames or known)


def diverged(path: Path, made: str = "frames that are not finite numbers") -> DataError:
    """The error for a checkpoint whose weights give numbers that are not finite."""
    return DataError(f"the weights of {path} make {made}.", f"Check the file: {typed('checkpoint', 'verify', path)}")


def batches(lengths: Sequence[int], width: int = ROWS) -> Iterator[list[int]]:
    """Group the numbers of sequences of equal length, at most ``width`` in a group."""
    for length in dict.fromkeys(lengths):
        alike = [i for i, other in enumerate(lengths) if other == length]
        for begin in range(0, len(alike), width):
            yield alike[begin : begin + width]


def other_clips(lengths: Sequence[int], seed: int, names: Sequence[str] = ()) -> list[int]:
    """Assign to each clip another clip of the same length, each used once: a derangement, fixed by ``seed``.

    The clips of one length are put in a circle in random order, and each is assigned the next one.
    """
    partners = [0] * len(lengths)
    for picks in batches(lengths, len(lengths)):
        if len(picks) == 1:
            name = names[picks[0]] if names else picks[0]
            raise UsageError(
                f"no other clip has the {lengths[picks[0]]} frames of {name}, so there are no actions to give it.",
                "Score a number of frames that all clips have (--future N), or another split.",
            )
        circle = [picks[i] for i in rng.permutation(len(picks), seed, "other-clips", lengths[picks[0]])]
        for position, clip in enumerate(circle):
            partners[clip] = circle[(position + 1) % len(circle)]
    return partners


def sequence_noise(shape: Sequence[int], seed: int, rows: Iterable[int], device: str | torch.device = "cpu") -> Noise:
    """Noise for a rollout of the sequences (or samples) ``rows``: eps_t depends on (seed, row, t) alone.

    So a sequence gets the same noise in any batch and on any device.
    """
    rows = list(rows)

    def noise(t: int) -> Tensor:
        return rng.to_device(torch.stack([rng.normal(shape, seed, "rollout", row, t) for row in rows]), device)

    return noise


def sample_seed(seed: int, sample: int) -> int:
    """The seed of sample number ``sample``. Sample 0 uses ``seed`` itself, so a single draw equals sample 0."""
    return rng.seed_of(seed, "sample", sample) if sample else seed


def _measure_batch(
    model: VideoModel,
    sequences: Sequence[clips.Sequence],
    picks: Sequence[int],
    partners: Sequence[int],
    config: Config,
    variants: Sequence[RunVariant],
    *,
    length: int,
    seed: int,
    dtype: torch.dtype,
    yardsticks: Sequence[Yardstick],
) -> Iterator[Tensor]:
    """Yield (W, S, columns) for each predicted frame. The sequence numbers ``picks`` also select the noise."""
    chosen = [sequences[i] for i in picks]
    past, copies, device = config.training.past, len(variants), model.device

    def on_device(images: Sequence[np.ndarray]) -> Tensor:
        return to_unit(rng.to_device(torch.from_numpy(np.stack(images)), device))  # (S, ...)

    def frames_at(t: int) -> Tensor:
        return on_device([s.frames[t] for s in chosen])  # (S, 3, H, W)

    def conditions(numbers: Sequence[int]) -> Tensor | None:
        return stacked([clips.condition_rows(sequences[i], 0, length, *config.conditioning) for i in numbers])

    given = torch.from_numpy(np.stack([s.frames[:past] for s in chosen]))
    condition = conditions(picks)
    if condition is not None:
        others = conditions([partners[i] for i in picks]) if any(variant.others for variant in variants) else None
        condition = (
            _repeat(condition, copies)
            if others is None
            else torch.cat([others if variant.others else condition for variant in variants])
        )
    needs_truth = any(variant.latent == "posterior" for variant in variants)
    truth = stacked([s.frames[:length] for s in chosen]) if needs_truth else None
    predictions = rollout(
        model,
        _repeat(given, copies),
        condition,
        _noise_for(variants, model.latent_shape(*given.shape[-2:]), seed, picks, device),
        # a draw from the prior with eps = 0 equals the other latents of a group (``_run_together``)
        latent=variants[0].latent if len({variant.latent for variant in variants}) == 1 else "prior",
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


def _run_together(variants: Sequence[RunVariant], config: Config) -> Iterator[tuple[list[RunVariant], int]]:
    """Group the variants that one batch can roll out, and yield each group with the most rows of its batches.

    The prior's mean is a draw from the prior with eps = 0, and is z = 0 unless the prior is learned.
    """
    as_draws = {"prior", "prior-mean"} | (set() if config.model.learned_prior else {"zero"})
    groups: dict[str, list[RunVariant]] = {}
    for variant in variants:
        groups.setdefault("prior" if variant.latent in as_draws else variant.latent, []).append(variant)
    for latent, group in groups.items():
        rows = POSTERIOR_ROWS if latent == "posterior" else ROWS
        yield from ((group[begin : begin + rows], rows) for begin in range(0, len(group), rows))


def _noise_for(
    variants: Sequence[RunVariant], shape: Sequence[int], seed: int, picks: Sequence[int], device: str | torch.device
) -> Noise:
    """Noise (W * S, S*), variant by variant: eps of each sequence if z is drawn, 0 if z is a mean."""
    draw = {
        variant.sample: sequence_noise(shape, sample_seed(seed, variant.sample), picks, device)
        for variant in variants
        if variant.draws
    }
    if not draw:
        return zero_noise
    zeros = torch.zeros(len(picks), *shape, device=device)

    def noise(t: int) -> Tensor:
        eps = {sample: drawn(t) for sample, drawn in draw.items()}  # drawn once for all variants that share it
        return torch.cat([eps[variant.sample] if variant.draws else zeros for variant in variants])

    return noise


def stacked(arrays: Sequence[np.ndarray | None]) -> Tensor | None:
    """B arrays (T, ...) -> (B, T, ...); None if there are none. A single memory-mapped array is not read from disk."""
    known = [array for array in arrays if array is not None]
    if not known:
        return None
    if len(known) == 1 and known[0].flags.writeable:
        return torch.from_numpy(known[0])[None]
    return torch.from_numpy(np.stack(known))


def _repeat(batch: Tensor, copies: int) -> Tensor:
    """(S, ...) -> (W * S, ...), without a copy if S is 1."""
    if len(batch) == 1:
        return batch.expand(copies, *batch.shape[1:])
    return batch.repeat(copies, *[1] * (batch.dim() - 1))
