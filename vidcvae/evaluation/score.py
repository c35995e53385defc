"""Scores of free runs, each with the protocol that makes it comparable with others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, get_args

import torch
from torch import Tensor

from vidcvae.config import to_table
from vidcvae.config.schema import Latent
from vidcvae.data import clips, sizes
from vidcvae.data.clips import VideoData
from vidcvae.errors import DataError, UsageError, an, did_you_mean
from vidcvae.evaluation import nearest_pose, records
from vidcvae.evaluation.free_run import (
    COLUMNS,
    MEASURES,
    MORE_COLUMNS,
    NEAREST_POSE,
    RunVariant,
    diverged,
    measure,
    run_length,
)
from vidcvae.evaluation.latents import measure_latents
from vidcvae.evaluation.nearest_pose import NearestPose
from vidcvae.evaluation.protocol import Protocol
from vidcvae.evaluation.yardsticks import STILL_PIXELS, yardstick
from vidcvae.models import build_model
from vidcvae.models.loading import Loaded
from vidcvae.progress import Progress, unreported

LATENTS: tuple[Latent, ...] = get_args(Latent)
CURVES = ("psnr", "psnr_per_channel", "ssim", "baseline_copy_last_past_psnr")  # reported for each time step
ENDS = 50  # long runs are also scored over this many frames at either end

Scores = dict[str, Any]


def score_split(
    loaded: Loaded,
    data: VideoData,
    split: str = "val",
    latent: Latent = "zero",
    *,
    past: int = 0,
    frames: int = 0,
    samples: int = 1,
    shuffle_actions: bool = False,
    every_latent: bool = False,
    seed: int = 0,
    progress: Progress = unreported,
    trained_on: VideoData | str = "",
) -> Scores:
    """Score a model's free run over a split, started from the first frames of each sequence.

    latent: z_t is "zero", the "prior-mean", drawn from the "prior", or drawn from the "posterior" of the truth.
    past: number of given frames; 0 means as many as in training.
    frames: length of the run, including the given frames; 0 means the whole sequence.
    samples: number of draws from the prior for each sequence; the scores are means over them.
    shuffle_actions: give every clip the actions (and positions) of another clip.
    every_latent: also score the other choices of z, under ``"by_latent"``.
    trained_on: the data to search for the nearest poses, if not ``data``; or the reason why they are not available.

    Returns a score record. Predictions are compared as floats with the truth / 255, as the course does.

    - ``"psnr_mean"``, ``"psnr_per_channel_mean"``, ``"ssim_mean"``, ``"mse_mean"``, ... ; ``"psnr_per_frame"``, whose
      entry i belongs to frame ``past + i``; and the same of each sequence under ``"sequences"`` if there are several.
    - ``"baseline_copy_first_psnr"``, ...: the baselines on the same frames. For dance data,
      ``"baseline_nearest_pose_psnr"`` and the searched data, ``"nearest_pose"``; None and the reason if there are none.
    - ``"psnr_still"`` and ``"psnr_moving"``: over the ``"still_pixels"`` and the others; None if there are none.
    - ``"best"`` of several samples; ``"posterior"``, the reconstruction, unless the model is conditioned on poses.
    - For a model conditioned on actions, the score with ``"other_actions"`` (or ``"own_actions"`` if they are shuffled)
      and ``"listening_gap_psnr"``, in dB.
    - ``"kl"`` (nats per frame) and ``"active_units"`` (``latents.Latents``).
    - The model's ``"config"``, size and training time; whether the sequences were scored ``"whole"``; the
      ``"selection"`` of the checkpoint (``records.selection_of``); and the ``"protocol"``.

    Raises ``UsageError`` for an unknown latent, ``DataError`` for a split without truth or weights that have diverged.
    """
    if latent not in LATENTS:
        raise UsageError(
            f"there is no latent {latent!r}.{did_you_mean(latent, LATENTS)}", f"Choose one of {', '.join(LATENTS)}."
        )
    if samples > 1 and latent != "prior":
        raise UsageError(f"{samples} samples are draws from the prior, but z is {latent}.", "Use --latent prior.")
    trained, loaded = loaded.config, with_past(loaded, past or loaded.config.training.past)
    config = loaded.config
    kind, past = config.model.condition_kind, config.training.past
    has_actions = config.model.condition_size > 0
    if shuffle_actions and not has_actions:
        raise UsageError(
            f"{loaded.path} is {an(config.model.name)} that is not conditioned on actions, so none can be shuffled.",
            "Leave out --shuffle-actions.",
        )
    sequences = data.split(split)
    if data.size != (size := config.data.frame_size):
        raise DataError(
            f"the frames of {data.source} are {sizes.text(data.size)}, but this model makes {sizes.text(size)}.",
            "Open the dataset at the model's size, or pack it again with that --size.",
        )
    if frames:
        _check_frames(sequences, past, frames)
    lengths = [run_length(s, past, frames) for s in sequences]
    own = [RunVariant(latent, sample) for sample in range(samples)]
    others = [replace(variant, others=True) for variant in own]
    compared = has_actions and (shuffle_actions or all(lengths.count(length) > 1 for length in lengths))
    posterior = [RunVariant("posterior")] if kind != "pose" else []
    by_latent = {z: RunVariant(z) for z in LATENTS if z != latent} if every_latent else {}
    search = nearest_pose.search(data, split, trained_on or data) if data.kind == "dance" else None
    training_frames = search if isinstance(search, NearestPose) else None
    variants = dict.fromkeys([*own, *(others if compared else ()), *posterior, *by_latent.values()])
    tables = measure(
        loaded.model,
        sequences,
        config,
        list(variants),
        seed=seed,
        frames=frames,
        progress=progress,
        dtype=loaded.dtype,
        yardsticks=[yardstick(s, past, length, training_frames) for s, length in zip(sequences, lengths, strict=True)],
    )
    names = [s.name for s in sequences]
    scored, contrast, contrast_name = (
        (others, own, "own_actions") if shuffle_actions else (own, others, "other_actions")
    )
    result = _summary(_mean_of(tables, scored), names)
    if samples > 1:
        picks, best = _best_of(tables, scored)
        result["best"] = {**_without_baselines(best, names), "samples": picks}
    for variant in posterior:
        result["posterior"] = _without_baselines(tables[variant], names)
    if compared:
        result[contrast_name] = _without_baselines(_mean_of(tables, contrast), names)
        gap = result["psnr_mean"] - result[contrast_name]["psnr_mean"]
        result["listening_gap_psnr"] = -gap if shuffle_actions else gap
    if by_latent:
        result["by_latent"] = {z: _without_baselines(tables[variant], names) for z, variant in by_latent.items()}
    latents = measure_latents(loaded.model, sequences, config, lengths)
    for name, number in _numbers({**result, "kl": latents.kl}):
        if not math.isfinite(number):  # JSON cannot hold it
            raise diverged(loaded.path, *([] if name == "psnr_mean" else [f"a {name} of {number}"]))
    protocol = asdict(
        protocol_of(
            loaded, data, split, latent, frames=frames, samples=samples, shuffle_actions=shuffle_actions, seed=seed
        )
    )
    if search is not None:
        result = {
            f"{NEAREST_POSE}_psnr": None,
            **result,
            "nearest_pose": nearest_pose.describe(search, trained_on or data),
        }
    return {
        **result,
        "still_pixels": STILL_PIXELS,
        "kl": latents.kl,
        "active_units": latents.active_units,
        "latent_dimensions": latents.dimensions,
        **({"latents": latents.to_json()} if every_latent else {}),
        "model": {
            "name": config.model.name,
            "parameters": sum(p.numel() for p in loaded.model.parameters()),
            "minutes": loaded.meta.minutes,
        },
        "data": str(data.source),
        "config": to_table(trained),
        "whole": lengths == [run_length(s, past) for s in sequences],
        "selection": records.selection_of(loaded.path, loaded.run, loaded.meta, protocol),
        "protocol": protocol,
    }


def protocol_of(
    loaded: Loaded,
    data: VideoData,
    split: str = "val",
    latent: Latent = "zero",
    *,
    frames: int = 0,
    samples: int = 1,
    shuffle_actions: bool = False,
    seed: int = 0,
) -> Protocol:
    """The protocol by which ``score_split`` scores a model with these options. The defaults are the ordinary score."""
    config, sequences = loaded.config, data.split(split)
    kind, past = config.model.condition_kind, config.training.past
    has_actions = config.model.condition_size > 0
    future = [run_length(s, past, frames) - past for s in sequences]
    return Protocol(
        dataset=data.name,
        data_digest=records.digest_of(sequences, [run_length(s, past) for s in sequences]),
        split=data.split_name(split),
        sequences=tuple(s.name for s in sequences),
        size=sizes.text(data.size),
        past=past,
        future=future[0] if len(set(future)) == 1 else tuple(future),
        condition=f"{kind} ({config.data.condition})" if has_actions else kind,
        actions=("of other clips" if shuffle_actions else "own") if has_actions else "none",
        latent=latent,
        samples=samples,
        seed=seed,
        weights=loaded.weights,
        weights_available="raw, ema" if config.training.ema else loaded.weights,
        batch_norm=_batch_norm(loaded),
        checkpoint=loaded.digest,
        step=loaded.meta.step,
        precision=str(loaded.dtype).removeprefix("torch."),
    )


def _numbers(scores: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Yield every float in a tree of scores, with the innermost key above it."""
    if isinstance(scores, float):
        yield name, scores
    elif isinstance(scores, dict | list):
        for key, value in scores.items() if isinstance(scores, dict) else ((name, value) for value in scores):
            yield from _numbers(value, key)


