"""TFRecord files of tf.train.Example messages, read without TensorFlow.

A record is: length (uint64, little-endian), masked CRC-32C of those 8 bytes, data, masked CRC-32C of the data
(TensorFlow, core/lib/io/record_writer.h). The data are protocol buffers (core/example/example.proto).

Files are not trusted: a length is used only if its checksum matches and the file is long enough.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from vidcvae import reading
from vidcvae.errors import DataError

MAX_RECORD_BYTES = 1 << 22  # a clip of 30 frames from two cameras has 0.74 MB
Feature = list[bytes] | np.ndarray  # a list of byte strings, or float32 numbers


@dataclass(frozen=True)
class Problem:
    """What is wrong with the record that begins at byte ``offset`` of a file."""

    path: Path
    offset: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}, byte {self.offset}: {self.text}"


OnProblem = Callable[[Problem], None]


def stop_at_problem(problem: Problem) -> None:
    """The default ``on_problem``: raise ``DataError``."""
    raise DataError(str(problem), "Fetch that file again.")


@dataclass(frozen=True)
class Record:
    """``index``: the record's number in the file, unreadable records included."""

    index: int
    offset: int
    data: bytes


def read_records(path: Path, on_problem: OnProblem = stop_at_problem) -> Iterator[Record]:
    """Yield the records of one file, one in memory at a time.

    A record with damaged data is reported to ``on_problem`` and skipped. After a damaged length or a cut, the next
    record cannot be found: this is reported, and reading ends. Raises ``DataError`` if the file cannot be read.
    """
    offset = 0

    def report(text: str) -> None:
        on_problem(Problem(path, offset, text))

    try:
        with reading.open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            index = 0
            while offset < size:
                lost = f"; the last {size - offset} bytes of the file are lost."
                header = file.read(12)
                if len(header) < 12:
                    return report(f"the file is cut off within a record's header{lost}")
                length, length_crc = struct.unpack("<QI", header)
                if masked_crc32c(header[:8]) != length_crc:
                    return report(f"the checksum of a record's length is wrong{lost}")
                end = offset + 12 + length + 4
                if end > size:
                    return report(f"the record is cut off: it should have {length} bytes{lost}")
                if length > MAX_RECORD_BYTES:
                    report(f"the record has {length} bytes, which no clip has: left out.")
                    file.seek(end)
                else:
                    data, crc = file.read(length), file.read(4)
                    if masked_crc32c(data) == int.from_bytes(crc, "little"):
                        yield Record(index, offset, data)
                    else:
                        report("the checksum of the record's data is wrong: left out.")
                index, offset = index + 1, end
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.", "Fetch that file again.") from None


# --- tf.train.Example ------------------------------------------------------------------------------


class BadMessage(Exception):
    """Data that are not a tf.train.Example; the text says why."""


def read_example(data: bytes) -> dict[str, Feature]:
    """The features of a tf.train.Example by name, without int64 features, which no reader here needs.

    Raises ``BadMessage``.
    """
    features: dict[str, Feature] = {}
    for entry in _messages(memoryview(data), 1, 1):  # Example.features.feature, a map
        name, value = "", memoryview(b"")
        for number, field in _fields(entry):
            if number == 1 and isinstance(field, memoryview):
                name = bytes(field).decode("utf-8", "replace")
            elif number == 2 and isinstance(field, memoryview):
                value = field
        for number, field in _fields(value):
            if number == 1 and isinstance(field, memoryview):
                features[name] = [bytes(item) for item in _messages(field, 1)]
            elif number == 2 and isinstance(field, memoryview):
                features[name] = _floats(field)
    return features


def _messages(data: memoryview, *path: int) -> Iterator[memoryview]:
    """Yield every length-delimited field at the field numbers ``path``."""
    for number, field in _fields(data):
        if number == path[0] and isinstance(field, memoryview):
            if len(path) > 1:
                yield from _messages(field, *path[1:])
            else:
                yield field


def _floats(data: memoryview) -> np.ndarray:
    """FloatList.value, packed (one field with many numbers) or not (many fields with one)."""
    parts = [bytes(field) for number, field in _fields(data) if number == 1 and isinstance(field, memoryview)]
    joined = b"".join(parts)
    if len(joined) % 4:
        raise BadMessage("a list of floats is cut off")
    return np.frombuffer(joined, "<f4").astype(np.float32)


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value) of a message; fixed-width numbers as their bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind, length = tag & 7, 0
        if kind == 0:
            number, at = _varint(data, at)
            yield tag >> 3, number
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise BadMessage(f"field {tag >> 3} has the unknown wire type {kind}")
        if length > len(data) - at:
            raise BadMessage(f"field {tag >> 3} has {length} bytes, but {len(data) - at} are left")
        yield tag >> 3, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Decode the number at ``at``, seven bits per byte; returns it and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise BadMessage("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise BadMessage("a number has more than 10 bytes")


def masked_crc32c(data: bytes) -> int:
    """TensorFlow's masked CRC-32C (core/lib/hash/crc32c.h)."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
