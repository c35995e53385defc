"""``vidcvae generate``."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidcvae.cli import choice, command, trained, ui
from vidcvae.config.schema import Latent
from vidcvae.errors import DataError, UsageError, an

if TYPE_CHECKING:
    import numpy as np

    from vidcvae.models.loading import Loaded
    from vidcvae.models.rollout import Noise
    from vidcvae.output.generation import Given
    from vidcvae.workflow.voice import Advance

MOST_SAMPLES = 32
MOST_DISTORTION = 0.05  # of a picture's shape, about which nothing is said


def generate(
    run: trained.Run = None,
    first_frame: Annotated[
        Path | None, typer.Option("--first-frame", help="Dance: the given frame, an image file.", show_default=False)
    ] = None,
    poses: Annotated[
        Path | None,
        typer.Option("--poses", help="Dance: pose images, a folder of numbered images or a GIF.", show_default=False),
    ] = None,
    trajectory: Annotated[
        Path | None,
        typer.Option("--trajectory", help="Pushing: a clip's folder, its first frames and CSVs.", show_default=False),
    ] = None,
    past_frames: Annotated[
        Path | None,
        typer.Option("--past-frames", help="Pushing: the given frames, a folder of 0.png ..", show_default=False),
    ] = None,
    actions: Annotated[
        Path | None, typer.Option("--actions", help="With --past-frames: CSV, a row a frame.", show_default=False)
    ] = None,
    positions: Annotated[
        Path | None, typer.Option("--positions", help="With --past-frames: CSV, a row a frame.", show_default=False)
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
        Latent | None,
        choice.option(
            Latent,
            "--latent",
            help=trained.LATENT,
            show_default="zero; prior for --samples",
        ),
    ] = None,
    latents: Annotated[
        Path | None, typer.Option("--latents", help="Replay the noise in this file: tensor eps (T-1, *shape of z).")
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", min=1, max=MOST_SAMPLES, help="How many videos, each with noise of its own.")
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
            help="Dance: the poses are another person's; scale and shift them to the first frame's figure.",
        ),
    ] = False,
    target_poses: Annotated[
        Path | None,
        typer.Option(
            "--target-poses",
            help="With --fit-poses: pose images of the first frame's person, or one PNG, the first frame's own pose.",
            show_default="those of the training; that of the frame most like the first tells where it stands",
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

    --fit-poses measures the figures in the drawn poses: the box around each, its lower edge being the feet. It goes
    wrong where arms are up, or somebody lies, most of the time, and where the picture cuts figures off; a skeleton is
    warped as a picture, so proportions stay those of the other person. Look at the preview: OUTPUT-poses.png.

    Examples:
      vidcvae generate --first-frame frame.png --poses poses -o dance.gif
      vidcvae generate runs/svg-lp-001 --trajectory clips/0 --samples 5
    """
    from vidcvae.output import generation, media, pictures
    from vidcvae.workflow import opening

    options = {
        "--first-frame": first_frame,
        "--poses": poses,
        "--trajectory": trajectory,
        "--past-frames": past_frames,
        "--actions": actions,
        "--positions": positions,
        "--future": future,
        "--fill": fill or None,
        "--fit-poses": fit_poses or None,
        "--target-poses": target_poses,
    }
    trained.refuse_posterior(latent, "generate makes them")
    chosen = _latent(latent, latents, samples)
    pushing = bool(trajectory or past_frames)
    side_by_side = side_by_side or (pushing and samples > 1)
    targets = _targets(output, samples, side_by_side)
    strip = output.with_suffix(".png") if side_by_side else None
    preview = output.with_name(f"{output.stem}-poses.png") if fit_poses else None
    _check_targets(targets, [picture for picture in (strip, preview) if picture], 1.0 if fps is None else fps)
    _check_not_swapped(first_frame, poses)
    voice = ui.Speaker(bars=not json)
    loaded = opening.load(run, device, batch_stats, weights, voice)
    _check_form(loaded, {name for name, value in options.items() if value is not None})
    if first_frame and poses:
        given = _read_dance(loaded, first_frame, poses, fill)
        if preview:
            given = _fit_poses(loaded, given, target_poses, preview, ui.note if json else ui.say)
    else:
        loaded, given = _read_push(loaded, trajectory, past_frames, actions, positions, future or 0)

    if fps is None:
        fps = _dataset_fps(loaded, poses or trajectory or past_frames) or (10.0 if pushing else 25.0)
    loaded = opening.computing(loaded, precision, samples, voice)
    count = given.length
    noise = _noise(loaded, chosen, latents, seed, samples, count)
    with contextlib.ExitStack() as files, ui.progress("generating", quiet=json) as advance:
        add = [files.enter_context(media.recording(target, fps)) for target in targets]
        if strip and pushing:
            videos = generation.compare(loaded, given, chosen, noise, samples, advance)
            generation.write_comparison(add[0], strip, videos, upscale or 0)
        else:
            past, condition = given.batch(samples)
            made = generation.videos(loaded, past, condition, count, chosen, noise)
            if strip:
                generation.write_panels(add[0], strip, given, made, upscale or 0, advance)
            else:
                whole = 1 if media.is_folder(output) else pictures.fitting_scale(loaded.config.data.size[0])
                _write_each(add, count, made, upscale or whole, advance)
    if json:
        pictures_ = [str(path) for path in (strip, preview) if path]
        z = "replayed" if latents else chosen
        ui.emit({"output": [*map(str, targets)], "pictures": pictures_, "frames": count, "fps": fps, "latent": z})
        return
    for target in targets:
        rate = "" if media.is_folder(target) else f" at {fps:g} a second"
        ui.say(f"{target}: {count} frames{rate}, z: {'replayed' if latents else chosen}")
    if strip:
        ui.say(f"{strip}: " + (f"the same as one picture: {', '.join(videos)}" if pushing else "chosen time steps"))


