"""A clip of a person as a dataset, for ``vidcvae dataset import``, and for ``train`` and ``generate`` given a clip."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vidcvae import __version__, reading
from vidcvae import config as settings
from vidcvae.config import Config
from vidcvae.data import dataset_toml, images, packed, pose_folder
from vidcvae.data.clips import VideoData
from vidcvae.errors import DataError, UsageError, an, counted, typed
from vidcvae.own_clips import estimation, footage, importing, keypoints, landmarks
from vidcvae.own_clips.keypoint_checks import Keypoints
from vidcvae.storage import durable
from vidcvae.storage.run import ROOT, check_free
from vidcvae.training import distributed
from vidcvae.workflow.voice import SILENT, Voice

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".wmv", ".mpg", ".mpeg", ".mts", ".3gp", ".gif")
PRESET, SMALL_PRESET, SMALL = "clip", "anchor-cpu", 4096  # pixels of a frame for which patches of 4 are too coarse
ORIGIN = "import.json"  # in a dataset: the clip and options it was made from; written last
_ESTIMATE = Path("what MediaPipe found")


@dataclass(frozen=True)
class Clip:
    """A clip and the source of its joints: a file of ``keypoints``, or MediaPipe if ``estimate``.

    kind: "video", "gif", or "frames" for a folder of images. people: how many people to look for.
    save_keypoints: a file for the estimated joints, which can be read again as ``keypoints``.
    """

    source: Path
    kind: str = "video"
    keypoints: Path | None = None
    keypoint_format: str = "auto"
    min_score: float = 0.3
    estimate: bool = False
    pose_model: Path | None = None
    people: int = estimation.DEFAULT_PEOPLE
    save_keypoints: Path | None = None
    settings: importing.Settings = field(default_factory=importing.Settings)

    def check(self) -> None:
        """Raise ``VidcvaeError`` unless the clip exists, its joints have exactly one source, and the options fit."""
        hint = (
            "Find them with --estimate (pip install 'vidcvae[pose]'), or name a pose estimator's output: "
            "--keypoints FILE, which is COCO JSON, an OpenPose folder, or MediaPipe landmarks."
        )
        if self.keypoints and self.estimate:
            raise UsageError("--keypoints and --estimate exclude each other.", hint)
        if not (self.keypoints or self.estimate):
            if not self.source.exists():
                raise DataError(f"there is no {self.kind} {self.source}.", "Check its name and its folder.")
            raise UsageError(f"{self.source}: the joints in each frame are missing.", hint)
        if self.save_keypoints and not self.estimate:
            raise UsageError("--save-keypoints needs --estimate, which is missing.", "Add --estimate, or leave it out.")
        if self.settings.fps is not None and not 0 < self.settings.fps <= 1000:
            raise UsageError(f"a clip cannot have {self.settings.fps:g} frames a second.", "Choose --fps 25.")
        if self.save_keypoints:
            durable.check_writable(self.save_keypoints)


@dataclass(frozen=True)
class Imported:
    """An imported clip. preview: a picture of the clip that shows which part of it the frames are."""

    data: VideoData
    plan: importing.Plan
    form: str
    preview: Image.Image


def is_clip(path: str | Path) -> bool:
    """Whether ``path`` names a video or a GIF, which need not exist."""
    return Path(path).suffix.lower() in SUFFIXES and not Path(path).is_dir()


def video_or_gif(
    source: Path, how: importing.Settings, keypoints: Path | None, estimate: bool, pose_model: Path | None
) -> Clip:
    kind = "gif" if source.suffix.lower() == ".gif" else "video"
    return Clip(source, kind, keypoints, estimate=estimate, pose_model=pose_model, settings=how)


def plan(clip: Clip, voice: Voice = SILENT) -> tuple[importing.Plan, Keypoints]:
    """The plan of an import, and the joints. Raises ``VidcvaeError`` if the clip or the keypoints cannot be used."""
    clip.check()
    pictures = footage.open_clip(clip.kind, clip.source, clip.settings.fps or dataset_toml.DEFAULT_FPS)
    joints = keypoints.read_keypoints(clip.keypoints, clip.keypoint_format, clip.min_score) if clip.keypoints else None
    with contextlib.ExitStack() as stack:
        estimate = None
        if clip.estimate:
            estimate = stack.enter_context(estimation.estimator(clip.pose_model, clip.source, clip.people))
        advance = stack.enter_context(voice.progress("finding the joints" if estimate else "reading the clip"))
        scan = importing.scan(pictures, estimate, advance)
    if scan.landmarks is not None:
        if clip.save_keypoints:
            durable.write_text(clip.save_keypoints, json.dumps({"frames": scan.landmarks}))
        joints = landmarks.read_json(_ESTIMATE, {"frames": scan.landmarks}, clip.min_score)
    assert joints
    with voice.progress("following the camera") as advance:
        return importing.plan(scan, joints, clip.settings, advance), joints


def bring_in(clip: Clip, voice: Voice = SILENT) -> Imported:
    """The clip as a dataset in memory; raises as ``plan`` does."""
    planned, joints = plan(clip, voice)
    with voice.progress("reading") as advance:
        data, preview = importing.read(planned, advance)
    return Imported(data, planned, joints.form, preview)


def preview_of(output: Path) -> Path:
    """The path of the preview beside a dataset."""
    return output.with_name(f"{output.name}-preview.png")


def write(
    imported: Imported, clip: Clip, output: Path, preview: Path, as_packed: bool = False, voice: Voice = SILENT
) -> None:
    """Write the dataset into the new or empty folder ``output``, and the preview."""
    durable.write_bytes(preview, images.encode_png(np.asarray(imported.preview).transpose(2, 0, 1)))
    with voice.progress("writing") as advance:
        if as_packed:
            packed.write(imported.data, output)
        else:
            pose_folder.write_folder(imported.data, output, advance)
    durable.write_json(output / ORIGIN, {"vidcvae": __version__, "of": _origin(clip)})


def _origin(clip: Clip) -> dict[str, Any]:
    """What determines a clip's dataset: the options, and the files by name, size and time of change."""
    options = asdict(clip)
    del options["save_keypoints"]
    for name in ("source", "keypoints", "pose_model"):
        options[name] = path and _identity(path) if (path := options[name]) else None
    return dict(json.loads(json.dumps(options)))  # lists instead of tuples, as in the file


