"""Blocks and normalisation that more than one model uses.

B batch, T frames, C channels, H W a frame.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def over_frames(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a network of (N, ...) to all frames of (B, T, ...) in one pass."""
    y = network(x.flatten(0, 1))  # (B*T, ...)
    return torch.unflatten(y, 0, x.shape[:2])


def per_frame(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a network frame after frame, so that BatchNorm sees one time step at once, as the plain loop does."""
    return torch.stack([network(x[:, t]) for t in range(x.shape[1])], dim=1)


def use_image_statistics(model: nn.Module) -> None:
    """Let every BatchNorm2d normalise each image by its own statistics, whatever was learned in training.

    This is how the course's published numbers were made: its label encoder is never switched to eval mode and
    sees one image at a time. BatchNorm over a batch of one is InstanceNorm, which does not mind larger batches.
    """
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                norm = nn.InstanceNorm2d(child.num_features, eps=child.eps, affine=True)
                norm.weight, norm.bias = child.weight, child.bias
                setattr(module, name, norm)
