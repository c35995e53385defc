"""``ROOT/dataset.toml``: facts about a dataset that its file names do not show."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidcvae import reading
from vidcvae.config.read import toml_value
from vidcvae.config.schema import SIDES
from vidcvae.errors import DataError, did_you_mean

FILE = "dataset.toml"
DEFAULT_FPS = 25.0  # of a dance whose file does not say


@dataclass(frozen=True)
class SplitFacts:
    """starts: numbers of the files that begin a new unbroken sequence.
    unknown_poses: numbers of the poses that are placeholders (in a test split, in every sequence)."""

    starts: tuple[int, ...] = ()
    unknown_poses: tuple[int, ...] = ()


@dataclass(frozen=True)
class Facts:
    name: str
    fps: float | None  # None if the file does not say
    train: SplitFacts = SplitFacts()
    val: SplitFacts = SplitFacts()
    test: SplitFacts = SplitFacts()
    size: tuple[int, int] | None = None  # default height and width of the frames


_OWN = ("name", "fps", "size")
_KEYS = {"train": ("starts", "unknown_poses"), "val": ("starts", "unknown_poses"), "test": ("unknown_poses",)}


def read_facts(root: Path) -> Facts:
    """The facts of the dataset at ``root``; without a file: the folder's name, no rate, no size.

    Raises ``DataError`` that names file and key for invalid TOML, unknown keys and wrong values.
    """
    path = root / FILE
    try:
        table = reading.read_toml(path)
    except FileNotFoundError:
        return Facts(_folder_name(root), None)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path} is not a readable TOML file: {reason}.", "Mend it, or remove it.") from None
    for key in table.keys() - {*_OWN, *_KEYS}:
        raise _wrong(path, reading.label(key), f"is not known.{did_you_mean(key, (*_OWN, *_KEYS))}")
    name, fps = table.get("name", _folder_name(root)), table.get("fps")
    if not reading.is_name(name):
        raise _wrong(path, "name", "must be a text in quotes, on one line.")
    if fps is not None and (type(fps) not in (int, float) or not 0 < fps <= sys.float_info.max):
        raise _wrong(path, "fps", "must be a number above 0, in frames a second.")
    if (size := table.get("size")) is not None and not is_size(size):
        raise _wrong(path, "size", f"must be [height, width], multiples of 8 from {SIDES[0]} to {SIDES[-1]}.")
    splits = {split: _read_split(path, split, table.get(split, {})) for split in _KEYS}
    return Facts(name, fps and float(fps), **splits, size=(size[0], size[1]) if size else None)


def is_size(size: Any) -> bool:
    """Whether ``size`` is a height and width that models accept."""
    return isinstance(size, list | tuple) and len(size) == 2 and all(type(n) is int and n in SIDES for n in size)


def _folder_name(root: Path) -> str:
    return reading.label(root.resolve().name)


def to_toml(facts: Facts) -> str:
    """The text that ``read_facts`` turns into the same facts."""
    lines = ["# Facts about this dataset that file names cannot tell.", f"name = {toml_value(facts.name)}"]
    lines += [f"fps = {facts.fps}"] if facts.fps else []
    lines += [*([f"size = {list(facts.size)}"] if facts.size else []), ""]
    for split, keys in _KEYS.items():
        values = {key: list(getattr(getattr(facts, split), key)) for key in keys}
        if any(values.values()):
            lines += [f"[{split}]", *(f"{key} = {numbers}" for key, numbers in values.items() if numbers), ""]
    return "\n".join(lines)


def _read_split(path: Path, split: str, table: Any) -> SplitFacts:
    if not isinstance(table, dict):
        raise _wrong(path, split, f"is a section: write [{split}] and its keys below it.")
    values = {}
    for key, numbers in table.items():
        if key not in _KEYS[split]:
            raise _wrong(path, f"{split}.{reading.label(key)}", f"is not known.{did_you_mean(key, _KEYS[split])}")
        whole = isinstance(numbers, list) and all(type(n) is int and n >= 0 for n in numbers)
        if not whole or any(a >= b for a, b in itertools.pairwise(numbers)):
            raise _wrong(path, f"{split}.{key}", "must be a list of whole numbers from 0, each above the one before.")
        values[key] = tuple(numbers)
    return SplitFacts(**values)


def _wrong(path: Path, key: str, what: str) -> DataError:
    return DataError(f"{path}: {key} {what}", "Mend that line, or remove it.")
