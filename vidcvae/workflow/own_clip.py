"""Somebody's clip as a dataset: what ``vidcvae dataset import``, and ``train`` and ``generate`` given a clip, do."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
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
from vidcvae.errors import UsageError, an, counted, typed
from vidcvae.own_clips import estimation, footage, importing, keypoints, landmarks
from vidcvae.own_clips.keypoint_checks import Keypoints
from vidcvae.storage import durable
from vidcvae.storage.run import ROOT, check_free
from vidcvae.training import distributed
from vidcvae.workflow.voice import SILENT, Voice

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".wmv", ".mpg", ".mpeg", ".mts", ".3gp", ".gif")
PRESET, SMALL_PRESET, SMALL = "clip", "anchor-cpu", 4096  # pixels of a frame up to which patches of 4 are too coarse
ORIGIN = "import.json"  # in a dataset: what it was made of; written last
_ESTIMATE = Path("what MediaPipe found")


@dataclass(frozen=True)
class Clip:
    """A clip and how its joints are known: from a file of ``keypoints``, or by ``estimate``, with MediaPipe.

    kind: "video", "gif", or "frames", which are images in a folder. people: how many to look for.
    save_keypoints: a file for what was estimated, which ``keypoints`` takes.
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
        """Raise ``UsageError`` unless it is said, in one way, where the joints come from."""
        if (self.keypoints is None) != self.estimate:
            both = "--keypoints and --estimate exclude each other" if self.estimate else (
                f"{self.source}: the joints in each frame are missing")  # fmt: skip
            raise UsageError(
                f"{both}.",
                "Find them with --estimate (pip install 'vidcvae[pose]'), or name what a pose estimator wrote: "
                "--keypoints FILE, which is COCO JSON, an OpenPose folder, or MediaPipe landmarks.",
            )
        if self.save_keypoints and not self.estimate:
            raise UsageError(
                "--save-keypoints is for --estimate, which is missing.", "Add --estimate, or leave it out."
            )
        if self.settings.fps is not None and not 0 < self.settings.fps <= 1000:
            raise UsageError(f"a clip cannot have {self.settings.fps:g} frames a second.", "Choose --fps 25.")
        if self.save_keypoints:
            durable.check_writable(self.save_keypoints)


@dataclass(frozen=True)
class Imported:
    """preview: a picture of the clip that shows what part of it the frames are."""

    data: VideoData
    plan: importing.Plan
    form: str
    preview: Image.Image


def is_clip(path: str | Path) -> bool:
    """Whether ``path`` names a video or a GIF, be it there or not."""
    return Path(path).suffix.lower() in SUFFIXES and not Path(path).is_dir()


def plan(clip: Clip, voice: Voice = SILENT) -> tuple[importing.Plan, Keypoints]:
    """What becomes of the clip, and its joints. Raises ``VidcvaeError`` for a clip or keypoints that do not do."""
    clip.check()
    pictures = footage.open_clip(clip.kind, clip.source, clip.settings.fps or dataset_toml.DEFAULT_FPS)
    found = keypoints.read_keypoints(clip.keypoints, clip.keypoint_format, clip.min_score) if clip.keypoints else None
    with _estimator(clip) as estimate, voice.progress("finding the joints" if estimate else "looking through") as tell:
        seen = importing.look(pictures, estimate, tell)
    if seen.landmarks is not None:
        if clip.save_keypoints:
            durable.write_text(clip.save_keypoints, json.dumps({"frames": seen.landmarks}))
        found = landmarks.read_json(_ESTIMATE, {"frames": seen.landmarks}, clip.min_score)
    assert found
    with voice.progress("watching the camera") as tell:
        return importing.plan(seen, found, clip.settings, tell), found


@contextlib.contextmanager
def _estimator(clip: Clip) -> Iterator[estimation.Estimator | None]:
    if not clip.estimate:
        yield None
        return
    with estimation.estimator(clip.pose_model, clip.source, clip.people) as estimate:
        yield estimate


def bring_in(clip: Clip, voice: Voice = SILENT) -> Imported:
    """The clip as a dataset in memory; raises as ``plan`` does."""
    planned, found = plan(clip, voice)
    with voice.progress("reading") as tell:
        data, preview = importing.read(planned, tell)
    return Imported(data, planned, found.form, preview)


def preview_of(output: Path) -> Path:
    """The picture that is made beside a dataset."""
    return output.with_name(f"{output.name}-preview.png")


