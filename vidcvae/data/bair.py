"""BAIR robot pushing as it was published: TFRecord files of clips from two cameras (Ebert et al. 2017).

The files are ROOT/{train,test}/traj_A_to_B.tfrecords, where ROOT is softmotion30_44k or the folder that holds it.
A record is one clip. For each frame i it has i/action (4 floats), i/endeffector_pos (3 floats) and an image of
64 x 64 x 3 bytes from each camera.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidcvae import reading
from vidcvae.data import packed
from vidcvae.data.clips import Sequence, Stream
from vidcvae.data.tfrecord import BadMessage, Feature, OnProblem, Problem, read_example, read_records, stop_at_problem
from vidcvae.errors import DataError, UsageError, did_you_mean, typed
from vidcvae.progress import Progress, unreported
from vidcvae.storage import durable

SPLITS = ("train", "test")
CAMERAS = ("main", "aux1")
SUFFIXES = (".tfrecord", ".tfrecords")
FPS = 10.0
SIDE = 64
TRACKS = {"action": ("action", 4), "position": ("endeffector_pos", 3)}

_SOFTMOTION = "softmotion30_44k"
_MOST_PROBLEMS = 1000  # a file of this data set has 256 clips
_PARTS = ".parts"  # subfolder of the output with the source files that an unfinished import has packed


@dataclass(frozen=True)
class Source:
    split: str
    path: Path


def is_bair_folder(root: Path) -> bool:
    return bool(_list_sources(root))


def find_folder(path: Path) -> Path | None:
    """The root of the data set that ``path`` names; ``path`` may also be a split's folder or a single file."""
    within = any(path.glob("*.tfrecord*")) if path.is_dir() else path.suffix in SUFFIXES
    return next((root for root in (path, *(path.parents[:2] if within else ())) if is_bair_folder(root)), None)


def is_unfinished(out: Path) -> bool:
    """Whether the folder ``out`` holds an interrupted import."""
    return (out / _PARTS).is_dir() and not packed.is_packed(out)


def list_files(root: Path) -> list[Source]:
    """All TFRecord files, train before test, sorted by the numbers in their names.

    Raises ``DataError`` if there are none.
    """
    sources = _list_sources(root)
    if not sources:
        raise DataError(
            f"{root} has no train/*.tfrecords and no test/*.tfrecords.",
            f"Name the folder {_SOFTMOTION} from bair_robot_pushing_dataset_v0.tar.",
        )
    return sources


def _list_sources(root: Path) -> list[Source]:
    if not any((root / split).is_dir() for split in SPLITS):
        root = root / _SOFTMOTION
    return [
        Source(split, path)
        for split in SPLITS
        for path in sorted((root / split).glob("*.tfrecord*"), key=_by_numbers)
        if path.suffix in SUFFIXES
    ]


def _by_numbers(path: Path) -> tuple[list[int], str]:
    return [int(number) for number in re.findall("[0-9]+", path.stem)], path.name


# --- reading ---------------------------------------------------------------------------------------


def read_file(
    path: Path, camera: str = "main", on_problem: OnProblem = stop_at_problem
) -> Iterator[tuple[Sequence, int]]:
    """The clips of one file, each with the byte offset of its record. Clip 17 of traj_0_to_255 is traj_0_to_255/17.

    on_problem: called for each unreadable record, which is then skipped; the default raises ``DataError``.
    """
    for record in read_records(path, on_problem):
        name = f"{reading.label(path.stem)}/{record.index}"
        try:
            yield to_clip(name, read_example(record.data), camera), record.offset
        except BadMessage as error:
            on_problem(Problem(path, record.offset, f"the record is not a clip of this data set: {error}; skipped."))


def to_clip(name: str, features: dict[str, Feature], camera: str) -> Sequence:
    """One record's features as a clip, with or without actions and positions; raises ``BadMessage``."""
    key = f"image_{camera}/encoded"
    length = next(i for i in itertools.count() if f"{i}/{key}" not in features)
    if not length:
        raise BadMessage(f"it has no 0/{key}")
    if any(name.endswith(f"/{key}") for name in features.keys() - {f"{i}/{key}" for i in range(length)}):
        raise BadMessage(f"it has frames after a gap: {length}/{key} is missing")
    frames = np.stack([_image(features[f"{i}/{key}"], f"{i}/{key}") for i in range(length)])
    tracks = {}
    for track, (kind, columns) in TRACKS.items():
        if any(name.endswith(f"/{kind}") for name in features):
            tracks[track] = np.stack([_row(features, f"{i}/{kind}", columns) for i in range(length)])
    return Sequence(name, frames, tracks)


def _image(feature: Feature, key: str) -> np.ndarray:
    """(3, 64, 64)"""
    if not isinstance(feature, list) or len(feature) != 1:
        raise BadMessage(f"{key} is not one string of bytes")
    if len(feature[0]) != SIDE * SIDE * 3:
        raise BadMessage(f"{key} has {len(feature[0])} bytes, not {SIDE} x {SIDE} x 3")
    return np.frombuffer(feature[0], np.uint8).reshape(SIDE, SIDE, 3).transpose(2, 0, 1)


def _row(features: dict[str, Feature], key: str, columns: int) -> np.ndarray:
    row = features.get(key)
    if not isinstance(row, np.ndarray) or row.shape != (columns,):
        raise BadMessage(f"{key} is not {columns} numbers")
    if not np.isfinite(row).all():
        raise BadMessage(f"{key} has a number that is not finite")
    return row


