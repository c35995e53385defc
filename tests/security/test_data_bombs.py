"""Data that would become large, long or endless: refused, in little memory, each in a process of its own."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.security.bombs import GIB, LITTLE, Bombs
from tests.security.confined import confined
from tests.security.readers import SIZE, dance, field, picture, record
from vidcvae.data import bair, dataset_toml, images, packed, tfrecord, trajectories
from vidcvae.errors import DataError
from vidcvae.output import video
from vidcvae.own_clips import keypoints

pytestmark = pytest.mark.reliability
BOMBS = Bombs()
bomb = BOMBS.bomb


@pytest.mark.parametrize("name", BOMBS)
def test_it_is_refused_in_little_memory(name: str, tmp_path: Path, count: Callable[[str, int], None]) -> None:
    BOMBS.must_be_refused(name, tmp_path)
    count("malicious files, refused in words", 1)


def test_the_measure_measures() -> None:
    assert 200 <= confined(lambda: bytearray(256 << 20)).mebibytes < 300
    assert "MemoryError" in confined(lambda: bytearray(1 << 40)).error
    assert confined(lambda: None)[:3] == ("", 0, "")


# --- images ----------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, pixels: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def read_image(path: Path, content: bytes) -> Callable[[], object]:
    path.write_bytes(content)
    return lambda: images.read_image(path, SIZE)


@bomb("is too large for a frame")
def png_of_60000_x_60000(folder: Path) -> Callable[[], object]:
    return read_image(folder / "0.png", png(60_000, 60_000))


@bomb("is too large for a frame")
def png_just_too_large(folder: Path) -> Callable[[], object]:
    return read_image(folder / "0.png", png(8192, 4321))


def test_the_largest_image_that_is_read(tmp_path: Path) -> None:
    rows = zlib.compressobj(1)
    data = b"".join(rows.compress(bytes(1 + 3 * 8192)) for _ in range(4320)) + rows.flush()
    head = png(8192, 4320)[:33]  # up to the end of IHDR
    outcome = confined(read_image(tmp_path / "0.png", head + chunk(b"IDAT", data) + chunk(b"IEND", b"")))
    assert not outcome.error and not outcome.message and outcome.mebibytes < 320


@bomb("is ")
def png_of_the_largest_numbers(folder: Path) -> Callable[[], object]:
    return read_image(folder / "0.png", png(2**31 - 1, 2**31 - 1))


@bomb("is ")
def png_with_a_text_of_100_megabytes(folder: Path) -> Callable[[], object]:
    squeeze = zlib.compressobj(9)
    text = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(100)) + squeeze.flush()
    good = picture(0)
    return read_image(folder / "0.png", good[:33] + chunk(b"zTXt", b"a\0\0" + text) + good[33:])


@bomb("is ")
def png_with_many_texts(folder: Path) -> Callable[[], object]:
    text, good = zlib.compress(bytes(1_000_000), 9), picture(0)
    return read_image(folder / "0.png", good[:33] + chunk(b"zTXt", b"a\0\0" + text) * 500 + good[33:])


def test_a_colour_profile_that_inflates_is_passed_over(tmp_path: Path) -> None:
    squeeze = zlib.compressobj(9)
    profile = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(100)) + squeeze.flush()
    good = picture(0)
    found = confined(read_image(tmp_path / "0.png", good[:33] + chunk(b"iCCP", b"a\0\0" + profile) + good[33:]))
    assert not found.error and found.mebibytes < LITTLE


def test_animated_pngs_are_their_first_frame(tmp_path: Path) -> None:
    good = picture(0)
    found = confined(
        read_image(tmp_path / "0.png", good[:33] + chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)) + good[33:])
    )
    assert not found.error and not found.message and found.mebibytes < LITTLE


def gif(width: int, height: int, frames: int, ticks: tuple[int, ...] = (4,)) -> bytes:
    """A GIF of one-pixel frames on a screen of a size."""
    screen = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + bytes(6)
    image = b",\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0"
    each = [b"!\xf9\x04\0" + struct.pack("<H", tick) + b"\0\0" + image for tick in ticks]
    return screen + b"".join(each) * (frames // len(ticks)) + b";"


def read_poses(path: Path, content: bytes) -> Callable[[], object]:
    path.write_bytes(content)
    return lambda: video.read_poses(path, SIZE)


def test_the_gif_is_good(tmp_path: Path) -> None:
    assert read_poses(tmp_path / "x.gif", gif(16, 8, 6, (4, 8)))().shape == (9, 3, *SIZE)  # type: ignore[attr-defined]


@bomb("is too long: at its size, at most 20,000 frames can be read")
def gif_of_300000_frames(folder: Path) -> Callable[[], object]:
    return read_poses(folder / "x.gif", gif(8, 8, 300_000))


def test_a_gif_s_pixels_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of one pixel on a large screen cost as much as large ones."""
    monkeypatch.setattr(video, "MAX_GIF_PIXELS", 10 * 64 * 64)
    with pytest.raises(DataError, match="at its size, at most 10 frames can be read"):
        read_poses(tmp_path / "x.gif", gif(64, 64, 100_000))()
    assert len(read_poses(tmp_path / "x.gif", gif(64, 64, 10))()) == 10  # type: ignore[arg-type]