def write(
    imported: Imported, clip: Clip, output: Path, preview: Path, as_packed: bool = False, voice: Voice = SILENT
) -> None:
    """Write the dataset into the new or empty folder ``output``, and the picture of its window."""
    durable.write_bytes(preview, images.encode_png(np.asarray(imported.preview).transpose(2, 0, 1)))
    with voice.progress("writing") as tell:
        if as_packed:
            packed.write(imported.data, output)
        else:
            pose_folder.write_folder(imported.data, output, tell)
    durable.write_json(output / ORIGIN, {"vidcvae": __version__, "of": _origin(clip)})


def _origin(clip: Clip) -> dict[str, Any]:
    """What decides what is in the dataset of a clip: its options, and the files by name, size and age."""
    options = asdict(clip)
    del options["save_keypoints"]
    for name in ("source", "keypoints", "pose_model"):
        options[name] = path and _identity(path) if (path := options[name]) else None
    return dict(json.loads(json.dumps(options)))  # as it is read again


def _identity(path: Path) -> list[Any]:
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        stats = [file.stat() for file in files]
    except OSError:  # whoever reads it says so
        return [path.name]
    return [path.name, len(stats), sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)]


# --- a training of a clip --------------------------------------------------------------------------


def preset_for(size: tuple[int, int] | int | None) -> str:
    """What a clip is trained with where nobody says otherwise: by its frames, or how many pixels they may have."""
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
    """The clip that ``config`` names as its data, with frames of ``size``, or else of the size that ``config`` sets."""
    source, wanted = Path(config.data.path), config.data.size
    size = size or (importing.Settings().size if wanted == "auto" else wanted)
    kind = "gif" if source.suffix.lower() == ".gif" else "video"
    how = importing.Settings(size, crop=crop)
    return Clip(source, kind, keypoints, estimate=estimate, pose_model=pose_model, settings=how)


def into_dataset(
    config: Config, clip: Clip, beside: Path | None = None, dry_run: bool = False, voice: Voice = SILENT
) -> tuple[Config, VideoData | None]:
    """``config`` with the clip's dataset as its data: a folder beside the run ``beside``, or in runs/.

    One that was made of the same clip with the same options is taken as it is. dry_run: nothing is written, and the
    data are returned.
    """
    clip.check()
    if config.model.condition != "pose":
        raise UsageError(
            f"{clip.source} is a clip of a person, but {an(config.model.name)} is no model of poses.",
            f"Choose another: --preset {PRESET}",
        )
    if beside:
        check_free(beside)
    if distributed.started_by_torchrun():
        raise UsageError(
            f"{clip.source} is a clip, and several processes would each import it.",
            f"Import it first: {typed('dataset', 'import', clip.kind, clip.source, '-o', 'DATASET')}",
        )
    folder, there = _place(clip, beside.parent if beside else ROOT)
    if there:
        voice.note(f"{folder}: taken as it is; it was made of {clip.source} with the same options")
        return _with_data(config, folder), None
    imported = bring_in(clip, voice)
    if imported.plan.seen.broken:
        voice.warn(imported.plan.seen.broken)
    for note in imported.plan.notes:
        voice.note(note)
    found = _with_data(config, folder)
    if dry_run:
        return found, imported.data
    durable.make_folder(folder)
    try:
        write(imported, clip, folder, preview_of(folder), voice=voice)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # half a dataset would pass for a shorter one
        raise
    counts = (f"{split} {counted(sum(map(len, those)), 'frame')}" for split, those in imported.data.splits.items())
    voice.note(f"{folder}: made of {clip.source}; {', '.join(counts)}")
    voice.note(f"{preview_of(folder)}: what part of the pictures is used")
    return found, None


def _with_data(config: Config, folder: Path) -> Config:
    return settings.with_values(config, {"data": {"path": str(folder), "size": "auto"}})


def _place(clip: Clip, parent: Path) -> tuple[Path, bool]:
    """The folder of the clip's dataset, and whether it is there already."""
    name = re.sub(r"[^\w.+-]+", "-", clip.source.stem).strip("-.") or "clip"
    origin, number = _origin(clip), 1
    while True:
        folder = parent / (f"{name}-data" + (f"-{number}" if number > 1 else ""))
        if not folder.exists() or _read_origin(folder) == origin:
            return folder, folder.exists()
        number += 1


def _read_origin(folder: Path) -> Any:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return reading.parse_json(reading.read_bytes(folder / ORIGIN)).get("of")
    return None
