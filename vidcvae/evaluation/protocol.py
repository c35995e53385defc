"""How a score was taken, which decides whether two scores can be compared."""

from __future__ import annotations

from dataclasses import dataclass

from vidcvae import __version__
from vidcvae.config.schema import Latent


@dataclass(frozen=True)
class Protocol:
    """How a score was taken. Two scores are comparable only if these fields agree; ``records.FREE`` lists exceptions.

    past, future: numbers of frames given to the model and predicted; ``future`` has one per sequence if they differ.
    condition: "pose", "none", or the actions with the row used for the step into frame t
        ("source": t-1, which causes the frame; "target": t).
    actions: whether each clip has its "own" actions, or those "of other clips", exchanged at random by the seed.
    weights: "raw" or "ema", one of ``weights_available``.
    batch_norm: "running" statistics, those of the "batch" as in the course's code, or "none" if the model has no
        BatchNorm.
    data_digest: digest of the sequences' frames and conditions, whatever file they came from.
    precision: arithmetic of the networks; scores are computed in float64.
    """

    dataset: str
    data_digest: str
    split: str
    sequences: tuple[str, ...]
    size: str
    past: int
    future: int | tuple[int, ...]
    condition: str
    actions: str
    latent: Latent
    samples: int
    seed: int
    weights: str
    weights_available: str
    batch_norm: str
    checkpoint: str
    step: int
    version: str = __version__
    precision: str = "float32"
    clips: str = "every sequence, from its frame 0"
    given_frames_counted: bool = False
    reduce: str = "mean"
    best: str = "of each sequence the sample of the highest mean PSNR over its predicted frames"
    data_range: str = "0..1"
    quantised: bool = False
    averaging: str = "mean of the scores of all predicted frames of all sequences"
    psnr: str = "per frame, from the squared error over all its channels"
    psnr_per_channel: str = "mean of the PSNRs of a frame's channels (Finn 2016)"
    ssim: str = "Wang 2004: 11x11 Gaussian window, sigma 1.5, full windows only"
    temporal_difference_error: str = "mean of |change of the prediction - change of the truth|, from frame to frame"
