"""Prepare a model for the free run: the same function with less computation."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vidcvae.models.interface import VideoModel
from vidcvae.models.pose_cvae import DepthConv, Residual

Convolution = nn.Conv2d | nn.ConvTranspose2d


class OneDnnConv(nn.Module):
    """A oneDNN convolution in ``dtype``, fused with what follows: a LeakyReLU (``slope``), or the sum or product with
    another tensor.

    rows: the output channels to compute, None for all. The weights are put into oneDNN's layout once, at the first
    input. With one thread PyTorch would run small float32 1x1 convolutions in another, slower library.
    """

    def __init__(
        self, conv: nn.Conv2d, dtype: torch.dtype, slope: float | None = None, rows: slice | None = None
    ) -> None:
        super().__init__()
        self.dtype, self.slope, self.packed = dtype, slope, False
        weight, bias = conv.weight.detach()[rows or ...], conv.bias if conv.bias is None else conv.bias[rows or ...]
        self.weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        self.bias = None if bias is None else nn.Parameter(bias.detach().to(dtype), requires_grad=False)
        self.geometry = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups

    def forward(self, x: Tensor, plus: Tensor | None = None, times: Tensor | None = None) -> Tensor:
        x = x.to(self.dtype)
        if not self.packed:
            self.weight = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self.geometry, list(x.shape))
            self.packed = True
        given, convolution = (self.weight, self.bias, *self.geometry), torch.ops.mkldnn._convolution_pointwise
        other, how = (plus, "add") if times is None else (times, "mul")
        if other is None:
            act = ("none", [], "") if self.slope is None else ("leaky_relu", [self.slope], "")
            y: Tensor = convolution(x, *given, *act)
        else:
            y = convolution.binary(x, other, *given, how, None, None, [], None)
        return y


class FusedResidual(nn.Module):
    """``Residual`` with every LeakyReLU and the sum fused into a convolution."""

    def __init__(self, block: Residual, dtype: torch.dtype) -> None:
        super().__init__()
        slope = block.act.negative_slope
        self.conv1, self.conv2 = OneDnnConv(block.conv1, dtype, slope), OneDnnConv(block.conv2, dtype, slope)
        self.skip = OneDnnConv(block.skip, dtype) if isinstance(block.skip, nn.Conv2d) else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.conv1(x))
        return x + y if self.skip is None else self.skip(x, plus=y)


class FusedDepthConv(nn.Module):
    """``DepthConv`` with every activation, sum and product fused into a convolution.

    The two halves of its expansion are separate convolutions, and the second multiplies its result by the first.
    """

    def __init__(self, block: DepthConv, dtype: torch.dtype) -> None:
        super().__init__()
        half = block.expand.out_channels // 2
        self.pointwise1 = OneDnnConv(block.pointwise1, dtype, block.act.negative_slope)
        self.depthwise = OneDnnConv(block.depthwise, dtype)
        self.pointwise2 = OneDnnConv(block.pointwise2, dtype)
        self.skip = OneDnnConv(block.skip, dtype) if isinstance(block.skip, nn.Conv2d) else None
        self.value = OneDnnConv(block.expand, dtype, rows=slice(half))
        self.gate = OneDnnConv(block.expand, dtype, block.gate.negative_slope, slice(half, None))
        self.contract = OneDnnConv(block.contract, dtype)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.contract.dtype)
        x = self.pointwise2(self.depthwise(self.pointwise1(x)), plus=x if self.skip is None else self.skip(x))
        y: Tensor = self.contract(self.value(x, times=self.gate(x)), plus=x)
        return y


@torch.no_grad()
def prepare(model: VideoModel, dtype: torch.dtype) -> VideoModel:
    """Copy a model in eval mode, to be run under autocast to ``dtype``.

    Folds BatchNorm into the convolution before it, uses channels_last, and oneDNN's fusions on a CPU. A model without
    convolutions is returned as it is.
    """
    if model.training or not any(isinstance(module, Convolution) for module in model.modules()):
        return model
    model = copy.deepcopy(model)
    for block in list(model.modules()):
        if isinstance(block, nn.Sequential):
            _fold_batch_norm(block)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameter = next(model.parameters())
    if parameter.is_cuda and dtype != torch.float32:  # without gradients, autocast would convert them in every step
        for module in model.modules():
            if isinstance(module, Convolution):
                module.to(dtype)
    if parameter.is_cpu and parameter.dtype == torch.float32 and _has_onednn():
        _use_onednn(model, dtype)
    return model


def _has_onednn() -> bool:
    """Whether this PyTorch has oneDNN and the operators used here, which are not a public interface."""
    needed = "_convolution_pointwise", "_reorder_convolution_weight"
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in needed)


def _fold_batch_norm(chain: nn.Sequential) -> None:
    for i in range(len(chain) - 1):
        conv, norm = chain[i], chain[i + 1]
        if isinstance(conv, Convolution) and isinstance(norm, nn.BatchNorm2d):
            chain[i] = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d))
            chain[i + 1] = nn.Identity()


def _use_onednn(block: nn.Module, dtype: torch.dtype) -> None:
    for name, child in list(block.named_children()):
        if isinstance(child, Residual):
            setattr(block, name, FusedResidual(child, dtype))
        elif isinstance(child, DepthConv):
            setattr(block, name, FusedDepthConv(child, dtype))
        elif type(child) is nn.Conv2d and child.padding_mode == "zeros":
            setattr(block, name, OneDnnConv(child, dtype))
        else:
            _use_onednn(child, dtype)
