"""``vidcvae generate``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidcvae.cli import trained, ui
from vidcvae.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from vidcvae.models.loading import Loaded
    from vidcvae.models.rollout import Noise

LATENTS = ("zero", "prior")
MOST_SAMPLES = 32


def generate(
    first_frame: Annotated[Path, typer.Option("--first-frame", help="The given frame, a PNG.", show_default=False)],
    poses: Annotated[
        Path, typer.Option("--poses", help="Pose images: a folder of numbered PNGs, or a GIF.", show_default=False)
    ],
    run: trained.Run = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="A name in .gif or .mp4, or a folder for lossless PNGs.")
    ] = Path("generated.gif"),
    latent: Annotated[
        str | None,
        typer.Option(
            "--latent",
            help="zero, or prior: z drawn from it.",
            show_default="zero; prior for --samples",
            autocompletion=trained.choices(*LATENTS),
        ),
    ] = None,
    latents: Annotated[
        Path | None, typer.Option("--latents", help="Replay the noise in this file: tensor eps (T-1, C, H, W).")
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", min=1, max=MOST_SAMPLES, help="How many videos, each with noise of its own.")
    ] = 1,
    seed: trained.Seed = 0,
    batch_stats: trained.BatchStats = False,
    weights: trained.Weights = "auto",
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Pose and generated video in one picture, enlarged.")
    ] = False,
    fps: Annotated[float, typer.Option("--fps", help="Frames a second of a GIF or MP4.")] = 25.0,
    device: trained.Device = "auto",
) -> None:
    """Make a video from its first frame and the poses of all its frames.

    Pose t shows frame t, so there are as many frames as poses; the first is the given one.
    """
    import torch

    from vidcvae.data import images
    from vidcvae.output import generation, media

    chosen = _latent(latent, latents, samples)
    targets = _targets(output, samples, side_by_side)
    for target in targets:
        media.check_target(target, fps)
    loaded = trained.load(run, device, batch_stats, weights)
    size = loaded.config.data.size
    if loaded.config.model.condition != "pose":
        raise UsageError(
            f"{loaded.path} is a {loaded.config.model.name}, which does not follow poses.",
            "Score it on its own data instead: vidcvae evaluate",
        )
    first = images.read_image(first_frame, size)
    with ui.progress("reading the poses") as advance:
        pose_images = media.read_poses(poses, size, advance)
    count = len(pose_images)
    if count < 2:
        raise DataError(f"{poses} has one pose only; pose 0 belongs to the given frame, so there is nothing to make.")

    past = torch.tensor(first)[None, None].repeat(samples, 1, 1, 1, 1)  # (S, 1, 3, H, W)
    condition = torch.from_numpy(pose_images)[None].expand(samples, *pose_images.shape)
    noise = _noise(loaded, chosen, latents, seed, samples, count)
    with contextlib.ExitStack() as files, ui.progress("generating") as advance:
        add = [files.enter_context(media.recording(target, fps)) for target in targets]
        for t, frames in enumerate(generation.videos(loaded, past, condition, count, chosen, noise)):
            _write(add, pose_images[t], frames, side_by_side)
            advance(t + 1, count)
    for target in targets:
        ui.say(f"{target}: {count} frames, z: {'replayed' if latents else chosen}")


def _latent(latent: str | None, latents: Path | None, samples: int) -> str:
    """How z is chosen; raises ``UsageError`` where the options contradict each other."""
    if latent is not None:
        trained.check_choice("--latent", latent, LATENTS)
    if latents and (latent == "zero" or samples > 1):
        other = "--samples" if samples > 1 else "--latent zero"
        raise UsageError(f"--latents replays one noise, which {other} contradicts.", f"Leave out {other} or --latents.")
    if samples > 1 and latent == "zero":
        raise UsageError(f"with --latent zero all {samples} samples would be the same.", "Use --latent prior.")
    return latent or ("prior" if latents or samples > 1 else "zero")


def _targets(output: Path, samples: int, side_by_side: bool) -> list[Path]:
    """The files to write: one, or for several samples one each, unless they share a picture."""
    if samples == 1 or side_by_side:
        return [output]
    if output.suffix:
        return [output.with_name(f"{output.stem}-{k}{output.suffix}") for k in range(samples)]
    return [output / f"sample-{k}" for k in range(samples)]


def _noise(loaded: Loaded, latent: str, latents: Path | None, seed: int, samples: int, count: int) -> Noise:
    from vidcvae.output import generation

    device = str(next(loaded.model.parameters()).device)
    if latents:
        return generation.replayed_noise(latents, count - 1, generation.latent_shape(loaded), device)
    return generation.fresh_noise(loaded, latent, seed, range(samples), device)


def _write(add: list[Callable[[np.ndarray], None]], pose: np.ndarray, frames: np.ndarray, side_by_side: bool) -> None:
    """One time step into every file."""
    from vidcvae.output import pictures

    if not side_by_side:
        for put, frame in zip(add, frames, strict=True):
            put(frame)
        return
    titles = ["generated"] if len(frames) == 1 else [f"sample {k}" for k in range(len(frames))]
    add[0](pictures.panel([pose, *frames], ["pose", *titles]))
