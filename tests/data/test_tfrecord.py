"""TFRecord framing, checksums and messages: TensorFlow's own files, published values, slow references, random bytes."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidcvae.data import bair, tfrecord
from vidcvae.errors import DataError

FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def slow_crc32c(data: bytes) -> int:
    """Bit by bit, as RFC 3720 defines it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """core/lib/hash/crc32c.h"""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes, crc32c: Callable[[bytes], int] = slow_crc32c) -> bytes:
    """One record with its checksums."""

    def checksum(part: bytes) -> bytes:
        return struct.pack("<I", masked(crc32c(part)))

    length = struct.pack("<Q", len(data))
    return length + checksum(length) + data + checksum(data)


def varint(value: int) -> bytes:
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def example(features: dict[str, bytes]) -> bytes:
    """A tf.train.Example of features that are encoded already."""
    entries = b"".join(field(1, field(1, name.encode()) + field(2, value)) for name, value in features.items())
    return field(1, entries)


def bytes_feature(data: bytes) -> bytes:
    return field(1, field(1, data))


def floats_feature(*values: float, packed: bool = True) -> bytes:
    if packed:
        return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))
    return field(2, b"".join(b"\x0d" + struct.pack("<f", value) for value in values))


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_crc32c_has_the_published_values(data: bytes, crc: int) -> None:
    """RFC 3720, appendix B.4, and the CRC catalogue's check value."""
    assert slow_crc32c(data) == crc
    assert tfrecord.masked_crc32c(data) == masked(crc)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 255, 256, 257, 511, 513, 1024, 3001, 70_000])
def test_crc32c_equals_the_slow_reference(length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    assert tfrecord.masked_crc32c(data) == masked(slow_crc32c(data))


def test_reads_bytes_and_floats_packed_or_not(tmp_path: Path) -> None:
    features = {
        "a": bytes_feature(b"raw\x00"),
        "packed": floats_feature(1.5, -2.0),
        "unpacked": floats_feature(3.25, 0.5, packed=False),
        "whole": field(3, field(1, varint(7))),
        "empty": b"",
    }
    path = tmp_path / "x.tfrecords"
    path.write_bytes(frame(example(features)) + frame(b""))
    first, second = tfrecord.read_records(path)
    assert (second.index, second.offset, second.data) == (1, len(frame(example(features))), b"")
    read = tfrecord.read_example(first.data)
    assert sorted(read) == ["a", "packed", "unpacked"]
    assert read["a"] == [b"raw\x00"]
    np.testing.assert_array_equal(read["packed"], np.float32([1.5, -2]))
    np.testing.assert_array_equal(read["unpacked"], np.float32([3.25, 0.5]))


@pytest.fixture(scope="module")
def real(shared: Path) -> bytes:
    """Two records of 741,610 bytes each, written by TensorFlow."""
    path = shared / "data" / "bair-tfrecord" / "softmotion30_44k" / "train" / "traj_0_to_1.tfrecords"
    return path.read_bytes()


RECORD = 741_610


@pytest.mark.reliability
@pytest.mark.parametrize(
    ("damage", "left", "offset", "words"),
    [
        ("flip 1000", [1], 0, "the checksum of the record's data is wrong"),
        (f"flip {RECORD + 1000}", [0], RECORD, "the checksum of the record's data is wrong"),
        (f"flip {RECORD - 2}", [1], 0, "the checksum of the record's data is wrong"),  # in the checksum itself
        (f"flip {RECORD + 3}", [0], RECORD, "length is wrong; the last 741610 bytes of the file are lost"),
        (f"cut {RECORD + 5}", [0], RECORD, "cut off within a record's header; the last 5 bytes"),
        (f"cut {RECORD + 12}", [0], RECORD, "the record is cut off: it should have 741594 bytes"),
        (f"cut {2 * RECORD - 1}", [0], RECORD, "the record is cut off: it should have 741594 bytes"),
        ("cut 7", [], 0, "cut off within a record's header"),
    ],
)
def test_damage_is_named_and_loses_nothing_else(
    real: bytes, tmp_path: Path, damage: str, left: list[int], offset: int, words: str
) -> None:
    kind, at = damage.split()
    data = bytearray(real)
    if kind == "flip":
        data[int(at)] ^= 4
    else:
        del data[int(at) :]
    path = tmp_path / "x.tfrecords"
    path.write_bytes(data)
    problems: list[tfrecord.Problem] = []
    assert [record.index for record in tfrecord.read_records(path, problems.append)] == left
    (problem,) = problems
    assert problem.offset == offset and words in problem.text
    assert str(problem).startswith(f"{path}, byte {offset}: ")
    with pytest.raises(DataError, match=f"byte {offset}"):
        list(tfrecord.read_records(path))


@pytest.mark.reliability
def test_absurd_lengths_are_not_believed(tmp_path: Path) -> None:
    """With a right checksum too; a sparse file makes the length possible."""
    length = struct.pack("<Q", 1 << 30)
    header = length + struct.pack("<I", tfrecord.masked_crc32c(length))
    path = tmp_path / "x.tfrecords"
    problems: list[tfrecord.Problem] = []
    path.write_bytes(header)
    assert not list(tfrecord.read_records(path, problems.append))
    with path.open("r+b") as file:
        file.truncate((1 << 30) + 16)
        file.seek(0, 2)
        file.write(frame(b"after it"))
    assert [record.data for record in tfrecord.read_records(path, problems.append)] == [b"after it"]
    assert "is cut off" in problems[0].text and "1073741824 bytes, which no clip has" in problems[1].text


@pytest.mark.parametrize("path", ["missing.tfrecords", "."])
def test_unreadable_file_is_named(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError, match="cannot read"):
        list(tfrecord.read_records(tmp_path / path))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x0a", "a number is cut off"),
        (b"\x0a\x05ab", "has 5 bytes, but 2 are left"),
        (b"\x0a" + b"\xff" * 9 + b"\x01", "bytes, but 0 are left"),
        (b"\xff" * 11, "more than 10 bytes"),
        (b"\x0b", "unknown wire type 3"),
        (b"\x0d\x00", "has 4 bytes, but 1 are left"),
        (example({"x": field(2, field(1, b"abcde"))}), "a list of floats is cut off"),
    ],
)
def test_broken_messages_say_why(data: bytes, words: str) -> None:
    with pytest.raises(tfrecord.BadMessage, match=words):
        tfrecord.read_example(data)


