"""One training step: posterior for the whole clip, then frame after frame, then the update.

B batch, T frames in the clip, S* the latent's shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vidcvae import rng
from vidcvae.config import Config, TeacherForcing
from vidcvae.data.clips import ClipBatch, to_unit
from vidcvae.errors import NonFiniteError
from vidcvae.models import objectives
from vidcvae.models.interface import Anchor, Code, Gaussian, State, VideoModel, at, reparameterize
from vidcvae.training.state import TrainingState

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Weights:
    """What the schedules say about a step."""

    beta: float
    smoothing: float
    lr: float


def forcing_mask(
    forcing: TeacherForcing, ratio: float, batch: int, steps: int, past: int, seed: int, epoch: int, step: int
) -> Tensor:
    """How much of each step's previous frame is the truth: (B, T-1), on the CPU, so that it costs no sync.

    A coin of probability ``ratio`` is thrown for each epoch, batch, clip or frame. Where it says so the share is 1,
    or ``ratio`` itself with ``reference = "mix"``. The given frames are always the truth.
    """
    index = (epoch,) if forcing.draw == "epoch" else (epoch, step)
    shape = {"epoch": (1, 1), "batch": (1, 1), "clip": (batch, 1), "frame": (batch, steps)}[forcing.draw]
    coins = rng.uniform(shape, seed, "teacher-forcing", *index) < ratio
    mask = coins.float().expand(batch, steps) * (ratio if forcing.reference == "mix" else 1.0)
    return torch.cat([torch.ones(batch, past), mask[:, past:]], dim=1)


def clip_terms(
    model: VideoModel,
    frames: Tensor,
    condition: Tensor | None,
    eps: Tensor,
    mask: Tensor,
    config: Config,
    anchor: Anchor | None = None,
) -> Terms:
    """The objective's terms on a batch of clips.

    frames (B, T, 3, H, W) in 0..1; condition (B, T, ...), whose entry 0 is not used; eps (B, T-1, S*); mask (B, T-1)
    from ``forcing_mask``. Encoding and posterior see all frames at once; what depends on predictions runs in order.
    """
    truth, before = frames[:, 1:], frames[:, :-1]
    steps = truth.shape[1]
    codes = model.encode_frames(frames)
    condition_codes = model.encode_condition(None if condition is None else condition[:, 1:], truth)
    posterior = model.posterior(at(codes, slice(1, None)), condition_codes)
    z = reparameterize(*posterior, eps)
    state = model.initial_state(frames[:, 0], None if condition is None else condition[:, 0], anchor)

    if bool((mask == 1).all()):
        prediction, prior = model.forced(state, at(codes, slice(0, -1)), condition_codes, z)
        reference = before
    else:
        predictions: list[Tensor] = []
        references: list[Tensor] = []
        mus: list[Tensor] = []
        logvars: list[Tensor] = []
        last, advance = frames[:, 0], partial(_advance, model)
        if config.training.checkpoint_activations:
            advance = partial(checkpoint, advance, use_reentrant=False, preserve_rng_state=False)
        shares = mask.to(frames)[:, :, None, None, None]  # (B, T-1, 1, 1, 1)
        for t in range(steps):
            share = mask[:, t]
            if bool((share == 1).all()):
                last, previous = before[:, t], at(codes, t)
            else:
                if bool((share != 0).any()):
                    last = shares[:, t] * before[:, t] + (1 - shares[:, t]) * last
                previous = None
            references.append(last)
            last, (mu, logvar), state = advance(state, last, previous, at(condition_codes, t), z[:, t])
            predictions.append(last)
            mus.append(mu)
            logvars.append(logvar)
        prediction, reference = torch.stack(predictions, 1), torch.stack(references, 1)
        prior = torch.stack(mus, 1), torch.stack(logvars, 1)

    terms = {  # the KL first: where its logvar overflows, the prediction does too, and the first culprit is named
        "kl": objectives.kl(posterior, prior, config.kl.reduction),
        "reconstruction": objectives.reconstruction(prediction, truth, config.loss.reconstruction),
    }
    if config.loss.smoothing:
        terms["smoothing"] = objectives.smoothing(prediction, reference, truth, before)
    return terms


def _advance(
    model: VideoModel, state: State, last: Tensor, previous: Code | None, condition: Code, z: Tensor
) -> tuple[Tensor, Gaussian, State]:
    """One frame from the one before it, whose code is computed where it is not known: frame, prior, state."""
    if previous is None:
        previous = at(model.encode_frames(last[:, None]), 0)
    prior, state = model.prior(state, previous, condition)
    frame, state = model.step(state, previous, condition, z)
    return frame, prior, state


def training_step(
    state: TrainingState,
    batch: ClipBatch,
    eps: Tensor,
    mask: Tensor,
    config: Config,
    weights: Weights,
    dtype: torch.dtype,
) -> Terms:
    """Forward and backward (of the batch's parts in turn), clip, check, update.

    Returns the terms, their ``total`` and ``grad_norm``.

    Raises ``NonFiniteError`` before anything is updated.
    """
    device = next(state.model.parameters()).device
    frames = to_unit(batch.frames.to(device))
    condition = None if batch.condition is None else to_unit(batch.condition.to(device))
    anchor = (
        None if batch.anchor is None else (to_unit(batch.anchor[0].to(device)), to_unit(batch.anchor[1].to(device)))
    )
    eps, parts = eps.to(device), config.training.accumulate
    terms: Terms = {}
    state.optimizer.zero_grad(set_to_none=True)
    for first in range(0, len(frames), len(frames) // parts):
        part = slice(first, first + len(frames) // parts)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            found = clip_terms(
                state.model,
                frames[part],
                None if condition is None else condition[part],
                eps[part],
                mask[part],
                config,
                None if anchor is None else (anchor[0][part], anchor[1][part]),
            )
        found["total"] = objectives.total(found, weights.beta, weights.smoothing)
        (found["total"] / parts).backward()
        for name, value in found.items():
            terms[name] = terms.get(name, 0) + value.detach() / parts
    limit = config.optimizer.gradient_clip or float("inf")
    terms["grad_norm"] = torch.nn.utils.clip_grad_norm_(state.model.parameters(), limit)
    if bad := objectives.first_non_finite(terms):
        raise NonFiniteError(f"the {bad.replace('_', ' ')} became {float(terms[bad])}")
    for group in state.optimizer.param_groups:
        group["lr"] = weights.lr
    state.optimizer.step()
    update_ema(state, config.training.ema)
    return terms


@torch.no_grad()
def update_ema(state: TrainingState, decay: float) -> None:
    """ema = decay * ema + (1 - decay) * weights, with less memory in the first steps so that it starts warm."""
    if not state.ema:
        return
    warm = min(decay, (1 + state.progress.step) / (10 + state.progress.step))
    averages = [state.ema[name] for name, _ in state.model.named_parameters()]
    torch._foreach_lerp_(averages, [p.detach() for p in state.model.parameters()], 1 - warm)


def compute_dtype(precision: str, device: str) -> torch.dtype:
    """float32 or bfloat16; "auto" takes bfloat16 where the hardware multiplies it natively."""
    if precision == "auto":
        native = torch.cuda.is_bf16_supported() if device == "cuda" else torch.ops.mkldnn._is_mkldnn_bf16_supported()
        precision = "bf16" if native else "float32"
    return torch.bfloat16 if precision == "bf16" else torch.float32
