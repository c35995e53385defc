"""Free runs scored against the truth, frame by frame, with the protocol that makes the numbers comparable.

L ways to choose z, S sequences rolled out together, T frames of a sequence, P given ones; C H W a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidcvae import __version__, rng
from vidcvae.config import Config
from vidcvae.data import clips
from vidcvae.data.clips import VideoData, to_unit
from vidcvae.errors import DataError, UsageError, did_you_mean
from vidcvae.evaluation import metrics
from vidcvae.models.interface import VideoModel
from vidcvae.models.loading import Loaded
from vidcvae.models.rollout import Noise, rollout, zero_noise

LATENTS = ("zero", "prior-mean", "prior", "posterior")
ROWS = 32  # sequences x latents in one batch: what fits a small machine at full resolution

Scores = dict[str, Any]
Progress = Callable[[int, int], None]

# What is measured of each predicted frame; the baselines need no model and see the same frames
MEASURES = ("psnr", "ssim", "mse", "temporal_difference_error")
BASELINES = ("copy_first", "copy_last_past", "copy_previous_truth")


@dataclass(frozen=True)
class Protocol:
    """How a score came about. Two scores may be compared only if these agree (but for the checkpoint and version).

    past, future: frames given to the model and frames predicted, of each sequence in turn if they differ.
    condition: "pose", "none", or the actions with the row that goes with the step into frame t
        ("source": t-1, which causes it; "target": t).
    batch_norm: "running" statistics, or those of the "batch" as in the course's code.
    """

    dataset: str
    split: str
    sequences: tuple[str, ...]
    size: str
    past: int
    future: int | tuple[int, ...]
    condition: str
    latent: str
    seed: int
    weights: str
    batch_norm: str
    checkpoint: str
    step: int
    version: str = __version__
    given_frames_counted: bool = False
    samples: int = 1
    reduce: str = "mean"
    data_range: str = "0..1"
    quantised: bool = False
    averaging: str = "mean of the scores of all predicted frames of all sequences"
    ssim: str = "Wang 2004: 11x11 Gaussian window, sigma 1.5, full windows only"


def score_split(
    loaded: Loaded,
    data: VideoData,
    split: str = "val",
    latent: str = "zero",
    *,
    seed: int = 0,
    frames: int = 0,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> Scores:
    """The scores of a model's free run over a split, from the first frames of each sequence, and their protocol.

    latent: z_t is "zero", the "prior-mean", drawn from the "prior", or drawn from the "posterior" of the truth.
    frames: length of the run, given frames included; 0 takes the whole sequence.

    Returns ``{"psnr_mean", "psnr_per_frame", "ssim_mean", "mse_mean", "baseline_copy_first_psnr", ...,
    "protocol"}``; entry i of ``psnr_per_frame`` belongs to frame ``past + i``. Several sequences are listed one by
    one under ``"sequences"`` too. Predictions are compared as floats with the truth / 255, as the course does.
    Raises ``UsageError`` for an unknown latent and ``DataError`` for a split without truth.
    """
    if latent not in LATENTS:
        raise UsageError(
            f"there is no latent {latent!r}.{did_you_mean(latent, LATENTS)}", f"Choose one of {', '.join(LATENTS)}."
        )
    config = loaded.config
    sequences = data.split(split)
    if data.size != config.data.size:
        raise DataError(
            f"the frames of {data.source} are {_size(data.size)}, but this model makes {_size(config.data.size)}.",
            "Open the dataset at the model's size, or pack it again with that --size.",
        )
    if frames:
        _check_frames(sequences, config.training.past, frames)
    result = score_rollout(
        loaded.model, sequences, config, (latent,), seed=seed, frames=frames, device=device, progress=progress
    )[latent]
    if not np.isfinite(result["psnr_mean"]):
        raise DataError(
            f"the weights of {loaded.path} make frames that are not finite numbers.",
            f"Check them: vidcvae checkpoint verify {loaded.path}",
        )
    future = [_length(s, config.training.past, frames) - config.training.past for s in sequences]
    protocol = Protocol(
        dataset=data.name,
        split=split,
        sequences=tuple(s.name for s in sequences),
        size=_size(data.size),
        past=config.training.past,
        future=future[0] if len(set(future)) == 1 else tuple(future),
        condition=_condition(config),
        latent=latent,
        seed=seed,
        weights=loaded.weights,
        batch_norm="batch" if loaded.batch_stats else "running",
        checkpoint=loaded.digest,
        step=loaded.meta.get("step", 0),
    )
    return {**result, "protocol": asdict(protocol)}


def score_rollout(
    model: VideoModel,
    sequences: Sequence[clips.Sequence],
    config: Config,
    latents: Sequence[str] = ("zero", "prior"),
    *,
    seed: int = 0,
    frames: int = 0,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> dict[str, Scores]:
    """Roll out every sequence with each way of choosing z, as few runs side by side as that takes.

    ``model`` must be in eval mode and on ``device``. Sequences shorter than ``frames`` are scored whole. Returns
    ``score_split``'s numbers for each latent. Memory does not grow with the length of the sequences, but for a
    handful of numbers a frame. Raises ``DataError`` for a sequence with nothing to predict.
    """
    past = config.training.past
    lengths = [_length(s, past, frames) for s in sequences]
    groups = _run_together(latents, config)
    jobs = [(picks, names) for names in groups for picks in batches(lengths, max(1, ROWS // len(names)))]
    total = sum(lengths[picks[0]] - past for picks, _ in jobs)
    done = 0
    measured: dict[str, dict[int, Tensor]] = {latent: {} for latent in latents}
    for picks, names in jobs:
        length = lengths[picks[0]]
        table = []  # of (L, S, measures) for each predicted frame; read back at the end, so that nothing waits
        chosen = {i: sequences[i] for i in picks}
        for numbers in _score_batch(model, chosen, config, names, length=length, seed=seed, device=device):
            table.append(numbers)
            done += 1
            if progress:
                progress(done, total)
        numbers = torch.stack(table).double().cpu()  # (T-P, L, S, measures)
        for row, latent in enumerate(names):
            measured[latent] |= {i: numbers[:, row, column] for column, i in enumerate(picks)}
    return {
        latent: _summary([found[i] for i in range(len(sequences))], [s.name for s in sequences])
        for latent, found in measured.items()
    }


def sequence_noise(shape: Sequence[int], seed: int, rows: Iterable[int], device: str | torch.device = "cpu") -> Noise:
    """Noise for a rollout of sequences (or samples) ``rows``: eps_t of each is a function of (seed, row, t) alone.

    So a sequence meets the same noise in whatever company, and on whatever device, it is rolled out.
    """
    rows = list(rows)

    def noise(t: int) -> Tensor:
        return torch.stack([rng.normal(shape, seed, "rollout", row, t) for row in rows]).to(device)

    return noise


def batches(lengths: Sequence[int], width: int = ROWS) -> Iterator[list[int]]:
    """Which sequences are rolled out together: those of one length, ``width`` of them at most."""
    for length in dict.fromkeys(lengths):
        alike = [i for i, other in enumerate(lengths) if other == length]
        for begin in range(0, len(alike), width):
            yield alike[begin : begin + width]


def _score_batch(
    model: VideoModel,
    numbered: Mapping[int, clips.Sequence],
    config: Config,
    latents: Sequence[str],
    *,
    length: int,
    seed: int,
    device: str | torch.device,
) -> Iterator[Tensor]:
    """Yield (L, S, measures) for each predicted frame; the sequences' numbers choose their noise."""
    sequences = list(numbered.values())
    kind, pairing = config.model.condition, config.data.condition
    past = config.training.past
    copies = len(latents)

    def frames_at(t: int) -> Tensor:
        return to_unit(torch.from_numpy(np.stack([s.frames[t] for s in sequences])).to(device))  # (S, 3, H, W)

    given = torch.from_numpy(np.stack([s.frames[:past] for s in sequences]))
    condition = _stack([clips.condition_rows(s, 0, length, kind, pairing) for s in sequences])
    truth = _stack([s.frames[:length] for s in sequences]) if "posterior" in latents else None
    draw = sequence_noise(model.latent_shape(*given.shape[-2:]), seed, numbered, device)
    predictions = rollout(
        model,
        _repeat(given, copies),
        None if condition is None else _repeat(condition, copies),
        _noise_for(latents, draw),
        latent=latents[0] if copies == 1 else "prior",  # eps = 0 makes the other latents of a draw from the prior
        length=length,
        truth=truth,
    )
    first, last_past = frames_at(0), frames_at(past - 1)
    before, guess_before = last_past, last_past.expand(copies, *last_past.shape)
    for t, prediction in enumerate(predictions, start=past):
        target = frames_at(t)
        guess = prediction.unflatten(0, (copies, len(sequences)))  # (L, S, 3, H, W)
        values = [
            metrics.psnr(guess, target),
            metrics.ssim(guess, target),
            metrics.mse(guess, target),
            metrics.temporal_difference_error(guess, guess_before, target, before),
        ]
        values += [metrics.psnr(copy, target).expand(copies, -1) for copy in (first, last_past, before)]
        yield torch.stack(values, dim=-1)
        before, guess_before = target, guess


