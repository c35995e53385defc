"""Somebody's own clip made into a dataset: pictures and joints read, put together, and written."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from vidcvae.data import dataset_toml, packed, pose_folder
from vidcvae.own_clips import estimation, footage, importing, keypoints
from vidcvae.own_clips.footage import Pictures
from vidcvae.own_clips.importing import Imported, Settings
from vidcvae.workflow.voice import SILENT, Voice


def import_clip(
    kind: str,
    source: Path,
    output: Path,
    settings: Settings,
    *,
    joints: Path | None = None,
    joint_format: str = "auto",
    min_score: float = 0.3,
    pose_model: Path | None = None,
    people: int = estimation.DEFAULT_PEOPLE,
    in_packed_form: bool = False,
    voice: Voice = SILENT,
) -> tuple[Imported, str]:
    """Make a dataset in ``output``; returns it, and in words what the file ``joints`` was taken for.

    kind: "video", "gif", or "frames" for a folder of images. joints: None lets MediaPipe find those of so many people
    with ``pose_model``. min_score: joints with a lower one are not drawn.
    """
    found = None
    with nullcontext() if joints else estimation.estimator(pose_model, min_score, people) as find:
        clip = _open(kind, source, settings.fps)
        if joints:
            found = keypoints.read_keypoints(joints, joint_format, min_score)
        with voice.progress("reading") as advance:
            made = importing.import_clip(clip, found, settings, find, advance)
    if in_packed_form:
        packed.write(made.data, output)
    else:
        with voice.progress("writing") as advance:
            pose_folder.write_folder(made.data, output, advance)
    return made, f"{found.path}: {found.form}" if found else ""


def _open(kind: str, source: Path, fps: float | None) -> Pictures:
    if kind == "frames":
        return footage.open_frames(source, fps or dataset_toml.DEFAULT_FPS)
    return footage.open_gif(source) if kind == "gif" else footage.open_video(source)
