"""Videos from files: a dance from its first frame and poses, robot pushing from past frames and actions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidcvae.config.schema import Latent
from vidcvae.data import clips, images, trajectories
from vidcvae.data.dataset import known_fps
from vidcvae.errors import DataError, UsageError, VidcvaeError, an, typed
from vidcvae.evaluation.score import with_past
from vidcvae.models.loading import Loaded
from vidcvae.output import generation, pictures, video
from vidcvae.output.generation import GenerationInput
from vidcvae.own_clips import retarget
from vidcvae.storage import durable
from vidcvae.storage.run import has_checkpoint
from vidcvae.workflow import at_glance, given_poses, opening
from vidcvae.workflow.voice import SILENT, Voice

# At least 88% of the pixels of a pose image are white (94% from 32 rows on), and at most 18% of those of a camera's
# frame: measured on real and drawn dances, own clips, and robot pushing. Between these limits there is no warning.
LEAST_PAPER_OF_A_POSE, MOST_PAPER_OF_A_VIDEO = 0.9, 0.5
LOOKED_AT = 64  # poses
_OF_CLIPS = ("--keypoints", "--estimate", "--pose-model")
MOST_DISTORTION = 0.05  # relative change of a picture's aspect ratio without a warning


@dataclass(frozen=True)
class Files:
    """The input of a video; each field is an option of ``vidcvae generate``.

    A dance has a first_frame and poses: a folder of images, a GIF, a dataset, or a clip. The joints in a clip are read
    from keypoints, or estimated with pose_model. fill: if a pose is missing, repeat the one before it.
    fit_poses: scale and shift the poses to the first frame's figure, or to the figure in target_poses.
    Robot pushing has a trajectory, which is a clip's folder, or past_frames, actions and positions. future: the number
    of frames to make; None for one per action.
    """

    first_frame: Path | None = None
    poses: Path | None = None
    trajectory: Path | None = None
    past_frames: Path | None = None
    actions: Path | None = None
    positions: Path | None = None
    future: int | None = None
    fill: bool = False
    fit_poses: bool = False
    target_poses: Path | None = None
    keypoints: Path | None = None
    estimate: bool = False
    pose_model: Path | None = None

    @property
    def pushing(self) -> bool:
        return bool(self.trajectory or self.past_frames)

    def check(self, loaded: Loaded, newest: bool = False) -> None:
        """Raise ``UsageError`` unless these files are what the model needs.

        newest: the user named no run, so the error names another run that may be meant.
        """
        try:
            self._check(loaded)
        except UsageError as error:
            dance = loaded.config.model.condition_kind == "pose"
            for_dance, for_pushing = self.first_frame or self.poses, self.pushing or self.actions or self.positions
            if other := newest and (for_pushing if dance else for_dance) and _newest_run(dance=not dance):
                raise UsageError(
                    f"{error.message.rstrip('.')}: it is the newest run.",
                    f"Name the run: {typed('generate', other)} ...",
                ) from None
            raise

    def _check(self, loaded: Loaded) -> None:
        given = {f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value not in (None, False)}
        kind = loaded.config.model.condition_kind
        name = f"{loaded.path} is {an(loaded.config.model.name)}"
        if self.target_poses and not self.fit_poses:
            raise UsageError(
                "--target-poses needs --fit-poses, which is missing.", "Add --fit-poses, or leave both out."
            )
        if given & {*_OF_CLIPS} and not given_poses.is_clip(self):
            raise UsageError(
                f"{self.poses or '--poses'} is not a clip, which {', '.join(_OF_CLIPS)} need.",
                "Leave them out, or name a video: --poses CLIP.mp4",
            )
        if kind == "pose":
            needed, optional = ["--first-frame", "--poses"], {"--fill", "--fit-poses", "--target-poses", *_OF_CLIPS}
            hint = "Give it --first-frame FRAME.png and --poses DIR."
        else:
            name += " without conditions" if kind == "none" else f" conditioned on {kind.replace('+', ' and ')}"
            own = ["--past-frames", *{"none": (), "actions": ("--actions",)}.get(kind, ("--actions", "--positions"))]
            needed, optional = ["--trajectory"] if self.trajectory else own, {"--future"}
            hint = f"Give it --trajectory DIR, or {' and '.join(own)}."
        for option in sorted(given - {*needed} - optional):
            beside = " beside --trajectory" if needed == ["--trajectory"] else ""
            raise UsageError(f"{name}, which does not take {option}{beside}.", hint)
        for option in needed:
            if option not in given:
                raise UsageError(f"{name}, and {option} is missing.", hint)


def _newest_run(dance: bool) -> Path | None:
    """The newest run with a checkpoint of a model of dances, or else of robot pushing."""
    for run in reversed(at_glance.find(None)):
        with contextlib.suppress(VidcvaeError):  # a damaged config
            if has_checkpoint(run) and (at_glance.config_of(run).model.condition_kind == "pose") == dance:
                return run.path
    return None


def targets(
    output: Path, files: Files, samples: int, side_by_side: bool, fps: float | None
) -> tuple[list[Path], Path | None, Path | None]:
    """The files to write: one video, or one per sample; a PNG of their time steps; a PNG of the fitted poses.

    Raises ``UsageError`` before any work if a video cannot be written, or a file would replace an input.
    """
    side_by_side = side_by_side or (files.pushing and samples > 1)
    videos = [output]
    if samples > 1 and not side_by_side:
        names = [f"{output.stem}-{k}{output.suffix}" if output.suffix else f"sample-{k}" for k in range(samples)]
        videos = [(output.parent if output.suffix else output) / name for name in names]
    for target in videos:
        video.check_target(target, 1.0 if fps is None else fps)
    strip = output.with_suffix(".png") if side_by_side else None
    preview = output.with_name(f"{output.stem}-poses.png") if files.fit_poses else None
    durable.must_not_be_input([*videos, strip, preview], vars(files).values())
    return videos, strip, preview


def choose_latent(latent: Latent | None, latents: Path | None, samples: int) -> Latent:
    """How z is chosen; raises ``UsageError`` if the options contradict each other."""
    fixed = latent in ("zero", "prior-mean")
    if latents and (fixed or samples > 1):
        other = "--samples" if samples > 1 else f"--latent {latent}"
        raise UsageError(f"--latents replays one noise; {other} contradicts it.", f"Leave out {other} or --latents.")
    if samples > 1 and fixed:
        raise UsageError(f"with --latent {latent} all {samples} samples would be the same.", "Use --latent prior.")
    return latent or ("prior" if latents or samples > 1 else "zero")


def check_not_swapped(files: Files) -> None:
    """Raise ``UsageError`` if the first frame is a folder, as poses are."""
    first_frame, poses = files.first_frame, files.poses
    if first_frame and first_frame.is_dir():
        swapped = poses is not None and poses.is_file()
        raise UsageError(
            f"--first-frame is one image, and {first_frame} is a folder.",
            f"Swapped? --first-frame {poses} --poses {first_frame}" if swapped else f"Name one image in {first_frame}.",
        )


def frame_rate(loaded: Loaded, files: Files) -> float:
    """Frames per second: those of the dataset that the files lie in, else of the training's, else the usual ones."""
    source, trained_on = files.poses or files.trajectory or files.past_frames, loaded.config.data.path
    places = [] if given_poses.is_clip(files) else [source]  # a clip is resampled to the model's rate
    places += [Path(trained_on)] if trained_on else []
    rates = (known_fps(place) for place in places if place)
    return next(filter(None, rates), 10.0 if files.pushing else 25.0)


