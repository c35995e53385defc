"""Folders whose entries are ordered by the number in their name: 10.png comes after 9.png."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from vidcvae.errors import DataError


@dataclass(frozen=True)
class Numbered:
    """Entries sorted by number.

    entries: (number, path), by number and then by path. unnumbered: the right suffix, but no number in the name.
    others: entries with another suffix.
    """

    entries: list[tuple[int, Path]]
    unnumbered: list[Path]
    others: list[Path]

    @property
    def by_number(self) -> dict[int, Path]:
        """The path of each number, in order; if several share a number, the first of them."""
        return dict(next(group) for _, group in itertools.groupby(self.entries, key=lambda entry: entry[0]))

    @property
    def duplicates(self) -> list[tuple[Path, Path]]:
        """(path, the path before it that has the same number)"""
        return [(after, before) for (m, before), (n, after) in itertools.pairwise(self.entries) if m == n]


def visible(folder: Path, hint: str = "Check its name and its permissions.") -> list[Path]:
    """The entries of ``folder`` that are not hidden, sorted; raises ``DataError`` if it cannot be listed."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}.", hint) from None


def whole_number(name: str) -> int | None:
    """The number that ``name`` consists of, or None."""
    return int(name) if name.isascii() and name.isdecimal() else None


def last_number(name: str) -> int | None:
    """The last number in ``name``, if it has at most 15 digits."""
    digits = re.findall("[0-9]+", name)
    return int(digits[-1]) if digits and len(digits[-1]) < 16 else None


def sort(
    paths: Iterable[Path], suffixes: Collection[str], number: Callable[[str], int | None] = whole_number
) -> Numbered:
    """Sort ``paths`` by the number that ``number`` finds in their stem. ``suffixes`` are lower case: ".png"."""
    result = Numbered([], [], [])
    for path in paths:
        found = number(path.stem)
        if path.suffix.lower() not in suffixes:
            result.others.append(path)
        elif found is None:
            result.unnumbered.append(path)
        else:
            result.entries.append((found, path))
    result.entries.sort()
    return result
