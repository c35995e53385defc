"""Checkpoints and histories that would become large: refused, in little memory, each in a process of its own."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.security.bombs import GIB, Bombs
from tests.security.readers import (
    checkpoint_file,
    course_file,
    course_weights,
    sealed,
    small_config,
    split_checkpoint,
    unzipped,
    zipped,
)
from tests.security.test_code import pickled
from vidcvae import config as settings
from vidcvae.models.loading import build_filled, load_model
from vidcvae.storage import history
from vidcvae.storage.course_import import read_course_checkpoint

pytestmark = pytest.mark.reliability
BOMBS = Bombs()
bomb = BOMBS.bomb


@pytest.mark.parametrize("name", BOMBS)
def test_it_is_refused_in_little_memory(name: str, tmp_path: Path, count: Callable[[str, int], None]) -> None:
    BOMBS.must_be_refused(name, tmp_path)
    count("malicious files, refused in words", 1)


def read_course(path: Path, content: bytes) -> Callable[[], object]:
    path.write_bytes(content)

    def read() -> object:
        found = read_course_checkpoint(path)
        config = settings.with_values(small_config(), {"model": vars(found.model)})
        return build_filled(config, found.weights, path)

    return read


def with_pickle(program: bytes) -> bytes:
    entries = unzipped(course_file(legacy=False))
    return zipped(entries | {next(name for name in entries if name.endswith("data.pkl")): program})


@bomb("holds more than weights")
def course_checkpoint_of_64_gigabytes_of_bytearray(folder: Path) -> Callable[[], object]:
    return read_course(
        folder / "x.pth", with_pickle(pickled(b"c__builtin__\nbytearray\n", b"\x8a\x05\0\0\0\0\x10\x85R"))
    )


@bomb("holds more than weights")
def course_checkpoint_of_a_huge_tensor(folder: Path) -> Callable[[], object]:
    return read_course(folder / "x.pth", with_pickle(pickled(b"ctorch\nTensor\n", b"\x8a\x05\0\0\0\0\x10\x85R")))


@bomb("not one that torch.save writes")
def course_checkpoint_that_is_deflated(folder: Path) -> Callable[[], object]:
    entries = unzipped(course_file(legacy=False))
    name = next(name for name in entries if name.endswith("data/0"))
    return read_course(folder / "x.pth", zipped(entries | {name: bytes(96 << 20)}, zipfile.ZIP_DEFLATED))


@bomb("not one that torch.save writes")
def course_checkpoint_whose_entries_share_their_bytes(folder: Path) -> Callable[[], object]:
    """Many names for one storage of a mebibyte."""
    content = bytearray(zipped({"archive/data.pkl": pickled(b"}"), "archive/data/0": bytes(1 << 20)}))
    start = struct.unpack("<I", content[-6:-2])[0]
    directory = bytes(content[start:-22])
    second = directory[directory.index(b"PK\1\2", 1) :]
    names = (second.replace(b"data/0", b"data/" + bytes([65 + i])) for i in range(26))
    entries = directory + b"".join(names)
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 28, 28, len(entries), start, 0)
    return read_course(folder / "x.pth", bytes(content[:start]) + entries + end)


def saved(content: object, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


@bomb("has no state_dict of tensors")
def course_checkpoint_of_one_number_a_billion_times(folder: Path) -> Callable[[], object]:
    """A view of one half-precision number; as float32 it would be real."""
    wide = torch.zeros(1, dtype=torch.half).expand(1 << 33)
    return read_course(folder / "x.pth", saved({"state_dict": {**course_weights(), "Generator.6.bias": wide}}))


@bomb("holds more than weights")
def course_checkpoint_without_memory(folder: Path) -> Callable[[], object]:
    state = course_weights() | {"Decoder_Fusion.5.bias": torch.empty(1 << 40, device="meta")}
    return read_course(folder / "x.pth", saved({"state_dict": state}))


@bomb("holds more than weights")
def course_checkpoint_of_a_sparse_tensor(folder: Path) -> Callable[[], object]:
    sparse = torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.long), torch.ones(1), (1 << 40,))
    return read_course(folder / "x.pth", saved({"state_dict": {**course_weights(), "Decoder_Fusion.5.bias": sparse}}))


@bomb("cannot be read as a checkpoint")
def old_course_checkpoint_that_declares_a_terabyte(folder: Path) -> Callable[[], object]:
    program = pickled(
        b"}X\x0a\0\0\0state_dict}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n(",
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu\x8a\x06\0\0\0\0\0\x01NtQ",
        b"K\0K\x01\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRss",
    )
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    return read_course(folder / "x.pth", head + program + pickle.dumps(["0"], 2) + struct.pack("<Q", 1 << 40))


@bomb("")
def course_checkpoint_of_a_huge_model(folder: Path) -> Callable[[], object]:
    """Some vectors are long, the matrices between them, which would be huge, are not there."""
    state = course_weights() | {
        "Decoder_Fusion.5.bias": torch.zeros(4096),
        "frame_transformation.6.bias": torch.zeros(4096),
    }
    return read_course(folder / "x.pth", saved({"state_dict": state}))


@bomb("model.decoder_channels")
def course_checkpoint_of_an_impossible_model(folder: Path) -> Callable[[], object]:
    state = course_weights() | {"Decoder_Fusion.5.bias": torch.zeros(1_000_000)}
    return read_course(folder / "x.pth", saved({"state_dict": state}))


def read_own(path: Path, content: bytes, size: int = 0) -> Callable[[], object]:
    with path.open("wb") as file:
        file.write(content)
        file.truncate(max(size, len(content)))
    return lambda: load_model(path)


@bomb("ends inside its header")
def checkpoint_with_a_header_of_8_exbibytes(folder: Path) -> Callable[[], object]:
    return read_own(folder / "x.safetensors", struct.pack("<Q", 2**63) + b"{}")


@bomb("its header cannot be read")
def checkpoint_with_a_header_of_a_gibibyte_of_holes(folder: Path) -> Callable[[], object]:
    return read_own(folder / "x.safetensors", struct.pack("<Q", GIB) + b"{}", GIB + 8)


@bomb("do not fit into memory")
def checkpoint_of_a_terabyte_of_holes(folder: Path) -> Callable[[], object]:
    return read_own(folder / "x.safetensors", checkpoint_file(), 2**40)


@bomb("its header cannot be read")
def checkpoint_nested_a_million_times(folder: Path) -> Callable[[], object]:
    return read_own(folder / "x.safetensors", struct.pack("<Q", 1_000_000) + b"[" * 1_000_000)


@bomb("its metadata cannot be read")
def checkpoint_whose_metadata_are_nested(folder: Path) -> Callable[[], object]:
    header, data = split_checkpoint(checkpoint_file())
    header["__metadata__"]["vidcvae"] = "[" * 100_000
    return read_own(folder / "x.safetensors", sealed(header, data))


@bomb("is damaged")
def checkpoint_of_a_tensor_that_overflows(folder: Path) -> Callable[[], object]:
    header, data = split_checkpoint(checkpoint_file())
    name = next(name for name in header if name != "__metadata__")
    header[name]["shape"] = [2**33, 2**33]
    return read_own(folder / "x.safetensors", sealed(header, data))


def read_claims(folder: Path, model: dict[str, Any]) -> Callable[[], object]:
    """A small checkpoint that says it were of another model."""
    header, data = split_checkpoint(checkpoint_file())
    meta = json.loads(header["__metadata__"]["vidcvae"])
    meta["config"]["model"] = model
    header["__metadata__"]["vidcvae"] = json.dumps(meta)
    return read_own(folder / "x.safetensors", sealed(header, data))


@bomb("is a checkpoint of another model")
def checkpoint_of_the_largest_model(folder: Path) -> Callable[[], object]:
    sizes = dict.fromkeys(("frame_channels", "pose_channels", "latent_channels", "decoder_channels"), 4096)
    return read_claims(folder, {"name": "pose-cvae", **sizes})


@bomb("must be at most")
def checkpoint_of_a_model_beyond_that(folder: Path) -> Callable[[], object]:
    return read_claims(folder, {"name": "svg-fp", "predictor_layers": 1_000_000})


@bomb("must be at most")
def checkpoint_of_endless_channels(folder: Path) -> Callable[[], object]:
    return read_claims(folder, {"name": "pose-cvae", "frame_channels": 2**50})


@bomb("line 1 is not JSON")
def history_nested_a_million_times(folder: Path) -> Callable[[], object]:
    path = folder / "history.jsonl"
    path.write_text("[" * 1_000_000 + '\n{"kind": "step"}\n')
    return lambda: history.read_history(path)