def check_camera(camera: str) -> None:
    if camera not in CAMERAS:
        raise UsageError(f"there is no camera {camera!r}.{did_you_mean(camera, CAMERAS)}", "Choose main or aux1.")


# --- importing -------------------------------------------------------------------------------------


def import_bair(
    root: Path,
    out: Path,
    camera: str = "main",
    progress: Progress = unreported,
    on_problem: OnProblem = stop_at_problem,
) -> int:
    """Write the data set at ``root`` in the packed form into the folder ``out``; returns the number of clips.

    Each source file is packed into a part first; the parts are then joined without copying. If the import was
    interrupted, the next call continues after the last finished part and reports the problems of earlier parts again.
    progress: in MiB of the source files.
    Raises ``DataError`` if there is nothing to import, or if ``out`` holds a packed dataset; ``UsageError`` if ``out``
    holds anything else but an unfinished import, or for an unknown camera.
    """
    check_camera(camera)
    sources = list_files(root)
    parts = out / _PARTS
    _claim(out)
    sizes = [source.path.stat().st_size for source in sources]
    done: list[Path] = []
    for number, source in enumerate(sources):
        before = sum(sizes[:number])

        def advance(offset: int, before: int = before) -> None:
            progress((before + offset) >> 20, sum(sizes) >> 20)

        part = parts / f"{source.split}-{source.path.name}"
        if _import_file(source, camera, part, advance, on_problem):
            done.append(part)
        advance(sizes[number])
    if not done:
        raise DataError(f"{root} has no readable clip.", "Fetch the data set again.")
    clips = _join_parts(done, out)
    shutil.rmtree(parts, ignore_errors=True)
    return clips


def _claim(out: Path) -> None:
    """Raise ``DataError`` if importing into ``out`` would overwrite anything but an unfinished import."""
    if packed.is_packed(out):
        shutil.rmtree(out / _PARTS, ignore_errors=True)  # left by an import that crashed in its last step
        raise DataError(f"{out} already holds a packed dataset.", f"Look at it: {typed('dataset', 'inspect', out)}")
    if not is_unfinished(out):
        durable.must_be_new(out, otherwise=", nor half an import")
    durable.clean_leftovers(out)


def _import_file(source: Source, camera: str, part: Path, advance: Callable[[int], None], on_problem: OnProblem) -> int:
    """Pack one source file into the folder ``part``, unless that is done already; returns the number of its clips.

    PART.json is written last and marks the part as done. It identifies the source file by path, size and time, and
    stores the problems found.
    """
    receipt = part.with_name(f"{part.name}.json")
    stat = source.path.stat()
    identity = [str(source.path), stat.st_size, stat.st_mtime_ns, camera]
    earlier = _read_receipt(receipt, identity, part)
    if earlier is not None:
        for problem in earlier["problems"]:
            on_problem(Problem(source.path, problem["offset"], problem["text"]))
        return int(earlier["clips"])

    problems: list[Problem] = []

    def record_problem(problem: Problem) -> None:
        if len(problems) == _MOST_PROBLEMS:
            raise DataError(
                f"{source.path} has over {_MOST_PROBLEMS:,} records that are not clips of this data set.",
                "Fetch that file again, or remove it.",
            )
        problems.append(problem)
        on_problem(problem)

    names: list[str] = []

    def clips() -> Iterator[tuple[str, Sequence]]:
        for clip, offset in read_file(source.path, camera, record_problem):
            names.append(clip.name)
            yield source.split, clip
            advance(offset)

    shutil.rmtree(part, ignore_errors=True)
    stream = clips()
    first = next(stream, None)
    if first is not None:
        everything: Iterable[tuple[str, Sequence]] = itertools.chain([first], stream)
        whole = Stream(f"bair-{camera}", "push", FPS, source.path, everything)
        packed.write(whole, part, shard_bytes=sys.maxsize)  # one data file
    saved = [{"offset": p.offset, "text": p.text} for p in problems]
    durable.write_json(receipt, {"source": identity, "clips": len(names), "problems": saved})
    return len(names)


def _read_receipt(receipt: Path, identity: list[Any], part: Path) -> dict[str, Any] | None:
    """The receipt of a finished, intact part; None otherwise."""
    with contextlib.suppress(OSError, ValueError, DataError):
        found: dict[str, Any] = reading.parse_json(reading.read_bytes(receipt, packed.MAX_MANIFEST_BYTES))
        if found["source"] == identity:
            if found["clips"]:
                packed.open_packed(part)
            return found
    return None


def _join_parts(parts: list[Path], out: Path) -> int:
    """Join the parts: hard-link their data files into ``out``, then write one manifest for all of them."""
    splits: dict[str, list[Any]] = {}
    manifest: dict[str, Any] = {}
    for number, part in enumerate(parts):
        manifest = packed.read_manifest(part)
        (data_file,) = part.glob("data-*.bin")
        name = f"data-{number:05d}.bin"
        durable.link(data_file, out / name)
        for *_, block in packed.blocks(manifest):
            block["file"] = name
        for split, records in manifest["splits"].items():
            splits.setdefault(split, []).extend(records)
    packed.commit(out, {**manifest, "splits": splits})
    return sum(map(len, splits.values()))