SMALL_CLIP = example(
    {
        "0/image_main/encoded": bytes_feature(bytes(64 * 64 * 3)),
        "0/action": floats_feature(1, 2, 3, 4),
        "0/endeffector_pos": floats_feature(1, 2, 3, packed=False),
    }
)


FRAMED_CLIP = frame(SMALL_CLIP)


def read_all(path: Path, data: bytes) -> tuple[int, list[tfrecord.Problem]]:
    """Clips and problems; any exception is a failure of the reader."""
    path.write_bytes(data)
    problems: list[tfrecord.Problem] = []
    return len(list(bair.read_file(path, "main", problems.append))), problems


@pytest.mark.reliability
@FUZZ
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_told(tmp_path: Path, data: bytes) -> None:
    clips, problems = read_all(tmp_path / "x.tfrecords", data)
    assert clips == 0 and len(problems) == bool(data)


@pytest.mark.reliability
@FUZZ
@given(st.binary(max_size=200))
def test_any_message_is_read_or_told(tmp_path: Path, data: bytes) -> None:
    """Framed correctly, so that the decoder sees it."""
    clips, problems = read_all(tmp_path / "x.tfrecords", frame(data) + FRAMED_CLIP)
    assert clips == 1
    assert [problem.offset for problem in problems] == [0]


@pytest.mark.reliability
@FUZZ
@given(st.data())
def test_any_mutation_is_read_or_told(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes of a right clip's message overwritten, inserted or removed, mostly where its structure is."""
    message = bytearray(SMALL_CLIP)
    structure = [i for i, byte in enumerate(SMALL_CLIP) if byte]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.sampled_from(structure))
        piece = data.draw(st.binary(max_size=3))
        message[at : at + data.draw(st.integers(0, 3))] = piece
    clips, problems = read_all(tmp_path / "x.tfrecords", frame(bytes(message), google_crc32c.value) + FRAMED_CLIP)
    assert clips + len(problems) == 2 and clips >= 1


def test_everything_expected_is_found(shared: Path) -> None:
    """What TensorFlow wrote, clip for clip."""
    root = shared / "data" / "bair-tfrecord"
    expected = json.loads((root / "expected.json").read_text())
    assert len(expected) == 3
    for name, clips in expected.items():
        found = [clip for clip, _ in bair.read_file(root / "softmotion30_44k" / name)]
        assert len(found) == len(clips)
        for clip, values in zip(found, clips, strict=True):
            raw = np.ascontiguousarray(clip.frames.transpose(0, 2, 3, 1)).tobytes()
            assert hashlib.sha256(raw).hexdigest() == values["frames_sha256"]
            action, position = clip.tracks["action"], clip.tracks["position"]
            assert action.shape == (30, 4) and position.shape == (30, 3)
            assert action[0].tolist() == values["action_0"] and action[29].tolist() == values["action_29"]
            assert position[29].tolist() == values["endeffector_29"]
            assert action.sum(dtype=np.float64) == pytest.approx(values["action_sum"], rel=1e-5)
