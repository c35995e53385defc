"""Folders of numbered files: their order, and the names that every reader has to think of."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidcvae.data import numbered
from vidcvae.errors import DataError


def folder_of(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def test_files_are_sorted_by_number_and_hidden_ones_skipped(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "f", "10.png", "9.PNG", "0a.png", "07.png", ".3.png", "7.png", "notes.txt", "\u0663.png"
    )
    found = numbered.sort(numbered.visible(folder), (".png",))
    assert [(number, path.name) for number, path in found.by_number.items()] == [
        (7, "07.png"), (9, "9.PNG"), (10, "10.png"),
    ]  # fmt: skip
    assert [(path.name, other.name) for path, other in found.duplicates] == [("7.png", "07.png")]
    assert [path.name for path in found.unnumbered] == ["0a.png", "\u0663.png"]
    assert [path.name for path in found.others] == ["notes.txt"]


@pytest.mark.parametrize(
    ("name", "number"), [("clip2_0012", 12), ("7a", 7), ("a", None), ("1" * 15, 111_111_111_111_111), ("1" * 16, None)]
)
def test_last_number_of_a_name(name: str, number: int | None) -> None:
    assert numbered.last_number(name) == number


def test_a_folder_that_cannot_be_listed_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere cannot be read: No such file"):
        numbered.visible(tmp_path / "nowhere")
