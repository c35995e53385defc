"""Reading and writing the course's dance layout (described in ``pose_listing``)."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vidcvae.data import dataset_toml, images
from vidcvae.data.clips import Sequence, Stream, VideoData
from vidcvae.data.pose_listing import Listing, Problem, Stretch, is_pose_folder, list_files
from vidcvae.errors import DataError, typed
from vidcvae.progress import Progress, unreported
from vidcvae.storage import durable

__all__ = ["FolderScan", "is_pose_folder", "list_intact", "scan", "stream", "write_folder"]


@dataclass
class FolderScan:
    """A folder's listing, including faults inside its files, and statistics of the images.

    sizes, modes: for each split and "img" or "label", the number of files of each (width, height) and mode.
    """

    listing: Listing
    sizes: dict[tuple[str, str], Counter[tuple[int, int]]]
    modes: dict[tuple[str, str], Counter[str]]

    @property
    def faults(self) -> list[Problem]:
        return [p for p in self.listing.problems if p.fault]

    @property
    def notes(self) -> list[Problem]:
        return [p for p in self.listing.problems if not p.fault]


def stream(root: Path, size: tuple[int, int], progress: Progress = unreported) -> Stream:
    """The dataset at ``root``, every image resized to ``size`` (height, width); sequences are decoded on demand.

    Raises ``DataError`` for the first fault, naming the file: for a fault in the layout here, for one inside a file
    when its sequence is reached.
    """
    listing = list_intact(root)
    facts, stretches = listing.facts, listing.stretches
    counts = tuple(len(s.frames) + len(s.poses) for s in stretches)
    files_size = images.size_of(stretches[0].frames[0])
    sequences = _decode(root, stretches, size, progress)
    return Stream(facts.name, "dance", facts.fps or dataset_toml.DEFAULT_FPS, root, sequences, counts, size, files_size)


def list_intact(root: Path) -> Listing:
    """As ``list_files``, but raises ``DataError`` for the first fault."""
    listing = list_files(root)
    for problem in listing.problems:
        if problem.fault:
            raise DataError(str(problem), _inspect(root))
    return listing


def scan(root: Path, progress: Progress = unreported) -> FolderScan:
    """Open every file and collect all problems."""
    listing = list_files(root)
    found = FolderScan(listing, {}, {})
    done = 0
    for stretch in listing.stretches:
        for side, paths in (("img", stretch.frames), ("label", stretch.poses)):
            sizes = found.sizes.setdefault((stretch.split, side), Counter())
            modes = found.modes.setdefault((stretch.split, side), Counter())
            expected: tuple[int, int] | None = None
            for path in paths:
                try:
                    image = images.open_image(path)
                    sizes[image.size] += 1
                    modes[image.mode] += 1
                    expected = expected or image.size
                    images.check_size(path, image, expected)
                except DataError as error:
                    listing.fault(path, error.message.removeprefix(f"{path} "))
                done += 1
                progress(done, listing.files)
    return found


def write_folder(data: VideoData, out: Path, progress: Progress = unreported) -> None:
    """Write a dance dataset in the course's layout, with its dataset.toml; train and val are numbered continuously.

    Raises ``UsageError`` if ``out`` is not a new or empty folder, ``DataError`` if it cannot be written.
    """
    durable.must_be_new(out)
    # Written first: if writing is interrupted, the starts it declares show that frames are missing
    durable.write_text(out / dataset_toml.FILE, dataset_toml.to_toml(_facts_of(data)))
    jobs = [job for split, found in data.splits.items() for job in _files_of(out / split, split, found)]
    files = ((path, partial(images.encode_png, image)) for path, image in jobs)
    for done, _ in enumerate(durable.write_many(files), 1):
        progress(done, len(jobs))


def _files_of(folder: Path, split: str, sequences: tuple[Sequence, ...]) -> Iterator[tuple[Path, np.ndarray]]:
    first = 0
    for k, sequence in enumerate(sequences):
        for side, track in (("img", sequence.frames), ("label", sequence.tracks["pose"])):
            parent = folder / f"{split}_{side}"
            if split == "test":
                parent = parent / str(k)
            yield from ((parent / f"{first + row}.png", image) for row, image in enumerate(track))
        first += 0 if split == "test" else len(sequence)


def _facts_of(data: VideoData) -> dataset_toml.Facts:
    splits = {}
    for split in ("train", "val"):
        starts, unknown, first = [], [], 0
        for sequence in data.splits.get(split, ()):
            starts.append(first)
            unknown += [first + row for row in sorted(sequence.unknown_poses)]
            first += len(sequence)
        splits[split] = dataset_toml.SplitFacts(tuple(starts), tuple(unknown))
    rows = {row for sequence in data.splits.get("test", ()) for row in sequence.unknown_poses}
    splits["test"] = dataset_toml.SplitFacts((), tuple(sorted(rows)))
    size = data.size if any(data.splits.values()) and dataset_toml.is_size(data.size) else None
    return dataset_toml.Facts(data.name, data.fps, **splits, size=size)


def _decode(
    root: Path, stretches: list[Stretch], size: tuple[int, int], progress: Progress
) -> Iterator[tuple[str, Sequence]]:
    total, done = sum(len(s.frames) + len(s.poses) for s in stretches), itertools.count(1)

    def arrays(paths: tuple[Path, ...]) -> np.ndarray:
        out = np.empty((len(paths), 3, *size), np.uint8)
        try:
            for row, image in enumerate(images.open_alike(paths)):
                out[row] = images.pixels(image, size)
                progress(next(done), total)
        except DataError as error:
            raise DataError(error.message, error.hint or _inspect(root)) from None
        return out

    for s in stretches:
        yield s.split, Sequence(s.name, arrays(s.frames), {"pose": arrays(s.poses)}, s.unknown_poses)


def _inspect(root: Path) -> str:
    return f"All problems at once: {typed('dataset', 'inspect', root)}"
