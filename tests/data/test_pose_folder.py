"""The course's dance layout: the real data, made-up folders, and every way a folder can be wrong."""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from vidcvae.data import pose_folder
from vidcvae.errors import DataError, UsageError

SIZE = (8, 16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """12 training pairs, 3 of val, and two tests of 1 frame and 4 poses; frame n is of grey n, pose n of 100 + n."""
    root = tmp_path / "data"
    for split, numbers in (("train", range(12)), ("val", range(3))):
        for n in numbers:
            paint(root / split / f"{split}_img" / f"{n}.png", n)
            paint(root / split / f"{split}_label" / f"{n}.png", 100 + n)
    for k in "01":
        paint(root / "test" / "test_img" / k / "0.png", 50 + int(k))
        for n in range(4):
            paint(root / "test" / "test_label" / k / f"{n}.png", 200 + n)
    return root


def paint(path: Path, grey: int, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size[1], size[0]), (grey,) * 3).save(path)


def greys(array: np.ndarray) -> list[int]:
    return [int(image[0, 0, 0]) for image in array]


# --- good data -------------------------------------------------------------------------------------


def test_the_real_data(dance: Path) -> None:
    data = pose_folder.stream(dance, (32, 64)).collect()
    (val,) = data.split("val")
    assert (data.name, data.kind, data.fps) == ("dance-real-subset", "dance", 25.0)
    assert val.frames.shape == val.tracks["pose"].shape == (630, 3, 32, 64)
    assert val.unknown_poses == {0}
    assert [(s.name, len(s), s.condition_length) for s in data.split("test")] == [("0", 1, 630), ("1", 1, 630)]
    for n in (0, 9, 10, 629):  # an independent reader, the file named outright
        assert np.array_equal(val.frames[n].transpose(1, 2, 0), iio.imread(dance / f"val/val_img/{n}.png"))
        assert np.array_equal(val.tracks["pose"][n].transpose(1, 2, 0), iio.imread(dance / f"val/val_label/{n}.png"))


def test_the_real_stretches(dance: Path) -> None:
    stretches = [s for s in pose_folder.list_files(dance).stretches if s.split == "train"]
    assert [(s.name, len(s.frames)) for s in stretches] == [
        ("0-628", 629), ("629-1257", 629), ("1258-1886", 629), ("1887-2515", 629)
    ]  # fmt: skip


def test_ten_comes_after_nine(folder: Path) -> None:
    (train,) = pose_folder.stream(folder, SIZE).collect().split("train")
    assert greys(train.frames) == list(range(12))
    assert greys(train.tracks["pose"]) == list(range(100, 112))


def test_tests_come_by_number_and_then_by_name(tmp_path: Path) -> None:
    """Three folders whose order as text, 10, 2, 9, is another; Kaggle's file lists the frames in this order."""
    for k in ("10", "a", "9", "2"):
        paint(tmp_path / "test" / "test_img" / k / "0.png", 50)
        for n in range(2):
            paint(tmp_path / "test" / "test_label" / k / f"{n}.png", 200)
    assert [s.name for s in pose_folder.stream(tmp_path, SIZE).collect().split("test")] == ["2", "9", "10", "a"]


def test_a_gap_and_a_declared_start_end_a_sequence(folder: Path) -> None:
    for side in ("img", "label"):
        (folder / f"train/train_{side}/4.png").unlink()
    (folder / "dataset.toml").write_text("[train]\nstarts = [0, 9]\nunknown_poses = [5, 9]\n")
    train = pose_folder.stream(folder, SIZE).collect().split("train")
    assert [greys(s.frames) for s in train] == [[0, 1, 2, 3], [5, 6, 7, 8], [9, 10, 11]]
    assert [sorted(s.unknown_poses) for s in train] == [[], [0], [0]]
    notes = [str(p) for p in pose_folder.scan(folder).notes]
    assert len(notes) == 1 and "train_img skips 4.png" in notes[0]
    assert pose_folder.scan(folder).faults == []


