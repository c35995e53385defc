"""``vidcvae generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidcvae.cli import choice, command, options, trained, ui
from vidcvae.config.schema import Latent


def generate(
    run: trained.Run = None,
    first_frame: Annotated[
        Path | None, typer.Option("--first-frame", help="Dance: the given frame, an image file.")
    ] = None,
    poses: Annotated[
        Path | None,
        typer.Option(
            "--poses",
            help="Dance: pose images, a folder of numbered images or a GIF; or a dataset; or somebody's clip.",
        ),
    ] = None,
    keypoints: options.Keypoints = None,
    estimate: options.Estimate = False,
    pose_model: options.PoseModel = None,
    trajectory: Annotated[
        Path | None, typer.Option("--trajectory", help="Pushing: a clip's folder, its first frames and CSVs.")
    ] = None,
    past_frames: Annotated[
        Path | None, typer.Option("--past-frames", help="Pushing: the given frames, a folder of 0.png ..")
    ] = None,
    actions: Annotated[Path | None, typer.Option("--actions", help="With --past-frames: CSV, a row a frame.")] = None,
    positions: Annotated[
        Path | None, typer.Option("--positions", help="With --past-frames: CSV, a row a frame.")
    ] = None,
    future: Annotated[
        int | None,
        typer.Option(
            "--future", min=1, help=f"Pushing: {trained.FUTURE.lower()}", show_default="as many as there are actions"
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="A name in .gif or .mp4, replaced if it is there; or a folder for lossless PNGs, new or empty.",
        ),
    ] = Path("generated.gif"),
    latent: Annotated[
        Latent | None, choice.option(Latent, "--latent", help=trained.LATENT, show_default="zero; prior for --samples")
    ] = None,
    latents: Annotated[
        Path | None, typer.Option("--latents", help="Replay the noise in this file: tensor eps (T-1, *shape of z).")
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", min=1, max=32, help="How many videos, each with noise of its own.")
    ] = 1,
    seed: trained.Seed = 0,
    batch_stats: trained.BatchStats = False,
    weights: trained.Weights = "auto",
    precision: trained.Precision = "float32",
    fill: Annotated[
        bool, typer.Option("--fill", help="Dance: where a pose is missing, repeat the one before it.")
    ] = False,
    fit_poses: Annotated[
        bool,
        typer.Option(
            "--fit-poses",
            help="Dance: the poses are another person's; fit them to the first frame's figure.",
        ),
    ] = False,
    target_poses: Annotated[
        Path | None,
        typer.Option(
            "--target-poses",
            help="With --fit-poses: pose images of the first frame's person, or one PNG, the first frame's own pose.",
            show_default="the training's poses; the place comes from the training frame most like the first frame",
        ),
    ] = None,
    side_by_side: Annotated[
        bool,
        typer.Option("--side-by-side", help="Panels with what the video is made from; and a PNG of its time steps."),
    ] = False,
    upscale: Annotated[
        int | None,
        typer.Option(
            "--upscale",
            min=1,
            max=64,
            help="Every pixel as N x N.",
            show_default="up to about 128 rows; 1 for a folder of PNGs",
        ),
    ] = None,
    fps: Annotated[
        float | None, typer.Option("--fps", help="Frames a second of a GIF or MP4.", show_default="the dataset's own")
    ] = None,
    device: trained.Device = "auto",
    json: command.Json = False,
) -> None:
    """Make a video: a dance from its first frame and all its poses, robot pushing from past frames and actions.

    Pose t shows frame t, so there are as many frames as poses; action t is taken at frame t. Several samples of robot
    pushing come side by side with the truth where it is there, as a video and as a PNG of all time steps.

    --poses takes a dataset too, which stands for its longest sequence, or a clip with --keypoints or --estimate. Of a
    clip, whose joints are known, --fit-poses moves limb by limb: as the other person does, with the lengths that your
    figure's limbs have in the training's poses. Of pose images it measures the box around each figure, its lower edge
    being the feet, and scales and shifts the picture; proportions stay those of the other person, and it goes wrong
    where arms are up, or somebody lies, most of the time. Look at the preview: OUTPUT-poses.png.

    Examples:
      vidcvae generate --first-frame frame.png --poses poses -o dance.gif
      vidcvae generate runs/svg-lp-001 --trajectory clips/0 --samples 5
    """
    from vidcvae.output import video
    from vidcvae.workflow import generation, opening

    files = generation.Files(
        first_frame, poses, trajectory, past_frames, actions, positions, future, fill, fit_poses, target_poses,
        keypoints, estimate, pose_model,
    )  # fmt: skip
    trained.refuse_posterior(latent, "generate makes them")
    chosen = generation.choose_latent(latent, latents, samples)
    videos, strip, preview = generation.targets(output, files, samples, side_by_side, fps)
    pictures = [path for path in (strip, preview) if path]
    for picture in pictures:
        trained.check_file(picture)
    generation.check_not_swapped(files)
    voice = ui.Speaker(bars=not json)
    loaded = opening.load(run, device, batch_stats, weights, voice)
    files.check(loaded, newest=run is None)
    if files.pushing:
        loaded, given = generation.read_push(loaded, files)
    else:
        given = generation.read_dance(loaded, files, ui.Speaker())
    if preview:
        tell = ui.note if json else ui.say
        given = generation.fit_poses(loaded, given, target_poses, preview, tell, ui.Speaker())

    fps = fps or generation.frame_rate(loaded, files)
    loaded = opening.computing(loaded, precision, samples, voice)
    titles = generation.write(
        loaded, given, videos, strip, fps, chosen, latents, seed=seed, samples=samples, upscale=upscale, voice=voice
    )
    z = "replayed" if latents else chosen
    if json:
        made = {"output": [*map(str, videos)], "pictures": [*map(str, pictures)]}
        ui.emit({**made, "frames": given.length, "fps": fps, "latent": z})
        return
    for target in videos:
        rate = "" if video.is_folder(target) else f" at {fps:g} a second"
        ui.say(f"{target}: {given.length} frames{rate}, z: {z}")
    if strip:
        ui.say(f"{strip}: " + (f"the same as one picture: {', '.join(titles)}" if titles else "chosen time steps"))
