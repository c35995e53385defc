"""The effect of z on one frame: several draws of z for the same past and condition, side by side."""

from __future__ import annotations

import numpy as np

from vidcvae.data import clips
from vidcvae.errors import UsageError
from vidcvae.evaluation.free_run import run_length, sequence_noise
from vidcvae.models.loading import Loaded
from vidcvae.models.rollout import rollout
from vidcvae.output import pictures
from vidcvae.output.generation import GenerationInput, latent_shape
from vidcvae.output.video import to_bytes

SAMPLES = 6


def samples_picture(loaded: Loaded, sequence: clips.Sequence, frame: int, *, seed: int = 0) -> pictures.Frame:
    """Frame ``frame`` from its true past: the truth, samples with z ~ prior, and their standard deviation as grey.

    The grey runs from 0 to the maximum. Raises ``UsageError`` if the frame cannot be predicted.
    """
    past, model = loaded.config.training.past, loaded.model
    known = run_length(sequence, past)
    if not past <= frame < known:
        raise UsageError(
            f"frame {frame} of {sequence.name} cannot be drawn.", f"Choose one of {past} to {known - 1} (--frame N)."
        )
    given = GenerationInput.of(sequence, frame - past, past + 1, loaded.config)
    noise = sequence_noise(latent_shape(loaded), seed, range(SAMPLES), loaded.device)
    (samples,) = rollout(model, *given.batch(SAMPLES), noise, latent="prior", length=past + 1)
    samples = samples.float().cpu()  # (SAMPLES, 3, H, W)
    spread = samples.std(dim=0, correction=0).mean(dim=0)  # (H, W)
    grey = (spread / spread.max().clamp(min=1e-12)).expand(3, -1, -1)
    images = [np.asarray(sequence.frames[frame]), *to_bytes(samples), to_bytes(grey)]
    titles = ["truth", *(f"sample {k + 1}" for k in range(SAMPLES)), f"std 0..{255 * spread.max():.2g}/255"]
    return pictures.panel(images, titles)