def test_resizing_is_the_courses_bilinear_one(folder: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 48, 3), np.uint8)
    shutil.rmtree(folder / "val")
    for side in ("img", "label"):
        (folder / f"val/val_{side}").mkdir(parents=True)
        Image.fromarray(noise).save(folder / f"val/val_{side}/0.png")
    (val,) = pose_folder.stream(folder, SIZE).collect().split("val")
    # bilinear with a triangle filter as wide as the shrinking, separable, over a 3:1 reduction
    weights = np.zeros((8, 24))
    for i in range(8):
        distance = np.abs((np.arange(24) + 0.5) - (i + 0.5) * 3) / 3
        weights[i] = np.clip(1 - distance, 0, None)
        weights[i] /= weights[i].sum()
    across = np.zeros((16, 48))
    for i in range(16):
        across[i] = np.clip(1 - np.abs((np.arange(48) + 0.5) - (i + 0.5) * 3) / 3, 0, None)
        across[i] /= across[i].sum()
    reference = np.einsum("yh,hwc,xw->cyx", weights, noise.astype(float), across)
    assert np.abs(val.frames[0] - reference).max() <= 1.01  # Pillow rounds after each direction


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1"])
def test_other_modes_become_rgb(folder: Path, mode: str) -> None:
    path = folder / "val/val_img/1.png"
    Image.new("RGB", (16, 8), (255, 255, 255)).convert(mode).save(path)
    (val,) = pose_folder.stream(folder, SIZE).collect().split("val")
    assert val.frames[1].min() == 255
    assert pose_folder.scan(folder).modes["val", "img"][mode] == 1


def test_hidden_and_foreign_files_are_no_fault(folder: Path) -> None:
    (folder / "train/train_img/.DS_Store").write_bytes(b"x")
    (folder / "train/train_img/notes.txt").write_text("x")
    scan = pose_folder.scan(folder)
    assert scan.faults == []
    assert [p.path.name for p in scan.notes] == ["notes.txt"]


def test_written_and_read_again_it_is_the_same(folder: Path, tmp_path: Path) -> None:
    (folder / "dataset.toml").write_text(
        'name = "a \\"b\\""\nfps = 12.5\n[train]\nstarts = [0, 5]\nunknown_poses = [7]\n'
    )
    data = pose_folder.stream(folder, SIZE).collect()
    pose_folder.write_folder(data, tmp_path / "copy")
    again = pose_folder.stream(tmp_path / "copy", SIZE).collect()
    assert (again.name, again.fps) == ('a "b"', 12.5)
    for split, sequences in data.splits.items():
        for a, b in zip(sequences, again.split(split), strict=True):
            assert (a.name, a.unknown_poses) == (b.name, b.unknown_poses)
            assert np.array_equal(a.frames, b.frames) and np.array_equal(a.tracks["pose"], b.tracks["pose"])
    with pytest.raises(UsageError, match="not an empty folder"):
        pose_folder.write_folder(data, tmp_path / "copy")


def test_progress_counts_every_file(folder: Path) -> None:
    calls: list[tuple[int, int]] = []
    pose_folder.stream(folder, SIZE, progress=lambda done, total: calls.append((done, total))).collect()
    total = 2 * 12 + 2 * 3 + 2 * (1 + 4)
    assert calls == [(n, total) for n in range(1, total + 1)]


