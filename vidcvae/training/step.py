"""One training step: the posterior of the whole clip, then frame by frame, then the update.

B batch, T frames in the clip, S* the latent's shape.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, assert_never, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vidcvae import rng
from vidcvae.config import Config, TeacherForcingConfig
from vidcvae.data.clips import ClipBatch
from vidcvae.errors import NonFiniteError
from vidcvae.models import objectives
from vidcvae.models.interface import Anchor, Code, Gaussian, State, VideoModel, at, full, reparameterize
from vidcvae.training.distributed import ALONE, Ranks
from vidcvae.training.state import TrainingState, ema_memory

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Scheduled:
    """The scheduled values of a step. They are tensors if a CUDA graph reads them.

    ema: the share of the new weights in their moving average; None: ``ema_memory`` decides.
    """

    beta: float | Tensor
    lr: float | Tensor
    ema: Tensor | None = None


@dataclass(frozen=True)
class Draws:
    """All random draws of a step.

    eps: (B, T-1, S*). mask: (B, T-1) from ``forcing_mask``.
    pattern: for each step, what the mask is for all clips: "truth", "own" or "mixed"; known on the CPU.
    noise: (B, T-1, 3, H, W), scaled, added to the previous frames; level: (B, T-1), the standard deviation
        of that noise.
    keep: (B,), 0 for clips whose z is the prior's mean; for the others the weight of their KL, with mean 1 over the
        whole batch, so that its parts may be averaged.
    """

    eps: Tensor
    mask: Tensor
    pattern: tuple[str, ...]
    noise: Tensor | None = None
    level: Tensor | None = None
    keep: Tensor | None = None

    def __getitem__(self, clips: slice | list[int]) -> Draws:
        return self.map(lambda x: x[clips])

    def to(self, device: torch.device) -> Draws:
        return self.map(lambda x: x.to(device, non_blocking=True))

    def map(self, f: Callable[[Tensor], Tensor]) -> Draws:
        """``f`` of every tensor."""
        parts = {name: getattr(self, name) for name in ("eps", "mask", "noise", "level", "keep")}
        changed: dict[str, Any] = {name: f(x) for name, x in parts.items() if x is not None}
        return replace(self, **changed)


def draw(eps: Tensor, mask: Tensor, **others: Tensor | None) -> Draws:
    """The ``Draws`` of a step, with the pattern of a ``mask`` on the CPU."""
    each = ((column.min(), column.max()) for column in mask.unbind(1))
    pattern = tuple("truth" if low == 1 else "own" if high == 0 else "mixed" for low, high in each)
    return Draws(eps, mask, pattern, **others)


def forcing_mask(
    forcing: TeacherForcingConfig, ratio: float, batch: int, steps: int, past: int, seed: int, epoch: int, step: int
) -> Tensor:
    """The truth's share in the previous frame of each step: (B, T-1), on the CPU, so that reading it costs no sync.

    A coin with probability ``ratio`` is tossed for each epoch, batch, clip or frame. Heads makes the share 1, or
    ``ratio`` with ``reference = "mix"``; tails makes it 0. The given frames are always the truth.
    """
    index = (epoch,) if forcing.draw == "epoch" else (epoch, step)
    match forcing.draw:
        case "epoch" | "batch":
            shape = (1, 1)
        case "clip":
            shape = (batch, 1)
        case "frame":
            shape = (batch, steps)
        case _:
            assert_never(forcing.draw)
    coins = rng.uniform(shape, seed, "teacher-forcing", *index) < ratio
    mask = coins.float().expand(batch, steps) * (ratio if forcing.reference == "mix" else 1.0)
    return torch.cat([torch.ones(batch, past), mask[:, past:]], dim=1)


def training_step(
    state: TrainingState,
    batch: ClipBatch,
    draws: Draws,
    config: Config,
    scheduled: Scheduled,
    dtype: torch.dtype,
    ranks: Ranks = ALONE,
    check: Callable[[Terms], float | Tensor] | None = None,
) -> tuple[Terms, Tensor]:
    """Forward and backward (of the batch's parts in turn), clip, check, update. Every update takes this path.

    check: maps the terms to 1, or to 0 if the update must change nothing. The default raises ``NonFiniteError`` before
    anything is updated.

    Returns the terms with their ``total`` and ``grad_norm``, and the last predicted frame of each clip.
    """
    terms, last = gradients(state, batch, draws, config, scheduled, dtype, ranks)
    finite = (check or must_be_finite)(terms)
    for group in state.optimizer.param_groups:
        if isinstance(group["lr"], Tensor):  # on the GPU, where a graph reads it
            group["lr"].copy_(cast(Tensor, scheduled.lr))
        else:
            group["lr"] = scheduled.lr
    state.optimizer.step()
    share = 1 - ema_memory(state, config.training.ema) if scheduled.ema is None else scheduled.ema
    update_ema(state, share * finite)
    return terms, last


def gradients(
    state: TrainingState,
    batch: ClipBatch,
    draws: Draws,
    config: Config,
    scheduled: Scheduled,
    dtype: torch.dtype,
    ranks: Ranks = ALONE,
) -> tuple[Terms, Tensor]:
    """The first half of a step: put the clipped gradients of a batch, whose rows ``ranks`` share, on the parameters."""
    device, parts = state.model.device, config.training.accumulate
    batch, draws = batch.to(device).unit(), draws.to(device)
    each = len(batch.frames) // parts
    slices = [slice(first, first + each) for first in range(0, len(batch.frames), each)]

    def of_part(part: slice, kl_of_batch: Callable[[Tensor], Tensor]) -> tuple[Terms, Tensor]:
        clips = batch[part]
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return clip_terms(
                state.model, clips.frames, clips.condition, draws[part], config, clips.anchor, clips.start, kl_of_batch
            )

    kl_of_batch: Callable[[Tensor], Tensor] = ranks.mean
    if config.kl.free_bits and parts > 1:  # free bits depend on the KL of the whole batch: compute it before any part
        kls: list[Tensor] = []
        with torch.no_grad(), _untouched_buffers(state.model):
            for part in slices:
                of_part(part, lambda kl: kls.append(kl) or kl)  # type: ignore[func-returns-value]
        whole = ranks.mean(torch.stack(kls).mean(0))
        kl_of_batch = lambda kl: whole  # noqa: E731

    terms: Terms = {}
    ends: list[Tensor] = []
    state.optimizer.zero_grad(set_to_none=True)
    for part in slices:
        part_terms, end = of_part(part, kl_of_batch)
        part_terms["total"] = objectives.total(part_terms, scheduled.beta, config.loss.smoothing)
        (part_terms["total"] / parts).backward()
        ends.append(end)
        for name, value in part_terms.items():
            terms[name] = terms.get(name, 0) + value.detach() / parts
    ranks.average(state.model.parameters(), terms)
    limit = config.optimizer.gradient_clip or float("inf")
    terms["grad_norm"] = torch.nn.utils.clip_grad_norm_(state.model.parameters(), limit)
    return terms, torch.cat(ends)


def clip_terms(
    model: VideoModel,
    frames: Tensor,
    condition: Tensor | None,
    draws: Draws,
    config: Config,
    anchor: Anchor | None = None,
    start: Tensor | None = None,
    kl_of_batch: Callable[[Tensor], Tensor] = lambda kl: kl,
) -> tuple[Terms, Tensor]:
    """The objective's terms on a batch of clips, and the last predicted frame of each.

    frames: (B, T, 3, H, W) in 0..1. condition: (B, T, ...); entry 0 is not used.
    start: (B, 3, H, W), the model's input for frame 0 if that is not the truth.
    kl_of_batch: maps the KL (T-1,) of these clips to that of the whole batch, of which they may be a part.

    The encoders and the posterior see all frames at once; whatever depends on predictions runs frame by frame.
    """
    truth, before = frames[:, 1:], frames[:, :-1]
    inputs = before if start is None else torch.cat([start[:, None], before[:, 1:]], dim=1)
    keep = draws.keep
    codes = model.encode_frames(frames)
    if start is None and draws.noise is None:
        input_codes = at(codes, slice(0, -1))
    else:
        noisy = inputs if draws.noise is None else inputs + draws.noise
        input_codes = model.encode_frames(noisy, draws.level)
    condition_codes = model.encode_condition(None if condition is None else condition[:, 1:], truth)
    posterior = model.posterior(at(codes, slice(1, None)), condition_codes)
    z = reparameterize(*posterior, draws.eps)
    state = model.initial_state(inputs[:, 0], None if condition is None else condition[:, 0], anchor)

    if keep is None and all(share == "truth" for share in draws.pattern):
        prediction, prior = model.forced(state, input_codes, condition_codes, z)
        reference = inputs
    else:
        steps: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # prediction, reference, mu, logvar
        last, advance = inputs[:, 0], partial(_advance, model, keep)
        if config.training.checkpoint_activations:
            advance = partial(checkpoint, advance, use_reentrant=False, preserve_rng_state=False)
        shares = draws.mask.to(frames)[:, :, None, None, None]  # (B, T-1, 1, 1, 1)
        for t, share in enumerate(draws.pattern):
            previous = None
            if share == "truth":
                last, previous = inputs[:, t], at(input_codes, t)
            elif share == "mixed":
                last = shares[:, t] * inputs[:, t] + (1 - shares[:, t]) * last
            reference = last
            noise = None if draws.noise is None or previous is not None else draws.noise[:, t]
            level = None if draws.level is None else draws.level[:, t]
            last, (mu, logvar), state = advance(state, last, previous, noise, level, at(condition_codes, t), z[:, t])
            steps.append((last, reference, mu, logvar))
        prediction, reference, mu, logvar = (torch.stack(each, 1) for each in zip(*steps, strict=True))
        prior = mu, logvar

    kl = objectives.kl_per_frame(posterior, prior, config.kl.reduction, keep)  # (T-1,)
    terms = {  # the KL first: if its logvar overflows, so does the prediction, and the error names the first bad term
        "kl": kl.sum(),
        "reconstruction": objectives.reconstruction(
            prediction, truth, config.loss.reconstruction, before, config.loss.motion
        ),
    }
    if config.kl.free_bits:
        above = kl_of_batch(kl.detach()) >= config.kl.free_bits
        # Averaged over all parts, this is the clamp
        terms["kl_charged"] = torch.where(above, kl, config.kl.free_bits).sum()
    if config.loss.smoothing:
        terms["smoothing"] = objectives.smoothing(prediction, reference, truth, before)
    return terms, prediction[:, -1].detach()


def _advance(
    model: VideoModel,
    keep: Tensor | None,
    state: State,
    last: Tensor,
    previous: Code | None,
    noise: Tensor | None,
    level: Tensor | None,
    condition: Code,
    z: Tensor,
) -> tuple[Tensor, Gaussian, State]:
    """The next frame, its prior and the new state. ``previous`` None: encode ``last``, the previous frame."""
    if previous is None:
        seen = last if noise is None else last + noise
        previous = at(model.encode_frames(seen[:, None], None if level is None else level[:, None]), 0)
    prior, state = model.prior(state, previous, condition)
    if keep is not None:
        z = torch.where(keep.view(-1, *[1] * (z.dim() - 1)) > 0, z, full(prior[0]))
    frame, state = model.step(state, previous, condition, z)
    return frame, prior, state


@contextlib.contextmanager
def _untouched_buffers(model: nn.Module) -> Iterator[None]:
    """Restore the running statistics when the block ends."""
    before = [buffer.clone() for buffer in model.buffers()]
    yield
    for buffer, saved in zip(model.buffers(), before, strict=True):
        buffer.copy_(saved)


def must_be_finite(terms: Terms) -> float:
    """1, or a ``NonFiniteError`` that names the first term that is not finite."""
    if bad := objectives.first_non_finite(terms):
        raise NonFiniteError(f"the {bad.replace('_', ' ')} became {float(terms[bad])}")
    return 1.0


@torch.no_grad()
def update_ema(state: TrainingState, share: float | Tensor) -> None:
    """ema += share * (weights - ema). A share that is a tensor is not read on the CPU."""
    if not state.ema:
        return
    averages = [state.ema[name] for name, _ in state.model.named_parameters()]
    weights = [p.detach() for p in state.model.parameters()]
    if isinstance(share, Tensor):
        apart = torch._foreach_sub(weights, averages)
        torch._foreach_mul_(apart, share)
        torch._foreach_add_(averages, apart)
    else:
        torch._foreach_lerp_(averages, weights, share)
