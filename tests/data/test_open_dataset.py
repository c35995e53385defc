"""One door for every layout, and the cache behind it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from vidcvae.data import packed, pose_folder
from vidcvae.data.clips import Sequence, Stream
from vidcvae.data.dataset import layout, open_stream
from vidcvae.errors import DataError
from vidcvae.scenes import dancing
from vidcvae.workflow.datasets import open_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pose_folder.write_folder(dancing.dance(12, 4, 1, 0, (16, 32)), tmp_path / "dance")
    return tmp_path / "dance"


def count_decoding(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    from vidcvae.data import images

    decoded: list[Path] = []
    real = images.open_image
    monkeypatch.setattr(images, "open_image", lambda path: (decoded.append(path), real(path))[1])
    return decoded


def test_a_folder_and_its_pack_are_the_same_data(folder: Path, tmp_path: Path) -> None:
    packed.write(open_stream(folder, (16, 32)), tmp_path / "pack")
    a, b = open_dataset(str(folder), (16, 32)), open_dataset(tmp_path / "pack", (16, 32))
    assert layout(folder) == "dance" and layout(tmp_path / "pack") == "packed"
    for split, sequences in a.splits.items():
        for one, other in zip(sequences, b.split(split), strict=True):
            assert np.array_equal(one.frames, other.frames)


def test_no_png_is_decoded_twice(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = count_decoding(monkeypatch)
    first = open_dataset(folder, (16, 32), tmp_path / "cache")
    assert len(decoded) == 2 * (12 + 4) + 1 + 4
    second = open_dataset(folder, (16, 32), tmp_path / "cache")
    assert len(decoded) == 2 * (12 + 4) + 1 + 4
    assert second.source == folder  # messages name the user's folder, not the cache
    assert np.array_equal(first.split("val")[0].frames, second.split("val")[0].frames)


def test_a_change_or_another_size_makes_a_new_cache(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    open_dataset(folder, (16, 32), cache)
    assert open_dataset(folder, (8, 16), cache).size == (8, 16)
    os.utime(folder / "train/train_img/3.png", ns=(1, 1))
    open_dataset(folder, (16, 32), cache)
    (folder / "dataset.toml").write_text('name = "synthetic-dance"\n[train]\nstarts = [0, 6]\n')
    assert len(open_dataset(folder, (16, 32), cache).split("train")) == 2
    assert len(list(cache.iterdir())) == 4


def test_a_cache_with_a_flipped_bit_is_made_anew(folder: Path, tmp_path: Path) -> None:
    before = open_dataset(folder, (16, 32), tmp_path / "cache").split("train")[0].frames.copy()
    (kept,) = (tmp_path / "cache").glob("*/data-00000.bin")
    content = bytearray(kept.read_bytes())
    content[1000] ^= 1
    kept.write_bytes(content)
    assert np.array_equal(open_dataset(folder, (16, 32), tmp_path / "cache").split("train")[0].frames, before)


@pytest.mark.parametrize("file", ["manifest.json", "data-00000.bin"])
def test_a_damaged_cache_is_made_anew(folder: Path, tmp_path: Path, file: str) -> None:
    before = open_dataset(folder, (16, 32), tmp_path / "cache").split("val")[0].frames.copy()
    (kept,) = (tmp_path / "cache").iterdir()
    os.truncate(kept / file, 10)
    assert np.array_equal(open_dataset(folder, (16, 32), tmp_path / "cache").split("val")[0].frames, before)


def test_where_no_cache_can_be_written_images_are_decoded_into_memory(folder: Path, tmp_path: Path) -> None:
    """The kernel refuses, as on a read-only disk, whoever runs the test. A cache that is there already is used."""
    (tmp_path / "file").write_bytes(b"")
    data = open_dataset(folder, (16, 32), tmp_path / "file" / "cache")
    kept = open_dataset(folder, (16, 32), tmp_path / "cache")
    assert (data.source, data.files_size) == (kept.source, kept.files_size) == (folder, (16, 32))
    assert np.array_equal(data.split("val")[0].frames, kept.split("val")[0].frames)
    assert list(tmp_path.iterdir()) and (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize("damaged", [False, True])
def test_a_cache_that_may_not_be_written_stays_as_it_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    before = open_dataset(folder, (16, 32), tmp_path / "cache").split("val")[0].frames.copy()
    (kept,) = (tmp_path / "cache").iterdir()
    if damaged:
        os.truncate(kept / "data-00000.bin", 10)
    there = {path.name: path.read_bytes() for path in kept.iterdir()}
    decoded = count_decoding(monkeypatch)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere, so permissions say nothing
    data = open_dataset(folder, (16, 32), tmp_path / "cache")
    assert np.array_equal(data.split("val")[0].frames, before) and bool(decoded) == damaged
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == there


def test_many_sequences_are_collected_in_linear_time(tmp_path: Path) -> None:
    """100,000 take seconds if each is appended to a copy of those before it: 40 GB are copied."""
    sequence = Sequence("s", np.zeros((1, 3, 8, 8), np.uint8))
    stream = Stream("many", "push", 10, tmp_path, (("train", sequence) for _ in range(100_000)))
    start = time.process_time()
    assert len(stream.collect().split("train")) == 100_000
    assert time.process_time() - start < 3


def test_a_pack_of_another_size_names_both_and_the_remedy(folder: Path, tmp_path: Path) -> None:
    packed.write(open_stream(folder, (16, 32)), tmp_path / "pack")
    with pytest.raises(DataError, match="packed at 16x32, not at 32x64") as error:
        open_dataset(tmp_path / "pack", (32, 64))
    assert "data.size=16x32" in error.value.hint and "--size 32x64" in error.value.hint


def test_what_is_no_dataset_is_told_the_layouts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not in any known layout") as error:
        open_dataset(tmp_path)
    assert (
        "train}_{img,label}" in error.value.hint.replace("{train,val}_", "train}_")
        and "traj_A_to_B" in error.value.hint
    )
    (tmp_path / "dance.gif").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"dance\.gif is a GIF, but a dataset is a folder"):
        open_dataset(tmp_path / "dance.gif")
    with pytest.raises(DataError, match="there is no dataset"):
        open_dataset(tmp_path / "nowhere")