def read_dance(loaded: Loaded, files: Files, voice: Voice = SILENT) -> GenerationInput:
    """The first frame and the poses of a dance."""
    size, poses = loaded.config.data.frame_size, files.poses
    assert files.first_frame and poses  # check has seen to it
    first = _read_picture(files.first_frame, size, voice)
    pose_images, joints = given_poses.read(files, size, lambda: frame_rate(loaded, files), voice)
    if len(pose_images) < 2:
        raise DataError(f"{poses} has one pose only; pose 0 belongs to the first frame, so no frame is left to make.")
    _warn_if_mixed_up(files, first, pose_images, voice)
    return GenerationInput(first[None], pose_images, len(pose_images), joints=joints)


def _warn_if_mixed_up(files: Files, first: np.ndarray, poses: np.ndarray, voice: Voice) -> None:
    """Warn if the first frame seems to be a skeleton, or the poses seem to be a camera's pictures."""
    if (share := retarget.paper_share(first[None])) >= LEAST_PAPER_OF_A_POSE:
        voice.warn(
            f"{files.first_frame} looks like a pose image: {share:.0%} of it is white. --first-frame expects a frame "
            f"of the video."
        )
    sample = poses[:: -(-len(poses) // LOOKED_AT)]
    if (share := retarget.paper_share(sample)) < MOST_PAPER_OF_A_VIDEO:
        voice.warn(
            f"{files.poses} does not look like pose images: {share:.0%} of it is white. --poses expects skeletons "
            f"drawn on white, as vidcvae dataset import makes them."
        )


def _read_picture(path: Path, size: tuple[int, int], voice: Voice) -> np.ndarray:
    """The picture as uint8 (3, H, W); warns if its aspect ratio has to change."""
    picture = images.open_picture(path)
    height, width = size
    if abs(picture.width * height / (picture.height * width) - 1) > MOST_DISTORTION:
        voice.warn(
            f"{path} is {picture.height}x{picture.width}, and the model's frames are {height}x{width}: the picture is "
            f"distorted to fit. Crop it to the shape of the frames first."
        )
    return images.pixels(picture, size)


def fit_poses(
    loaded: Loaded,
    given: GenerationInput,
    target: Path | None,
    preview: Path,
    tell: Callable[[str], None],
    voice: Voice = SILENT,
) -> GenerationInput:
    """Fit the poses to the first frame's figure, and write ``preview``, a picture of them before and after.

    If the joints are known, they move limb by limb; otherwise the images are scaled and shifted.
    target: pose images of that figure; None for those of the training. tell: is given a line about ``preview``.
    """
    size = loaded.config.data.frame_size
    poses, first = given.condition, given.past[0]
    assert poses is not None  # read_dance has read them
    own = None
    try:
        if target is None:
            sequences = opening.open_data(loaded, None, voice).split("train")
            own = retarget.likely_pose(first, sequences)
            theirs = [pose for s in sequences for pose in s.tracks["pose"]]
        elif target.is_file() and target.suffix.lower() != ".gif":
            theirs = [_read_picture(target, size, voice)]
        else:
            theirs = list(video.read_poses(target, size, gaps="skip"))
        if given.joints is None:
            fitted = retarget.fit_poses(
                poses, retarget.figures(theirs), None if own is None else retarget.figures([own])
            )
        else:
            fitted = given_poses.onto(given.joints, theirs, own, size)
    except DataError as error:
        hint = (
            "Name pose images of the first frame's person: --target-poses DIR, or POSE.png for the first frame's pose."
        )
        raise DataError(f"the first frame's figure is unknown: {error.message}", hint) from None
    times = video.spread(len(poses), generation.MOST_DANCE_COLUMNS)
    rows = {
        "before": list(poses[times]),
        "after": list(fitted.poses[times]),
        "on frame 0": [pictures.laid_over(first, fitted.poses[t]) for t in times],
    }
    durable.write_bytes(preview, images.encode_png(pictures.strip([*rows.values()], [*rows], times)))
    low, high = fitted.scale.min(), fitted.scale.max()
    tell(f"{preview}: the poses before and after; scaled by {low:.2f}" + (f" to {high:.2f}" if high > low else ""))
    if fitted.outside:
        voice.warn(f"{fitted.outside} of {len(poses)} figures extend beyond the picture.")
    return GenerationInput(given.past, fitted.poses, given.length)


def read_push(loaded: Loaded, files: Files) -> tuple[Loaded, GenerationInput]:
    """The past frames and conditions of robot pushing, and the model set to that number of past frames.

    From a trajectory the model is given as many frames as in training, and the others are the truth; from past_frames,
    all. Raises ``DataError`` that names the file if there are too few frames or conditions.
    """
    config = loaded.config
    tracks = {track: path for track, path in (("action", files.actions), ("position", files.positions)) if path}
    if files.trajectory:
        names = clips.condition_tracks(config.model.condition_kind)
        tracks = {name: files.trajectory / trajectories.TRACK_FILES[name] for name in names}
    folder = files.trajectory or files.past_frames
    assert folder  # check has seen to it
    sequence = trajectories.read_given(folder, tracks, config.data.frame_size)
    past = config.training.past if files.trajectory else len(sequence)
    if len(sequence) < past:
        raise DataError(
            f"{folder} has {len(sequence)} frames, but this model needs {past}.",
            f"Put 0.png .. {past - 1}.png into it, or start from fewer: --past-frames {folder}",
        )
    known, future = sequence.condition_length, files.future
    length = past + future if future else known
    if tracks and not past < length <= known:
        raise DataError(
            f"{' and '.join(map(str, tracks.values()))}: {known} lines are for {known} frames, of which {past} are "
            f"given{f'; {future} more need {length} lines' if future else ': no frame is left to make'}.",
            f"Choose --future between 1 and {known - past}." if known > past else "Each frame to make needs one line.",
        )
    if length <= past:
        raise UsageError(f"nothing in {folder} says how many frames to make.", "Set the number: --future 10")
    condition = clips.condition_rows(sequence, 0, length, *config.conditioning)
    truth = sequence.frames[:length] if len(sequence) >= length else None
    return with_past(loaded, past), GenerationInput(sequence.frames[:past], condition, length, truth)


def write(
    loaded: Loaded,
    given: GenerationInput,
    videos: Sequence[Path],
    strip: Path | None,
    fps: float,
    latent: Latent,
    latents: Path | None = None,
    *,
    seed: int = 0,
    samples: int = 1,
    upscale: int | None = None,
    voice: Voice = SILENT,
) -> list[str]:
    """Generate and write the video, or one per sample. Returns the titles of a robot pushing comparison, else [].

    latents: a file of noise to replay. upscale: repeat every pixel this often in both directions; None chooses.
    """
    count = given.length
    if latents:
        noise = generation.replayed_noise(latents, count - 1, loaded)
    else:
        noise = generation.fresh_noise(loaded, latent, seed, range(samples))
    with contextlib.ExitStack() as files, voice.progress("generating") as advance:
        add = [files.enter_context(video.recording(target, fps)) for target in videos]
        if strip and loaded.config.model.condition_kind != "pose":
            columns = generation.compare(loaded, given, latent, noise, samples, advance)
            generation.write_comparison(add[0], strip, columns, upscale or 0)
            return list(columns)
        made = generation.videos(loaded, *given.batch(samples), count, latent, noise)
        if strip:
            generation.write_panels(add[0], strip, given, made, upscale or 0, advance)
            return []
        scale = upscale or (
            1 if video.is_folder(videos[0]) else pictures.fitting_scale(loaded.config.data.frame_size[0])
        )
        for t, frames in enumerate(made):
            for put, frame in zip(add, frames, strict=True):
                put(pictures.enlarge(frame, scale))
            advance(t + 1, count)
    return []
