"""``anchor-cvae``: our own model, p(x_t | x_{t-1}, anchor frame, anchor pose, pose_{t-1}, pose_t, z_t).

B batch, T frames, H W a frame, P a patch's side, C channels at 1/P of the resolution, N latent channels at 1/4P.

The anchor is the given first frame (in training any frame of the same stretch) with its pose. Every step sees the
appearance and background in it, so errors do not accumulate over hundreds of steps. A small U-Net works at 1/P, 1/2P
and 1/4P of the resolution; only two thin convolutions at the end work at full size. Pixel coordinates are an input
too, so that a room seen from one camera can be learned.

With ``scene`` the anchor is the scene without the dancer, and the output mixes it with the drawn frame by a share for
each pixel. The still background then need not be learned, and stays sharp.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidcvae.config import AnchorCvaeConfig
from vidcvae.models.interface import Anchor, Code, Gaussian, State, VideoModel, full
from vidcvae.models.layers import over_frames

SHARP = -4.0  # the posterior's logvar at the start of training


class Block(nn.Module):
    """Two 3x3 convolutions, normalised and gated before each (He et al. 2016, full pre-activation)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.conv2.weight)  # each block starts as its skip

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        y: Tensor = self.skip(x) + h
        return y


def gaussian_net(inputs: int, latent: int, patch: int) -> nn.Sequential:
    """(., inputs, H, W) -> mu and logvar side by side (., 2 N, H/4P, W/4P)"""
    return nn.Sequential(
        nn.PixelUnshuffle(patch),
        *(nn.Conv2d(patch * patch * inputs, 48, 3, padding=1), nn.SiLU()),
        *(nn.Conv2d(48, 96, 3, stride=2, padding=1), nn.SiLU()),
        *(nn.Conv2d(96, 96, 3, stride=2, padding=1), nn.SiLU()),
        nn.Conv2d(96, 2 * latent, 1),
    )


