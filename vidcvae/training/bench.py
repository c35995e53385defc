"""Measure the engine against a plain loop, in turns in one process, on made-up clips.

B batch, T frames. The plain loop is the obvious one, which the lab's report describes: for each frame it encodes the
previous frame, the condition and the true frame, draws z, fuses and decodes; eager, float32, contiguous. It shares
only the networks with the engine, so it also serves as the reference for the engine's numbers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from vidcvae import rng
from vidcvae.config import Config
from vidcvae.device import processor
from vidcvae.models import arithmetic, build_model
from vidcvae.models.anchor_cvae import AnchorCvae
from vidcvae.models.graphs import EAGER_CALLS
from vidcvae.models.interface import VideoModel, at
from vidcvae.models.objectives import kl_elements
from vidcvae.models.pose_cvae import PoseCvae
from vidcvae.models.rollout import rollout
from vidcvae.models.svg import Hidden, Svg, zero_hidden
from vidcvae.progress import Progress, unreported
from vidcvae.training.engine import Engine
from vidcvae.training.state import new_state
from vidcvae.training.step import Scheduled, clip_terms, draw
from vidcvae.training.timing import made_up, training_arithmetic

BETA = 0.01


@dataclass(frozen=True)
class Comparison:
    """Both rates in ``unit``, the engine's share of the measured matrix peak, and the difference between the results.

    flop_per_frame: one frame forward (encoders, posterior, decoder); a multiplication and an addition count as two.
    peak_memory_bytes: of the engine on a GPU, or of the whole process on a CPU.
    max_difference: train: relative, of the first step's losses; generate: absolute, of the frames.
    """

    plain: float
    engine: float
    ratio: float
    unit: str
    flop_per_frame: float
    peak_share: float
    peak_memory_bytes: int
    max_difference: float
    machine: str


def compare_training(config: Config, device: str, repeats: int, progress: Progress = unreported) -> Comparison:
    """Clips/s of whole training steps, including the optimizer, from the same weights on the same clips."""
    engine_model, plain_model = _twins(config, device)
    dtype = training_arithmetic(engine_model, config, device).dtype
    clips, length = config.training.batch_size, config.training.clip_length
    batch, eps, mask = made_up(engine_model, config, device, clips, length)
    unit = batch.unit()
    frames, condition = unit.frames, unit.condition
    engine_state = new_state(engine_model.to(memory_format=torch.channels_last).train(), config)  # type: ignore[call-overload]
    fast = Engine(engine_state, config, dtype)
    plain_state = new_state(plain_model.train(), config)
    smoothing, draws = config.loss.smoothing, draw(eps, mask)
    mask = mask.to(device)  # otherwise the plain loop would wait for it in every frame

    def engine() -> dict[str, Tensor]:
        return fast.step(batch, draws, Scheduled(BETA, config.optimizer.lr))[0]

    def plain() -> dict[str, Tensor]:
        terms = plain_terms(plain_model, frames, condition, eps, mask)
        terms["total"] = terms["reconstruction"] + BETA * terms["kl"] + smoothing * terms["smoothing"]
        plain_state.optimizer.zero_grad()
        terms["total"].backward()
        torch.nn.utils.clip_grad_norm_(plain_model.parameters(), config.optimizer.gradient_clip)
        plain_state.optimizer.step()
        return terms

    calls = EAGER_CALLS + 1 if device == "cuda" else 1  # until the graph is captured
    got, memory = _with_memory(engine, device, calls)
    want = plain()
    losses = {name: (float(got[name]), float(want[name].detach())) for name in got.keys() & want}
    difference = max(abs(a - b) / max(abs(b), 1e-12) for a, b in losses.values())
    seconds = in_turns(plain, engine, device, repeats, progress)
    # counted on the plain model, because compiled networks hide their operations
    forward = count_flop(lambda: clip_terms(plain_model, frames, condition, draws, config))
    share = 3 * forward / seconds[1] / matrix_peak(dtype, device)  # backward costs twice forward
    return _comparison(seconds, clips, "clips/s", frame_flop(plain_model, frames, condition), share, memory, difference)


def compare_generation(config: Config, device: str, repeats: int, progress: Progress = unreported) -> Comparison:
    """Frames/s of free runs, z drawn from the prior: the plain loop one sequence at a time, the engine all at once."""
    engine_model, plain_model = _twins(config, device)
    sequences, length, past = config.training.batch_size, config.training.clip_length, config.training.past
    dtype = arithmetic.free_run(config.training.precision, engine_model.eval(), config, sequences).dtype
    batch, eps, _ = made_up(engine_model, config, device, sequences, length)
    unit = batch.unit()
    frames, condition = unit.frames, unit.condition

    @torch.no_grad()
    def plain() -> Tensor:
        alone = ([x[i : i + 1] for x in (frames, condition, eps) if x is not None] for i in range(sequences))
        videos = [plain_video(plain_model.eval(), one[0][:, :past], *one[1:-1], eps=one[-1]) for one in alone]
        return torch.cat(videos)

    def engine() -> Tensor:
        made = rollout(
            engine_model.eval(), frames[:, :past], condition, lambda t: eps[:, t - 1], latent="prior", length=length,
            dtype=dtype,
        )  # fmt: skip
        return torch.stack(list(made), dim=1)

    got, memory = _with_memory(engine, device)
    difference = float((got - plain()).abs().max())
    seconds = in_turns(plain, engine, device, repeats, progress)
    flop = frame_flop(engine_model, frames, condition)
    made = sequences * (length - past)
    share = frame_flop(engine_model, frames, condition, posterior=False) * made / seconds[1]
    share /= matrix_peak(dtype, device)
    return _comparison(seconds, made, "frames/s", flop, share, memory, difference)


# --- the plain loop --------------------------------------------------------------------------------


def plain_terms(
    model: VideoModel, frames: Tensor, condition: Tensor | None, eps: Tensor, mask: Tensor
) -> dict[str, Tensor]:
    """The terms of ``training.step.clip_terms``, computed frame by frame.

    frames (B, T, 3, H, W), condition (B, T, ...), eps (B, T-1, ...), mask (B, T-1): the truth's share in each step.
    """
    forward = _plain_step(model, frames[:, 0], condition)
    last = frames[:, 0]
    terms = dict.fromkeys(("kl", "reconstruction", "smoothing"), torch.zeros((), device=frames.device))
    for t in range(1, frames.shape[1]):
        share = mask[:, t - 1, None, None, None].to(frames)
        reference = share * frames[:, t - 1] + (1 - share) * last
        row = None if condition is None else condition[:, t]
        last, posterior, prior = forward(reference, row, frames[:, t], eps[:, t - 1])
        terms["kl"] = terms["kl"] + kl_elements(posterior, prior).sum() / len(frames)
        terms["reconstruction"] = terms["reconstruction"] + F.mse_loss(last, frames[:, t])
        terms["smoothing"] = terms["smoothing"] + F.mse_loss(last - reference, frames[:, t] - frames[:, t - 1])
    return terms


def plain_video(model: VideoModel, past: Tensor, condition: Tensor | None = None, *, eps: Tensor) -> Tensor:
    """Frames P..T-1 of a free run from ``past`` (B, P, 3, H, W), z drawn from the prior with ``eps`` (B, T-1, ...)."""
    forward = _plain_step(model, past[:, 0], condition)
    video = [past[:, 0]]
    for t in range(1, eps.shape[1] + 1):
        truth = past[:, t] if t < past.shape[1] else None
        frame, _, _ = forward(video[-1], None if condition is None else condition[:, t], truth, eps[:, t - 1])
        video.append(frame if truth is None else truth)
    return torch.stack(video[past.shape[1] :], dim=1)


# reference, condition, true frame (None: draw from the prior), eps -> frame, posterior, prior (None: N(0, I))
PlainStep = Callable[[Tensor, Tensor | None, Tensor | None, Tensor], tuple[Tensor, Any, Any]]


def _plain_step(model: VideoModel, first: Tensor, condition: Tensor | None) -> PlainStep:
    if isinstance(model, PoseCvae):
        return _plain_pose_step(model)
    if isinstance(model, AnchorCvae):
        return _plain_anchor_step(model, first, condition)
    return _plain_svg_step(cast(Svg, model), first)


def _plain_anchor_step(model: AnchorCvae, first: Tensor, condition: Tensor | None) -> PlainStep:
    """The first frame is the anchor."""
    assert condition is not None
    state = model.initial_state(first, condition[:, 0])

    def step(reference: Tensor, pose: Tensor | None, truth: Tensor | None, eps: Tensor) -> tuple[Tensor, Any, Any]:
        nonlocal state
        assert pose is not None
        before, skeleton = model.encode_frames(reference[:, None]), 1 - pose
        z, posterior = eps, None
        (p_mu, p_logvar), state = model.prior(state, before[:, 0], skeleton)
        if truth is not None:
            mu, logvar = (x[:, 0] for x in model.posterior(model.encode_frames(truth[:, None]), skeleton[:, None]))
            z, posterior = mu + eps * torch.exp(logvar / 2), (mu, logvar)
        elif model.prior_net is not None:
            z = p_mu + eps * torch.exp(p_logvar / 2)
        frame, state = model.step(state, before[:, 0], skeleton, z)
        return frame, posterior, (p_mu, p_logvar)

    return step


def _plain_pose_step(model: PoseCvae) -> PlainStep:
    def step(reference: Tensor, pose: Tensor | None, truth: Tensor | None, eps: Tensor) -> tuple[Tensor, Any, Any]:
        before = model.frame_encoder(reference)
        skeleton = model.pose_encoder(pose)
        z, posterior = eps, None
        if truth is not None:
            features = model.frame_encoder(truth)
            mu, logvar = posterior = model.gaussian_predictor(torch.cat([features, skeleton], dim=1)).chunk(2, dim=1)
            z = mu + eps * torch.exp(logvar / 2)
        fused = model.fusion(torch.cat([before, skeleton, z], dim=1))
        return torch.sigmoid(model.generator(fused)), posterior, None

    return step


def _plain_svg_step(model: Svg, like: Tensor) -> PlainStep:
    """The LSTMs keep their state from step to step, as in the original code."""
    hidden: dict[str, Hidden] = {}
    skips: list[Tensor] = []
    steps_done = 0

    def recur(name: str, network: Any, x: Tensor) -> Any:
        before = hidden[name] if name in hidden else zero_hidden(network.lstm, len(like), like)
        y, hidden[name] = network(x[:, None], before)
        return y[:, 0] if isinstance(y, Tensor) else (y[0][:, 0], y[1][:, 0])

    def step(reference: Tensor, row: Tensor | None, truth: Tensor | None, eps: Tensor) -> tuple[Tensor, Any, Any]:
        nonlocal skips, steps_done
        h, *new_skips = model.encoder(reference)
        if model.last_frame_skip or steps_done < model.renewals:
            skips = new_skips
        steps_done += 1
        prior = None if model.prior_lstm is None else recur("prior", model.prior_lstm, h)
        posterior = None
        if truth is not None:
            posterior = recur("posterior", model.posterior_lstm, model.encoder(truth)[0])
        mu, logvar = posterior or prior or (torch.zeros_like(eps), torch.zeros_like(eps))
        z = mu + eps * torch.exp(logvar / 2)
        embedded = [] if row is None else [model.condition_embedding(row)]
        code = recur("predictor", model.frame_predictor, torch.cat([h, z, *embedded], dim=-1))
        return model.decoder(model.frame_predictor.normalize(code), *skips), posterior, prior

    return step


# --- measuring -------------------------------------------------------------------------------------


def in_turns(
    plain: Callable[[], Any], engine: Callable[[], Any], device: str, repeats: int, progress: Progress = unreported
) -> tuple[float, float]:
    """Median seconds of each, measured in turns so that other load on the machine affects both."""
    times: tuple[list[float], list[float]] = ([], [])
    for done in range(repeats):
        for run, seconds in zip((plain, engine), times, strict=True):
            _wait(device)
            began = time.perf_counter()
            run()
            _wait(device)
            seconds.append(time.perf_counter() - began)
        progress(done + 1, repeats)
    return median(times[0]), median(times[1])


def count_flop(run: Callable[[], Any]) -> float:
    """Floating-point operations of ``run``: those that PyTorch counts, plus those of LSTMs, which it does not count."""
    counter = FlopCounterMode(display=False)
    counted_before: list[int] = []
    lstm = 0.0

    def enter(module: nn.Module, inputs: Any) -> None:
        if isinstance(module, nn.LSTM):
            counted_before.append(counter.get_total_flops())

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal lstm
        if isinstance(module, nn.LSTM):  # replaces what PyTorch counts inside an LSTM on some backends
            lstm += lstm_flop(module, inputs[0].shape[:-1].numel()) - (counter.get_total_flops() - counted_before.pop())

    before = nn.modules.module.register_module_forward_pre_hook(enter)
    after = nn.modules.module.register_module_forward_hook(leave)
    try:
        with torch.no_grad(), counter:
            run()
    finally:
        before.remove()
        after.remove()
    return counter.get_total_flops() + lstm


def lstm_flop(lstm: nn.LSTM, vectors: int) -> float:
    """8 H (inputs + H) for each layer and vector: four gates; a multiplication and an addition count as two."""
    h = lstm.hidden_size
    layers = [lstm.input_size] + [h] * (lstm.num_layers - 1)
    return float(sum(8 * h * (inputs + h) for inputs in layers) * vectors)


def frame_flop(model: VideoModel, frames: Tensor, condition: Tensor | None, posterior: bool = True) -> float:
    """Floating-point operations of one frame of one clip forward, through each network once."""
    two, row = frames[:1, :2], None if condition is None else condition[:1, :1]
    model.eval()

    def forward() -> None:
        code, condition_code = model.encode_frames(two[:, :1]), model.encode_condition(row, two[:, :1])
        mu, _ = model.posterior(code, condition_code) if posterior else (None, None)
        state = model.initial_state(two[:, 0], None if row is None else row[:, 0])
        (p_mu, _), state = model.prior(state, at(code, 0), at(condition_code, 0))
        model.step(state, at(code, 0), at(condition_code, 0), torch.zeros_like(p_mu if mu is None else mu[:, 0]))

    return count_flop(forward)


def matrix_peak(dtype: torch.dtype, device: str, n: int = 0) -> float:
    """The highest rate of a large n x n matrix product on this device in ``dtype``, in floating-point operations/s.

    On a CPU it also tries a 1x1 convolution, the same product by another library, which may be faster.
    """
    n = n or (8192 if device == "cuda" else 1024)
    a = torch.rand(n, n, device=device, dtype=dtype)
    image = torch.rand(16, n, 8, n // 128, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    products = [lambda: a @ a]
    if device == "cpu":
        products.append(lambda: F.conv2d(image, a[:, :, None, None]))
    best = float("inf")
    with torch.inference_mode():
        for product in products:
            product()
            best = min(best, *(in_turns(product, product, device, 1)[0] for _ in range(5)))
    return 2 * n**3 / best


def machine() -> str:
    """The processor or GPU, the number of CPU threads and the version of PyTorch."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}"
    return f"{processor()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"


def _twins(config: Config, device: str) -> tuple[VideoModel, VideoModel]:
    """Two models with the same weights."""
    torch.backends.cudnn.allow_tf32 = False  # both compute in full float32
    torch.manual_seed(rng.seed_of(config.training.seed, "weights"))
    one, other = build_model(config).to(device), build_model(config).to(device)
    other.load_state_dict(one.state_dict())
    return one, other


def _with_memory(run: Callable[[], Any], device: str, calls: int = 1) -> tuple[Any, int]:
    """The first result of ``calls`` runs, and their peak memory in bytes."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    result, *_ = [run() for _ in range(calls)]
    if device == "cuda":
        return result, torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        import psutil

        return result, psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return result, peak if sys.platform == "darwin" else peak * 1024


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _comparison(
    seconds: tuple[float, float], amount: int, unit: str, flop: float, share: float, memory: int, difference: float
) -> Comparison:
    plain, engine = (amount / s for s in seconds)
    return Comparison(plain, engine, engine / plain, unit, flop, share, memory, difference, machine())
