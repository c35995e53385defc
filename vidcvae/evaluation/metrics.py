"""Measures of the similarity of two frames.

Frames are float in 0..1 and end in the axes C, H, W. Every function returns one number per frame and broadcasts
over the axes before. Average these numbers, and never take the score of an average: by Jensen's inequality the PSNR
of a mean MSE is lower than the mean PSNR.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Identical frames would score infinity; 100 dB is more than 8 bits per channel can show
SMALLEST_MSE = 1e-10

WINDOW, SIGMA = 11, 1.5  # Wang et al. 2004, section III.B
K1, K2 = 0.01, 0.03


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error over C, H, W: (..., C, H, W) -> (...)."""
    return (a - b).square().mean(dim=(-3, -2, -1))


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, -10 log10(MSE): (..., C, H, W) -> (...). At most 100 dB."""
    return _decibels(mse(a, b))


def psnrs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """``psnr``, and the mean of the channels' PSNRs (Finn et al. 2016): (..., C, H, W) -> (...), in dB."""
    error = (a - b).square().mean(dim=(-2, -1))  # (..., C)
    return _decibels(error.mean(dim=-1)), _decibels(error).mean(dim=-1)


def psnrs_apart(a: Tensor, b: Tensor, still: Tensor) -> tuple[Tensor, Tensor]:
    """``psnr`` over the pixels that stand still, and over those that move: (..., C, H, W) -> (...), in dB.

    still: (..., H, W), 1 for a pixel that stands still and 0 for one that moves. NaN if there is no such pixel.
    """
    error = (a - b).square().mean(dim=-3)  # (..., H, W)
    at_rest, moving = ((error * part).sum(dim=(-2, -1)) / part.sum(dim=(-2, -1)) for part in (still, 1 - still))
    return _decibels(at_rest), _decibels(moving)


def _decibels(error: Tensor) -> Tensor:
    return -10 * error.clamp(min=SMALLEST_MSE).log10()


def temporal_difference_error(a: Tensor, a_before: Tensor, b: Tensor, b_before: Tensor) -> Tensor:
    """Mean over C, H, W of |(a - a_before) - (b - b_before)|: (..., C, H, W) -> (...), for values in 0..1.

    Detects flicker and freezing, but no error that stays the same from frame to frame.
    """
    return ((a - a_before) - (b - b_before)).abs().mean(dim=(-3, -2, -1))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), mean over pixels and channels: (..., C, H, W) -> (...), at most 1.

    11x11 Gaussian window with sigma 1.5, K1 = 0.01, K2 = 0.03, population covariances, over the pixels whose window
    lies within the frame. If a side has fewer than 11 pixels, the window is the largest odd one that fits.
    """
    a, b = torch.broadcast_tensors(a, b)
    # Variances are differences of near-equal numbers: float64 keeps flat areas exact
    x, y = (v.double().reshape(-1, *v.shape[-2:]) for v in (a, b))  # (M, H, W)
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _blur(torch.cat([x, y, x * x, y * y, x * y])).chunk(5)
    var_x, var_y, cov = mean_xx - mean_x**2, mean_yy - mean_y**2, mean_xy - mean_x * mean_y
    c1, c2 = K1**2, K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * cov + c2) / (var_x + var_y + c2)
    per_channel = (luminance * structure).mean(dim=(-2, -1)).reshape(a.shape[:-2])
    return per_channel.mean(dim=-1).float()


def _blur(images: Tensor) -> Tensor:
    """Gaussian mean of every full window: (M, H, W) -> (M, H - 10, W - 10)."""
    across, down = (_gaussian(side, images.device) for side in images.shape[:-3:-1])
    rows = F.conv2d(images[:, None], across.view(1, 1, 1, -1))
    return F.conv2d(rows, down.view(1, 1, -1, 1))[:, 0]


def _gaussian(side: int, device: torch.device) -> Tensor:
    size = min(WINDOW, side - (side + 1) % 2)
    weights = torch.exp(-0.5 * ((torch.arange(size, dtype=torch.float64, device=device) - size // 2) / SIGMA) ** 2)
    normalised: Tensor = weights / weights.sum()
    return normalised