def summaries(tables: dict[RunVariant, list[Tensor]], sequences: Sequence[clips.Sequence]) -> dict[str, Scores]:
    """The scores of each variant, by its latent, from the tables of all sequences."""
    names = [s.name for s in sequences]
    return {variant.latent: _summary(per_sequence, names) for variant, per_sequence in tables.items()}


def with_past(loaded: Loaded, past: int) -> Loaded:
    """The same weights in a model that is given ``past`` frames; ``UsageError`` if it cannot use so many."""
    config = loaded.config
    if past == config.training.past:
        return loaded
    if config.model.condition_kind == "pose":
        raise UsageError(f"{an(config.model.name)} starts from one given frame, not from {past}.", "Leave out --past.")
    config = replace(config, training=replace(config.training, past=past))
    model = build_model(config)
    model.load_state_dict(loaded.model.state_dict())
    return replace(loaded, model=model.eval().to(loaded.device), config=config)


def _mean_of(tables: dict[RunVariant, list[Tensor]], variants: Sequence[RunVariant]) -> list[Tensor]:
    """For each sequence the mean over samples, (T-P, COLUMNS)."""
    return [
        torch.stack(samples).mean(dim=0) for samples in zip(*(tables[variant] for variant in variants), strict=True)
    ]


def _best_of(tables: dict[RunVariant, list[Tensor]], variants: Sequence[RunVariant]) -> tuple[list[int], list[Tensor]]:
    """For each sequence the number of the sample with the highest mean PSNR over its frames, and its table."""
    per_sequence = list(zip(*(tables[variant] for variant in variants), strict=True))
    picks = [max(range(len(variants)), key=lambda k: samples[k][:, 0].mean().item()) for samples in per_sequence]
    return picks, [samples[k] for k, samples in zip(picks, per_sequence, strict=True)]


