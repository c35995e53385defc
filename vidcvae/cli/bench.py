"""``vidcvae bench``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from vidcvae.cli import command, trained, ui
from vidcvae.cli.command import option
from vidcvae.config.schema import ModelName
from vidcvae.errors import UsageError


def bench(
    what: Annotated[Literal["train", "generate"], command.argument("What to measure.")],
    model: Annotated[ModelName, option("Which model.")] = "pose-cvae",
    batch_size: Annotated[
        int | None,
        option("Clips per step, or videos at once.", min=1, show_default="the preset's; generate: 5"),
        command.Also("--batch"),
    ] = None,
    frames: Annotated[
        int | None, option(f"{trained.FRAMES}.", min=2, show_default="the preset's; generate: 64")
    ] = None,
    size: Annotated[str | None, option("Frame height and width.", show_default="the preset's")] = None,
    precision: trained.Precision = "float32",
    compile_: Annotated[bool, option("Let torch.compile fuse the engine's small operations.")] = False,
    repeats: Annotated[int, option("How often to measure each.", min=1)] = 5,
    against: Annotated[Literal["plain"], option("What to compare with: the usual hand-written loop.")] = "plain",
    latency: Annotated[bool, option("generate: time each step alone, as live use needs it.")] = False,
    device: trained.Device = "auto",
    seed: Annotated[int, option("Random seed.", min=0)] = 0,
    json: command.Json = False,
) -> None:
    """Measure training or generation against a plain loop, alternating in one process, on random clips.

    Examples:
      vidcvae bench train --model anchor-cvae
      vidcvae bench generate --latency
    """
    if latency and what != "generate":
        raise UsageError(f"--latency times generate, not {what}.", "Type: vidcvae bench generate --latency")
    from dataclasses import asdict

    from vidcvae import config as settings
    from vidcvae.models.loading import pick_device
    from vidcvae.training import bench as measuring
    from vidcvae.training.latency import measure_latency

    generates = what == "generate"
    training: dict[str, Any] = {"precision": precision, "compile": compile_, "seed": seed}
    if (batch_size or generates) and not latency:
        training["batch_size"] = batch_size or 5
    if (frames or generates) and not latency:
        training["clip_length"] = frames or 64
    # The plain loop normalises frame by frame; the engine must compute the same
    statistics = {} if latency or model == "anchor-cvae" else {"batch_norm": "frame"}
    layers = [{"model": {"name": model, **statistics}, "training": training}, {"data": {"size": size}}]
    config = settings.with_size(settings.resolve_with_preset(None, layers if size else layers[:1]))
    shape = f"{config.data.frame_size[0]}x{config.data.frame_size[1]}"
    target = pick_device(device)
    voice = ui.Speaker(bars=not json)
    if latency:
        videos, length = batch_size or 1, frames or 64
        if length < config.training.past + 5:
            raise UsageError(f"{length} frames leave too few steps to time.", "Use --frames 64, or leave it out.")
        with voice.progress("free runs, step by step") as advance:
            steps = measure_latency(config, videos, length, target, repeats, advance)
        result = asdict(steps)
        title = f"{model}: {videos} x {length} frames of {shape}, step by step, {steps.precision}"
        rows = [
            ("rate", f"{steps.frames_per_second:.4g} frames/s"),
            ("median step", f"{steps.median_ms:.3g} ms"),
            ("95% of the steps within", f"{steps.p95_ms:.3g} ms"),
            ("slowest step", f"{steps.worst_ms:.3g} ms of {steps.steps} steps"),
            ("machine", steps.machine),
        ]
    else:
        compare = measuring.compare_generation if generates else measuring.compare_training
        with voice.progress(f"{what}, plain loop and engine") as advance:
            both = compare(config, target, repeats, advance)
        result = asdict(both)
        count, length = config.training.batch_size, config.training.clip_length
        title = f"{model} {what}: {count} x {length} frames of {shape}, {precision}"
        kind = "frames, absolute" if generates else "losses, relative"
        rows = [
            ("plain loop", f"{both.plain:.4g} {both.unit}"),
            ("engine", f"{both.engine:.4g} {both.unit}"),
            ("ratio", f"{both.ratio:.2f}"),
            ("arithmetic", f"{both.flop_per_frame / 1e9:.2f} GFLOP per frame forward"),
            ("share of the matrix peak", f"{both.peak_share:.0%}"),
            ("peak memory", f"{both.peak_memory_bytes / 2**20:.0f} MiB"),
            ("largest difference", f"{both.max_difference:.2g} ({kind})"),
            ("machine", both.machine),
        ]
    if json:
        ui.emit(result)
    else:
        ui.table(title, ("what", "value"), rows)
