"""A model made ready for the free run: the same function with less work for the machine."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vidcvae.models.interface import VideoModel

Convolution = nn.Conv2d | nn.ConvTranspose2d


class OneDnnConv(nn.Module):
    """A convolution as oneDNN does it, together with the LeakyReLU behind it (``slope``), in ``dtype``.

    Beside what the fusion saves: with one thread PyTorch leaves small float32 1x1 convolutions to another library.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.weight.detach().to(dtype), requires_grad=False)
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().to(dtype), requires_grad=False)
        self.geometry = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        self.slope: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        act = ("none", [], "") if self.slope is None else ("leaky_relu", [self.slope], "")
        x = x.to(self.weight.dtype)
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *self.geometry, *act)
        return y


@torch.no_grad()
def prepare(model: VideoModel, dtype: torch.dtype) -> VideoModel:
    """A copy of a model in eval mode, to be run under autocast to ``dtype``: BatchNorm folded into the convolution
    before it, channels_last, and on a CPU oneDNN's fusions. A model that has no convolutions is returned as it is.

    A block names the convolutions that its ``act`` follows in ``activated``.
    """
    if model.training or not any(isinstance(module, Convolution) for module in model.modules()):
        return model
    model = copy.deepcopy(model)
    blocks = list(model.modules())
    for block in blocks:
        if isinstance(block, nn.Sequential):
            _fold_batch_norm(block)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameter = next(model.parameters())
    if parameter.is_cuda and dtype != torch.float32:  # without gradients autocast would convert them in every step
        for module in model.modules():
            if isinstance(module, Convolution):
                module.to(dtype)
    if parameter.is_cpu and parameter.dtype == torch.float32 and _has_onednn():
        for block in blocks:
            _use_onednn(block, dtype)
    return model


def _has_onednn() -> bool:
    """Whether this PyTorch has oneDNN and the fused operator, which is not part of its public interface."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def _fold_batch_norm(chain: nn.Sequential) -> None:
    for i in range(len(chain) - 1):
        conv, norm = chain[i], chain[i + 1]
        if isinstance(conv, Convolution) and isinstance(norm, nn.BatchNorm2d):
            chain[i] = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d))
            chain[i + 1] = nn.Identity()


def _use_onednn(block: nn.Module, dtype: torch.dtype) -> None:
    for name, child in list(block.named_children()):
        if type(child) is nn.Conv2d and child.padding_mode == "zeros":
            setattr(block, name, OneDnnConv(child, dtype))
    if activated := getattr(block, "activated", ()):
        for name in activated:
            block.get_submodule(name).slope = block.get_submodule("act").negative_slope
        block.act = nn.Identity()
