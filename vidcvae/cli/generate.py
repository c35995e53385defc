"""``vidcvae generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from vidcvae.cli import command, options, trained, ui
from vidcvae.cli.command import option
from vidcvae.config.schema import Latent


def generate(
    run: trained.Run = None,
    first_frame: Annotated[Path | None, option("Dance: the given frame, an image file.")] = None,
    poses: Annotated[
        Path | None, option("Dance: pose images (a folder of numbered images, or a GIF), a dataset, or a clip.")
    ] = None,
    keypoints: options.Keypoints = None,
    estimate: options.Estimate = False,
    pose_model: options.PoseModel = None,
    trajectory: Annotated[Path | None, option("Pushing: the folder of a clip, with its first frames and CSVs.")] = None,
    past_frames: Annotated[Path | None, option("Pushing: the given frames, a folder of 0.png ..")] = None,
    actions: Annotated[Path | None, option("With --past-frames: CSV, one row per frame.")] = None,
    positions: Annotated[Path | None, option("With --past-frames: CSV, one row per frame.")] = None,
    future: Annotated[
        int | None, option(f"Pushing: {trained.FUTURE.lower()}", min=1, show_default="as many as there are actions")
    ] = None,
    output: Annotated[
        Path, option("A name in .gif or .mp4 (an existing file is replaced), or a new or empty folder for PNGs.", "-o")
    ] = Path("generated.gif"),
    latent: Annotated[Latent | None, option(trained.LATENT, show_default="zero; prior for --samples")] = None,
    latents: Annotated[Path | None, option("Replay the noise in this file: tensor eps (T-1, *shape of z).")] = None,
    samples: Annotated[int, option("Number of videos, each with its own noise.", min=1, max=32)] = 1,
    seed: trained.Seed = 0,
    batch_stats: trained.BatchStats = False,
    weights: trained.Weights = "auto",
    precision: trained.Precision = "float32",
    fill: Annotated[bool, option("Dance: if a pose is missing, repeat the one before it.")] = False,
    fit_poses: Annotated[
        bool, option("Dance: the poses are another person's; fit them to the figure in the first frame.")
    ] = False,
    target_poses: Annotated[
        Path | None,
        option(
            "With --fit-poses: pose images of the person in the first frame, or one PNG, that frame's own pose.",
            show_default="the training poses, placed as in the training frame most like the first frame",
        ),
    ] = None,
    side_by_side: Annotated[
        bool, option("Show the inputs beside the video, and write a PNG of its time steps.")
    ] = False,
    upscale: Annotated[
        int | None,
        option(
            "Enlarge every pixel to N x N.",
            min=1,
            max=64,
            show_default="up to about 128 rows; 1 for a folder of PNGs",
        ),
    ] = None,
    fps: Annotated[float | None, option("Frames per second of a GIF or MP4.", show_default="the dataset's own")] = None,
    device: trained.Device = "auto",
    json: command.Json = False,
) -> None:
    """Make a video: a dance from a first frame and poses, or robot pushing from past frames and actions.

    Pose t shows frame t, so the video has as many frames as there are poses; action t is taken at frame t. Several
    samples of robot pushing are shown side by side, next to the truth if it is known, as a video and as a PNG of all
    time steps.

    --poses also takes a dataset, of which it uses the longest sequence, or a clip with --keypoints or --estimate.

    --fit-poses fits another person's poses to your figure. For a clip, whose joints are known, it works limb by limb:
    the motion is the other person's, the limb lengths are those of your figure in the training poses. For pose images,
    it measures the box around each figure, takes the lower edge as the feet, and scales and shifts the picture. The
    other person's proportions then stay, and the result is wrong if the arms are raised, or the person lies down, in
    most of the frames. Look at the preview: OUTPUT-poses.png.

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
    trained.refuse_posterior(latent, "generate predicts them")
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
        files_made = {"output": [*map(str, videos)], "pictures": [*map(str, pictures)]}
        ui.emit({**files_made, "frames": given.length, "fps": fps, "latent": z})
        return
    for target in videos:
        rate = "" if video.is_folder(target) else f" at {fps:g} per second"
        ui.say(f"{target}: {given.length} frames{rate}, z: {z}")
    if strip:
        ui.say(f"{strip}: " + (f"the time steps as one picture: {', '.join(titles)}" if titles else "some time steps"))