def _run_together(latents: Sequence[str], config: Config) -> list[tuple[str, ...]]:
    """Group what one batch can roll out as draws from the prior: its mean is eps = 0, which is z = 0 unless learned."""
    learned = config.model.name == "svg-lp"
    draws = tuple(name for name in latents if name in ("prior", "prior-mean") or (name == "zero" and not learned))
    return [group for group in (draws, *((name,) for name in latents if name not in draws)) if group]


def _noise_for(latents: Sequence[str], draw: Noise) -> Noise:
    """Rows latent by latent: eps of the sequences where z is drawn, 0 where it is a mean."""
    if not {"prior", "posterior"} & set(latents):
        return zero_noise

    def noise(t: int) -> Tensor:
        eps = draw(t)
        return torch.cat([eps if name in ("prior", "posterior") else torch.zeros_like(eps) for name in latents])

    return noise


def _summary(per_sequence: Sequence[Tensor], names: Sequence[str]) -> Scores:
    """Scores from (T-P, measures) of each sequence."""
    psnrs = [table[:, 0] for table in per_sequence]
    longest = max(len(psnr) for psnr in psnrs)
    per_frame = [torch.stack([p[i] for p in psnrs if i < len(p)]).mean().item() for i in range(longest)]
    scores: Scores = {"psnr_per_frame": per_frame, **_means(torch.cat(list(per_sequence)))}
    if len(names) > 1:
        scores["sequences"] = [
            {"name": name, "psnr_per_frame": table[:, 0].tolist(), **_means(table)}
            for name, table in zip(names, per_sequence, strict=True)
        ]
    return scores


