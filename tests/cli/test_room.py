"""Images that would not fit, once decoded, are refused before any is read; and enlarged ones are told of."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from vidcvae.data import images, pose_folder, pose_listing, room, trajectories
from vidcvae.data.dataset import open_stream
from vidcvae.errors import VidcvaeError
from vidcvae.scenes import dancing, pushing
from vidcvae.workflow.datasets import open_dataset

from .conftest import TINY, Cli

pytestmark = pytest.mark.usefixtures("workplace")
GIB = 1 << 30


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No image may be decoded."""
    monkeypatch.setattr(images, "open_image", lambda path: pytest.fail(f"{path} was read"))


def machine(monkeypatch: pytest.MonkeyPatch, memory: int = 1 << 50, disk: int = 1 << 50) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(room, "available", lambda: memory)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(disk, 0, disk))


@pytest.mark.usefixtures("unread")
def test_a_plan_of_huge_frames_is_refused_before_a_file_is_read(
    cli: Cli, tiny_dance: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, memory=4 * GIB)
    done = cli("train", tiny_dance, *TINY, "--size", "4096x4096", "--dry-run")
    assert done.code == 1 and "need 4.9 GiB of memory, where 4.0 GiB are free" in done.err, done.err
    assert "files are 16x16; enlarging adds no detail. Use --size 16x16" in done.err


@pytest.mark.usefixtures("unread")
def test_memory_and_disk_are_asked_before_a_file_is_read(tiny_dance: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 + 8 frames with their poses, a test frame and 8 test poses: 105 images of 4096 * 4096 * 3 bytes."""
    size, whole = (4096, 4096), 105 * 4096 * 4096 * 3
    assert f"{whole / GIB:.1f}" == "4.9"
    machine(monkeypatch, memory=whole - 1)
    with pytest.raises(VidcvaeError, match=r"105 images of 4096x4096 at once need 4\.9 GiB of memory") as error:
        open_dataset(tiny_dance, size)
    assert error.value.hint == "The image files are 16x16; enlarging adds no detail. Use --size 16x16"
    largest = 80 * 4096 * 4096 * 3  # the training video, which is packed in one piece
    machine(monkeypatch, memory=largest, disk=whole - 1)
    with pytest.raises(VidcvaeError, match=r"need 4\.9 GiB of disk in "):
        open_dataset(tiny_dance, size, Path("not/there/yet"))
    assert not Path("not").exists()
    machine(monkeypatch, memory=largest - 1)
    with pytest.raises(VidcvaeError, match=r"need 3\.8 GiB of memory"):
        open_dataset(tiny_dance, size, Path("cache"))


def test_the_disk_is_that_of_the_folder_itself_which_may_be_a_mount_point(
    tiny_dance: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    mounted = Path("mounted").absolute()
    mounted.mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(1, 0, (1 << 50) * (place != mounted)))
    stream = open_stream(tiny_dance)
    room.check(stream, 1, Path("elsewhere/new"))
    for folder in (Path("mounted"), Path("mounted/new/folder")):
        with pytest.raises(VidcvaeError, match=f"of disk in {mounted}, where 0.0 GiB are free"):
            room.check(stream, 1, folder)


def test_what_has_just_the_room_is_read(tiny_dance: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, memory=105 * 16 * 16 * 3, disk=105 * 16 * 16 * 3)
    assert open_dataset(tiny_dance, (16, 16)).files_size == (16, 16)
    assert open_dataset(tiny_dance, (16, 16), Path("cache")).files_size == (16, 16)


@pytest.mark.usefixtures("unread")
def test_clips_and_drawn_data_are_counted_too(cli: Cli, tiny_dance: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushing.write_folder(pushing.push(2, 1, 0, 6, 0), Path("push"))
    assert open_stream(Path("push"), (64, 64)).counts == (6, 6, 6)
    machine(monkeypatch, memory=1 << 20)
    with pytest.raises(VidcvaeError, match="18 images of 640x640 at once need"):
        trajectories.stream(Path("push"), (640, 640)).collect()
    with pytest.raises(VidcvaeError, match=r"1,100 drawn images of 512x512 need 0\.8 GiB of memory"):
        dancing.dance(500, 50, 0, 0, (512, 512))
    done = cli("dataset", "synth", "push", "-o", "x", "--clips", 10_000_000)
    assert done.code == 1, done.err
    assert "300,001,920 drawn images of 64x64 need 3433.2 GiB of memory" in done.err, done.err
    for command in ("inspect", "pack"):
        output = ("-o", "x") if command == "pack" else ()
        monkeypatch.setattr(pose_folder, "scan", unscanned)
        done = cli("dataset", command, tiny_dance, *output, "--size", "1024x1024")
        assert done.code == 1 and "GiB of memory" in done.err, done.err
    assert not Path("x").exists()


def unscanned(path: Path, progress: object) -> pose_folder.FolderScan:
    """inspect looks at every file before it measures them."""
    return pose_folder.FolderScan(pose_listing.list_files(path), {}, {})


def test_enlarging_is_told_once(cli: Cli, tiny_dance: Path) -> None:
    sentence = "The image files are 16x16, taken at 40x40: enlarged to 250%, which adds no detail."
    for command in (("train", tiny_dance, *TINY, "--size", "40x40", "--dry-run"),
                    ("dataset", "pack", tiny_dance, "-o", "pack", "--size", "40x40")):  # fmt: skip
        done = cli(*command)
        assert done.code == 0 and " ".join(done.err.split()).count(sentence) == 1, done.err
    assert sentence in " ".join(cli("dataset", "inspect", tiny_dance, "--size", "40x40").out.split())
