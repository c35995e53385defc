"""The packed form of a dataset: decoded once, then memory-mapped.

OUT/data-00000.bin ..   raw C-order blocks, little-endian, each aligned to 64 bytes
OUT/manifest.json       describes the blocks, with checksums; written last, so that its presence commits the pack
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vidcvae import reading
from vidcvae.data import room
from vidcvae.data.clips import Sequence, Stream, VideoData
from vidcvae.errors import DataError, UsageError, typed
from vidcvae.storage import durable

MANIFEST = "manifest.json"
FORMAT, VERSION = "vidcvae-packed", 1
SHARD_BYTES = 1 << 30  # a new data file begins once the last one has grown past this
VERIFIED_BYTES = 1 << 30  # datasets up to this size are verified each time they are opened, in about a second
MAX_MANIFEST_BYTES = 1 << 26  # about 100,000 sequences; parsed, JSON can take twenty times its size
_ALIGNMENT = 64
_DATA_FILE = re.compile(r"data-\d{5}\.bin", re.ASCII)
_DTYPES: dict[str, np.dtype[Any]] = {"uint8": np.dtype("u1"), "float32": np.dtype("<f4")}
_KINDS = ("dance", "push")
_REPACK = "Pack the original data again: vidcvae dataset pack DATASET -o FOLDER"


def is_packed(path: Path) -> bool:
    return (path / MANIFEST).is_file()


def is_unfinished(path: Path) -> bool:
    """Whether the folder ``path`` holds an interrupted pack."""
    return not is_packed(path) and any(_DATA_FILE.fullmatch(durable.target_name(p)) for p in path.iterdir())


# --- writing ---------------------------------------------------------------------------------------


def write(data: VideoData | Stream, out: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Write ``data`` in the packed form into the folder ``out``, which is created if necessary.

    An interrupted pack in ``out`` is overwritten. Raises ``UsageError`` if ``out`` holds anything else, ``DataError``
    if the sequences differ in frame size, and ``VidcvaeError`` if they do not fit into memory or on the disk.
    """
    _claim(out)
    if isinstance(data, Stream):
        room.check(data, max(data.counts, default=0), out)
    splits: dict[str, list[dict[str, Any]]] = {}
    names: list[str] = []
    size: tuple[int, ...] | None = None
    with contextlib.ExitStack() as open_file:
        file: durable.Writer | None = None
        for split, sequence in _sequences(data):
            if file is None or file.tell() >= shard_bytes:
                open_file.close()
                names.append(f"data-{len(names):05d}.bin")
                file = open_file.enter_context(durable.writing(out / names[-1]))
            size = size or sequence.frames.shape[-2:]
            if sequence.frames.shape[-2:] != size:
                raise DataError(f"sequence {sequence.name} of {data.source} differs in frame size from the rest.")
            splits.setdefault(split, []).append(_write_sequence(file, names[-1], sequence))
    if size is None:
        raise DataError(
            f"{data.source} has no frames to pack.", f"See what is there: {typed('dataset', 'inspect', data.source)}"
        )
    head = {"format": FORMAT, "version": VERSION, "name": data.name, "kind": data.kind, "fps": data.fps, "size": size}
    commit(out, {**head, "splits": splits})
    for path in out.iterdir():  # left by an interrupted pack that had more data files
        if _DATA_FILE.fullmatch(path.name) and path.name not in names:
            durable.remove(path)


