"""Stochastic video generation with a fixed or a learned prior, with or without conditions.

Denton & Fergus, Stochastic Video Generation with a Learned Prior, ICML 2018; the lab adds the condition
(actions, positions) to the frame predictor's input. Frames are 64x64.

B batch, T frames, g a frame's code, z the latent, c the condition, L LSTM layers, H LSTM size.

In a step, the frame predictor takes the encoder's code h of frame t-1, z_t and the condition into t. The decoder turns
its output into frame t, using skips: the encoder's feature maps of an earlier frame.
"""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor, nn

from vidcvae.config import SvgConfig
from vidcvae.config.schema import Backbone
from vidcvae.models.interface import Anchor, Gaussian, VideoModel, full

Hidden = tuple[Tensor, Tensor]  # an LSTM's h and c, each (L, B, H)
Skips = tuple[Tensor, ...]  # four feature maps, the largest first
SvgCode = tuple[Tensor, ...]  # h (B, T, g) and the four skips (B, T, ...)
SvgState = tuple[Hidden, Hidden | None, Skips, int]  # predictor, learned prior, skips in use, renewals left

SLOPE = 0.2  # of every LeakyReLU here


# --- frame encoders and decoders -------------------------------------------------------------------


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    """VGG's block, which keeps the size."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.LeakyReLU(SLOPE, inplace=True)
    )


def down_block(inputs: int, outputs: int) -> nn.Sequential:
    """DCGAN's encoder block, which halves the size."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 4, 2, 1), nn.BatchNorm2d(outputs), nn.LeakyReLU(SLOPE, inplace=True)
    )


def up_block(inputs: int, outputs: int) -> nn.Sequential:
    """DCGAN's decoder block, which doubles the size."""
    up = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)
    return nn.Sequential(up, nn.BatchNorm2d(outputs), nn.LeakyReLU(SLOPE, inplace=True))


def to_code(outputs: int) -> nn.Sequential:
    """The end of the encoder: 512 x 4 x 4 -> a vector in -1..1."""
    return nn.Sequential(nn.Conv2d(512, outputs, 4, 1, 0), nn.BatchNorm2d(outputs), nn.Tanh())


def from_code(inputs: int) -> nn.Sequential:
    """The start of the decoder: a vector -> 512 x 4 x 4."""
    up = nn.ConvTranspose2d(inputs, 512, 4, 1, 0)
    return nn.Sequential(up, nn.BatchNorm2d(512), nn.LeakyReLU(SLOPE, inplace=True))