def _check_form(loaded: Loaded, given: set[str]) -> None:
    """Raise ``UsageError`` unless the options that are ``given`` are those that this model needs."""
    kind = loaded.config.model.condition
    name = f"{loaded.path} is {an(loaded.config.model.name)}"
    if "--target-poses" in given and "--fit-poses" not in given:
        raise UsageError("--target-poses is for --fit-poses, which is missing.", "Add --fit-poses, or leave both out.")
    if kind == "pose":
        needed, optional = ["--first-frame", "--poses"], {"--fill", "--fit-poses", "--target-poses"}
        hint = "Give it --first-frame FRAME.png and --poses DIR."
    else:
        name += " without conditions" if kind == "none" else f" conditioned on {kind.replace('+', ' and ')}"
        own = ["--past-frames", *{"none": (), "actions": ("--actions",)}.get(kind, ("--actions", "--positions"))]
        needed, optional = ["--trajectory"] if "--trajectory" in given else own, {"--future"}
        hint = f"Give it --trajectory DIR, or {' and '.join(own)}."
    for option in sorted(given - {*needed} - optional):
        beside = " beside --trajectory" if needed == ["--trajectory"] else ""
        raise UsageError(f"{name}, which does not take {option}{beside}.", hint)
    for option in needed:
        if option not in given:
            raise UsageError(f"{name}, and {option} is missing.", hint)


def _check_not_swapped(first_frame: Path | None, poses: Path | None) -> None:
    if first_frame and first_frame.is_dir():
        swapped = poses is not None and poses.is_file()
        raise UsageError(
            f"--first-frame is one image, and {first_frame} is a folder.",
            f"Swapped? --first-frame {poses} --poses {first_frame}" if swapped else f"Such as one of {first_frame}.",
        )


def _dataset_fps(loaded: Loaded, source: Path | None) -> float | None:
    """Frames a second of the dataset that ``source`` lies in, or else of the one that the model was trained on."""
    from vidcvae.data.dataset import known_fps

    trained_on = loaded.config.data.path
    return (known_fps(source) if source else None) or (known_fps(Path(trained_on)) if trained_on else None)


def _read_picture(path: Path, size: tuple[int, int]) -> np.ndarray:
    """The picture as uint8 (3, H, W), with a word where it has to change its shape."""
    from vidcvae.data import images

    picture = images.open_picture(path)
    height, width = size
    if abs(picture.width * height / (picture.height * width) - 1) > MOST_DISTORTION:
        ui.warn(
            f"{path} is {picture.height}x{picture.width}, and the model's frames are {height}x{width}: the picture is "
            f"distorted to fit. Cut it to the shape of the frames first."
        )
    return images.pixels(picture, size)


def _read_dance(loaded: Loaded, first_frame: Path, poses: Path, fill: bool) -> Given:
    from vidcvae.output import generation, media

    first = _read_picture(first_frame, loaded.config.data.size)
    with ui.progress("reading the poses") as advance:
        pose_images = media.read_poses(poses, loaded.config.data.size, advance, gaps="fill" if fill else "refuse")
    if len(pose_images) < 2:
        raise DataError(f"{poses} has one pose only; pose 0 belongs to the given frame, so there is nothing to make.")
    return generation.Given(first[None], pose_images, len(pose_images))