def commit(out: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, which turns the data files beside it into a dataset."""
    text = json.dumps(manifest)
    if len(text) > MAX_MANIFEST_BYTES:
        raise DataError(f"{out} would have more sequences than one packed dataset can.", "Pack them in parts.")
    durable.write_text(out / MANIFEST, text)


def _claim(out: Path) -> None:
    """Raise ``UsageError`` if writing into ``out`` would destroy anything but an interrupted pack."""
    if is_packed(out):
        raise UsageError(f"{out} already holds a packed dataset.", f"Look at it: {typed('dataset', 'inspect', out)}")
    durable.must_be_new(out, lambda name: name == MANIFEST or bool(_DATA_FILE.fullmatch(name)), ", nor half a pack")
    durable.clean_leftovers(out)


def _sequences(data: VideoData | Stream) -> Iterator[tuple[str, Sequence]]:
    if isinstance(data, Stream):
        yield from data.sequences
    else:
        yield from ((split, sequence) for split, found in data.splits.items() for sequence in found)


def _write_sequence(file: durable.Writer, name: str, sequence: Sequence) -> dict[str, Any]:
    return {
        "name": sequence.name,
        "unknown_poses": sorted(sequence.unknown_poses),
        "frames": _write_block(file, name, sequence.frames),
        "tracks": {track: _write_block(file, name, rows) for track, rows in sequence.tracks.items()},
    }


def _write_block(file: durable.Writer, name: str, array: np.ndarray) -> dict[str, Any]:
    dtype = "uint8" if array.dtype == np.uint8 else "float32"
    raw = np.ascontiguousarray(array, dtype=_DTYPES[dtype])
    file.write(bytes(-file.tell() % _ALIGNMENT))
    offset = file.tell()
    if raw.size:
        file.write(raw.data)
    digest = hashlib.sha256(raw.data if raw.size else b"").hexdigest()
    return {"file": name, "offset": offset, "shape": list(raw.shape), "dtype": dtype, "sha256": digest}


# --- reading ---------------------------------------------------------------------------------------


def open_packed(path: Path, verify: bool | None = None) -> VideoData:
    """The packed dataset in the folder ``path``; its arrays are memory-mapped, read-only views.

    verify: read every block and compare it with its checksum first; None does so up to ``VERIFIED_BYTES``.
    Raises ``DataError`` that names the file and block if the manifest is damaged, has another format or version or
    points outside its folder, or if data files are missing, cut off or do not match their checksums.
    """
    manifest = read_manifest(path)
    if verify is None:
        total = sum(math.prod(b["shape"]) * _DTYPES[b["dtype"]].itemsize for *_, b in blocks(manifest))
        verify = total <= VERIFIED_BYTES
    if verify:
        for problem in _damage(path, manifest):
            raise DataError(problem, _REPACK)
    files = _Files(path)
    splits = {name: tuple(_read_sequence(r, files) for r in records) for name, records in manifest["splits"].items()}
    return VideoData(manifest["name"], manifest["kind"], float(manifest["fps"]), path, splits)


def damage(path: Path) -> list[str]:
    """One sentence for each block whose bytes do not match their checksum."""
    return list(_damage(path, read_manifest(path)))


def _damage(path: Path, manifest: dict[str, Any]) -> Iterator[str]:
    files = _Files(path)
    for split, sequence, track, block in blocks(manifest):
        array = files.view(block)
        if hashlib.sha256(array.data if array.size else b"").hexdigest() != block["sha256"]:
            yield (
                f"{path / block['file']} is damaged: the {track} of {split} sequence {sequence} "
                "do not match their checksum."
            )


def blocks(manifest: dict[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """(split, sequence, "frames" or the track, block) of every block in a manifest."""
    for split, records in manifest["splits"].items():
        for record in records:
            for name, block in {"frames": record["frames"], **record["tracks"]}.items():
                yield split, record["name"], name, block


def _read_sequence(record: dict[str, Any], files: _Files) -> Sequence:
    tracks = {name: files.view(block) for name, block in record["tracks"].items()}
    return Sequence(record["name"], files.view(record["frames"]), tracks, frozenset(record["unknown_poses"]))


class _Files:
    """The data files of one pack, each mapped once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mapped: dict[str, np.ndarray] = {}
        self.unused: dict[str, int] = {}  # bytes of each file that no block has used yet

    def view(self, block: dict[str, Any]) -> np.ndarray:
        """The block as an array over the mapped file."""
        name, dtype = block["file"], _DTYPES[block["dtype"]]
        if name not in self.mapped:
            self.mapped[name] = self._map(self.folder / name)
            self.unused[name] = len(self.mapped[name])
        whole, size = self.mapped[name], math.prod(block["shape"]) * dtype.itemsize
        end = block["offset"] + size
        if end > len(whole):
            raise DataError(
                f"{self.folder / name} is cut off: it has {len(whole)} bytes, and {end} are needed.", _REPACK
            )
        self.unused[name] -= size
        if self.unused[name] < 0:  # otherwise a small file could claim any amount of data
            raise DataError(f"{self.folder / MANIFEST} is damaged: it uses parts of {name} more than once.", _REPACK)
        return whole[block["offset"] : end].view(dtype).reshape(block["shape"])

    def _map(self, path: Path) -> np.ndarray:
        try:
            with reading.open_file(path) as file:
                if path.resolve().parent != self.folder.resolve():
                    raise OSError(errno.EINVAL, "it is a link to a file outside the dataset")
                return np.asarray(np.memmap(file, np.uint8, "r"))
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            reason = error.strerror if isinstance(error, OSError) else "it is empty"
            raise DataError(f"cannot read {path}: {reason}.", _REPACK) from None


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest, with its types, names and numbers checked; raises ``DataError``."""
    file = path / MANIFEST
    try:
        manifest = reading.parse_json(reading.read_bytes(file, MAX_MANIFEST_BYTES))
    except FileNotFoundError:
        raise DataError(f"{path} is not a packed dataset: it has no {MANIFEST}.", _REPACK) from None
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}.") from None
    except ValueError:
        raise DataError(f"{file} is damaged: it is not valid JSON.", _REPACK) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"{file} is not the manifest of a packed vidcvae dataset.", _REPACK)
    if manifest.get("version") != VERSION:
        raise DataError(
            f"{file} has version {reading.shown(manifest.get('version'))} of the packed form; "
            f"this program reads {VERSION}.",
            _REPACK,
        )
    try:
        _check_manifest(manifest)
    except _BadManifest as error:
        raise DataError(f"{file} is damaged: {error}.", _REPACK) from None
    return manifest


class _BadManifest(Exception):
    pass


def _check_manifest(manifest: dict[str, Any]) -> None:
    _exact_keys(manifest, {"format", "version", "name", "kind", "fps", "size", "splits"}, "it")
    _demand(reading.is_name(manifest["name"]), "its name is not a text on one line")
    _demand(manifest["kind"] in _KINDS, f"its kind is none of {', '.join(_KINDS)}")
    fps = manifest["fps"]
    _demand(type(fps) in (int, float) and 0 < fps < 1e6, "its fps is not a number above 0")
    _demand(_is_shape(manifest["size"], 2) and min(manifest["size"]) > 0, "its size is not a height and a width")
    splits = manifest["splits"]
    _demand(isinstance(splits, dict) and all(isinstance(found, list) for found in splits.values()), "it has no splits")
    _demand(any(splits.values()), "it has no sequences")
    for split, records in splits.items():
        _demand(reading.is_name(split), f"{reading.shown(split)} cannot be the name of a split")
        for index, record in enumerate(records):
            where = f"sequence {index} of {split}"
            _demand(isinstance(record, dict), f"{where} is not a record")
            _exact_keys(record, {"name", "unknown_poses", "frames", "tracks"}, where)
            _demand(reading.is_name(record["name"]), f"{where} has no name")
            unknown = record["unknown_poses"]
            _demand(isinstance(unknown, list) and _is_shape(unknown, len(unknown)), f"{where} has odd unknown_poses")
            _demand(isinstance(record["tracks"], dict), f"{where} has no tracks")
            _check_block(record["frames"], f"the frames of {where}")
            shape = record["frames"]["shape"]
            _demand(len(shape) == 4 and shape[0] > 0 and shape[1:] == [3, *manifest["size"]],
                    f"the frames of {where} have the shape {shape}")  # fmt: skip
            _demand(record["frames"]["dtype"] == "uint8", f"the frames of {where} are not uint8")
            for name, block in record["tracks"].items():
                _check_block(block, f"the track {reading.label(name)} of {where}")
                _check_track(name, block, shape, where)


def _check_track(name: str, block: dict[str, Any], frames: list[int], where: str) -> None:
    found = block["dtype"], block["shape"][1:]
    wanted = {"pose": ("uint8", frames[1:]), "action": ("float32", [4]), "position": ("float32", [3])}
    what = f"the track {reading.label(name)} of {where}"
    _demand(name in wanted and found == wanted[name], f"{what} is unknown or has an odd shape or dtype")


def _check_block(block: Any, where: str) -> None:
    _demand(isinstance(block, dict), f"{where} are missing")
    _exact_keys(block, {"file", "offset", "shape", "dtype", "sha256"}, where)
    # a name of this form has no folder in it: nothing outside the dataset can be reached
    _demand(isinstance(block["file"], str) and bool(_DATA_FILE.fullmatch(block["file"])), f"{where} name an odd file")
    _demand(_is_shape([block["offset"]], 1), f"{where} have an odd offset")
    _demand(isinstance(block["shape"], list) and 0 < len(block["shape"]) <= 4, f"{where} have an odd shape")
    _demand(_is_shape(block["shape"], len(block["shape"])), f"{where} have an odd shape")
    _demand(isinstance(block["dtype"], str) and block["dtype"] in _DTYPES, f"{where} have an unknown dtype")
    _demand(isinstance(block["sha256"], str), f"{where} have no checksum")


def _is_shape(numbers: Any, length: int) -> bool:
    """Whether ``numbers`` is a list of ``length`` whole numbers, each a possible array size."""
    if not isinstance(numbers, list) or len(numbers) != length:
        return False
    return all(type(n) is int and 0 <= n < 2**48 for n in numbers)


def _exact_keys(table: dict[str, Any], keys: set[str], where: str) -> None:
    _demand(
        table.keys() == keys,
        f"{where} must have {', '.join(sorted(keys))}, and has {', '.join(map(reading.label, sorted(table)[:20]))}",
    )


def _demand(condition: bool, otherwise: str) -> None:
    if not condition:
        raise _BadManifest(otherwise)