class Encoder(nn.Module):
    """Frames (N, 3, 64, 64) -> codes (N, g) and four skips, one from each stage."""

    def __init__(self, stages: list[nn.Sequential], pool: nn.Module, frame_dim: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.pool = pool
        self.head = to_code(frame_dim)

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        skips = []
        x = frames
        for stage in self.stages:
            skips.append(stage(x))
            x = self.pool(skips[-1])
        return self.head(x).flatten(1), *skips


class Decoder(nn.Module):
    """Codes (N, g) and the encoder's four skips -> frames (N, 3, 64, 64) in 0..1; the smallest skip is used first."""

    def __init__(self, stages: list[nn.Sequential], up: nn.Module, frame_dim: int) -> None:
        super().__init__()
        self.head = from_code(frame_dim)
        self.stages = nn.ModuleList(stages)
        self.up = up

    def forward(self, code: Tensor, *skips: Tensor) -> Tensor:
        x: Tensor = self.head(code[:, :, None, None])  # (N, 512, 4, 4)
        for stage, skip in zip(self.stages, reversed(skips), strict=True):
            x = stage(torch.cat([self.up(x), skip], dim=1))
        return torch.sigmoid(x.float())


def vgg64(frame_dim: int) -> tuple[Encoder, Decoder]:
    """VGG-16's first ten convolutions, and their mirror. Skips: 64 x 64², 128 x 32², 256 x 16², 512 x 8²."""
    encoder = Encoder(
        [
            nn.Sequential(conv_block(3, 64), conv_block(64, 64)),
            nn.Sequential(conv_block(64, 128), conv_block(128, 128)),
            nn.Sequential(conv_block(128, 256), conv_block(256, 256), conv_block(256, 256)),
            nn.Sequential(conv_block(256, 512), conv_block(512, 512), conv_block(512, 512)),
        ],
        nn.MaxPool2d(2),
        frame_dim,
    )
    decoder = Decoder(
        [
            nn.Sequential(conv_block(1024, 512), conv_block(512, 512), conv_block(512, 256)),
            nn.Sequential(conv_block(512, 256), conv_block(256, 256), conv_block(256, 128)),
            nn.Sequential(conv_block(256, 128), conv_block(128, 64)),
            nn.Sequential(conv_block(128, 64), nn.ConvTranspose2d(64, 3, 3, 1, 1)),
        ],
        nn.Upsample(scale_factor=2, mode="nearest"),
        frame_dim,
    )
    return encoder, decoder


def dcgan64(frame_dim: int) -> tuple[Encoder, Decoder]:
    """Strided convolutions, and their mirror. Skips: 64 x 32², 128 x 16², 256 x 8², 512 x 4²."""
    encoder = Encoder(
        [down_block(3, 64), down_block(64, 128), down_block(128, 256), down_block(256, 512)],
        nn.Identity(),
        frame_dim,
    )
    last = nn.Sequential(nn.ConvTranspose2d(128, 3, 4, 2, 1))
    decoder = Decoder([up_block(1024, 256), up_block(512, 128), up_block(256, 64), last], nn.Identity(), frame_dim)
    return encoder, decoder


def backbone(name: Backbone, frame_dim: int) -> tuple[Encoder, Decoder]:
    match name:
        case "vgg64":
            return vgg64(frame_dim)
        case "dcgan64":
            return dcgan64(frame_dim)
        case _:
            assert_never(name)


# --- sequence models -------------------------------------------------------------------------------


def embedded_lstm(inputs: int, hidden: int, layers: int) -> tuple[nn.Linear, nn.LSTM]:
    return nn.Linear(inputs, hidden), nn.LSTM(hidden, hidden, layers, batch_first=True)


def recur(lstm: nn.LSTM, x: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
    """Run ``lstm``, in full precision on a GPU.

    Even under autocast to bfloat16, PyTorch's cuDNN LSTMs compute in float16 (``_cudnn_rnn_cast_reflatten`` in
    AutocastRNN.cpp), in which gradients without loss scaling become 0.
    """
    result: tuple[Tensor, Hidden]
    if not x.is_cuda:
        result = lstm(x, hidden)
        return result
    with torch.autocast("cuda", enabled=False):
        result = lstm(full(x), (full(hidden[0]), full(hidden[1])))
    return result


class FramePredictor(nn.Module):
    """[h, z, condition] (B, T, g + z + c) -> predicted codes before the last BatchNorm (B, T, g), and the hidden state.

    ``normalize`` is that last part. It is separate because its statistics may be taken over one time step or over all.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embed, self.lstm = embedded_lstm(inputs, hidden, layers)
        self.output = nn.Linear(hidden, outputs)
        self.normalize = nn.Sequential(nn.BatchNorm1d(outputs), nn.Tanh())

    def forward(self, x: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        x, hidden = recur(self.lstm, self.embed(x), hidden)
        return self.output(x), hidden


class GaussianLstm(nn.Module):
    """h (B, T, g) -> mu, logvar (B, T, z), and the hidden state; the posterior and the learned prior."""

    def __init__(self, inputs: int, outputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embed, self.lstm = embedded_lstm(inputs, hidden, layers)
        self.mu = nn.Linear(hidden, outputs)
        self.logvar = nn.Linear(hidden, outputs)

    def forward(self, h: Tensor, hidden: Hidden) -> tuple[Gaussian, Hidden]:
        x, hidden = recur(self.lstm, self.embed(h), hidden)
        return (self.mu(x), self.logvar(x)), hidden


def zero_hidden(lstm: nn.LSTM, batch: int, like: Tensor) -> Hidden:
    zeros = like.new_zeros(lstm.num_layers, batch, lstm.hidden_size)
    return zeros, zeros


def init_weights(module: nn.Module) -> None:
    """Weights N(0, 0.02), BatchNorm N(1, 0.02), biases 0. LSTMs keep PyTorch's default, as in the original code."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


# --- the model -------------------------------------------------------------------------------------


class Svg(VideoModel):
    """A ``VideoModel`` (see ``vidcvae.models.interface``) with a vector latent and LSTM state.

    past: the number of given frames. Without ``last_frame_skip``, the step into frame t takes its skips from frame t-1
        while t < past, and keeps them afterwards. This is the rule of the original code: with 2 given frames the skips
        come from frame 0, not from the last given frame as the paper says. With 1 given frame they come from frame 0
        too; the original code has none then.

    BatchNorm in training: ``batch_norm = "clip"`` takes statistics, and updates the running ones, over all
    frames of one call (all clips of the batch in ``encode_frames`` and ``forced``). ``"frame"`` takes them over one
    time step after another, as the original loop does, so that ``forced`` equals the loop over ``step`` in training
    mode too. In eval mode the two are the same. Training needs at least 2 clips in a batch, because a single vector
    has no variance.
    """

    def __init__(self, config: SvgConfig, past: int) -> None:
        super().__init__()
        self.latent_dim = config.latent_dim
        self.last_frame_skip = config.last_frame_skip
        self.per_frame_statistics = config.batch_norm == "frame"
        self.renewals = max(past, 2) - 1  # steps that take their skips from the previous frame

        self.encoder, self.decoder = backbone(config.backbone, config.frame_dim)
        conditions = config.condition_size
        self.condition_embedding: nn.Module = nn.Identity()
        if conditions and config.condition_embedding:
            self.condition_embedding = nn.Linear(conditions, config.condition_embedding)
            conditions = config.condition_embedding
        self.frame_predictor = FramePredictor(
            config.frame_dim + config.latent_dim + conditions,
            config.frame_dim,
            config.hidden_dim,
            config.predictor_layers,
        )
        self.posterior_lstm = GaussianLstm(
            config.frame_dim, config.latent_dim, config.hidden_dim, config.posterior_layers
        )
        self.prior_lstm = (
            GaussianLstm(config.frame_dim, config.latent_dim, config.hidden_dim, config.prior_layers)
            if config.name == "svg-lp"
            else None
        )
        self.apply(init_weights)

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        return (self.latent_dim,)

    def encode_frames(self, frames: Tensor, level: Tensor | None = None) -> SvgCode:
        """frames (B, T, 3, 64, 64) -> h (B, T, g) and four skips (B, T, C, H, W)."""
        return self._over_time(self.encoder, frames)

    def encode_condition(self, condition: Tensor | None, like: Tensor) -> Tensor:
        """condition (B, T, 4 or 7), or None -> (B, T, c); c is 0 for a model without conditions."""
        if condition is None:
            return like.new_zeros(*like.shape[:2], 0)
        embedded: Tensor = self.condition_embedding(condition)
        return embedded

    def posterior(self, frames: SvgCode, condition: Tensor) -> Gaussian:
        """Codes of frames 1..T-1 -> mu, logvar (B, T-1, z); z_t depends on frames 1..t. The condition is not used."""
        h = frames[0]
        gaussian: Gaussian = self.posterior_lstm(h, zero_hidden(self.posterior_lstm.lstm, len(h), h))[0]
        return gaussian

    def initial_state(
        self, first_frame: Tensor, first_condition: Tensor | None, anchor: Anchor | None = None
    ) -> SvgState:
        batch = len(first_frame)
        prior = zero_hidden(self.prior_lstm.lstm, batch, first_frame) if self.prior_lstm is not None else None
        # the first step always renews the skips, so there are none to keep yet
        return zero_hidden(self.frame_predictor.lstm, batch, first_frame), prior, (), self.renewals

    def prior(self, state: SvgState, previous: SvgCode, condition: Tensor) -> tuple[Gaussian, SvgState]:
        """N(0, I), or the learned prior of z_t, which sees frames 0..t-1; mu, logvar (B, z)."""
        predictor, hidden, skips, renewals = state
        (mu, logvar), hidden = self._prior(previous[0][:, None], hidden)
        return (mu[:, 0], logvar[:, 0]), (predictor, hidden, skips, renewals)

    def step(self, state: SvgState, previous: SvgCode, condition: Tensor, z: Tensor) -> tuple[Tensor, SvgState]:
        predictor, prior, skips, renewals = state
        h, *previous_skips = previous
        if self.last_frame_skip or renewals > 0:
            skips = tuple(previous_skips)
        code, predictor = self.frame_predictor(torch.cat([h, z, condition], dim=-1)[:, None], predictor)
        frame: Tensor = self.decoder(self.frame_predictor.normalize(code[:, 0]), *skips)
        return frame, (predictor, prior, skips, max(renewals - 1, 0))

    def forced(self, state: SvgState, previous: SvgCode, condition: Tensor, z: Tensor) -> tuple[Tensor, Gaussian]:
        predictor, prior, skips, renewals = state
        h, *previous_skips = previous
        if self.last_frame_skip:
            skips = tuple(previous_skips)
        elif renewals > 0:
            source = torch.arange(h.shape[1], device=h.device).clamp(max=renewals - 1)
            skips = tuple(skip[:, source] for skip in previous_skips)
        else:
            skips = tuple(skip[:, None].expand(-1, h.shape[1], *skip.shape[1:]) for skip in skips)
        code, _ = self.frame_predictor(torch.cat([h, z, condition], dim=-1), predictor)  # (B, T-1, g)
        (code,) = self._over_time(self.frame_predictor.normalize, code)
        (frames,) = self._over_time(self.decoder, code, *skips)
        return frames, self._prior(h, prior)[0]

    def _prior(self, h: Tensor, hidden: Hidden | None) -> tuple[Gaussian, Hidden | None]:
        """h (B, T, g) of the frames before -> the priors, mu and logvar (B, T, z)."""
        if self.prior_lstm is None:
            zeros = h.new_zeros(*h.shape[:2], self.latent_dim)
            return (zeros, zeros), None
        gaussian: Gaussian
        gaussian, after = self.prior_lstm(h, hidden)
        return gaussian, after

    def _over_time(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Apply ``module`` to tensors (B, T, ...), in one batch of B T frames, or frame by frame if BatchNorm takes its
        statistics per frame."""
        steps = inputs[0].shape[1]
        if self.training and self.per_frame_statistics:
            each = [_as_tuple(module(*(x[:, t] for x in inputs))) for t in range(steps)]
            return tuple(torch.stack(parts, dim=1) for parts in zip(*each, strict=True))
        outputs = _as_tuple(module(*(x.flatten(0, 1) for x in inputs)))
        return tuple(x.unflatten(0, (-1, steps)) for x in outputs)


def _as_tuple(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else value