class AnchorCvae(VideoModel):
    uses_anchor = True

    def __init__(self, config: AnchorCvaeConfig, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        c, n, p = config.channels, config.latent_channels, config.patch
        given = 5 * 3 + 1 + 2  # previous frame, anchor, both their poses, new pose; noise level; pixel coordinates
        self.config = config
        self.stem = nn.Conv2d(p * p * given, c, 3, padding=1)
        self.down1 = Block(c, c)
        self.shrink1 = nn.Conv2d(c, 2 * c, 2, stride=2)
        self.down2 = Block(2 * c, 2 * c)
        self.shrink2 = nn.Conv2d(2 * c, 3 * c, 2, stride=2)
        self.latent = nn.Conv2d(n, 3 * c, 1)
        self.middle = nn.Sequential(Block(3 * c, 3 * c), Block(3 * c, 3 * c))
        self.grow2 = nn.Conv2d(3 * c, 2 * c, 1)
        self.up2 = Block(4 * c, 2 * c)
        self.grow1 = nn.Conv2d(2 * c, c, 1)
        self.up1 = Block(2 * c, c)
        self.unfold = nn.Conv2d(c, p * p * 16, 1)
        self.refine = nn.Conv2d(16 + given, 24, 3, padding=1)
        self.image = nn.Conv2d(24, 4 if config.scene else 3, 3, padding=1)
        if config.scene:
            self.scene = torch.zeros(3, *(size or (0, 0)))  # filled by training or a checkpoint
            assert self.image.bias is not None  # start with more of the scene than of the drawn frame
            nn.init.zeros_(self.image.weight[3:])
            nn.init.constant_(self.image.bias[3:], -1.0)
        self.posterior_net = gaussian_net(6, n, p)
        head = self.posterior_net[-1]
        assert isinstance(head, nn.Conv2d) and head.bias is not None
        nn.init.constant_(head.bias[n:], SHARP)  # starting with a noisy z, the decoder would learn to ignore it
        self.prior_net = gaussian_net(7, n, p) if config.prior == "learned" else None

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        coarse = 4 * self.config.patch
        return self.config.latent_channels, -(-height // coarse), -(-width // coarse)

    def _padded(self, x: Tensor) -> Tensor:
        """Pad (., C, H, W) to multiples of 4P by repeating the bottom and right edges."""
        down, right = (-side % (4 * self.config.patch) for side in x.shape[-2:])
        return F.pad(x, (0, right, 0, down), mode="replicate") if down or right else x

    def encode_frames(self, frames: Tensor, level: Tensor | None = None) -> Code:
        """A frame is its own code, in -1..1, with its noise level as a fourth channel."""
        known = frames.new_zeros(frames.shape[:2]) if level is None else level.to(frames)
        plane = known[:, :, None, None, None].expand(-1, -1, 1, *frames.shape[-2:])
        return torch.cat([frames * 2 - 1, plane], dim=2)

    def encode_condition(self, condition: Tensor | None, like: Tensor) -> Code:
        """Pose images (B, T, 3, H, W) in 0..1 -> inverted, so that the white background is 0."""
        assert condition is not None, "anchor-cvae is conditioned on poses"
        return 1 - condition

    def posterior(self, frames: Code, condition: Code) -> Gaussian:
        """(B, T, 4, H, W), (B, T, 3, H, W) -> mu, logvar (B, T, N, H/4P, W/4P)"""
        seen = torch.cat([frames[:, :, :3], condition], dim=2)
        mu, logvar = over_frames(lambda x: self.posterior_net(self._padded(x)), seen).chunk(2, dim=2)
        return mu, logvar

    def initial_state(self, first_frame: Tensor, first_condition: Tensor | None, anchor: Anchor | None = None) -> State:
        """Anchor, its pose and position channels (B, 8, H, W), and the pose of the frame before (B, 3, H, W)."""
        assert first_condition is not None, "anchor-cvae is conditioned on poses"
        if self.scene is not None and anchor is None:
            anchor = self.scene.to(first_frame).expand_as(first_frame), torch.ones_like(first_condition)
        image, pose = anchor or (first_frame, first_condition)
        height, width = first_frame.shape[-2:]
        y = torch.linspace(-1, 1, height, device=image.device)[:, None].expand(height, width)
        x = torch.linspace(-1, 1, width, device=image.device)[None, :].expand(height, width)
        position = torch.stack([y, x]).expand(len(image), -1, -1, -1).to(image.dtype)
        seen = 1.0 if self.config.anchor else 0.0
        fixed = torch.cat([(image * 2 - 1) * seen, (1 - pose) * seen, position], dim=1)
        return fixed, 1 - first_condition

    def prior(self, state: State, previous: Code, condition: Code) -> tuple[Gaussian, State]:
        """N(0, I), or learned: p(z_t | x_{t-1}, pose_t)."""
        if self.prior_net is not None:
            mu, logvar = self.prior_net(self._padded(torch.cat([previous, condition], dim=1))).chunk(2, dim=1)
            return (mu, logvar), state
        zero = previous.new_zeros(len(previous), *self.latent_shape(*previous.shape[-2:]))
        return (zero, zero), state

    def step(self, state: State, previous: Code, condition: Code, z: Tensor) -> tuple[Tensor, State]:
        """(B, 4, H, W), (B, 3, H, W), (B, N, H/4P, W/4P) -> frame (B, 3, H, W)"""
        fixed, pose_before = state
        given = torch.cat([previous, fixed, pose_before, condition], dim=1)  # (B, 18, H, W)
        height, width = given.shape[-2:]
        fine = self.down1(self.stem(F.pixel_unshuffle(self._padded(given), self.config.patch)))  # (B, C, H/P, W/P)
        half = self.down2(self.shrink1(fine))  # (B, 2C, H/2P, W/2P)
        quarter = self.middle(self.shrink2(half) + self.latent(z))  # (B, 3C, H/4P, W/4P)
        up = self.up2(torch.cat([half, F.interpolate(self.grow2(quarter), scale_factor=2)], dim=1))
        up = self.up1(torch.cat([fine, F.interpolate(self.grow1(up), scale_factor=2)], dim=1))  # (B, C, H/P, W/P)
        whole = F.pixel_shuffle(self.unfold(F.silu(up)), self.config.patch)[..., :height, :width]  # (B, 16, H, W)
        drawn = full(self.image(F.silu(self.refine(torch.cat([whole, given], dim=1)))))  # (B, 3 or 4, H, W)
        frame, share = torch.sigmoid(drawn[:, :3]), torch.sigmoid(drawn[:, 3:])
        if self.config.scene:
            frame = share * frame + (1 - share) * (full(fixed[:, :3]) + 1) / 2
        return frame, (fixed, condition)

    def forced(self, state: State, previous: Code, condition: Code, z: Tensor) -> tuple[Tensor, Gaussian]:
        """Each frame depends only on its true predecessor, so time is one more batch axis."""
        fixed, pose_before = state
        steps = z.shape[1]
        poses_before = torch.cat([pose_before[:, None], condition[:, :-1]], dim=1)
        every = fixed[:, None].expand(-1, steps, -1, -1, -1)
        flat = (every.flatten(0, 1), poses_before.flatten(0, 1))
        before, now = previous.flatten(0, 1), condition.flatten(0, 1)
        (mu, logvar), _ = self.prior(flat, before, now)
        frames, _ = self.step(flat, before, now, z.flatten(0, 1))
        like = z.shape[:2]
        return frames.unflatten(0, like), (mu.unflatten(0, like), logvar.unflatten(0, like))