# --- bad data --------------------------------------------------------------------------------------


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(path: Path) -> None:
    """A PNG that says it is 60000 x 60000."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"IDAT") + 6] ^= 0xFF
    path.write_bytes(bytes(raw))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing pose": (lambda r: (r / "train/train_label/7.png").unlink(), r"train_img/7\.png has no pose"),
    "missing frame": (lambda r: (r / "val/val_img/2.png").unlink(), r"val_label/2\.png has no frame"),
    "truncated": (lambda r: cut_off(r / "train/train_img/3.png"), r"train_img/3\.png is damaged or cut off"),
    "flipped": (lambda r: flip(r / "train/train_label/5.png"), r"train_label/5\.png is damaged"),
    "empty file": (lambda r: (r / "val/val_img/1.png").write_bytes(b""), r"val_img/1\.png is empty"),
    "a GIF inside": (
        lambda r: Image.new("L", (16, 8)).save(r / "val/val_img/1.png", "GIF"),
        r"val_img/1\.png is a GIF, not a PNG",
    ),
    "16 bit": (
        lambda r: Image.fromarray(np.zeros((8, 16), np.uint16)).save(r / "val/val_img/1.png"),
        r"val_img/1\.png has pixels of mode I;16",
    ),
    "odd size": (lambda r: paint(r / "val/val_img/2.png", 0, (8, 24)), r"val_img/2\.png is 8x24, .* 8x16"),
    "bomb": (lambda r: bomb(r / "val/val_img/2.png"), r"val_img/2\.png is too large"),
    "not a number": (lambda r: paint(r / "val/val_img/a1.png", 0), r"a1\.png has a name that is not a number"),
    "number twice": (lambda r: paint(r / "val/val_img/01.png", 0), r"has the same number as"),
    "empty split": (
        lambda r: [p.unlink() for p in (r / "val").rglob("*.png")],
        r"val_img is empty: the val split has no frames",
    ),
    "no label folder": (lambda r: shutil.rmtree(r / "train/train_label"), r"train_label is missing"),
    "file for a folder": (
        lambda r: (shutil.rmtree(r / "val/val_img"), (r / "val/val_img").write_text("x")),
        r"val_img is a file, not a folder",
    ),
    "test without poses": (lambda r: shutil.rmtree(r / "test/test_label/1"), r"test_img/1 has no poses"),
    "test without frame": (lambda r: shutil.rmtree(r / "test/test_img/0"), r"test_label/0 has no first frame"),
    "test with a gap": (lambda r: (r / "test/test_label/0/2.png").unlink(), r"test_label/0 has no 2\.png"),
    "test frame astray": (
        lambda r: (r / "test/test_img/0/0.png").rename(r / "test/test_img/0/3.png"),
        r"test_img/0 has no 0\.png",
    ),
    "GIF for a test": (
        lambda r: (shutil.rmtree(r / "test/test_label/1"), (r / "test/test_label/1").write_bytes(b"GIF89a")),
        r"test_label/1 is a file, but test sequences are folders",
    ),
    "unknown key": (
        lambda r: (r / "dataset.toml").write_text("[train]\nstart = [0]\n"),
        r"dataset\.toml: train\.start is not known.*starts",
    ),
    "unknown section": (lambda r: (r / "dataset.toml").write_text("[tests]\n"), r"tests is not known.*'test'"),
    "starts unsorted": (
        lambda r: (r / "dataset.toml").write_text("[train]\nstarts = [4, 0]\n"),
        r"train\.starts must be a list",
    ),
    "start astray": (
        lambda r: (r / "dataset.toml").write_text("[train]\nstarts = [0, 90]\n"),
        r"has 90 in train\.starts, but there is no .*90\.png",
    ),
    "fps": (lambda r: (r / "dataset.toml").write_text("fps = -1\n"), r"dataset\.toml: fps must be"),
    "TOML": (lambda r: (r / "dataset.toml").write_text("fps = = 1\n"), r"dataset\.toml is not a readable TOML"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_fault_names_its_place(folder: Path, case: str) -> None:
    spoil, message = BAD[case]
    spoil(folder)
    with pytest.raises(DataError, match=message) as error:
        pose_folder.stream(folder, SIZE).collect()
    assert error.value.hint


def test_a_scan_finds_them_all(folder: Path) -> None:
    for case in ("missing pose", "missing frame", "truncated", "flipped", "test with a gap", "not a number"):
        BAD[case][0](folder)
    faults = [p.path.relative_to(folder).as_posix() for p in pose_folder.scan(folder).faults]
    assert sorted(faults) == [
        "test/test_label/0", "train/train_img/3.png", "train/train_img/7.png", "train/train_label/5.png",
        "val/val_img/a1.png", "val/val_label/2.png",
    ]  # fmt: skip


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is missing"):
        pose_folder.stream(tmp_path / "nowhere", SIZE).collect()
    with pytest.raises(DataError, match="none of train/train_img"):
        pose_folder.stream(tmp_path, SIZE).collect()
