"""The terms of the conditional ELBO, one number each, in full precision.

B batch, T frames that are predicted, S* the latent's shape. Every term is summed over the T steps and averaged
over the batch, so that the total is what the course's loop back-propagates.
"""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor
from torch.nn import functional as F

from vidcvae.config.schema import Reconstruction, Reduction
from vidcvae.models.interface import Gaussian, full

FLOOR = 1e-4  # 40 dB: no need to improve a frame beyond this
MOVING = 0.05  # a pixel moves if a channel changes by more than this, for values in 0..1


def kl_elements(q: Gaussian, p: Gaussian | None = None) -> Tensor:
    """KL(q || p) of each element of two diagonal Gaussians; ``p`` defaults to N(0, I).

    Kingma & Welling 2014, appendix B, for N(0, I); Denton & Fergus 2018, section 3, for a learned prior.
    """
    mu, logvar = full(q[0]), full(q[1])
    if p is None:
        return -0.5 * (1 + logvar - mu.square() - logvar.exp())
    p_mu, p_logvar = full(p[0]), full(p[1])
    return 0.5 * (p_logvar - logvar + (logvar.exp() + (mu - p_mu).square()) / p_logvar.exp() - 1)


def kl_per_frame(q: Gaussian, p: Gaussian | None, reduction: Reduction, keep: Tensor | None = None) -> Tensor:
    """KL of (B, T, S*) Gaussians for each of the T steps, averaged over B. ``reduction``: over S*.

    keep (B,): the weight of each clip, with mean 1; by default all clips have the same weight.
    """
    elements = kl_elements(q, p).flatten(2)  # (B, T, S)
    each = elements.sum(2) if reduction == "sum" else elements.mean(2)  # (B, T)
    return (each if keep is None else each * keep[:, None]).mean(0)


def reconstruction(
    prediction: Tensor, truth: Tensor, kind: Reconstruction, before: Tensor | None = None, motion: float = 0.0
) -> Tensor:
    """Error of two clips (B, T, 3, H, W): mean over pixels, summed over T.

    kind: "mse"; "l1+mse", half of each; or "log-mse", the logarithm of each frame's squared error, so that a decibel
        counts the same in every frame, as in a mean PSNR.
    motion: a pixel that differs from the true frame ``before`` has the weight 1 + motion.
    """
    difference = full(prediction) - full(truth)
    match kind:
        case "l1+mse":
            each = (difference.abs() + difference.square()) / 2
        case "mse" | "log-mse":
            each = difference.square()
        case _:
            assert_never(kind)
    if motion and before is not None:
        each = each * (1 + motion * ((truth - before).abs().amax(2, keepdim=True) > MOVING))
    if kind == "log-mse":
        return (each.flatten(2).mean(2) + FLOOR).log().mean() * prediction.shape[1]
    return each.mean() * prediction.shape[1]


def smoothing(prediction: Tensor, reference: Tensor, truth: Tensor, truth_before: Tensor) -> Tensor:
    """The lab's time-smoothing term: MSE between the predicted change, prediction - reference, and x_t - x_{t-1}."""
    taken = full(prediction) - full(reference)
    return F.mse_loss(taken, full(truth - truth_before)) * prediction.shape[1]


def total(terms: dict[str, Tensor], beta: float | Tensor, smoothing_weight: float) -> Tensor:
    """reconstruction + beta * kl, + smoothing_weight * smoothing if that term is used."""
    elbo = terms["reconstruction"] + beta * terms.get("kl_charged", terms["kl"])
    return elbo + smoothing_weight * terms["smoothing"] if "smoothing" in terms else elbo


def first_non_finite(terms: dict[str, Tensor]) -> str | None:
    """The name of the first term that is NaN or infinite."""
    return next((name for name, value in terms.items() if not torch.isfinite(value)), None)