def _means(table: Tensor) -> Scores:
    values = table.mean(dim=0).tolist()
    keys = [f"{name}_mean" for name in MEASURES] + [f"baseline_{name}_psnr" for name in BASELINES]
    return dict(zip(keys, values, strict=True))


def _length(sequence: clips.Sequence, past: int, frames: int) -> int:
    """The frames of a run: those whose truth and conditions are known, ``frames`` at most (0: all)."""
    known = min(len(sequence), sequence.condition_length)
    if known <= past:
        raise DataError(
            f"sequence {sequence.name} has {known} frame{'s' if known != 1 else ''} with truth, of which {past} "
            f"{'is' if past == 1 else 'are'} given: nothing is left to score.",
            "Score another split (--split val), or make its video: vidcvae export",
        )
    return min(known, frames or known)


def _check_frames(sequences: Sequence[clips.Sequence], past: int, frames: int) -> None:
    for sequence in sequences:
        known = _length(sequence, past, 0)
        if not past < frames <= known:
            raise UsageError(
                f"cannot score {frames} frames of sequence {sequence.name}: it has {known}, of which {past} "
                f"{'is' if past == 1 else 'are'} given.",
                f"Choose --frames between {past + 1} and {known}, or 0 for all.",
            )


def _condition(config: Config) -> str:
    kind = config.model.condition
    return kind if kind in ("pose", "none") else f"{kind} ({config.data.condition})"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _stack(arrays: Sequence[np.ndarray | None]) -> Tensor | None:
    """(B, T, ...); a single memory-mapped array stays on the disk."""
    known = [array for array in arrays if array is not None]
    if not known:
        return None
    if len(known) == 1 and known[0].flags.writeable:
        return torch.from_numpy(known[0])[None]
    return torch.from_numpy(np.stack(known))


def _repeat(batch: Tensor, copies: int) -> Tensor:
    """(S, ...) -> (L * S, ...), without a copy where S is 1."""
    if len(batch) == 1:
        return batch.expand(copies, *batch.shape[1:])
    return batch.repeat(copies, *[1] * (batch.dim() - 1))
