"""The course's robot-pushing layout: one folder for each clip.

ROOT/{train,validate,test}/traj_A_to_B/K/N.png        frame N, from 0.png on
                                 .../actions.csv                   row N: the action (4 numbers) taken at frame N
                                 .../endeffector_positions.csv     row N: the gripper's position (3) in frame N
ROOT/dataset.toml                                                  optional: name and fps (see ``dataset_toml``)

A clip may have any number of frames. The CSV files are optional.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vidcvae import reading
from vidcvae.data import images, numbered
from vidcvae.data.clips import Sequence, Stream
from vidcvae.data.dataset_toml import read_facts
from vidcvae.errors import DataError, counted, typed
from vidcvae.progress import Progress, unreported

SPLITS = ("train", "validate", "test")
TRACK_FILES = {"action": "actions.csv", "position": "endeffector_positions.csv"}
TRACK_COLUMNS = {"action": 4, "position": 3}
FPS = 10.0  # if dataset.toml does not say

_GROUP = re.compile(r"traj_(\d+)_to_(\d+)", re.ASCII)
_LARGEST = float(np.finfo(np.float32).max)
_MAX_CSV_BYTES = 1 << 20  # a clip's table takes a few kilobytes


@dataclass(frozen=True)
class Clip:
    """One clip's files, not yet read. ``name``: traj_0_to_99/3, for example."""

    split: str
    name: str
    frames: tuple[Path, ...]
    tracks: dict[str, Path]


def is_trajectory_folder(root: Path) -> bool:
    """Whether any split has a folder traj_A_to_B."""
    return any(_groups(root / split) for split in SPLITS)


def stream(root: Path, size: tuple[int, int], progress: Progress = unreported) -> Stream:
    """The dataset at ``root``, with frames resized to ``size`` (height, width); clips are decoded on demand.

    Raises ``DataError`` for the first fault, naming the file (and in a CSV the line): for a fault in the layout here,
    for one inside a file when its clip is reached.
    """
    clips = list_clips(root)
    facts = read_facts(root)
    counts = tuple(len(clip.frames) for clip in clips)
    files_size = images.size_of(clips[0].frames[0])
    sequences = _decode(root, clips, size, progress)
    return Stream(facts.name, "push", facts.fps or FPS, root, sequences, counts, size, files_size)


def faults(root: Path, progress: Progress = unreported) -> list[DataError]:
    """The first fault of every clip that cannot be read.

    Raises ``DataError`` only if the layout itself is wrong.
    """
    errors, clips = [], list_clips(root)
    for done, clip in enumerate(clips, start=1):
        try:
            read_clip(clip, None)
        except DataError as error:
            errors.append(error)
        progress(done, len(clips))
    return errors


# --- file names ----------------------------------------------------------------------------


def list_clips(root: Path) -> list[Clip]:
    """All clips of all splits, sorted by number.

    Raises ``DataError`` for a folder without clips and for a break in a clip's numbering.
    """
    if not is_trajectory_folder(root):
        raise DataError(
            f"{root} has no folder train/traj_A_to_B, validate/traj_A_to_B or test/traj_A_to_B.",
            "Make such a dataset: vidcvae dataset synth push -o FOLDER",
        )
    clips = [_list_clip(split, folder) for split in SPLITS for folder in _clip_folders(root / split)]
    if not clips:
        empty = next(group for split in SPLITS for group in _groups(root / split))
        raise DataError(f"{empty} has no clips.", f"A clip is a folder of PNG files, such as {empty / '0'}.")
    return clips


def _groups(split: Path) -> list[Path]:
    """The folders traj_A_to_B of a split, by A and B."""
    groups = [(match, path) for path in split.glob("traj_*_to_*") if (match := _GROUP.fullmatch(path.name))]
    return [path for _, path in sorted(groups, key=lambda pair: (int(pair[0][1]), int(pair[0][2])))]


def _clip_folders(split: Path) -> list[Path]:
    return [folder for group in _groups(split) for _, folder in _numbered(group, "")]


