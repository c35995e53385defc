"""Score a model during its training, by free runs over the validation split."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from vidcvae.config import Config
from vidcvae.config.schema import DrawnLatent, Metric
from vidcvae.data import clips
from vidcvae.data.clips import VideoData
from vidcvae.errors import NonFiniteError
from vidcvae.evaluation.free_run import RunVariant, measure, run_length
from vidcvae.evaluation.records import digest_of
from vidcvae.evaluation.score import summaries
from vidcvae.progress import Progress
from vidcvae.training.state import TrainingState

LATENTS: tuple[DrawnLatent, ...] = get_args(DrawnLatent)  # z is 0, or drawn as in the course
METRICS: tuple[Metric, ...] = get_args(Metric)
Tables = dict[RunVariant, list[Tensor]]


def baseline(config: Config) -> str:
    """The key of the baseline: the PSNR of repeating the first frame, or the last given one."""
    return "baseline_copy_last_past_psnr" if config.training.past > 1 else "baseline_copy_first_psnr"


def measured(
    state: TrainingState,
    config: Config,
    sequences: Sequence[clips.Sequence],
    only: Sequence[int],
    progress: Progress,
) -> Tables:
    """``free_run.measure`` of the sequences ``only``, with the moving average of the weights if there is one."""
    variants, frames, seed = [RunVariant(z) for z in LATENTS], config.validation.frames, config.training.seed
    with _eval_weights(state):
        return measure(
            state.model,
            sequences,
            config,
            variants,
            seed=seed,
            frames=frames,
            progress=progress,
            only=only,
        )


def scores(tables: Tables, sequences: Sequence[clips.Sequence], config: Config, step: int) -> dict[str, Any]:
    """The scores for the history. Raises ``NonFiniteError`` if one is not finite."""
    means = summaries(tables, sequences)
    record: dict[str, Any] = {}
    for latent in LATENTS:
        record[f"psnr_{latent}"] = means[latent]["psnr_mean"]
        record[f"ssim_{latent}"] = means[latent]["ssim_mean"]
        record[f"psnr_{latent}_per_frame"] = means[latent]["psnr_per_frame"]
    record[baseline(config)] = means["zero"][baseline(config)]
    for metric in METRICS:
        if not math.isfinite(record[metric]):
            raise NonFiniteError(
                f"the validation's {metric} became {record[metric]} at step {step}; "
                f"the checkpoints saved before are intact.",
                f"Try a lower learning rate (--lr {config.optimizer.lr / 3:.2g}).",
            )
    return record


def counted(before: dict[str, Any], data: VideoData, config: Config) -> dict[str, Any]:
    """How the best checkpoint was chosen (metric, data and number of validations), after one more than ``before``.

    Checkpoints keep this, and so do the scores of a model that was chosen by it."""
    sequences, past = data.split("val"), config.training.past
    return {
        "split": data.split_name("val"),
        "data_digest": digest_of(sequences, [run_length(s, past) for s in sequences]),
        "metric": config.validation.metric,
        "count": before.get("count", 0) + 1,
    }


@contextlib.contextmanager
def _eval_weights(state: TrainingState) -> Iterator[None]:
    """Put the model into eval mode, with the moving average of its weights if there is one, for a block."""
    state.model.eval()
    raw = {name: p.detach().clone() for name, p in state.model.named_parameters()} if state.ema else {}
    _put(state, state.ema)
    try:
        yield
    finally:
        _put(state, raw)


@torch.no_grad()
def _put(state: TrainingState, weights: dict[str, Tensor]) -> None:
    for name, parameter in state.model.named_parameters() if weights else ():
        parameter.copy_(weights[name])