@bomb("is too long: its durations amount to 655,350 frames")
def gif_that_stands_for_hours(folder: Path) -> Callable[[], object]:
    return read_poses(folder / "x.gif", gif(8, 8, 20, (1, 65534)))


@bomb("is too large for a frame")
def gif_of_65535_x_65535(folder: Path) -> Callable[[], object]:
    return read_poses(folder / "x.gif", gif(65535, 65535, 1))


@bomb("is too large for a frame")
def gif_with_a_frame_larger_than_its_screen(folder: Path) -> Callable[[], object]:
    small = gif(8, 8, 2)
    head, first = small[:19], small[19:-1]
    size = struct.pack("<HH", 9000, 9000)
    return read_poses(folder / "x.gif", head + first + first.replace(b"\x01\0\x01\0\0\x02", size + b"\0\x02") + b";")


# --- TFRecords and packed data ---------------------------------------------------------------------


def read_records(path: Path, content: bytes, size: int = 0) -> Callable[[], object]:
    with path.open("wb") as file:
        file.write(content)
        file.truncate(max(size, len(content)))
    return lambda: list(bair.read_file(path))


def declared(length: int) -> bytes:
    """The header of a record of that length, its checksum right."""
    text = struct.pack("<Q", length)
    return text + struct.pack("<I", tfrecord.masked_crc32c(text))


@bomb("the record is cut off: it should have 18446744073709551615 bytes")
def record_of_the_largest_length(folder: Path) -> Callable[[], object]:
    return read_records(folder / "x.tfrecords", declared(2**64 - 1))


@bomb("the record has 549755813888 bytes, which no clip has")
def record_in_a_file_of_holes(folder: Path) -> Callable[[], object]:
    return read_records(folder / "x.tfrecords", declared(2**39), 2**40)


@bomb("the checksum of a record's length is wrong")
def records_of_nothing(folder: Path) -> Callable[[], object]:
    return read_records(folder / "x.tfrecords", b"", 2**40)


@bomb("the record is not a clip")
def record_of_200000_fields(folder: Path) -> Callable[[], object]:
    value = field(1, field(1, b"") * 200_000)
    return read_records(
        folder / "x.tfrecords", record(field(1, field(1, field(1, b"0/image_main/encoded") + field(2, value))))
    )


@bomb("has over 1,000 records that are not clips")
def twenty_thousand_bad_records(folder: Path) -> Callable[[], object]:
    (folder / "src" / "train").mkdir(parents=True)
    (folder / "src" / "train" / "traj_0_to_255.tfrecords").write_bytes(record(b"") * 20_000)
    return lambda: bair.import_bair(folder / "src", folder / "out", on_problem=lambda problem: None)


def read_pack(folder: Path, alter: Callable[[Any], object], size: int = 0) -> Callable[[], object]:
    """A pack with another manifest, and a data file of ``size`` bytes, mostly holes."""
    packed.write(dance(), folder / "pack")
    path = folder / "pack" / "manifest.json"
    manifest = json.loads(path.read_bytes())
    alter(manifest)
    path.write_text(json.dumps(manifest))
    if size:
        with (folder / "pack" / "data-00000.bin").open("r+b") as file:
            file.truncate(size)
    return lambda: packed.open_packed(folder / "pack", verify=True)


def frames_of(manifest: Any) -> Any:
    return manifest["splits"]["train"][0]["frames"]