def _without_baselines(per_sequence: Sequence[Tensor], names: Sequence[str]) -> Scores:
    """The scores of another run of the same clips, without the baselines, which do not change."""
    unchanged = ("sequences", "baseline", "share_still")
    return {key: value for key, value in _summary(per_sequence, names).items() if not key.startswith(unchanged)}


def _summary(per_sequence: Sequence[Tensor], names: Sequence[str]) -> Scores:
    """Scores from the table (T-P, COLUMNS) of each sequence."""
    scores: Scores = _means(torch.cat(list(per_sequence)))
    longest = max(map(len, per_sequence))
    steps = [torch.stack([t[i] for t in per_sequence if i < len(t)]).mean(dim=0) for i in range(longest)]
    for name in CURVES:
        scores[f"{name}_per_frame"] = torch.stack(steps)[:, COLUMNS.index(name)].tolist()
    if longest >= 2 * ENDS:
        curve = scores["psnr_per_frame"]
        scores |= {f"psnr_first_{ENDS}": sum(curve[:ENDS]) / ENDS, f"psnr_last_{ENDS}": sum(curve[-ENDS:]) / ENDS}
    if len(names) > 1:
        scores["sequences"] = [
            {"name": name, "psnr_per_frame": table[:, 0].tolist(), **_means(table)}
            for name, table in zip(names, per_sequence, strict=True)
        ]
    return scores


def _means(table: Tensor) -> Scores:
    """The mean of each column: None if nothing could be measured, and no nearest poses if none were searched."""
    count = len(COLUMNS)
    more = MORE_COLUMNS if table.shape[1] > count else ()
    keys = [*(f"{name}_mean" if name in MEASURES else name for name in COLUMNS), *more]
    numbers = torch.cat([table[:, :count].mean(dim=0), table[:, count:].nanmean(dim=0)]).tolist()
    means = dict(zip(keys, numbers, strict=True))
    scores: Scores = {key: None if key in more and math.isnan(mean) else mean for key, mean in means.items()}
    searched = scores.get(f"{NEAREST_POSE}_psnr") is not None
    return {key: mean for key, mean in scores.items() if searched or not key.startswith(NEAREST_POSE)}


def _batch_norm(loaded: Loaded) -> str:
    if loaded.batch_stats:
        return "batch"
    normalised = any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in loaded.model.modules())
    return "running" if normalised else "none"


def _check_frames(sequences: Sequence[clips.Sequence], past: int, frames: int) -> None:
    for sequence in sequences:
        known = run_length(sequence, past)
        if not past < frames <= known:
            raise UsageError(
                f"cannot score {frames} frames of sequence {sequence.name}: it has {known}, of which {past} "
                f"{'is' if past == 1 else 'are'} given.",
                f"Choose --future from 1 to {known - past} (--frames counts given frames too), or neither for all.",
            )