def _identity(path: Path) -> list[Any]:
    try:
        stats = [file.stat() for file in (path.iterdir() if path.is_dir() else [path])]
    except OSError:  # reported by whoever reads the files
        return [path.name]
    return [path.name, len(stats), sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)]


# --- a training of a clip --------------------------------------------------------------------------


def preset_for(size: tuple[int, int] | int | None) -> str:
    """The default preset for a clip with frames of ``size`` (height, width), or of at most so many pixels."""
    pixels = importing.Settings().size if size is None else size
    return SMALL_PRESET if (pixels if isinstance(pixels, int) else pixels[0] * pixels[1]) <= SMALL else PRESET


def of_training(
    config: Config,
    size: tuple[int, int] | int | None,
    keypoints: Path | None,
    estimate: bool,
    pose_model: Path | None,
    crop: str | None,
) -> Clip:
    """The clip that ``config`` names as its data, with frames of ``size``, or else of the size in ``config``."""
    source = Path(config.data.path)
    if size is None:
        size = importing.Settings().size if config.data.size == "auto" else config.data.size
    return video_or_gif(source, importing.Settings(size, crop=crop), keypoints, estimate, pose_model)


def into_dataset(
    config: Config, clip: Clip, beside: Path | None = None, dry_run: bool = False, voice: Voice = SILENT
) -> tuple[Config, VideoData | None]:
    """``config`` with the clip's dataset as its data: a folder beside the run ``beside``, or in runs/.

    A dataset made from the same clip with the same options is used again. dry_run: write nothing, and return the data.
    """
    clip.check()
    if config.model.condition_kind != "pose":
        raise UsageError(
            f"{clip.source} is a clip of a person, but {an(config.model.name)} is not a model of poses.",
            f"Choose another: --preset {PRESET}",
        )
    if beside:
        check_free(beside)
    if distributed.started_by_torchrun():
        raise UsageError(
            f"{clip.source} is a clip, which each of the processes would import.",
            f"Import it first: {typed('dataset', 'import', clip.kind, clip.source, '-o', 'DATASET')}",
        )
    folder = _place(clip, beside.parent if beside else ROOT)
    config = settings.with_values(config, {"data": {"path": str(folder), "size": "auto"}})
    if folder.exists():
        voice.note(f"{folder}: used again; it was made from {clip.source} with the same options")
        return config, None
    imported = bring_in(clip, voice)
    if imported.plan.scan.broken:
        voice.warn(imported.plan.scan.broken)
    for note in imported.plan.notes:
        voice.note(note)
    if dry_run:
        return config, imported.data
    durable.make_folder(folder)
    try:
        write(imported, clip, folder, preview_of(folder), voice=voice)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # half a dataset would look like a shorter one
        raise
    counts = (f"{split} {counted(sum(map(len, those)), 'frame')}" for split, those in imported.data.splits.items())
    voice.note(f"{folder}: made from {clip.source}; {', '.join(counts)}")
    voice.note(f"{preview_of(folder)}: the part of the pictures that is used")
    return config, None


def _place(clip: Clip, parent: Path) -> Path:
    """The folder of the clip's dataset: one that was made from this clip with these options, else a new one."""
    name = re.sub(r"[^\w.+-]+", "-", clip.source.stem).strip("-.") or "clip"
    origin = _origin(clip)
    for number in itertools.count(1):
        folder = parent / (f"{name}-data" + (f"-{number}" if number > 1 else ""))
        if not folder.exists() or _read_origin(folder) == origin:
            break
    return folder


def _read_origin(folder: Path) -> Any:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return reading.parse_json(reading.read_bytes(folder / ORIGIN)).get("of")
    return None
