"""What the latent changes in one frame: several draws of z for the same past and condition, in a row."""

from __future__ import annotations

import numpy as np
import torch

from vidcvae.data import clips
from vidcvae.errors import UsageError
from vidcvae.evaluation.free_run import run_length, sequence_noise
from vidcvae.models.loading import Loaded
from vidcvae.models.rollout import rollout
from vidcvae.output import pictures

SAMPLES = 6


def draw_samples(
    loaded: Loaded, sequence: clips.Sequence, frame: int, *, samples: int = SAMPLES, seed: int = 0
) -> np.ndarray:
    """Frame ``frame`` of a sequence from its true past, for several z ~ prior: float (samples, 3, H, W) in 0..1."""
    config, past = loaded.config, loaded.config.training.past
    known = run_length(sequence, past)
    if not past <= frame < known:
        raise UsageError(
            f"frame {frame} of {sequence.name} cannot be drawn.", f"Choose one of {past} to {known - 1} (--frame N)."
        )
    begin = frame - past
    rows = clips.condition_rows(sequence, begin, past + 1, config.model.condition, config.data.condition)
    given = torch.from_numpy(np.array(sequence.frames[None, begin:frame]))
    condition = None if rows is None else torch.from_numpy(np.array(rows))[None]
    run = rollout(
        loaded.model,
        given.expand(samples, *given.shape[1:]),
        None if condition is None else condition.expand(samples, *condition.shape[1:]),
        sequence_noise(
            loaded.model.latent_shape(*given.shape[-2:]),
            seed,
            range(samples),
            next(loaded.model.parameters()).device,
        ),
        latent="prior",
        length=past + 1,
    )
    drawn: np.ndarray = next(run).float().cpu().numpy()
    return drawn


def samples_picture(loaded: Loaded, sequence: clips.Sequence, frame: int, *, seed: int = 0) -> pictures.Frame:
    """Truth, samples, and where they differ: the standard deviation over samples, as grey from 0 to its maximum."""
    drawn = draw_samples(loaded, sequence, frame, seed=seed)
    spread = drawn.std(axis=0).mean(axis=0)  # (H, W)
    grey = np.broadcast_to(spread / max(float(spread.max()), 1e-12), drawn.shape[1:])
    images = [np.asarray(sequence.frames[frame]), *_to_bytes(drawn), _to_bytes(grey)]
    titles = ["truth", *(f"sample {k + 1}" for k in range(len(drawn))), f"std 0..{255 * spread.max():.2g}/255"]
    return pictures.panel(images, titles)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return (values * 255).round().clip(0, 255).astype(np.uint8)
