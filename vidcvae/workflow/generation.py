"""Videos made from files: a dance from its first frame and its poses, robot pushing from past frames and actions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidcvae import config as settings
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
from vidcvae.storage.run import ROOT, RunFolder, has_checkpoint, runs_in
from vidcvae.workflow import given_poses, opening
from vidcvae.workflow.voice import SILENT, Voice

# Of the pixels of pose images 88% and more are white, at 32 rows and more 94%, and of a camera's frames 18% at most:
# measured on real and drawn dances, own clips, and robot pushing. Between the two, nothing is said.
LEAST_PAPER_OF_A_POSE, MOST_PAPER_OF_A_VIDEO = 0.9, 0.5
LOOKED_AT = 64  # poses
_OF_CLIPS = ("--keypoints", "--estimate", "--pose-model")
MOST_DISTORTION = 0.05  # of a picture's shape, about which nothing is said


@dataclass(frozen=True)
class Files:
    """What a video is made from; each field is an option of ``vidcvae generate``.

    A dance has a first_frame and poses: a folder of images, a GIF, a dataset, or a clip with keypoints or to estimate
    them, with pose_model. fill: repeat a pose where one is missing.
    fit_poses: scale and shift the poses to the first frame's figure, or to that in target_poses.
    Robot pushing has a trajectory, which is the folder of a clip, or past_frames, actions and positions. future: how
    many frames to make; None for as many as there are actions.
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
        """Raise ``UsageError`` unless what is given is what this model needs.

        newest: nobody named the model, so another run may be meant, and is named.
        """
        try:
            self._check(loaded)
        except UsageError as error:
            dance = loaded.config.model.condition == "pose"
            meant = (self.first_frame or self.poses) if not dance else (self.pushing or self.actions or self.positions)
            if other := newest and meant and _newest_run(dance=not dance):
                raise UsageError(
                    f"{error.message.rstrip('.')}: it is the newest run.",
                    f"Name the run that is meant: {typed('generate', other)} ...",
                ) from None
            raise

    def _check(self, loaded: Loaded) -> None:
        given = {f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value not in (None, False)}
        kind = loaded.config.model.condition
        name = f"{loaded.path} is {an(loaded.config.model.name)}"
        if self.target_poses and not self.fit_poses:
            raise UsageError(
                "--target-poses is for --fit-poses, which is missing.", "Add --fit-poses, or leave both out."
            )
        if given & {*_OF_CLIPS} and not given_poses.is_clip(self):
            raise UsageError(
                f"{self.poses or '--poses'} is no clip, and {', '.join(_OF_CLIPS)} are about one.",
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
    """The newest run with a checkpoint whose model makes dances, or else robot pushing."""
    runs = sorted(runs_in(ROOT), key=lambda path: RunFolder(path).config.stat().st_mtime_ns, reverse=True)
    for path in runs:
        with contextlib.suppress(VidcvaeError):  # a damaged config
            config = settings.resolve(settings.read_toml(RunFolder(path).config))
            if has_checkpoint(RunFolder(path)) and (config.model.condition == "pose") == dance:
                return path
    return None


def targets(
    output: Path, files: Files, samples: int, side_by_side: bool, fps: float | None
) -> tuple[list[Path], Path | None, Path | None]:
    """The files to write: videos, one or one a sample; a PNG of their time steps; and a PNG of the poses fitted.

    Raises ``UsageError``, before any work, if a video cannot be written.
    """
    side_by_side = side_by_side or (files.pushing and samples > 1)
    videos = [output]
    if samples > 1 and not side_by_side:
        names = [f"{output.stem}-{k}{output.suffix}" if output.suffix else f"sample-{k}" for k in range(samples)]
        videos = [(output.parent if output.suffix else output) / name for name in names]
    for target in videos:
        video.check_target(target, 1.0 if fps is None else fps)
    strip = output.with_suffix(".png") if side_by_side else None
    return videos, strip, output.with_name(f"{output.stem}-poses.png") if files.fit_poses else None


def choose_latent(latent: Latent | None, latents: Path | None, samples: int) -> Latent:
    """How z is chosen; raises ``UsageError`` where the options contradict each other."""
    fixed = latent in ("zero", "prior-mean")
    if latents and (fixed or samples > 1):
        other = "--samples" if samples > 1 else f"--latent {latent}"
        raise UsageError(f"--latents replays one noise, which {other} contradicts.", f"Leave out {other} or --latents.")
    if samples > 1 and fixed:
        raise UsageError(f"with --latent {latent} all {samples} samples would be the same.", "Use --latent prior.")
    return latent or ("prior" if latents or samples > 1 else "zero")


def check_not_swapped(files: Files) -> None:
    """Raise ``UsageError`` where the first frame is a folder, as poses are."""
    first_frame, poses = files.first_frame, files.poses
    if first_frame and first_frame.is_dir():
        swapped = poses is not None and poses.is_file()
        raise UsageError(
            f"--first-frame is one image, and {first_frame} is a folder.",
            f"Swapped? --first-frame {poses} --poses {first_frame}" if swapped else f"Such as one of {first_frame}.",
        )


def frame_rate(loaded: Loaded, files: Files) -> float:
    """Frames a second of the dataset that the files lie in, or of that of the training, or the usual ones."""
    source, trained_on = files.poses or files.trajectory or files.past_frames, loaded.config.data.path
    source = None if given_poses.is_clip(files) else source  # whose motion is brought to the model's rate
    found = (known_fps(source) if source else None) or (known_fps(Path(trained_on)) if trained_on else None)
    return found or (10.0 if files.pushing else 25.0)


def read_dance(loaded: Loaded, files: Files, voice: Voice = SILENT) -> GenerationInput:
    """The first frame and the poses of a dance."""
    size, poses = loaded.config.data.frame_size, files.poses
    assert files.first_frame and poses  # check has seen to it
    first = _read_picture(files.first_frame, size, voice)
    pose_images, joints = given_poses.read(files, size, lambda: frame_rate(loaded, files), voice)
    if len(pose_images) < 2:
        raise DataError(f"{poses} has one pose only; pose 0 belongs to the given frame, so there is nothing to make.")
    _warn_if_mixed_up(files, first, pose_images, voice)
    return GenerationInput(first[None], pose_images, len(pose_images), joints=joints)


def _warn_if_mixed_up(files: Files, first: np.ndarray, poses: np.ndarray, voice: Voice) -> None:
    """Say where the first frame seems to be a skeleton, or the poses seem to be pictures of a camera."""
    if (share := retarget.paper_share(first[None])) >= LEAST_PAPER_OF_A_POSE:
        voice.warn(
            f"{files.first_frame} looks like a pose image: {share:.0%} of it is white. --first-frame wants a frame of "
            f"the video."
        )
    some = poses[:: -(-len(poses) // LOOKED_AT)]
    if (share := retarget.paper_share(some)) < MOST_PAPER_OF_A_VIDEO:
        voice.warn(
            f"{files.poses} does not look like pose images: {share:.0%} of it is white. --poses wants skeletons drawn "
            f"on white, as vidcvae dataset import makes them."
        )


def _read_picture(path: Path, size: tuple[int, int], voice: Voice) -> np.ndarray:
    """The picture as uint8 (3, H, W), with a word where it has to change its shape."""
    picture = images.open_picture(path)
    height, width = size
    if abs(picture.width * height / (picture.height * width) - 1) > MOST_DISTORTION:
        voice.warn(
            f"{path} is {picture.height}x{picture.width}, and the model's frames are {height}x{width}: the picture is "
            f"distorted to fit. Cut it to the shape of the frames first."
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
    """The poses on the first frame's figure, and a picture of them before and after: bone by bone where the joints are
    known, else scaled and shifted.

    target: pose images of that figure; None for those of the training. tell: hears what ``preview`` shows.
    """
    size = loaded.config.data.frame_size
    poses, first = given.condition, given.past[0]
    assert poses is not None  # a model of poses has been given them
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
        hint = "Name pose images of the first frame's person: --target-poses DIR, or POSE.png, the first frame's own."
        raise DataError(f"the first frame's figure is not known: {error.message}", hint) from None
    times = video.spread(len(poses), generation.MOST_DANCE_COLUMNS)
    laid = [pictures.laid_over(first, fitted.poses[t]) for t in times]
    picture = pictures.strip(
        [list(poses[times]), list(fitted.poses[times]), laid], ["before", "after", "on frame 0"], times
    )
    durable.write_bytes(preview, images.encode_png(picture))
    low, high = fitted.scale.min(), fitted.scale.max()
    tell(f"{preview}: the poses before and after; scaled by {low:.2f}" + (f" to {high:.2f}" if high > low else ""))
    if fitted.outside:
        voice.warn(f"{fitted.outside} of {len(poses)} figures leave the picture.")
    return GenerationInput(given.past, fitted.poses, given.length)


def read_push(loaded: Loaded, files: Files) -> tuple[Loaded, GenerationInput]:
    """The given frames and the conditions of robot pushing, as the model takes them, and the model for that many.

    Of a trajectory as many frames are given as in training, and the rest is the truth; past_frames are given all.
    Raises ``DataError`` that names the file where there is too little of either.
    """
    config = loaded.config
    tracks = {track: path for track, path in (("action", files.actions), ("position", files.positions)) if path}
    if files.trajectory:
        wanted = clips.condition_tracks(config.model.condition)
        tracks = {track: files.trajectory / trajectories.TRACK_FILES[track] for track in wanted}
    folder = files.trajectory or files.past_frames
    assert folder  # check has seen to it
    sequence = trajectories.read_given(folder, tracks, config.data.frame_size)
    past = config.training.past if files.trajectory else len(sequence)
    if len(sequence) < past:
        raise DataError(
            f"{folder} has {len(sequence)} frames, but this model is given {past}.",
            f"Put 0.png .. {past - 1}.png into it, or give what there is: --past-frames {folder}",
        )
    known, future = sequence.condition_length, files.future
    length = past + future if future else known
    if tracks and not past < length <= known:
        raise DataError(
            f"{' and '.join(map(str, tracks.values()))}: {known} lines tell of {known} frames, of which {past} are "
            f"given{f'; {future} more need {length} lines' if future else ': nothing is left to make'}.",
            f"Choose --future between 1 and {known - past}." if known > past else "Each frame to make has one line.",
        )
    if length <= past:
        raise UsageError(f"how many frames to make follows from nothing in {folder}.", "Say so: --future 10")
    condition = clips.condition_rows(sequence, 0, length, config.model.condition, config.data.condition)
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
    """Make the video, or one a sample, and write it; of robot pushing, returns the titles of what is side by side.

    latents: a file of noise to replay. upscale: every pixel as so many squared; None chooses.
    """
    device, count = str(loaded.device), given.length
    if latents:
        noise = generation.replayed_noise(latents, count - 1, generation.latent_shape(loaded), device)
    else:
        noise = generation.fresh_noise(loaded, latent, seed, range(samples), device)
    with contextlib.ExitStack() as files, voice.progress("generating") as advance:
        add = [files.enter_context(video.recording(target, fps)) for target in videos]
        if strip and loaded.config.model.condition != "pose":
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