def _list_clip(split: str, folder: Path) -> Clip:
    frames = _numbered(folder, ".png")
    subfolders = [] if frames else [*_clip_folders(folder), *(path for _, path in _numbered(folder, ""))]
    inside = [path for path in subfolders if path.is_dir()]
    if inside:
        raise DataError(
            f"{folder} is not a clip: it is a folder of {counted(len(inside), 'clip')}.", f"Choose one: {inside[0]}"
        )
    if not frames:
        raise DataError(f"{folder} has no frames: 0.png is missing.", "Remove the folder, or put its frames into it.")
    for expected, (number, path) in enumerate(frames):
        if number < expected:
            raise DataError(f"{path} has the same number as {frames[expected - 1][1]}.", "Remove one of them.")
        if number > expected:
            raise DataError(f"{folder} has a gap: {expected}.png is missing.", "A clip's frames are 0.png, 1.png, ...")
    tracks = {track: folder / file for track, file in TRACK_FILES.items() if (folder / file).exists()}
    return Clip(split, f"{folder.parent.name}/{folder.name}", tuple(path for _, path in frames), tracks)


def _numbered(folder: Path, suffix: str) -> list[tuple[int, Path]]:
    """(number, path) of the entries whose name is a number and ``suffix``; others are ignored."""
    return numbered.sort(numbered.visible(folder, "A clip is a folder of PNG files."), (suffix,)).entries


# --- file contents ---------------------------------------------------------------------------------


def read_clip(clip: Clip, size: tuple[int, int] | None) -> Sequence:
    """Decode a clip; if ``size`` is None, frames keep their own."""
    frames = [images.pixels(image, size or image.size[::-1]) for image in images.open_alike(clip.frames)]
    tracks = {track: read_track(path, TRACK_COLUMNS[track], len(frames)) for track, path in clip.tracks.items()}
    return Sequence(clip.name, np.stack(frames), tracks)


def read_given(folder: Path, tracks: Mapping[str, Path], size: tuple[int, int]) -> Sequence:
    """The frames in ``folder`` with tables that may be longer, to generate a video from.

    tracks: CSV files by track name. Raises ``DataError`` as ``read_clip`` does, and for tables of unequal length.
    """
    sequence = read_clip(replace(_list_clip("", folder), tracks={}), size)
    rows = {track: read_track(path, TRACK_COLUMNS[track]) for track, path in tracks.items()}
    lengths = {tracks[track]: len(found) for track, found in rows.items()}
    if len(set(lengths.values())) > 1:
        found = " and ".join(f"{path} has {count} lines" for path, count in lengths.items())
        raise DataError(f"{found}: they do not belong to one clip.", "Each has one line for each frame.")
    return replace(sequence, name=str(folder), tracks=rows)


def read_track(path: Path, columns: int, rows: int | None = None) -> np.ndarray:
    """A CSV of finite numbers without a header as float32 (rows, columns); None accepts any number of ``rows``.

    Raises ``DataError`` that names the file and line.
    """
    try:
        lines = reading.read_bytes(path, _MAX_CSV_BYTES).decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(
            f"there is no file {path}.", f"It has {columns} numbers a line, one line for each frame."
        ) from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise DataError(
            f"{path} is not a text file.", f"It has {columns} numbers a line, separated by commas."
        ) from None
    while lines and not lines[-1].strip():
        lines.pop()
    values = [_read_line(path, number, line, columns) for number, line in enumerate(lines, start=1)]
    if rows is not None and len(values) != rows:
        raise DataError(f"{path} has {len(values)} lines, but the clip has {rows} frames.", "Each frame has one line.")
    return np.array(values, np.float32).reshape(-1, columns)


def _read_line(path: Path, number: int, line: str, columns: int) -> list[float]:
    cells = line.split(",")
    if len(cells) != columns:
        raise DataError(
            f"{path}, line {number} has {len(cells)} column{'s'[: len(cells) != 1]}, not {columns}.",
            f"Each line has {columns} numbers, separated by commas.",
        )
    values = []
    for cell in cells:
        try:
            values.append(float(cell))
        except ValueError:
            raise DataError(
                f"{path}, line {number}: {reading.shown(cell)} is not a number.", "The file has numbers only."
            ) from None
    if not all(abs(value) <= _LARGEST for value in values):  # false for NaN too
        raise DataError(f"{path}, line {number} has a number that is not finite.", "The file has finite numbers only.")
    return values


def _decode(root: Path, clips: list[Clip], size: tuple[int, int], progress: Progress) -> Iterator[tuple[str, Sequence]]:
    for done, clip in enumerate(clips, start=1):
        try:
            sequence = read_clip(clip, size)
        except DataError as error:
            hint = error.hint or f"All problems at once: {typed('dataset', 'inspect', root)}"
            raise DataError(error.message, hint) from None
        yield clip.split, sequence
        progress(done, len(clips))
