"""The course's dance layout: a frame and a skeleton image for every number.

ROOT/{train,val}/{train,val}_{img,label}/N.png      frame N and its pose
ROOT/test/test_{img,label}/K/N.png                  sequence K: the first frame (or more), and all poses
ROOT/dataset.toml                                   optional facts (see ``dataset_toml``)

A sequence ends at a gap in the numbering, and at each start that dataset.toml declares.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from pathlib import Path

from vidcvae import reading
from vidcvae.data import numbered
from vidcvae.data.dataset_toml import FILE, Facts, SplitFacts, read_facts
from vidcvae.errors import DataError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Problem:
    """A problem with one file or folder: a ``fault``, which prevents reading, or a note."""

    path: Path
    text: str
    fault: bool = True

    def __str__(self) -> str:
        return f"{self.path} {self.text}"


@dataclass(frozen=True)
class Stretch:
    """The files of one unbroken sequence, not yet decoded."""

    split: str
    name: str
    frames: tuple[Path, ...]
    poses: tuple[Path, ...]
    unknown_poses: frozenset[int]


@dataclass
class Listing:
    """The sequences and problems found from the names of a dataset's files."""

    root: Path
    facts: Facts
    stretches: list[Stretch] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def files(self) -> int:
        return sum(len(s.frames) + len(s.poses) for s in self.stretches)

    def fault(self, path: Path, text: str) -> None:
        self.problems.append(Problem(path, text))

    def note(self, path: Path, text: str) -> None:
        self.problems.append(Problem(path, text, fault=False))


def is_pose_folder(root: Path) -> bool:
    return any((root / split / f"{split}_{side}").exists() for split in SPLITS for side in ("img", "label"))


def list_files(root: Path) -> Listing:
    """List sequences and problems from the file names alone; no image is opened.

    Raises ``DataError`` only if nothing can be listed: no folder, no split, an invalid dataset.toml.
    """
    if not root.is_dir():
        raise DataError(_not_a_folder(root), "A dataset in the course's layout is a folder with train/train_img, ..")
    if not is_pose_folder(root):
        raise DataError(f"{root} has none of train/train_img, val/val_img, test/test_img.", "Choose another folder.")
    facts = read_facts(root)
    listing = Listing(root, facts)
    for split, split_facts in (("train", facts.train), ("val", facts.val)):
        if (root / split).exists():
            _list_pairs(listing, split, split_facts)
        elif split_facts != SplitFacts():
            listing.fault(root / FILE, f"has a section {split}, but there is no folder {root / split}.")
    if (root / "test").exists():
        _list_tests(listing)
    return listing


def _list_pairs(listing: Listing, split: str, facts: SplitFacts) -> None:
    folder = listing.root / split
    image_folder, label_folder = folder / f"{split}_img", folder / f"{split}_label"
    frames, poses = _numbered(listing, image_folder), _numbered(listing, label_folder)
    if frames is None or poses is None:
        return
    if not frames and not poses:
        listing.fault(image_folder, f"is empty: the {split} split has no frames.")
    for number in sorted(frames.keys() - poses.keys()):
        listing.fault(frames[number], f"has no pose: {label_folder / frames[number].name} is missing.")
    for number in sorted(poses.keys() - frames.keys()):
        listing.fault(poses[number], f"has no frame: {image_folder / poses[number].name} is missing.")
    numbers = sorted(frames.keys() & poses.keys())
    for key, declared in (("starts", facts.starts), ("unknown_poses", facts.unknown_poses)):
        for number in sorted(set(declared) - frames.keys()):
            missing = image_folder / f"{number}.png"
            listing.fault(listing.root / FILE, f"has {number} in {split}.{key}, but there is no {missing}.")
    for before, after in itertools.pairwise(numbers):
        if after != before + 1:
            listing.note(image_folder, f"skips {_numbers(before + 1, after - 1)}: the video is cut there.")
    for run in _runs(numbers, facts.starts):
        unknown = frozenset(n - run[0] for n in facts.unknown_poses if run[0] <= n <= run[-1])
        name = f"{run[0]}-{run[-1]}"
        paths = tuple(frames[n] for n in run), tuple(poses[n] for n in run)
        listing.stretches.append(Stretch(split, name, *paths, unknown))


