"""``pose-cvae``: the five modules of the 2023/24 course lab, weight for weight.

B batch, T frames, H W a frame; F frame features, L pose features, N latent channels, D decoder channels.

    frame encoder 3 -> F    pose encoder 3 -> L    Gaussian predictor F + L -> mu, logvar of N each
    decoder fusion F + L + N -> D    generator D -> 3, sigmoid

Everything is at full resolution, and the latent is as large as the frame: (N, H, W).
Source: the lab's hand-out. The depth-conv blocks follow DCVC-DC (Li et al. 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidcvae.config import PoseCvaeConfig
from vidcvae.models.interface import Anchor, Code, Gaussian, State, VideoModel, full
from vidcvae.models.layers import concat_channels, flat, over_frames, per_frame, unflat


class Residual(nn.Module):
    """3x3 conv, LeakyReLU, 3x3 conv, LeakyReLU, plus the input (through a 1x1 conv if channels change)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.act = nn.LeakyReLU(0.01)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.conv2(self.act(self.conv1(x)))) + self.skip(x)
        return y


class DepthConv(nn.Module):
    """1x1, LeakyReLU, depthwise 3x3, 1x1, plus the input; then a gated feed-forward, plus its input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pointwise1 = nn.Conv2d(inputs, inputs, 1)
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs)
        self.pointwise2 = nn.Conv2d(inputs, outputs, 1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.expand = nn.Conv2d(outputs, outputs * 4, 1)
        self.contract = nn.Conv2d(outputs * 2, outputs, 1)
        self.act = nn.LeakyReLU(0.01)
        self.gate = nn.LeakyReLU(0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pointwise2(self.depthwise(self.act(self.pointwise1(x)))) + self.skip(x)
        a, b = self.expand(x).chunk(2, dim=1)
        y: Tensor = x + self.contract(a * self.gate(b))
        return y


class PoseCvae(VideoModel):
    def __init__(self, config: PoseCvaeConfig) -> None:
        super().__init__()
        f, p = config.frame_channels, config.pose_channels
        n, d = config.latent_channels, config.decoder_channels
        fused = f + p + n
        self.config = config
        self.frame_encoder = nn.Sequential(
            *(Residual(3, f // 8), DepthConv(f // 8, f // 8)),
            *(Residual(f // 8, f // 4), DepthConv(f // 4, f // 4)),
            *(Residual(f // 4, f // 2), DepthConv(f // 2, f // 2)),
            nn.Conv2d(f // 2, f, 3, padding=1),
        )
        self.pose_encoder = nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(3, p // 2, 7),
            nn.BatchNorm2d(p // 2),
            # The course writes nn.LeakyReLU(True) here: a slope of 1, the identity. Its weights were trained with it
            nn.Identity(),
            Residual(p // 2, p),
        )
        self.gaussian_predictor = nn.Sequential(
            *(Residual(f + p, n // 4), DepthConv(n // 4, n // 4)),
            *(Residual(n // 4, n // 2), DepthConv(n // 2, n // 2)),
            Residual(n // 2, n),
            nn.Identity(),  # nn.LeakyReLU(True) again
            nn.Conv2d(n, 2 * n, 1),
        )
        self.fusion = nn.Sequential(
            *(DepthConv(fused, fused), Residual(fused, fused // 4)),
            *(DepthConv(fused // 4, fused // 2), Residual(fused // 2, fused // 2)),
            DepthConv(fused // 2, d // 2),
            nn.Conv2d(d // 2, d, 1),
        )
        self.generator = nn.Sequential(
            *(DepthConv(d, d), Residual(d, d // 2)),
            *(DepthConv(d // 2, d // 2), Residual(d // 2, d // 4)),
            *(DepthConv(d // 4, d // 4), Residual(d // 4, d // 8)),
            DepthConv(d // 8, d // 8),
            nn.Conv2d(d // 8, 3, 1),
        )

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        return self.config.latent_channels, height, width

    def encode_frames(self, frames: Tensor, level: Tensor | None = None) -> Code:
        """(B, T, 3, H, W) -> (B, T, F, H, W)"""
        return over_frames(self.frame_encoder, frames)

    def encode_condition(self, condition: Tensor | None, like: Tensor) -> Code:
        """Pose images (B, T, 3, H, W) in 0..1 -> (B, T, L, H, W).

        In training BatchNorm takes its statistics over all B*T poses (``batch_norm = "clip"``) or over the B
        poses of each time step in turn (``"frame"``, the course's loop), and updates the running averages likewise.
        """
        assert condition is not None, "pose-cvae is conditioned on poses"
        one_by_one = self.training and self.config.batch_norm == "frame"
        return (per_frame if one_by_one else over_frames)(self.pose_encoder, condition)

    def posterior(self, frames: Code, condition: Code) -> Gaussian:
        """(B, T, F, H, W), (B, T, L, H, W) -> mu, logvar (B, T, N, H, W)"""
        both = self.gaussian_predictor(concat_channels(flat(frames), flat(condition)))  # (T*B, 2N, H, W)
        mu, logvar = unflat(both, len(frames)).chunk(2, dim=2)
        return mu, logvar

    def initial_state(self, first_frame: Tensor, first_condition: Tensor | None, anchor: Anchor | None = None) -> State:
        return ()  # a frame depends on the frame before it, not on earlier ones

    def prior(self, state: State, previous: Code, condition: Code) -> tuple[Gaussian, State]:
        """N(0, I), independent of the frames before."""
        zero = previous.new_zeros(previous.shape[0], *self.latent_shape(*previous.shape[-2:]))
        return (zero, zero), state

    def step(self, state: State, previous: Code, condition: Code, z: Tensor) -> tuple[Tensor, State]:
        """(B, F, H, W), (B, L, H, W), (B, N, H, W) -> frame (B, 3, H, W)"""
        fused = self.fusion(concat_channels(previous, condition, z))  # (B, D, H, W)
        return torch.sigmoid(full(self.generator(fused))), state

    def forced(self, state: State, previous: Code, condition: Code, z: Tensor) -> tuple[Tensor, Gaussian]:
        """Each frame depends only on its true predecessor, so time is one more batch axis."""
        frames, _ = self.step(state, *map(flat, (previous, condition, z)))  # (T*B, 3, H, W)
        zero = torch.zeros_like(z)
        return unflat(frames, len(z)), (zero, zero)