def _fit_poses(loaded: Loaded, given: Given, target: Path | None, preview: Path, tell: Callable[[str], None]) -> Given:
    """The poses scaled and shifted to the first frame's figure, and a picture of them before and after."""
    from vidcvae.data import images
    from vidcvae.output import generation, media, pictures
    from vidcvae.own_clips import retarget
    from vidcvae.storage import durable
    from vidcvae.workflow import opening

    size = loaded.config.data.size
    poses, first = given.condition, given.past[0]
    assert poses is not None  # a model of poses has been given them
    own = None
    try:
        if target is None:
            sequences = opening.open_data(loaded, None, ui.Speaker()).split("train")
            own = retarget.figures([retarget.likely_pose(first, sequences)])
            wanted = retarget.figures(itertools.chain.from_iterable(s.tracks["pose"] for s in sequences))
        elif target.is_file() and target.suffix.lower() != ".gif":
            wanted = retarget.figures([_read_picture(target, size)])
        else:
            wanted = retarget.figures(media.read_poses(target, size, gaps="skip"))
    except DataError as error:
        hint = "Name pose images of the first frame's person: --target-poses DIR, or POSE.png, the first frame's own."
        raise DataError(f"the first frame's figure is not known: {error.message}", hint) from None
    fitted = retarget.fit_poses(poses, wanted, own)
    times = media.spread(len(poses), generation.MOST_DANCE_COLUMNS)
    laid = [pictures.laid_over(first, fitted.poses[t]) for t in times]
    picture = pictures.strip(
        [list(poses[times]), list(fitted.poses[times]), laid], ["before", "after", "on frame 0"], times
    )
    durable.write_bytes(preview, images.encode_png(picture))
    low, high = fitted.scale.min(), fitted.scale.max()
    tell(f"{preview}: the poses before and after; scaled by {low:.2f}" + (f" to {high:.2f}" if high > low else ""))
    if fitted.outside:
        ui.warn(f"{fitted.outside} of {len(poses)} figures leave the picture.")
    return generation.Given(given.past, fitted.poses, given.length)


def _read_push(
    loaded: Loaded,
    trajectory: Path | None,
    past_frames: Path | None,
    actions: Path | None,
    positions: Path | None,
    future: int,
) -> tuple[Loaded, Given]:
    """What the video is made from, and the model for that many given frames."""
    from vidcvae.data import clips, trajectories
    from vidcvae.evaluation.score import with_past
    from vidcvae.output import generation

    tracks = {track: path for track, path in (("action", actions), ("position", positions)) if path}
    if trajectory:
        wanted = clips.condition_tracks(loaded.config.model.condition)
        tracks = {track: trajectory / trajectories.TRACK_FILES[track] for track in wanted}
    folder = trajectory or past_frames
    assert folder  # _check_form has seen to it
    given = generation.read_push(loaded, folder, tracks, future, all_given=trajectory is None)
    return with_past(loaded, len(given.past)), given


def _latent(latent: Latent | None, latents: Path | None, samples: int) -> Latent:
    """How z is chosen; raises ``UsageError`` where the options contradict each other."""
    fixed = latent in ("zero", "prior-mean")
    if latents and (fixed or samples > 1):
        other = "--samples" if samples > 1 else f"--latent {latent}"
        raise UsageError(f"--latents replays one noise, which {other} contradicts.", f"Leave out {other} or --latents.")
    if samples > 1 and fixed:
        raise UsageError(f"with --latent {latent} all {samples} samples would be the same.", "Use --latent prior.")
    return latent or ("prior" if latents or samples > 1 else "zero")


def _targets(output: Path, samples: int, side_by_side: bool) -> list[Path]:
    """The files to write: one, or for several samples one each, unless they share a picture."""
    if samples == 1 or side_by_side:
        return [output]
    if output.suffix:
        return [output.with_name(f"{output.stem}-{k}{output.suffix}") for k in range(samples)]
    return [output / f"sample-{k}" for k in range(samples)]


def _check_targets(videos: list[Path], pictures: list[Path], fps: float) -> None:
    """Raise ``UsageError``, before any work, if a file cannot be written."""
    from vidcvae.output import media

    for video in videos:
        media.check_target(video, fps)
    for picture in pictures:
        trained.check_file(picture)


def _noise(loaded: Loaded, latent: Latent, latents: Path | None, seed: int, samples: int, count: int) -> Noise:
    from vidcvae.output import generation

    device = str(loaded.device)
    if latents:
        return generation.replayed_noise(latents, count - 1, generation.latent_shape(loaded), device)
    return generation.fresh_noise(loaded, latent, seed, range(samples), device)


def _write_each(
    add: list[Callable[[np.ndarray], None]], count: int, made: Iterator[np.ndarray], scale: int, advance: Advance
) -> None:
    """Every sample into a file of its own."""
    from vidcvae.output import pictures

    for t, frames in enumerate(made):
        for put, frame in zip(add, frames, strict=True):
            put(pictures.enlarge(frame, scale))
        advance(t + 1, count)
