"""The poses for a generated dance: pose images, a dataset's poses, or a clip with its joints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidcvae.data import dataset, images, packed, pose_folder
from vidcvae.errors import DataError
from vidcvae.output import video
from vidcvae.own_clips import importing, limbs, recovery, retarget, skeleton
from vidcvae.workflow import own_clip
from vidcvae.workflow.voice import SILENT, Voice

if TYPE_CHECKING:
    from vidcvae.workflow.generation import Files

_MEASURED, _COMPARED = 300, 20  # pose images of the target that its limbs and the darkness of its lines are taken from


def is_clip(files: Files) -> bool:
    """Whether the poses come from a clip; a GIF is a clip if there are options for its joints."""
    if files.poses is None or not own_clip.is_clip(files.poses):
        return False
    return files.poses.suffix.lower() != ".gif" or bool(files.keypoints or files.estimate)


def read(
    files: Files, size: tuple[int, int], fps: Callable[[], float], voice: Voice = SILENT
) -> tuple[np.ndarray, np.ndarray | None]:
    """Pose images, uint8 (T, 3, H, W) with H and W as in ``size``, and their joints (T, 25, 2) if they are known.

    fps: gives the frames per second that a clip is resampled to.
    """
    assert files.poses
    if is_clip(files):
        return _of_clip(files, size, fps(), voice)
    if files.poses.is_dir() and (packed.is_packed(files.poses) or pose_folder.is_pose_folder(files.poses)):
        return _of_dataset(files.poses, size, voice), None
    with voice.progress("reading the poses") as advance:
        return video.read_poses(files.poses, size, advance, gaps="fill" if files.fill else "refuse"), None


def _of_dataset(path: Path, size: tuple[int, int], voice: Voice) -> np.ndarray:
    """The poses of the dataset's longest sequence; raises ``DataError`` if it has none, or a fault."""
    if packed.is_packed(path):
        data = packed.open_packed(path)
        named = [
            (s.tracks["pose"], f"{split} {s.name}")
            for split, those in data.splits.items() for s in those if "pose" in s.tracks
        ]  # fmt: skip
        if not named:
            raise DataError(f"{path} has no poses.", "Name a dataset of a dance.")
        dataset.check_packed_size(data, size, "name the folder of image files that it was packed from")
        poses, name = max(named, key=lambda pair: len(pair[0]))
    else:
        longest = max(pose_folder.list_intact(path).stretches, key=lambda s: len(s.poses))
        poses, name = np.stack([images.read_image(p, size) for p in longest.poses]), f"{longest.split} {longest.name}"
    voice.note(f"{path}: using the poses of its longest sequence, {name}")
    return np.asarray(poses)


def _of_clip(files: Files, size: tuple[int, int], fps: float, voice: Voice) -> tuple[np.ndarray, np.ndarray]:
    """The longest stretch in which a person is visible, in the window of the pictures that holds it."""
    assert files.poses
    how = importing.Settings(size, val_fraction=0)
    clip = own_clip.video_or_gif(files.poses, how, files.keypoints, files.estimate, files.pose_model)
    plan, _ = own_clip.plan(clip, voice)
    rows = np.unique(max((rows for _, rows in plan.runs["train"]), key=len))
    times = plan.scan.times[rows]
    new_times = np.arange(times[0], times[-1] + 1e-6, 1 / fps)
    tracks = plan.joints[rows].reshape(len(rows), -1).T
    joints = np.stack([np.interp(new_times, times, track) for track in tracks], axis=1).reshape(len(new_times), -1, 2)
    placed = plan.fit.points(joints)
    return np.stack([skeleton.draw(points, size) for points in placed]), placed


def onto(
    joints: np.ndarray, theirs: Sequence[np.ndarray], own: np.ndarray | None, size: tuple[int, int]
) -> retarget.Fitted:
    """The motion of ``joints`` (T, 25, 2) on the figure of the pose images ``theirs``, uint8 (3, H, W) each.

    own: the first frame's pose, if it is known or guessed; the motion begins there.
    """
    sample = theirs[:: -(-len(theirs) // _MEASURED)]
    recovered = [points for pose in sample if (points := recovery.joints_of(pose)) is not None]
    target = limbs.build(np.array(recovered).reshape(-1, len(skeleton.JOINTS), 2))
    first = None if own is None else recovery.joints_of(own)
    start = None if first is None else float(first[skeleton.JOINTS.index("mid_hip"), 0])
    motion = limbs.move(joints, target, size, start)
    strength = recovery.strength(list(sample[:_COMPARED]))  # the course's lines are paler
    poses = np.stack([recovery.draw_as(points, size, strength) for points in motion.joints])
    return retarget.Fitted(poses, np.full(len(poses), motion.scale), motion.outside)
