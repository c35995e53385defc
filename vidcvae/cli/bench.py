"""``vidcvae bench``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from vidcvae.cli import choice, command, trained, ui
from vidcvae.config.schema import ModelName
from vidcvae.errors import UsageError

What = Literal["train", "generate"]
Against = Literal["plain"]


def bench(
    what: Annotated[What, choice.argument(What, "WHAT", help="What is measured.")],
    model: Annotated[ModelName, choice.option(ModelName, "--model", help="Which model.")] = "pose-cvae",
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            min=1,
            help="Clips in a step, or videos side by side.",
            show_default="the preset's; generate: 5",
        ),
        command.Also("--batch"),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option("--frames", min=2, help=f"{trained.FRAMES}.", show_default="the preset's; generate: 64"),
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", help="Frame height and width.", show_default="the preset's")
    ] = None,
    precision: trained.Precision = "float32",
    compile_: Annotated[
        bool, typer.Option("--compile", help="Let torch.compile fuse the engine's small operations.")
    ] = False,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="How often each is measured.")] = 5,
    against: Annotated[
        Against, choice.option(Against, "--against", help="What to compare with: the loop everyone writes.")
    ] = "plain",
    latency: Annotated[
        bool, typer.Option("--latency", help="generate: how long each step takes alone, as live use needs it.")
    ] = False,
    device: trained.Device = "auto",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")] = 0,
    json: command.Json = False,
) -> None:
    """Measure training or generation against the plain loop, in turns in one run, on made-up clips.

    Examples:
      vidcvae bench train --model anchor-cvae
      vidcvae bench generate --latency
    """
    if latency and what != "generate":
        raise UsageError(f"--latency is of the steps of generate, not of {what}.", "vidcvae bench generate --latency")
    from dataclasses import asdict

    from vidcvae import config as settings
    from vidcvae.models.loading import pick_device
    from vidcvae.training import bench as measuring

    made = what == "generate"
    common: dict[str, Any] = {"precision": precision, "compile": compile_, "seed": seed}
    if latency:
        return _latency(model, size, common, batch_size or 1, frames or 64, pick_device(device), repeats, json)
    if batch_size or made:
        common["batch_size"] = batch_size or 5
    if frames or made:
        common["clip_length"] = frames or 64
    # statistics as the plain loop takes them, so that both compute the same
    statistics = {} if model == "anchor-cvae" else {"batch_norm": "frame"}
    layers = [{"model": {"name": model, **statistics}, "training": common}, {"data": {"size": size}}]
    config = settings.resolve_with_preset(None, layers if size else layers[:1])
    compare = measuring.compare_generation if made else measuring.compare_training
    with ui.progress(f"{what}, plain and engine in turns", quiet=json) as advance:
        found = compare(config, pick_device(device), repeats, advance)
    if json:
        ui.emit(asdict(found))
        return
    kind = "frames, absolute" if made else "losses, relative"
    memory = "unknown" if found.peak_memory_bytes is None else f"{found.peak_memory_bytes / 2**20:.0f} MiB"
    ui.table(
        f"{model} {what}: {config.training.batch_size} x {config.training.clip_length} frames of "
        f"{config.data.size[0]}x{config.data.size[1]}, {precision}",
        ("what", "value"),
        [
            ("plain loop", f"{found.plain:.4g} {found.unit}"),
            ("engine", f"{found.engine:.4g} {found.unit}"),
            ("ratio", f"{found.ratio:.2f}"),
            ("arithmetic", f"{found.flop_per_frame / 1e9:.2f} GFLOP per frame forward"),
            ("share of the matrix peak", f"{found.peak_share:.0%}"),
            ("peak memory", memory),
            ("largest difference", f"{found.max_difference:.2g} ({kind})"),
            ("machine", found.machine),
        ],
    )


def _latency(
    model: str,
    size: str | None,
    common: dict[str, Any],
    videos: int,
    length: int,
    device: str,
    repeats: int,
    json: bool,
) -> None:
    from dataclasses import asdict

    from vidcvae import config as settings
    from vidcvae.training.latency import measure_latency

    layers = [{"model": {"name": model}, "training": common}, *([{"data": {"size": size}}] if size else [])]
    config = settings.resolve_with_preset(None, layers)
    if length < config.training.past + 5:
        raise UsageError(f"of {length} frames too few steps are left to time.", "Use --frames 64, or leave it out.")
    with ui.progress("free runs, step by step", quiet=json) as advance:
        found = measure_latency(config, videos, length, device, repeats, advance)
    if json:
        ui.emit(asdict(found))
        return
    height, width = config.data.size
    ui.table(
        f"{model}: {videos} x {length} frames of {height}x{width}, step by step, {found.precision}",
        ("what", "value"),
        [
            ("rate", f"{found.frames_per_second:.4g} frames/s"),
            ("a step, median", f"{found.median_ms:.3g} ms"),
            ("95% of the steps within", f"{found.p95_ms:.3g} ms"),
            ("the slowest of all", f"{found.worst_ms:.3g} ms of {found.steps} steps"),
            ("machine", found.machine),
        ],
    )
