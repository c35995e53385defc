"""BAIR's own files: what a record must have, and the import: packed, resumable, nothing lost to a bad record."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from vidcvae.data import bair, packed
from vidcvae.data.clips import Sequence
from vidcvae.data.tfrecord import BadMessage, Feature, Problem
from vidcvae.errors import DataError, UsageError

RECORD = 741_610  # bytes of each record of the sample


@pytest.fixture
def source(shared: Path, tmp_path: Path) -> Path:
    """A copy of the sample that may be damaged: two training files and a test file of two clips each."""
    root = tmp_path / "bair"
    shutil.copytree(
        shared / "data" / "bair-tfrecord" / "softmotion30_44k", root / "softmotion30_44k", copy_function=shutil.copyfile
    )
    for folder in (root, *root.rglob("*")):
        folder.chmod(0o755)
    return root


def train_file(source: Path, name: str = "traj_0_to_1") -> Path:
    return source / "softmotion30_44k" / "train" / f"{name}.tfrecords"


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def record(frames: int = 2) -> dict[str, Feature]:
    features: dict[str, Feature] = {}
    for i in range(frames):
        features[f"{i}/image_main/encoded"] = [bytes([i]) * 12288]
        features[f"{i}/action"] = np.float32([i, 0, 0, 0])
        features[f"{i}/endeffector_pos"] = np.float32([0, i, 0])
    return features


def read(root: Path, camera: str = "main") -> list[tuple[str, Sequence]]:
    """(split, clip) of every clip."""
    return [(file.split, clip) for file in bair.list_files(root) for clip, _ in bair.read_file(file.path, camera)]


def test_reads_every_clip_of_either_camera(source: Path) -> None:
    clips = read(source)
    names = ["traj_0_to_1/0", "traj_0_to_1/1", "traj_2_to_3/0", "traj_2_to_3/1", "traj_0_to_1/0", "traj_0_to_1/1"]
    assert [clip.name for _, clip in clips] == names
    assert [split for split, _ in clips] == ["train"] * 4 + ["test"] * 2
    other = read(source / "softmotion30_44k", "aux1")
    for (_, main), (_, aux) in zip(clips, other, strict=True):
        assert main.frames.shape == aux.frames.shape == (30, 3, 64, 64)
        assert not np.array_equal(main.frames, aux.frames)
        np.testing.assert_array_equal(main.tracks["action"], aux.tracks["action"])


def test_files_are_sorted_by_number(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name in ("traj_512_to_767", "traj_10240_to_10495", "traj_0_to_255"):
        (tmp_path / "train" / f"{name}.tfrecords").touch()
    names = [source.path.stem for source in bair.list_files(tmp_path)]
    assert names == ["traj_0_to_255", "traj_512_to_767", "traj_10240_to_10495"]


def test_a_record_may_be_of_any_length_and_without_actions() -> None:
    clip = bair.to_clip("x/0", record(3), "main")
    assert len(clip) == 3 and clip.frames[2].min() == clip.frames[2].max() == 2
    assert clip.tracks["action"][2, 0] == 2 and clip.tracks["position"].shape == (3, 3)
    bare = {name: value for name, value in record(3).items() if "image" in name}
    assert bair.to_clip("x/0", bare, "main").tracks == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"0/image_main/encoded": None}, "it has no 0/image_main/encoded"),
        ({"1/image_main/encoded": None}, "frames after a gap: 1/image_main/encoded is missing"),
        ({"1/image_main/encoded": [b"abc"]}, "1/image_main/encoded has 3 bytes, not 64 x 64 x 3"),
        ({"1/image_main/encoded": [b"abc", b""]}, "1/image_main/encoded is not one string"),
        ({"2/image_main/encoded": np.float32([1])}, "2/image_main/encoded is not one string"),
        ({"1/action": None}, "1/action is not 4 numbers"),
        ({"1/action": np.float32([1, 2, 3])}, "1/action is not 4 numbers"),
        ({"1/endeffector_pos": [b"abc"]}, "1/endeffector_pos is not 3 numbers"),
        ({"1/endeffector_pos": np.float32([1, np.nan, 3])}, "1/endeffector_pos has a number that is not finite"),
    ],
)
def test_a_wrong_record_says_what_is_wrong(change: dict[str, Feature | None], words: str) -> None:
    features = {name: value for name, value in (record(3) | change).items() if value is not None}
    with pytest.raises(BadMessage, match=words):
        bair.to_clip("x/0", features, "main")


def test_import_equals_reading(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    out = tmp_path / "packed"
    assert bair.import_bair(source, out, "aux1", progress=lambda *counts: seen.append(counts)) == 6
    data = packed.open_packed(out, verify=True)
    assert (data.name, data.kind, data.size) == ("bair-aux1", "push", (64, 64))
    clips = [("train", c) for c in data.split("train")] + [("test", c) for c in data.split("test")]
    for (split, a), (expected_split, b) in zip(clips, read(source, "aux1"), strict=True):
        assert (split, a.name) == (expected_split, b.name)
        np.testing.assert_array_equal(a.frames, b.frames)
        for track in ("action", "position"):
            np.testing.assert_array_equal(a.tracks[track], b.tracks[track])
    assert sorted(p.name for p in out.iterdir()) == [*(f"data-0000{i}.bin" for i in range(3)), "manifest.json"]
    assert seen == sorted(seen) and seen[-1] == (4, 4)  # MiB


@pytest.mark.reliability
def test_bad_records_are_told_and_the_rest_is_kept(source: Path, tmp_path: Path) -> None:
    flip(train_file(source), 5000)
    flip(train_file(source, "traj_2_to_3"), 0)  # a length: the whole file is lost
    problems: list[Problem] = []
    assert bair.import_bair(source, tmp_path / "packed", on_problem=problems.append) == 3
    assert [(p.path.name, p.offset) for p in problems] == [("traj_0_to_1.tfrecords", 0), ("traj_2_to_3.tfrecords", 0)]
    data = packed.open_packed(tmp_path / "packed", verify=True)
    assert [clip.name for clip in data.split("train")] == ["traj_0_to_1/1"]
    with pytest.raises(DataError, match=r"traj_0_to_1\.tfrecords, byte 0: the checksum"):
        bair.import_bair(source, tmp_path / "strict")


class Interrupted(Exception):
    pass


@pytest.mark.reliability
@pytest.mark.parametrize("stop_at", ["first clip", "second file", "last file", "linking", "manifest"])
def test_an_interrupted_import_goes_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: str
) -> None:
    """Files that are done are not read again, problems in them are told again, and the result is the same."""
    flip(train_file(source), 5000)
    out, read_file = tmp_path / "packed", bair.read_file
    opened: list[str] = []

    def counting(path: Path, *rest: object) -> object:
        opened.append(f"{path.parent.name}/{path.stem}")
        for number, item in enumerate(read_file(path, *rest)):  # type: ignore[arg-type]
            if (stop_at, len(opened), number) in {("first clip", 1, 0), ("second file", 2, 1), ("last file", 3, 1)}:
                raise Interrupted
            yield item

    def stop(*_: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(bair, "read_file", counting)
        if stop_at == "linking":
            patch.setattr(bair.durable, "link", stop)
        if stop_at == "manifest":
            patch.setattr(bair, "_join_parts", stop)
        with pytest.raises(Interrupted):
            bair.import_bair(source, out, on_problem=lambda _: None)
        assert not packed.is_packed(out)
        patch.undo()
        opened.clear()
        stopped_at, stop_at = stop_at, "never"
        patch.setattr(bair, "read_file", counting)
        problems: list[Problem] = []
        assert bair.import_bair(source, out, on_problem=problems.append) == 5
    assert len(opened) == {"first clip": 3, "second file": 2, "last file": 1, "linking": 0, "manifest": 0}[stopped_at]
    assert [(p.path.name, p.offset) for p in problems] == [("traj_0_to_1.tfrecords", 0)]
    whole = tmp_path / "whole"
    bair.import_bair(source, whole, on_problem=lambda _: None)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {p.name: p.read_bytes() for p in whole.iterdir()}


@pytest.mark.reliability
def test_a_changed_source_or_camera_is_read_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "packed"
    with monkeypatch.context() as patch:
        patch.setattr(bair, "_join_parts", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            bair.import_bair(source, out, "main")
    shutil.copyfile(train_file(source, "traj_2_to_3"), train_file(source))
    bair.import_bair(source, out, "aux1")
    expected = [clip.frames for _, clip in read(source, "aux1")]
    data = packed.open_packed(out, verify=True)
    found = [clip.frames for split in ("train", "test") for clip in data.split(split)]
    np.testing.assert_array_equal(np.stack(found), np.stack(expected))


@pytest.mark.reliability
def test_wrong_places_are_named(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="empty has no train"):
        bair.import_bair(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UsageError, match=r"no camera 'man'\. Did you mean 'main'"):
        bair.import_bair(source, tmp_path / "out", "man")
    with pytest.raises(UsageError, match="bair is not an empty folder, nor half an import"):
        bair.import_bair(source, source)
    with pytest.raises(UsageError, match="is a file, not a folder"):
        bair.import_bair(source, train_file(source))
    bair.import_bair(source, tmp_path / "out")
    with pytest.raises(DataError, match="out already holds a packed dataset"):
        bair.import_bair(source, tmp_path / "out")
    for path in source.rglob("*.tfrecords"):
        path.write_bytes(b"not a record")
    with pytest.raises(DataError, match="bair has no readable clip"):
        bair.import_bair(source, tmp_path / "none", on_problem=lambda _: None)
    assert bair.is_bair_folder(source) and not bair.is_bair_folder(tmp_path)
