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
    from vidcvae.training.latency import measure_latency

    made = what == "generate"
    training: dict[str, Any] = {"precision": precision, "compile": compile_, "seed": seed}
    if (batch_size or made) and not latency:
        training["batch_size"] = batch_size or 5
    if (frames or made) and not latency:
        training["clip_length"] = frames or 64
    # statistics as the plain loop takes them, so that both compute the same
    statistics = {} if latency or model == "anchor-cvae" else {"batch_norm": "frame"}
    layers = [{"model": {"name": model, **statistics}, "training": training}, {"data": {"size": size}}]
    config = settings.with_size(settings.resolve_with_preset(None, layers if size else layers[:1]))
    shown = f"{config.data.frame_size[0]}x{config.data.frame_size[1]}"
    where = pick_device(device)
    voice = ui.Speaker(bars=not json)
    if latency:
        videos, length = batch_size or 1, frames or 64
        if length < config.training.past + 5:
            raise UsageError(f"of {length} frames too few steps are left to time.", "Use --frames 64, or leave it out.")
        with voice.progress("free runs, step by step") as advance:
            steps = measure_latency(config, videos, length, where, repeats, advance)
        _show(
            f"{model}: {videos} x {length} frames of {shown}, step by step, {steps.precision}",
            [
                ("rate", f"{steps.frames_per_second:.4g} frames/s"),
                ("a step, median", f"{steps.median_ms:.3g} ms"),
                ("95% of the steps within", f"{steps.p95_ms:.3g} ms"),
                ("the slowest of all", f"{steps.worst_ms:.3g} ms of {steps.steps} steps"),
                ("machine", steps.machine),
            ],
            asdict(steps),
            json,
        )
        return
    compare = measuring.compare_generation if made else measuring.compare_training
    with voice.progress(f"{what}, plain and engine in turns") as advance:
        found = compare(config, where, repeats, advance)
    kind = "frames, absolute" if made else "losses, relative"
    memory = "unknown" if found.peak_memory_bytes is None else f"{found.peak_memory_bytes / 2**20:.0f} MiB"
    _show(
        f"{model} {what}: {config.training.batch_size} x {config.training.clip_length} frames of {shown}, {precision}",
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
        asdict(found),
        json,
    )


def _show(title: str, rows: list[tuple[str, str]], found: dict[str, Any], json: bool) -> None:
    if json:
        ui.emit(found)
    else:
        ui.table(title, ("what", "value"), rows)
