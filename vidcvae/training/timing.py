"""Time the training step before training begins, on made-up clips and a copy of the model, without side effects.

B batch, T frames, C H W a frame.
"""

from __future__ import annotations

import copy
import time
from dataclasses import asdict, replace

import torch
from torch import Tensor

from vidcvae import rng
from vidcvae.config import Config
from vidcvae.data.clips import ClipBatch
from vidcvae.models.arithmetic import Arithmetic, Step, by_hardware, chosen, restored
from vidcvae.models.interface import VideoModel
from vidcvae.storage import durable
from vidcvae.storage.checkpoint import Checkpoint
from vidcvae.storage.run import RunFolder
from vidcvae.training.distributed import Ranks
from vidcvae.training.state import new_state
from vidcvae.training.step import Scheduled, draw, gradients

MOST_CLIPS, FAST = 8, 0.05  # if a step of the fewest clips takes less than FAST seconds, more clips are timed
SCHEDULED = Scheduled(0.01, 1e-4)


def settled(
    model: VideoModel, config: Config, device: str, ranks: Ranks, run: RunFolder, resume: Checkpoint | None
) -> Arithmetic:
    """The arithmetic of a run: that of its checkpoint, so that a resumed run is exact, else what rank 0 measures.

    Writes a measurement to RUN/precision.json.
    """
    auto = config.training.precision == "auto"
    if resume and auto:
        return restored(resume.meta.arithmetic) or by_hardware(device)
    measured = Arithmetic(**ranks.from_main(lambda: asdict(training_arithmetic(model, config, device, ranks.world))))
    if auto and ranks.main:
        durable.write_json(run.path / "precision.json", asdict(measured))
    return measured


def training_arithmetic(model: VideoModel, config: Config, device: str, world: int = 1) -> Arithmetic:
    """What ``training.precision`` means here; "auto" is the faster precision for forward and backward of short clips.

    ``model`` is on ``device``, and not yet changed for several ranks, of which only one measures.
    """
    train = config.training
    part = max(1, train.batch_size // (world * train.accumulate))
    about = {"what": "training", "clips": part, "model": asdict(config.model), "size": list(config.data.frame_size)}
    twin: list[VideoModel] = []
    clips: list[int] = []
    fewest_clips = config.model.fewest_clips

    def step_in(dtype: torch.dtype) -> Step:
        if not twin:
            twin.append(copy.deepcopy(model).to(memory_format=torch.channels_last).train())  # type: ignore[call-overload]
        if not clips:
            fewest = _step(twin[0], config, device, fewest_clips, dtype)
            fewest()
            began = time.perf_counter()
            fewest()
            fast = time.perf_counter() - began < FAST
            clips.append(min(part, MOST_CLIPS) if fast else fewest_clips)
        return _step(twin[0], config, device, clips[0], dtype)

    return chosen(train.precision, device, about, step_in)


def _step(model: VideoModel, config: Config, device: str, clips: int, dtype: torch.dtype) -> Step:
    config = replace(config, training=replace(config.training, accumulate=1))  # ``clips`` are one part of a batch
    batch, eps, mask = made_up(model, config, device, clips, config.training.past + 1)
    state, draws = new_state(model, config), draw(eps, mask)
    return lambda: gradients(state, batch, draws, config, SCHEDULED, dtype)


def made_up(
    model: VideoModel, config: Config, device: str, clips: int, length: int
) -> tuple[ClipBatch, Tensor, Tensor]:
    """Clips of noise, eps, and a mask: the model's own previous frames for poses, the true ones for actions."""
    shape, seed = (clips, length, 3, *config.data.frame_size), config.training.seed

    def image(stream: str) -> Tensor:
        return (rng.uniform(shape, seed, stream, device=device) * 255).to(torch.uint8)

    kind = config.model.condition_kind
    condition = None
    if kind == "pose":
        condition = image("poses")
    elif width := config.model.condition_size:
        condition = rng.normal((clips, length, width), seed, "actions", device=device)
    eps = rng.normal(
        (clips, length - 1, *model.latent_shape(*config.data.frame_size)), seed, "posterior", device=device
    )
    mask = torch.zeros(clips, length - 1) if kind == "pose" else torch.ones(clips, length - 1)
    mask[:, : config.training.past] = 1
    return ClipBatch(image("frames"), condition), eps, mask
