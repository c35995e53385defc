"""How long a single step of a free run takes: what live use waits for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import torch

from vidcvae import rng
from vidcvae.config import Config
from vidcvae.data.clips import to_unit
from vidcvae.models import arithmetic, build_model
from vidcvae.models.graphs import EAGER_CALLS
from vidcvae.models.rollout import rollout
from vidcvae.training.bench import Progress, machine
from vidcvae.training.timing import made_up


@dataclass(frozen=True)
class Latency:
    """Of single steps, one frame for each video, from the call to the frame, in milliseconds."""

    frames_per_second: float
    median_ms: float
    p95_ms: float
    worst_ms: float
    steps: int
    precision: str
    threads: int
    machine: str


def measure_latency(
    config: Config, videos: int, length: int, device: str, repeats: int, progress: Progress | None = None
) -> Latency:
    """Each step of ``repeats`` free runs of ``videos`` side by side, z drawn from the prior.

    The first steps of each run, which make ready, are left out. Precision and threads are what ``training.precision``
    means here.
    """
    torch.manual_seed(rng.seed_of(config.training.seed, "weights"))
    model = build_model(config).to(device).eval()
    found = arithmetic.free_run(config.training.precision, model, config, videos)
    batch, eps, _ = made_up(model, config, device, videos, length)
    frames, condition = to_unit(batch.frames), None if batch.condition is None else to_unit(batch.condition)
    seconds: list[float] = []
    with arithmetic.threads(found.threads):
        for done in range(repeats):
            run = rollout(
                model,
                frames[:, : config.training.past],
                condition,
                lambda t: eps[:, t - 1],
                latent="prior",
                length=length,
                dtype=found.dtype,
            )
            began = time.perf_counter()
            for step, _ in enumerate(run):
                if device == "cuda":
                    torch.cuda.synchronize()
                now = time.perf_counter()
                if step > EAGER_CALLS:
                    seconds.append(now - began)
                began = now
            if progress:
                progress(done + 1, repeats)
        where = machine()
    times = sorted(seconds)
    return Latency(
        frames_per_second=videos * len(times) / sum(times),
        median_ms=1000 * median(times),
        p95_ms=1000 * times[int(0.95 * (len(times) - 1))],
        worst_ms=1000 * times[-1],
        steps=len(times),
        precision=found.precision,
        threads=found.threads,
        machine=where,
    )
