"""LPIPS and FVD of a free run, computed by networks that the user supplies as TorchScript files.

The networks have authors and licences of their own, so none is part of this package. A TorchScript file is a program:
load one only from a source you trust.

S sequences, T frames; C H W a frame, F features.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidcvae.config import Config
from vidcvae.config.schema import Latent
from vidcvae.data import clips
from vidcvae.data.clips import to_unit
from vidcvae.errors import DataError, UsageError
from vidcvae.evaluation.free_run import sequence_noise, stacked
from vidcvae.models.interface import VideoModel
from vidcvae.models.rollout import rollout
from vidcvae.progress import Progress, unreported

WINDOW = 16  # frames in a clip for FVD, as in Unterthiner et al. 2019


def load_network(path: Path, device: str | torch.device = "cpu") -> nn.Module:
    """Load a TorchScript file; raises ``DataError`` if it is missing or is another kind of file."""
    if not path.is_file():
        raise DataError(f"there is no file {path}.", "Give the TorchScript file of the network (torch.jit.save).")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated, and no other format replaces it yet
            network: nn.Module = torch.jit.load(str(path), map_location=str(device))
    except (RuntimeError, ValueError, OSError) as error:
        raise DataError(
            f"{path} is not a TorchScript file: {str(error).strip().splitlines()[0]}",
            "Make one from the network: torch.jit.save(torch.jit.trace(network, examples), FILE). "
            "A file of weights alone (a state dict) does not describe the network.",
        ) from None
    return network.eval()


def measure_perceptual(
    model: VideoModel,
    sequences: Sequence[clips.Sequence],
    config: Config,
    lengths: Sequence[int],
    *,
    lpips: Path | None = None,
    fvd: Path | None = None,
    latent: Latent = "zero",
    seed: int = 0,
    progress: Progress = unreported,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """``{"lpips_mean", "fvd", "fvd_clips"}`` of one free run of each sequence, ``lengths`` frames long.

    lpips: a network that takes two batches of frames (B, 3, H, W) in -1..1 and returns B distances (Zhang et al. 2018).
    fvd: a network that takes clips (B, 3, 16, H, W) in -1..1 and returns features (B, F). Truth and predictions are cut
        into consecutive clips of 16 predicted frames; remaining frames at the end are not used.
    Raises ``DataError`` for a network with other inputs or outputs, ``UsageError`` for fewer than two clips.
    """
    judge = partial(_distances, load_network(lpips, model.device), lpips) if lpips else None
    extract = partial(_features, load_network(fvd, model.device), fvd) if fvd else None
    past = config.training.past
    if fvd and sum((n - past) // WINDOW for n in lengths) < 2:
        raise UsageError(
            f"FVD needs at least two clips of {WINDOW} predicted frames; here are fewer.", "Leave out --fvd-weights."
        )
    distances: list[Tensor] = []
    features: tuple[list[Tensor], list[Tensor]] = ([], [])
    total, done = sum(n - past for n in lengths), 0
    for row, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
        for made, truth in _windows(model, sequence, config, row, length, latent, seed, dtype):
            if judge:
                distances.append(judge(made, truth))
            if extract and len(made) == WINDOW:
                for kept, clip in zip(features, (truth, made), strict=True):
                    kept.append(extract(clip))
            done += len(made)
            progress(done, total)
    result: dict[str, Any] = {}
    if distances:
        result["lpips_mean"] = torch.cat(distances).double().mean().item()
    if features[0]:
        result["fvd"] = frechet_distance(*(torch.stack(kept).double().cpu().numpy() for kept in features))
        result["fvd_clips"] = len(features[0])
    return result


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Distance of Gaussians fitted to features (N, F) and (M, F): |mu_a - mu_b|^2 + tr(A + B - 2 (A B)^(1/2)).

    Dowson & Landau 1982, with sample covariances. (A B)^(1/2) has the same trace as (A^(1/2) B A^(1/2))^(1/2). The
    latter matrix is symmetric, so its eigenvalues are real; those that rounding makes negative are set to 0.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(min=0)).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * shared)


def _windows(
    model: VideoModel,
    sequence: clips.Sequence,
    config: Config,
    row: int,
    length: int,
    latent: Latent,
    seed: int,
    dtype: torch.dtype,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Predictions and truth of a free run, each (T, 3, H, W) in -1..1, 16 frames at a time; the last may be fewer."""
    past = config.training.past
    condition = clips.condition_rows(sequence, 0, length, *config.conditioning)
    predictions = rollout(
        model,
        torch.from_numpy(np.array(sequence.frames[None, :past])),
        stacked([condition]),
        sequence_noise(model.latent_shape(*sequence.frames.shape[-2:]), seed, [row], model.device),
        latent=latent,
        length=length,
        truth=torch.from_numpy(np.array(sequence.frames[None, :length])) if latent == "posterior" else None,
        dtype=dtype,
    )
    made: list[Tensor] = []
    for t, frame in enumerate(predictions, start=past):
        made.append(frame[0].float())
        if len(made) == WINDOW or t == length - 1:
            truth = to_unit(torch.from_numpy(np.array(sequence.frames[t + 1 - len(made) : t + 1])).to(model.device))
            yield torch.stack(made) * 2 - 1, truth * 2 - 1
            made = []


@torch.inference_mode()
def _distances(judge: nn.Module, path: Path, made: Tensor, truth: Tensor) -> Tensor:
    distances = _call(judge, path, "two batches of frames (B, 3, H, W)", made, truth)
    if distances.numel() != len(made):
        raise DataError(
            f"{path} returns {list(distances.shape)} for {len(made)} pairs of frames, not one distance per pair.",
            "--lpips-weights needs a network that takes two batches of frames in -1..1.",
        )
    return distances.reshape(-1).cpu()


@torch.inference_mode()
def _features(extract: nn.Module, path: Path, clip: Tensor) -> Tensor:
    features = _call(extract, path, f"clips (B, 3, {WINDOW}, H, W)", clip.transpose(0, 1)[None])
    if features.dim() != 2 or len(features) != 1:
        raise DataError(
            f"{path} returns {list(features.shape)} for one clip, not features (1, F).",
            f"--fvd-weights needs a network that takes clips (B, 3, {WINDOW}, H, W) in -1..1.",
        )
    return features[0].cpu()


def _call(network: nn.Module, path: Path, what: str, *inputs: Tensor) -> Tensor:
    try:
        output = network(*inputs)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"the network in {path} fails on {what} of {tuple(inputs[0].shape)}: {reason}") from None
    if not isinstance(output, Tensor):
        raise DataError(f"the network in {path} returns a {type(output).__name__}, not a tensor.")
    if not output.isfinite().all():
        raise DataError(f"the network in {path} returns numbers that are not finite.")
    return output
