"""The latency of a single step of a free run, which live use waits for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import torch

from vidcvae import rng
from vidcvae.config import Config
from vidcvae.models import arithmetic, build_model
from vidcvae.models.graphs import EAGER_CALLS
from vidcvae.models.rollout import rollout
from vidcvae.progress import Progress, unreported
from vidcvae.training.bench import machine
from vidcvae.training.timing import made_up


@dataclass(frozen=True)
class Latency:
    """Times of single steps (one frame of every video), from the call to the frame, in milliseconds."""

    frames_per_second: float
    median_ms: float
    p95_ms: float
    worst_ms: float
    steps: int
    precision: str
    threads: int
    machine: str


def measure_latency(
    config: Config, videos: int, length: int, device: str, repeats: int, progress: Progress = unreported
) -> Latency:
    """Time every step of ``repeats`` free runs of ``videos`` videos at once, with z drawn from the prior.

    The first steps of each run, which warm up, are left out. ``training.precision`` decides precision and threads.
    """
    torch.manual_seed(rng.seed_of(config.training.seed, "weights"))
    model = build_model(config).to(device).eval()
    chosen = arithmetic.free_run(config.training.precision, model, config, videos)
    batch, eps, _ = made_up(model, config, device, videos, length)
    batch = batch.unit()
    seconds: list[float] = []
    with arithmetic.using_threads(chosen.threads):
        for done in range(repeats):
            run = rollout(
                model,
                batch.frames[:, : config.training.past],
                batch.condition,
                lambda t: eps[:, t - 1],
                latent="prior",
                length=length,
                dtype=chosen.dtype,
            )
            began = time.perf_counter()
            for step, _ in enumerate(run):
                if device == "cuda":
                    torch.cuda.synchronize()
                now = time.perf_counter()
                if step > EAGER_CALLS:
                    seconds.append(now - began)
                began = now
            progress(done + 1, repeats)
        measured_on = machine()
    times = sorted(seconds)
    return Latency(
        frames_per_second=videos * len(times) / sum(times),
        median_ms=1000 * median(times),
        p95_ms=1000 * times[int(0.95 * (len(times) - 1))],
        worst_ms=1000 * times[-1],
        steps=len(times),
        precision=chosen.precision,
        threads=chosen.threads,
        machine=measured_on,
    )
