"""Blocks and normalisation that more than one model uses.

B batch, T frames, C channels, H W a frame.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def flat(x: Tensor) -> Tensor:
    """(B, T, ...) -> (T*B, ...), time outermost, so that consecutive time steps are one block of memory."""
    return x.transpose(0, 1).flatten(0, 1)


def unflat(x: Tensor, batch: int) -> Tensor:
    """(T*B, ...) -> (B, T, ...), a view with the memory format of the frames."""
    view: Tensor = x.unflatten(0, (-1, batch)).transpose(0, 1)
    return view


def concat_channels(first: Tensor, *others: Tensor) -> Tensor:
    """Join tensors (N, C, H, W) along C, in the dtype and memory format of the first.

    ``torch.cat`` alone loses the format if the tensors differ in it.
    """
    layout = torch.channels_last if first.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    return torch.cat([first, *(x.to(first.dtype).contiguous(memory_format=layout) for x in others)], dim=1)


def over_frames(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a network of (N, ...) to all frames of (B, T, ...) in one pass."""
    return unflat(network(flat(x)), len(x))


def per_frame(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a network to one frame after another, so that BatchNorm sees one time step at a time."""
    return unflat(torch.cat([network(x[:, t]) for t in range(x.shape[1])]), len(x))


def use_image_statistics(model: nn.Module) -> None:
    """Make every BatchNorm2d normalise each image by its own statistics, instead of those of training.

    The course's published numbers were made this way: its label encoder is never switched to eval mode, and it sees
    one image at a time. BatchNorm over a batch of one equals InstanceNorm, which also works for larger batches.
    """
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                norm = nn.InstanceNorm2d(child.num_features, eps=child.eps, affine=True)
                norm.weight, norm.bias = child.weight, child.bias
                setattr(module, name, norm)