NO_SHAPES = [
    *([count, 3, 8, 16] for count in (2**40, 2**48, 2**62, 2**64, 10**400, -1, 0, 1.0, True, None, "3", [3])),
    *([3, 3, 8], [3, 3, 8, 16, 1], [3, 8, 16, 3], [3, 3, 2**47, 2**47], [], 3, None, {}),
]


@pytest.mark.parametrize("shape", NO_SHAPES, ids=lambda shape: str(shape)[:20])
@pytest.mark.parametrize("place", ["frames", "pose"])
def test_shapes_that_are_none(shape: Any, place: str, tmp_path: Path, count: Callable[[str, int], None]) -> None:
    def alter(manifest: Any) -> None:
        first = manifest["splits"]["train"][0]
        (first["frames"] if place == "frames" else first["tracks"]["pose"])["shape"] = shape

    if (place, shape) == ("pose", [0, 3, 8, 16]):
        return  # nothing is known of any pose
    outcome = confined(read_pack(tmp_path, alter, GIB))
    assert outcome.code == 4 and not outcome.error and outcome.mebibytes < LITTLE
    assert "manifest.json is damaged" in outcome.message or "is cut off" in outcome.message
    count("malicious files, refused in words", 1)


@bomb("uses parts of data-00000.bin more than once")
def pack_that_uses_one_block_a_thousand_times(folder: Path) -> Callable[[], object]:
    return read_pack(folder, lambda manifest: manifest["splits"].update(train=manifest["splits"]["train"] * 1000))


@bomb("is cut off")
def pack_whose_offset_is_behind_the_end(folder: Path) -> Callable[[], object]:
    return read_pack(folder, lambda manifest: frames_of(manifest).update(offset=2**47))


@bomb("is too large")
def manifest_of_a_terabyte(folder: Path) -> Callable[[], object]:
    read = read_pack(folder, lambda manifest: None)
    with (folder / "pack" / "manifest.json").open("r+b") as file:
        file.truncate(2**40)
    return read


@bomb("is not valid JSON")
def manifest_nested_a_million_times(folder: Path) -> Callable[[], object]:
    read = read_pack(folder, lambda manifest: None)
    (folder / "pack" / "manifest.json").write_text("[" * 1_000_000)
    return read


@bomb("is not valid JSON")
def manifest_with_an_endless_number(folder: Path) -> Callable[[], object]:
    read = read_pack(folder, lambda manifest: None)
    (folder / "pack" / "manifest.json").write_text("9" * 1_000_000)
    return read


# --- texts -----------------------------------------------------------------------------------------


def read_text(path: Path, text: str, read: Callable[[], object], size: int = 0) -> Callable[[], object]:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        file.truncate(max(size, path.stat().st_size))
    return read


@bomb("is too large")
def table_of_a_terabyte(folder: Path) -> Callable[[], object]:
    path = folder / "actions.csv"
    return read_text(path, "1,2,3,4\n", lambda: trajectories.read_track(path, 4), 2**40)


@bomb("line 1 has 1000001 columns, not 4")
def table_of_one_endless_line(folder: Path) -> Callable[[], object]:
    path = folder / "actions.csv"
    return read_text(path, "," * 1_000_000, lambda: trajectories.read_track(path, 4))


@bomb("it is too large")
def facts_of_a_terabyte(folder: Path) -> Callable[[], object]:
    return read_text(folder / "dataset.toml", "fps = 1\n", lambda: dataset_toml.read_facts(folder), 2**40)


@bomb("fps must be a number above 0")
def facts_with_a_number_above_all_floats(folder: Path) -> Callable[[], object]:
    return read_text(folder / "dataset.toml", f"fps = 1{'0' * 400}\n", lambda: dataset_toml.read_facts(folder))


@bomb("is not readable JSON")
def keypoints_nested_a_million_times(folder: Path) -> Callable[[], object]:
    path = folder / "k.json"
    return read_text(path, "[" * 1_000_000, lambda: keypoints.read_keypoints(path))


@bomb("is too large")
def keypoints_of_a_terabyte(folder: Path) -> Callable[[], object]:
    path = folder / "k.json"
    return read_text(path, "[]", lambda: keypoints.read_keypoints(path), 2**40)


@bomb("is too large")
def keypoint_table_of_a_terabyte(folder: Path) -> Callable[[], object]:
    path = folder / "k.csv"
    return read_text(path, "frame", lambda: keypoints.read_keypoints(path), 2**40)