def _list_tests(listing: Listing) -> None:
    image_root, label_root = (listing.root / "test" / f"test_{side}" for side in ("img", "label"))
    image_folders, label_folders = _subfolders(listing, image_root), _subfolders(listing, label_root)
    if image_folders is None or label_folders is None:
        return
    if not image_folders and not label_folders:
        listing.fault(image_root, "is empty: the test split has no sequences.")
    for name in sorted(image_folders.keys() - label_folders.keys(), key=_natural):
        listing.fault(image_folders[name], f"has no poses: {label_root / name} is missing.")
    for name in sorted(label_folders.keys() - image_folders.keys(), key=_natural):
        listing.fault(label_folders[name], f"has no first frame: {image_root / name} is missing.")
    for name in sorted(image_folders.keys() & label_folders.keys(), key=_natural):
        frames, poses = _numbered(listing, image_folders[name]), _numbered(listing, label_folders[name])
        if frames is None or poses is None:
            continue
        if not frames or not poses:
            listing.fault((image_folders if not frames else label_folders)[name], "is empty.")
            continue
        first = min(poses)
        for folder, numbers in ((label_folders[name], poses), (image_folders[name], frames)):
            expected = range(first, first + len(numbers))
            for missing in sorted(set(expected) - numbers.keys())[:1]:
                listing.fault(folder, f"has no {missing}.png: a test sequence must be unbroken from {first}.png on.")
        for number in sorted(frames.keys() - poses.keys()):
            listing.fault(frames[number], f"has no pose: {label_folders[name] / frames[number].name} is missing.")
        unknown = frozenset(n - first for n in listing.facts.test.unknown_poses if n in poses)
        paths = tuple(frames[n] for n in sorted(frames)), tuple(poses[n] for n in sorted(poses))
        listing.stretches.append(Stretch("test", name, *paths, unknown))


def _numbered(listing: Listing, folder: Path) -> dict[int, Path] | None:
    """The PNG files of a folder by their numbers; None if there is no such folder."""
    entries = _entries(listing, folder)
    if entries is None:
        return None
    images = numbered.sort(entries, (".png",))
    for path in images.others:
        listing.note(path, "is not a PNG file and is ignored.")
    for path in images.unnumbered:
        listing.fault(path, "has a name that is not a number.")
    for path, other in images.duplicates:
        listing.fault(path, f"has the same number as {other}.")
    return images.by_number


def _subfolders(listing: Listing, folder: Path) -> dict[str, Path] | None:
    entries = _entries(listing, folder)
    for path in entries or ():
        if not path.is_dir():
            listing.fault(path, "is a file, but test sequences are folders.")
    return None if entries is None else {path.name: path for path in entries if path.is_dir()}


def _entries(listing: Listing, folder: Path) -> list[Path] | None:
    """The visible entries of a folder with printable names; None, and a fault, if it cannot be listed."""
    if not folder.is_dir():
        listing.fault(folder, _not_a_folder(folder).removeprefix(f"{folder} "))
        return None
    try:
        paths = numbered.visible(folder)
    except DataError as error:
        listing.fault(folder, error.message.removeprefix(f"{folder} "))
        return None
    for path in paths:
        if not reading.is_name(path.name):
            listing.note(folder, f"has {reading.shown(path.name)}, a name that cannot be printed; it is ignored.")
    return [path for path in paths if reading.is_name(path.name)]


def _not_a_folder(path: Path) -> str:
    if not path.exists():
        return f"{path} is missing."
    what = "a GIF" if path.suffix.lower() == ".gif" else "a file"
    return f"{path} is {what}, not a folder."


def _runs(numbers: list[int], starts: Items[int]) -> Iterator[list[int]]:
    """Consecutive numbers, cut at every break and before every declared start."""
    run: list[int] = []
    for number in numbers:
        if run and (number != run[-1] + 1 or number in starts):
            yield run
            run = []
        run.append(number)
    if run:
        yield run


def _numbers(first: int, last: int) -> str:
    return f"{first}.png" if first == last else f"{first}.png to {last}.png"


def _natural(name: str) -> tuple[int, int, str]:
    """A sort key: numbers by value, other names after them."""
    number = numbered.whole_number(name)
    return (1, 0, name) if number is None else (0, number, name)
